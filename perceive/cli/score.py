"""perceive score: a trained perception model on labelled clouds that it has not seen, as a result file and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from perceive.batch import Batch
from perceive.build import TARGET, build
from perceive.cli.app import App, portable_command
from perceive.cli.score_disturb import Disturbance
from perceive.cli.score_tally import BoxTally, ClassTally, PointTally, Tally
from perceive.heads.boxes import BoxHead
from perceive.heads.classification import ClassHead
from perceive.heads.point_labels import PointLabelHead
from perceive.model import PerceptionModel
from perceive.model_base import Model
from perceive.points.files.collate import CloudBatch
from perceive.results import Figure, machine, start_clock, versions, write_result
from perceive.viewing.cloud_board import Tile, frame_points
from perceive.viewing.cloud_colours import legend, palette
from perceive.viewing.cloud_report import CloudReport, Panel, write_cloud_report
from perceive.viewing.cloud_view import above, around
from perceive.viewing.draw import mosaic
from policies.checkpoint import Checkpoint, find_checkpoint
from policies.clouds.dataset import CloudDataset
from sensors.errors import SpecError, WiringError

RESULT_FILE, REPORT_FILE = "result.json", "report.html"
CLOUDS = "policies.clouds.dataset.CloudDataset"
TILE_PX = (240, 320)  # height and width of a picture in the report
WARM_UP = 2  # clouds that are not timed
DATA_KEYS = ("layout", "split")
Change = Callable[[Batch, CloudBatch, str, Sequence[int]], tuple[Batch, CloudBatch]]


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "score",
        "Measure a trained perception model on labelled clouds; writes result.json and report.html.",
        (
            "perceive score checkpoint=runs/segment data=runs/scenes/held_out",
            "perceive score checkpoint=runs/classify data=runs/shapes/held_out rotate=so3 pictures=0",
            "perceive score checkpoint=runs/boxes data=KITTI split=training distances_m=[0.5,1,2]",
            "perceive score checkpoint=runs/segment data=runs/scenes/held_out drop_points=0.5 jitter_m=0.005",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Score as the config says and print where the result is.

    Raises:
        DataError: no checkpoint, no clouds, or clouds without the labels that the heads are about.
        SpecError: a setting out of its range.
        WiringError: a model that was not trained on clouds, or of other classes.
    """
    started = start_clock()
    if config["data"] is None:
        raise SpecError("perceive score", "a folder of labelled clouds", "none", "Give it: data=<folder>.")
    for key, least in (("batch_size", 1), ("limit", 0), ("pictures", 0), ("latency_clouds", 0), ("box_points", 0)):
        if config[key] < least:
            raise SpecError(f"perceive score, {key}", f">= {least}", repr(config[key]), "Correct it.")
    disturb = Disturbance(config["rotate"], config["drop_points"], config["jitter_m"], config["seed"])
    checkpoint = find_checkpoint(config["checkpoint"])
    model = perception_of(checkpoint.model(config["use_ema"], config["device"]), checkpoint)
    tallies = tallies_of(model, checkpoint, config)
    dataset = clouds_of(checkpoint, config)
    check_classes(tallies, dataset)
    reader = Reader(model, dataset, disturb, config["device"])

    badness = score(reader, tallies, config["batch_size"], config["progress"])
    figures = {name: figure for tally in tallies for name, figure in tally.figures().items()}
    figures |= latency(reader, min(config["latency_clouds"], len(dataset))) if config["device"] == "cpu" else {}
    output = Path(config["output"])
    path = Path(config["result"]) if config["result"] else output / RESULT_FILE
    about = f"A trained model on {len(dataset)} labelled clouds that it has not seen{_said(disturb)}."
    command = portable_command("score")
    record = write_result(path, config["name"], figures, [config["seed"]], config, started=started, about=about,
                          command=command)  # fmt: skip
    worst = np.argsort(-badness, kind="stable")[: config["pictures"]]
    report = CloudReport(
        title=config["name"],
        lead=about,
        figures=figures,
        tables=[table for tally in tallies for table in tally.tables()],
        panels=[panel(reader, tallies, int(number)) for number in worst],
        facts={name: str(value) for name, value in {**machine(), **versions()}.items()},
        config=record["config"],
    )
    page = write_cloud_report(output / REPORT_FILE, report)
    for name, figure in figures.items():
        value = f"{100 * figure.value:.1f} %" if figure.unit == "fraction" else f"{figure.value:.4g} {figure.unit}"
        print(f"{name}: {value}")
    print(f"written: {path}\nwritten: {page}")


