"""What rendering and comparing makes of disturbed poses, on held-out pictures and on objects not trained on.

``python -m tests.benchmarks.bench_pose_compare --network runs/pose_compare --known runs/scenes/objects_test
--new runs/scenes/objects_new --out results/pose_compare.json``

Both folders must hold scenes that the network was not trained on. Each visible instance starts from one disturbed pose
(the full disturbance of the training, no gross ones). Errors are mean distances of surface points at the nearest
symmetric truth, in diameters. In the ablation the drawing is that of another object.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from perceive.loading import load_model
from perceive.metrics.pose_fast import PoseErrors
from perceive.model import PerceptionModel
from perceive.pose.estimators.compare_network import HypothesisReader
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetric_loss import closest_truth
from perceive.results import Figure, start_clock, write_result
from policies.checkpoint import find_checkpoint
from sensors.errors import DataError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

ITERATIONS, POINTS, RIGHT, VISIBLE, SEED = 5, 200, 0.1, 0.3, 0
TURN_RAD, SHIFT, DEPTH, SIGMAS = 0.44, 0.1, 0.15, 2.0


@dataclass(frozen=True, eq=False)
class Start:
    """One disturbed pose in one picture."""

    frame: RgbdFrame
    model: ObjectModel
    truth: FloatArray
    hypothesis: FloatArray


def starts(folder: Path, count: int) -> Iterator[Start]:
    """At most ``count`` instances, spread over all pictures."""
    data, rng = PoseDataset(folder), np.random.default_rng(SEED)
    every = [(key, one) for key in data.views for one in data.truth(key) if one.visible_share >= VISIBLE]
    if not every:
        raise DataError(str(folder), "visible instances", "none", "Write scenes: perceive scenes scenes=objects.")
    for rank in np.linspace(0, len(every) - 1, min(count, len(every))).astype(int):
        key, one = every[rank]
        model = data.models[one.number]
        yield Start(data.frame(key), model, one.camera_from_object, disturbed(one.camera_from_object, model, rng))


def disturbed(pose: FloatArray, model: ObjectModel, rng: np.random.Generator) -> FloatArray:
    """A pose turned about the object's middle, shifted, and brought nearer or farther."""
    normal, axis = rng.normal(size=4).clip(-SIGMAS, SIGMAS), rng.normal(size=3)
    middle = (model.low_m + model.high_m) / 2
    place = pose[:3, :3] @ middle + pose[:3, 3]
    place[:2] += SHIFT * model.diameter_m * normal[:2]
    place *= math.exp(float(np.clip(DEPTH * normal[2], -0.3, 0.3)))
    out = pose.copy()
    out[:3, :3] = axis_angle_to_matrix(axis / np.linalg.norm(axis) * TURN_RAD * abs(normal[3])) @ pose[:3, :3]
    out[:3, 3] = place - out[:3, :3] @ middle
    return out


def off(model: ObjectModel, pose: FloatArray, truth: FloatArray) -> float:
    """Mean distance of surface points, in diameters."""
    points, found = torch.from_numpy(model.surface(POINTS).xyz_m), torch.from_numpy(pose)[None]
    true = closest_truth(found, torch.from_numpy(truth)[None], points, model.symmetries)
    placed = [points @ one[0, :3, :3].T + one[0, :3, 3] for one in (found, true)]
    return float((placed[0] - placed[1]).norm(dim=-1).mean()) / model.diameter_m


def as_large(model: ObjectModel, other: ObjectModel) -> ObjectModel:
    """Another object about the middle of one and of its size."""
    scale = model.diameter_m / other.diameter_m
    middle = (model.low_m + model.high_m) / 2
    vertices = (other.vertices_m - (other.low_m + other.high_m) / 2) * scale + middle
    return ObjectModel.make(model.number, other.name, vertices, other.faces, other.rgb, model.symmetries)


def auc(score: FloatArray, right: FloatArray) -> float:
    """How often a right hypothesis scores higher than a wrong one; a half where it is a draw."""
    first, second = score[right > 0][:, None], score[right == 0][None]
    if not first.size or not second.size:
        return math.nan
    return float(((first > second) + 0.5 * (first == second)).mean())


