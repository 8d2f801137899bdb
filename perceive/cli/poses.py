"""perceive poses: 6D poses of known objects in a folder of pictures, estimated, scored as BOP does, and drawn."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from perceive.build import build
from perceive.cli.app import App, portable_command
from perceive.cli.poses_changes import PictureChange
from perceive.cli.poses_report import ChosenPictures, pose_figures, pose_panels, pose_tables
from perceive.metrics.pose_scores import score_bop19
from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.results_file import PoseRow, read_results, write_results
from perceive.pose.files.view import Instance, Target, ViewKey
from perceive.pose.references_folder import draw_references
from perceive.results import Figure, machine, start_clock, versions, write_json, write_result
from perceive.viewing.cloud_report import CloudReport, write_cloud_report
from policies.checkpoint import find_checkpoint
from sensors.errors import DataError, SpecError

RESULT_FILE, REPORT_FILE, ESTIMATES_FILE = "result.json", "report.html", "estimates.csv"
SETTINGS_FILE, PARTIAL_FILE = "settings.json", "estimates.jsonl"
# What is estimated depends on these settings: only if they are the same are earlier estimates kept.
DECISIVE = ("data", "split", "models", "pose", "checkpoint", "references",
    "reference_views", "masks", "depth_noise_m", "drop_depth", "zoom", "gain", "tint",
            "seed")  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "poses",
        "Estimate 6D poses in pictures of BOP's format, score them (AR of VSD, MSSD, MSPD) and draw them.",
        (
            "perceive poses data=runs/scenes/objects_new pose=templates output=runs/poses/new",
            "perceive poses data=BOP/lmo pose=classic masks=true limit=20",
            "perceive poses data=runs/scenes/objects pose=instance checkpoint=runs/pose_tabletop masks=false",
            "perceive poses data=runs/scenes/new pose=few_shot_fused references=runs/scenes/shown reference_views=4",
            "perceive poses data=BOP/ycbv models=models_eval estimates=mymethod_ycbv-test.csv",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Estimate and score as the config says; prints where the result is.

    Raises:
        DataError: no pictures, no truth, or estimates that are not of this folder.
        SpecError: a setting out of its range.
    """
    started = start_clock()
    if config["data"] is None:
        raise SpecError("perceive poses", "a folder of pictures in BOP's format", "none", "Give it: data=<folder>.")
    if config["limit"] < 0 or config["pictures"] < 0:
        raise SpecError("perceive poses, limit and pictures", ">= 0", f"{config['limit']}, {config['pictures']}",
                        "Correct it.")  # fmt: skip
    change = PictureChange(
        config["depth_noise_m"], config["drop_depth"], config["zoom"], config["gain"], config["tint"], config["seed"]
    )
    dataset = PoseDataset(Path(config["data"]), config["split"], config["models"])
    targets = chosen_targets(dataset, config["limit"])
    output = Path(config["output"])
    output.mkdir(parents=True, exist_ok=True)
    if config["estimates"] is None:
        offered = {"models": dataset.models, "seed": config["seed"]}
        if config["references"] is not None:
            if Path(config["references"]).resolve() == Path(config["data"]).resolve():
                raise SpecError("perceive poses, references", "another folder than data", config["references"],
                                "Pictures that are asked about may not be shown.")  # fmt: skip
            shown = PoseDataset(Path(config["references"]), "test", config["models"])
            offered["references"] = draw_references(shown, config["reference_views"], config["seed"])
        if config["checkpoint"] is not None:
            offered["network"] = find_checkpoint(config["checkpoint"]).path / "ema"
        estimator = build(config["pose"], where="pose", offered=offered)
        rows = estimate_all(dataset, targets, estimator, change, config, output)
        write_results(output / ESTIMATES_FILE, rows)
    else:
        rows = list(read_results(Path(config["estimates"])))
    scores = score_bop19(ChosenPictures(dataset, targets), rows)
    figures = pose_figures(scores)
    taken_s = [row.time_s for row in {row.key: row for row in rows}.values() if row.time_s >= 0]
    if taken_s:
        figures["time per picture, median"] = Figure(float(np.median(taken_s)), "s", n=len(taken_s))
    said = str(change)
    views = len({target.key for target in targets})
    about = (
        f"{len(targets)} targets in {views} pictures, "
        + ("masks given" if config["masks"] else "masks not given: the estimator finds the objects")
        + (f"; {said}" if said else "")
        + "."
    )
    if config["estimates"] is not None:
        about = f"A result file on {len(targets)} targets in {views} pictures."
    path = Path(config["result"]) if config["result"] else output / RESULT_FILE
    command = portable_command("poses")
    record = write_result(path, config["name"], figures, [config["seed"]], config, started=started, about=about,
                          command=command)  # fmt: skip
    report = CloudReport(
        title=config["name"],
        lead=about,
        figures=figures,
        tables=pose_tables(scores, dataset.models),
        panels=pose_panels(dataset, targets, rows, change, config["pictures"]),
        facts={name: str(value) for name, value in {**machine(), **versions()}.items()},
        config=record["config"],
        shown="Pictures",
    )
    page = write_cloud_report(output / REPORT_FILE, report)
    for name, figure in figures.items():
        value = f"{100 * figure.value:.1f} %" if figure.unit == "fraction" else f"{figure.value:.4g} {figure.unit}"
        print(f"{name}: {value}")
    print(f"written: {path}\nwritten: {page}")