class Reader:
    """Clouds of a data set, changed, and what the model says of them."""

    def __init__(self, model: PerceptionModel, dataset: CloudDataset, change: Change, device: str) -> None:
        self.model, self.dataset, self.device = model, dataset, device
        self._change = change
        self.sensor = next(iter(dataset.sensor_spaces))

    def batch(self, numbers: Sequence[int]) -> tuple[Batch, CloudBatch]:
        batch, target = self.dataset.batch(numbers)
        return self._change(batch, target, self.sensor, numbers)

    def guess(self, batch: Batch) -> dict[str, Any]:
        with torch.inference_mode():
            said: dict[str, Any] = self.model(batch.to(self.device))
        return said


def score(reader: Reader, tallies: Sequence[Tally], batch_size: int, progress: bool) -> Any:
    """Count all clouds; how badly each was read, float [N] from 0 to 1."""
    count = len(reader.dataset)
    badness = np.zeros(count)
    with tqdm(total=count, desc="score", unit="cloud", disable=not progress) as bar:
        for start in range(0, count, batch_size):
            numbers = list(range(start, min(start + batch_size, count)))
            batch, target = reader.batch(numbers)
            said = reader.guess(batch)
            badness[numbers] = np.mean([tally.add(said[tally.head], target) for tally in tallies], axis=0)
            bar.update(len(numbers))
    return badness


def latency(reader: Reader, count: int) -> dict[str, Figure]:
    """CPU time of the model on one cloud, on one thread."""
    if not count:
        return {}
    batches = [reader.batch([number])[0] for number in range(count)]
    spent_ms = []
    with _one_thread():
        for batch in [*batches[:WARM_UP], *batches]:
            before = time.process_time()
            reader.guess(batch)
            spent_ms.append(1e3 * (time.process_time() - before))
    spent_ms = spent_ms[min(WARM_UP, count) :]
    return {
        "CPU per cloud, median": Figure(float(np.median(spent_ms)), "ms", n=count),
        "CPU per cloud, p95": Figure(float(np.percentile(spent_ms, 95)), "ms", n=count),
    }


def perception_of(model: Model, checkpoint: Checkpoint) -> PerceptionModel:
    """The model, if it is one of tokens and heads; otherwise a WiringError."""
    if not isinstance(model, PerceptionModel):
        raise _no_head(checkpoint, type(model).__name__)
    return model


def tallies_of(model: PerceptionModel, checkpoint: Checkpoint, config: Mapping[str, Any]) -> list[Tally]:
    """One for each head whose results can be scored.

    Raises:
        WiringError: there is none.
    """
    known = {name: head for name, head in model.heads.items() if isinstance(head, PointLabelHead | ClassHead | BoxHead)}
    if not known:
        raise _no_head(checkpoint, f"the heads {list(model.head_names)}")
    kinds = [type(head) for head in known.values()]
    out: list[Tally] = []
    for name, head in known.items():
        lead = f"{name}: " if kinds.count(type(head)) > 1 else ""
        if isinstance(head, PointLabelHead):
            out.append(PointTally(name, head.classes, lead))
        elif isinstance(head, ClassHead):
            out.append(ClassTally(name, head.classes, lead))
        else:
            assert isinstance(head, BoxHead)
            plan = checkpoint.state["config"]["model"]["heads"][name]
            frontless = plan.get("frontless", ())
            out.append(
                BoxTally(name, head.classes, lead, frontless, config["distances_m"], config["overlaps"],
                         config["box_points"])
            )  # fmt: skip
    return out


