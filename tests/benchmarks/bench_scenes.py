"""Labels of points and boxes around a LiDAR, learned on generated scenes: python -m tests.benchmarks.bench_scenes.

Two parts, each with its own result file:

- ``labels``: a class for every point of a tabletop seen by two cameras (experiment=points_segmentation);
- ``boxes``: what stands and walks in a room, from one sweep of a LiDAR that drives (experiment=lidar_detection).

Scenes for the score have other numbers than those that were learned from, so other things, places and views. Beside the
score stand those of the same model on clouds that are turned, thinned, noisy or grey, which it was not trained for, and
what calling every point by the commonest class would score. Everything goes on where it was interrupted;
``--train-only`` shares the work among processes.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceive.batch import Batch, BatchStream
from perceive.cli.compose import compose_config
from perceive.cli.scenes import make_scenes
from perceive.cli.score import Change, Reader, clouds_of, latency, perception_of, score, tallies_of
from perceive.cli.score_disturb import Disturbance
from perceive.cli.train import train_supervised
from perceive.metrics.segmentation import Segmentation, confusion
from perceive.points.files.collate import CloudBatch
from perceive.results import Figure, start_clock, write_result
from policies.checkpoint import checkpoint_folders, find_checkpoint
from policies.clouds.dataset import CloudDataset


def grey(batch: Batch, target: CloudBatch, sensor: str, numbers: Sequence[int]) -> tuple[Batch, CloudBatch]:
    """Clouds whose points all have one colour."""
    stream = batch.stream(sensor)
    data = {**stream.data, "rgb": torch.full_like(stream.data["rgb"], 128)}
    return Batch({sensor: BatchStream(data, stream.age_s, stream.valid)}), target


@dataclass(frozen=True)
class Part:
    """What is learned, and how it is judged."""

    title: str
    about: str
    experiment: str
    scenes: str
    train: int
    held_out: int
    first: int  # number of the first scene that is held out
    out: str
    goals: Mapping[str, float]
    conditions: Mapping[str, Change]


PARTS = {
    "labels": Part(
        "Labels of points on a tabletop", "Table scenes with 5 to 12 things of ten classes, random sizes, colours and "
        "views; 8,192 points from two noisy RGB-D cameras.", "points_segmentation", "tabletop", 1200, 100, 2_000_000,
        "results/points_segmentation.json", {"mean IoU": 0.85},
        {
            "as trained": Disturbance(),
            "turned about the vertical": Disturbance(rotate="z"),
            "half of the points": Disturbance(drop=0.5),
            "5 mm more noise": Disturbance(jitter_m=0.005),
            "all points grey": grey,
        },
    ),
    "boxes": Part(
        "Boxes around a LiDAR", "Rooms with 8 to 18 things and 1 to 4 people or carts that move; a sweep of 32 lasers "
        "from a base that drives. AP by the distance of middles (mean over the distances, as nuScenes) and by common "
        "volume; boxes with fewer than 5 points do not count.", "lidar_detection", "room", 1000, 100, 1_000_000,
        "results/lidar_detection.json", {},
        {
            "as trained": Disturbance(),
            "turned about the vertical": Disturbance(rotate="z"),
            "half of the points": Disturbance(drop=0.5),
            "3 cm more noise": Disturbance(jitter_m=0.03),
        },
    ),
}  # fmt: skip


def scenes(part: Part, folder: Path, count: int, first: int) -> Path:
    """A folder of scenes; what is missing is made."""
    words = [f"scenes={part.scenes}", f"count={count}", f"first={first}", f"output={folder}"]
    make_scenes(compose_config("scenes", words))
    return folder


def trained(part: Part, data: Path, run: Path, overrides: Sequence[str]) -> None:
    """Train, or go on."""
    words = [f"experiment={part.experiment}", f"data={data}", f"output={run}", *overrides]
    config = compose_config("train", words)
    done = find_checkpoint(run).step if checkpoint_folders(run) else 0
    if done < int(config["train"]["steps"]):
        train_supervised(config, run, resume=done > 0)


def commonest(dataset: CloudDataset) -> float:
    """Mean IoU of calling every point by the commonest class."""
    count = len(dataset.classes)
    truth = np.concatenate([dataset.batch([i])[1].semantic.numpy().ravel() for i in range(len(dataset))])  # type: ignore[union-attr]
    most = np.bincount(truth[truth >= 0], minlength=count).argmax()
    return Segmentation(confusion(np.full_like(truth, most), truth, count)).mean_iou


def figures_of(part: Part, run: Path, data: Path) -> dict[str, Figure | float]:
    """The scores under all conditions."""
    checkpoint = find_checkpoint(run)
    config = compose_config("score", [f"checkpoint={run}", f"data={data}"])
    model = perception_of(checkpoint.model(True, "cpu"), checkpoint)
    dataset = clouds_of(checkpoint, config)
    out: dict[str, Figure | float] = {}
    for condition, change in part.conditions.items():
        reader, tallies = Reader(model, dataset, change, "cpu"), tallies_of(model, checkpoint, config)
        score(reader, tallies, 8, True)
        found = {name: figure for tally in tallies for name, figure in tally.figures().items()}
        if condition == "as trained":
            out |= {name: replace(one, at_least=part.goals.get(name)) for name, one in found.items()}
            out |= latency(reader, 20)
        else:
            out |= {f"{condition}: {name}": one for name, one in found.items() if name.startswith("mean")}
    if dataset.classes and "mean IoU" in part.goals:
        out["every point called by the commonest class: mean IoU"] = Figure(commonest(dataset), "fraction")
    out["training, CPU"] = Figure(checkpoint.state["cpu_s"] / 60, "min", at_most=40.0)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("runs/points"))
    parser.add_argument("--scenes", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--train-only", action="store_true", help="write no result; to share the work among processes")
    parser.add_argument("overrides", nargs="*", help="of perceive train, e.g. train.steps=600")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name, part in ((name, PARTS[name]) for name in given.parts):
        started = start_clock()
        run = given.folder.resolve() / part.experiment
        data = scenes(part, given.scenes.resolve() / part.scenes, part.train, 0)
        trained(part, data, run, given.overrides)
        if given.train_only:
            continue
        held_out = scenes(part, given.scenes.resolve() / f"{part.scenes}_{part.first}", part.held_out, part.first)
        figures = figures_of(part, run, held_out)
        config: dict[str, Any] = find_checkpoint(run).state["config"]
        portable = {key: config[key] for key in ("model", "augment", "train")}
        write_result(
            part.out, part.title, figures, list(range(part.first, part.first + part.held_out)), portable,
            started=started,
            about=f"{part.about} {part.train} scenes to learn from, {part.held_out} others for the score; one training "
            "seed.",
            command=shlex.join(["python", "-m", "tests.benchmarks.bench_scenes", "--parts", name, *given.overrides]),
        )  # fmt: skip
        for figure_name, figure in figures.items():
            print(f"{figure_name}: {figure.value if isinstance(figure, Figure) else figure:.4g}")


if __name__ == "__main__":
    main()