def chosen_targets(dataset: PoseDataset, limit: int) -> list[Target]:
    """The targets of the first ``limit`` pictures, or of all for 0.

    Raises:
        DataError: there is none.
    """
    targets = sorted(dataset.targets(), key=lambda target: (target.key, target.number))
    keys = sorted({target.key for target in targets})
    kept = set(keys[:limit] if limit else keys)
    targets = [target for target in targets if target.key in kept]
    if not targets:
        raise DataError("perceive poses, data", "pictures with visible objects", "none", "Check the folder and split.")
    return targets


def estimate_all(
    dataset: PoseDataset,
    targets: Sequence[Target],
    estimator: PoseEstimator,
    change: PictureChange,
    config: dict[str, Any],
    output: Path,
) -> list[PoseRow]:
    """Estimates of all targets; goes on where an interrupted run with the same settings stopped."""
    by_view: dict[ViewKey, list[Target]] = defaultdict(list)
    for target in targets:
        by_view[target.key].append(target)
    partial = output / PARTIAL_FILE
    done = _earlier(partial, output / SETTINGS_FILE, {key: config[key] for key in DECISIVE})
    rows: list[PoseRow] = []
    with partial.open("a", encoding="utf-8") as log, tqdm(
        total=len(by_view), desc="poses", unit="picture", disable=not config["progress"]
    ) as bar:  # fmt: skip
        for key, wanted in sorted(by_view.items()):
            if key not in done:
                done[key] = list(estimate_view(dataset, key, wanted, estimator, change, config["masks"]))
                log.write(json.dumps([key.scene, key.image, [_plain(row) for row in done[key]]]) + "\n")
                log.flush()
            rows += done[key]
            bar.update()
    return rows


def estimate_view(
    dataset: PoseDataset,
    key: ViewKey,
    targets: Sequence[Target],
    estimator: PoseEstimator,
    change: PictureChange,
    masks: bool,
) -> Iterator[PoseRow]:
    """Estimates of one picture; all carry the time that the whole picture took."""
    frame = change.frame(dataset.frame(key), key)
    asked = [(target, list(_masks(dataset, target, change))) if masks else (target, []) for target in targets]
    before = time.perf_counter()
    found: list[PoseEstimate] = []
    for target, given in asked:
        if target.number not in estimator.numbers:
            continue
        if masks:
            for mask in given:
                found += estimator.estimate(frame, target.number, mask)[:1]
        else:
            found += estimator.estimate(frame, target.number, None, target.count)[: target.count]
    taken_s = time.perf_counter() - before
    for one in found:
        yield PoseRow(key, one.number, one.score, one.camera_from_object, taken_s)


def _masks(dataset: PoseDataset, target: Target, change: PictureChange) -> Iterator[Any]:
    """Of the most visible instances; one that has no pixels left in the changed picture is passed over."""
    instances: list[Instance] = [one for one in dataset.truth(target.key) if one.number == target.number]
    for instance in sorted(instances, key=lambda one: -one.visible_share)[: target.count]:
        mask = change.mask(dataset.visible_mask(target.key, instance.index))
        if mask.any():
            yield mask


def _plain(row: PoseRow) -> list[Any]:
    return [row.number, row.score, np.asarray(row.camera_from_object).tolist(), row.time_s]


def _earlier(partial: Path, settings: Path, decisive: dict[str, Any]) -> dict[ViewKey, list[PoseRow]]:
    """What an earlier run with the same settings has done; anything else is cleared away."""
    same = settings.exists() and json.loads(settings.read_text(encoding="utf-8")) == json.loads(json.dumps(decisive))
    done: dict[ViewKey, list[PoseRow]] = {}
    if not same:
        partial.unlink(missing_ok=True)
        write_json(settings, decisive)
        return done
    for line in partial.read_text(encoding="utf-8").splitlines() if partial.exists() else ():
        try:
            scene, image, rows = json.loads(line)
        except ValueError:  # cut off when the run was killed
            continue
        key = ViewKey(scene, image)
        done[key] = [PoseRow(key, number, score, np.asarray(pose), time_s) for number, score, pose, time_s in rows]
    return done