def clouds_of(checkpoint: Checkpoint, config: Mapping[str, Any]) -> CloudDataset:
    """The clouds at ``data`` as the model was given those that it was trained on.

    Raises:
        DataError: no usable cloud there.
        WiringError: the model was not trained on clouds.
    """
    trained = checkpoint.state.get("config", {}).get("dataset") or {}
    if trained.get(TARGET) != CLOUDS:
        raise WiringError(
            f"checkpoint '{checkpoint.path.name}'", f"one that was trained with {CLOUDS}", f"{trained.get(TARGET)}",
            "Train it with dataset=clouds.",
        )  # fmt: skip
    changes = {key: config[key] for key in DATA_KEYS if config[key] is not None}
    # All boxes, so that those with few points are known, and are neither right nor wrong to be found.
    changes |= {"least_points": 0, "limit": config["limit"] or None}
    dataset = build({**trained, **changes}, where="dataset", offered={"folder": config["data"]})
    assert isinstance(dataset, CloudDataset)
    return dataset


def check_classes(tallies: Sequence[Tally], dataset: CloudDataset) -> None:
    """Raise a WiringError unless the classes of the heads are those of the clouds, name by name."""
    for tally in tallies:
        names = dataset.box_classes if isinstance(tally, BoxTally) else dataset.classes
        if names and tuple(names) != tally.classes:
            raise WiringError(
                f"head '{tally.head}'", f"clouds of its classes, {list(tally.classes)}", f"{list(names)}",
                "Score on clouds of the classes that it was trained on.",
            )  # fmt: skip


def panel(reader: Reader, tallies: Sequence[Tally], number: int) -> Panel:
    """One cloud of the report: as it was measured, and beside it what is true and what was guessed."""
    batch, target = reader.batch([number])
    said = reader.guess(batch)
    stream = batch.stream(reader.sensor)
    found = frame_points({name: value[0, -1].numpy() for name, value in stream.data.items() if name != "count"})
    assert found is not None  # the data set's frames are clouds
    xyz_m, colours = found
    there = target.valid[0].numpy()
    height, width = TILE_PX
    view, texts = around(xyz_m[there], height, width), []
    pictures = {"as measured": Tile("as measured", xyz_m[there], colours[there]).picture(view)}
    legends: list[Tally] = []
    for tally in tallies:
        tiles, text = tally.tiles(said[tally.head], target, 0, colours)
        texts.append(text)
        for tile in tiles:
            from_here = above(tile.xyz_m, height, width) if isinstance(tally, BoxTally) else view
            pictures[tile.title] = tile.picture(from_here)
        if isinstance(tally, PointTally):
            legends.append(tally)
    rows = [mosaic(pictures, len(pictures), height, width)]
    rows += [legend(each.classes, palette(len(each.classes)), rows[0].shape[1]) for each in legends]
    return Panel(f"cloud {number}: {'; '.join(texts)}", np.concatenate(rows))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _no_head(checkpoint: Checkpoint, got: str) -> WiringError:
    expected = "a PerceptionModel with a head for points, classes or boxes"
    fix = f"Score a model with {PointLabelHead.__name__}, {ClassHead.__name__} or {BoxHead.__name__}."
    return WiringError(f"checkpoint '{checkpoint.path.name}'", expected, got, fix)


def _said(disturb: Disturbance) -> str:
    parts = []
    if disturb.rotate != "none":
        parts.append("turned about the vertical" if disturb.rotate == "z" else "turned any way")
    if disturb.drop:
        parts.append(f"{100 * disturb.drop:g} % of their points left out")
    if disturb.jitter_m:
        parts.append(f"noise of {1e3 * disturb.jitter_m:g} mm on each coordinate")
    return f", {', '.join(parts)}" if parts else ""