def measure(reader: HypothesisReader, every: list[Start], *, depth: bool, other: bool = False) -> dict[str, FloatArray]:
    """Errors [N, ITERATIONS + 1], scores and whether poses were right, of the same shape."""
    models = {one.model.number: one.model for one in every}
    numbers = sorted(models)
    drawn = {
        n: as_large(models[n], models[numbers[(k + 1) % len(numbers)]]) if other else models[n]
        for k, n in enumerate(numbers)
    }
    renderers = {n: MeshRenderer(model, threads=1) for n, model in drawn.items()}
    errors = {n: PoseErrors(model) for n, model in models.items()}
    rows: dict[str, list[list[float]]] = {"off": [], "score": [], "right": []}
    for one in every:
        frame = one.frame if depth else replace(one.frame, depth_m=np.zeros_like(one.frame.depth_m))
        number, poses = one.model.number, one.hypothesis[None]
        row: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(ITERATIONS + 1):
            row["off"].append(off(one.model, poses[0], one.truth))
            row["right"].append(float(errors[number].mssd(poses, one.truth[None])[0] < RIGHT * one.model.diameter_m))
            poses, score = reader.read(frame, renderers[number], poses)
            row["score"].append(float(score[0]))
        for name, values in row.items():
            rows[name].append(values)
    return {name: np.array(values) for name, values in rows.items()}


def interval(values: FloatArray) -> tuple[float, float]:
    """95 % of the means of samples drawn again (bootstrap)."""
    rng = np.random.default_rng(SEED)
    means = rng.choice(values, (1000, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def figures_of(name: str, found: dict[str, FloatArray]) -> dict[str, Figure]:
    """The figures of one arm."""
    out = {}
    for step in range(ITERATIONS + 1):
        values = found["off"][:, step]
        label = "before" if step == 0 else f"after_{step}"
        out[f"{name}_off_{label}"] = Figure(float(values.mean()), "diameters", *interval(values), n=len(values))
    out[f"{name}_off_median_after_{ITERATIONS}"] = Figure(float(np.median(found["off"][:, -1])), "diameters")
    out[f"{name}_right_before"] = Figure(float(found["right"][:, 0].mean()), "fraction", n=len(found["right"]))
    out[f"{name}_right_after_{ITERATIONS}"] = Figure(float(found["right"][:, -1].mean()), "fraction")
    area = auc(found["score"].ravel(), found["right"].ravel())
    if math.isfinite(area):
        out[f"{name}_score_auc"] = Figure(area, "", n=found["score"].size)
    return out


def main(network: Path, known: Path, new: Path, count: int, out: Path) -> dict[str, Figure]:
    """Measure and write the result file; its figures are returned."""
    started = start_clock()
    torch.set_num_threads(1)
    whole = (network / "config.json").exists()  # a model by itself, not a run
    checkpoint = None if whole else find_checkpoint(network)
    model = load_model(network if checkpoint is None else checkpoint.path / "ema")
    if not isinstance(model, PerceptionModel):
        raise DataError(str(network), "a PerceptionModel", type(model).__name__, "Train experiment=pose_compare.")
    reader = HypothesisReader(model)
    figures: dict[str, Figure] = {}
    if checkpoint is not None:
        figures["training_cpu_min"] = Figure(checkpoint.state["cpu_s"] / 60, "min", at_most=40.0)
    for where, data in (("known", known), ("new", new)):
        every = list(starts(data, count))
        for depth in (False, True):
            name = f"{where}_{'rgbd' if depth else 'rgb'}"
            figures |= figures_of(name, measure(reader, every, depth=depth))
        figures |= figures_of(f"{where}_rgb_other_drawing", measure(reader, every, depth=False, other=True))
    config = {
        "iterations": ITERATIONS, "count": count, "turn_rad": TURN_RAD, "shift": SHIFT, "depth": DEPTH,
        "least_visible": VISIBLE, "right": RIGHT,
    }  # fmt: skip
    about = "Disturbed poses refined and scored by rendering and comparing; errors at the nearest symmetric truth."
    command = shlex.join(["python", "-m", "tests.benchmarks.bench_pose_compare", *sys.argv[1:]])
    write_result(out, "pose_compare", figures, [SEED], config, started=started, about=about, command=command)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=Path, required=True, help="run or model folder of perceive train")
    parser.add_argument("--known", type=Path, required=True, help="scenes of the objects of the training")
    parser.add_argument("--new", type=Path, required=True, help="scenes of other objects")
    parser.add_argument("--count", type=int, default=200, help="instances of each")
    parser.add_argument("--out", type=Path, default=Path("results/pose_compare.json"))
    given = parser.parse_args()
    for key, figure in main(given.network, given.known, given.new, given.count, given.out).items():
        print(f"{key}: {figure.value:.4g} {figure.unit}")
