"""Speed and exactness of the pose metrics beside their straightforward definitions, in one process.

``python -m tests.benchmarks.bench_pose_metrics --out results/pose_metrics.json``

Ratios are of CPU time of one thread, the best of several turns each. The definitions are loops over symmetries (and,
for the diameter, over points) with all vertices in one numpy step, as a careful reader would write them. The file of
1,000 estimates is scored as a whole: matching at all 120 thresholds, rendering, MSSD, MSPD, VSD and ADD(-S).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from perceive.metrics import pose_errors
from perceive.metrics.pose_fast import PoseErrors
from perceive.metrics.pose_scores import score_bop19, score_bop24
from perceive.metrics.pose_vsd import VisibleSurface, distance_image, vsd
from perceive.pose.diameter import diameter
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from perceive.results import Figure, start_clock, write_result
from tests.perceive.metrics.pose_case_files import Instance, Memory, Row, Target

SEED, PAIRS, TURNS = 0, 8, 3
ESTIMATES, PICTURES = 1000, 125
LENS, SIZE = np.array([570.0, 570.0, 319.5, 239.5]), (480, 640)
Array = NDArray[np.float64]


def best(job: Callable[[], object], turns: int = TURNS) -> float:
    """Least CPU milliseconds of several turns."""
    spent = []
    for _ in range(turns):
        begin = time.process_time()
        job()
        spent.append(time.process_time() - begin)
    return 1e3 * min(spent)


def grid_faces(around: int, along: int) -> Array:
    """Triangles of a tube of rings, closed around."""
    i, j = np.meshgrid(np.arange(around), np.arange(along - 1))
    a, b = (j * around + i).ravel(), (j * around + (i + 1) % around).ravel()
    return np.concatenate([np.stack([a, b, a + around], 1), np.stack([b, b + around, a + around], 1)])


def cylinder(around: int = 128, along: int = 128) -> ObjectModel:
    """16,384 vertices, 630 symmetries."""
    angle = 2 * np.pi * np.arange(around) / around
    ring = 0.03 * np.stack([np.cos(angle), np.sin(angle)], -1)
    height = np.repeat(np.linspace(-0.05, 0.05, along), around)[:, None]
    points = np.concatenate([np.tile(ring, (along, 1)), height], 1)
    flip = Symmetries.make([np.diag([1.0, -1, -1, 1])], [ContinuousSymmetry.make((0, 0, 1))])
    return ObjectModel.make(1, "cylinder", points, grid_faces(around, along), symmetries=flip)


def blob(number: int, around: int, along: int) -> ObjectModel:
    """A bumpy ball without symmetries."""
    tilt, turn = (
        np.repeat(np.linspace(0.01, np.pi - 0.01, along), around),
        np.tile(2 * np.pi * np.arange(around) / around, along),
    )
    ball = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], -1)
    rng = np.random.default_rng(number)
    bumps = sum(0.12 * np.sin(ball @ rng.normal(size=3) * 3 + k) for k in range(5))
    return ObjectModel.make(number, f"blob {number}", 0.05 * ball * (1 + bumps[:, None]), grid_faces(around, along))


def some_poses(rng: np.random.Generator, count: int, spread_m: float = 0.15) -> Array:
    """Poses in front of the camera."""
    out = np.tile(np.eye(4), (count, 1, 1))
    out[:, :3, :3] = Rotation.random(count, random_state=rng).as_matrix()
    out[:, :3, 3] = rng.uniform(-1, 1, (count, 3)) * (spread_m, 0.7 * spread_m, 0.2) + (0, 0, 0.9)
    return out


def disturbed(rng: np.random.Generator, poses: Array, turn_rad: float, shift_m: float) -> Array:
    """Estimates of them."""
    out = poses.copy()
    out[:, :3, :3] @= Rotation.from_rotvec(rng.normal(size=(len(poses), 3)) * turn_rad).as_matrix()
    out[:, :3, 3] += rng.normal(size=(len(poses), 3)) * shift_m
    return out


def measure_errors() -> dict[str, Figure]:
    """MSSD and MSPD with 630 symmetries, and ADI."""
    rng, model = np.random.default_rng(SEED), cylinder()
    turns, fast, vertices = model.symmetries.transforms(), PoseErrors(model), model.vertices_m
    truth = some_poses(rng, PAIRS)
    estimate = disturbed(rng, truth @ turns[rng.integers(len(turns), size=PAIRS)], 0.1, 0.01)
    answers: dict[str, Array] = {}

    def plain(name: str, job: Callable[[Array, Array], float]) -> None:
        answers[name] = np.array([job(one, other) for one, other in zip(estimate, truth, strict=True)])

    def ours(name: str, job: Callable[[], Array]) -> None:
        answers[name] = job()

    jobs: dict[str, tuple[Callable[[Array, Array], float], Callable[[], Array], float | None]] = {
        "mssd": (lambda e, g: pose_errors.mssd(e, g, vertices, turns), lambda: fast.mssd(estimate, truth), 30.0),
        "mspd": (
            lambda e, g: pose_errors.mspd(e, g, vertices, LENS, turns),
            lambda: fast.mspd(estimate, truth, LENS),
            8.0,
        ),
        "adi": (lambda e, g: pose_errors.adi(e, g, vertices), lambda: fast.adi(estimate, truth), None),
    }
    figures: dict[str, Figure] = {}
    for name, (slow, quick, goal) in jobs.items():
        base = best(lambda name=name, slow=slow: plain(f"{name} plain", slow), 1)  # type: ignore[misc]
        spent = best(lambda name=name, quick=quick: ours(name, quick))  # type: ignore[misc]
        gap = np.abs(answers[name] - answers[f"{name} plain"]).max()
        figures[f"{name}_times_faster"] = Figure(base / spent, "x", n=PAIRS, at_least=goal)
        figures[f"{name}_cpu_ms_per_pair"] = Figure(spent / PAIRS, "ms", n=PAIRS)
        figures[f"{name}_greatest_gap"] = Figure(float(gap), "px" if name == "mspd" else "m", n=PAIRS, at_most=1e-6)
    return figures


def plain_diameter(points: Array) -> float:
    """A loop over points."""
    longest = 0.0
    for number, one in enumerate(points):
        apart = points[number:] - one
        longest = max(longest, float(np.sqrt((apart * apart).sum(1).max())))
    return longest


def measure_diameter() -> dict[str, Figure]:
    """Of two meshes of about 10,000 and 16,000 vertices."""
    figures = {}
    for name, model in (("blob", blob(3, 101, 101)), ("cylinder", cylinder())):
        points, answers = model.vertices_m, {}
        base = best(lambda: answers.update(plain=plain_diameter(points)), 1)  # noqa: B023 - run at once
        spent = best(lambda: answers.update(ours=diameter(points)))  # noqa: B023
        figures[f"diameter_{name}_times_faster"] = Figure(base / spent, "x", at_least=40.0)
        figures[f"diameter_{name}_gap"] = Figure(abs(answers["plain"] - answers["ours"]), "m", at_most=1e-6)
    return figures


def measure_vsd() -> dict[str, Figure]:
    """Cropped against the whole picture, two renderings of a mesh of 20,000 faces each."""
    rng, model = np.random.default_rng(SEED), blob(5, 101, 101)
    renderer = MeshRenderer(model, threads=1)
    truth = some_poses(rng, PAIRS)
    estimate = disturbed(rng, truth, 0.1, 0.01)
    depth, answers = np.full(SIZE, 0.95, np.float32), {}

    def plain() -> None:
        values = []
        for one, other in zip(estimate, truth, strict=True):
            images = [renderer.depth(pose, LENS, (0, 0, SIZE[1], SIZE[0]))[0] for pose in (other, one)]
            values.append(vsd(*(distance_image(x, LENS) for x in (depth, *images)), model.diameter_m))
        answers["plain"] = np.array(values)

    def ours() -> None:
        surface = VisibleSurface(renderer, depth, LENS, shortcut=False)
        pairs = zip(estimate, truth, strict=True)
        answers["ours"] = np.array([surface.vsd(one, surface.truth(other)) for one, other in pairs])

    base, spent = best(plain, 1), best(ours)
    return {
        "vsd_times_faster": Figure(base / spent, "x", n=PAIRS),
        "vsd_cpu_ms_per_pair": Figure(spent / PAIRS, "ms", n=PAIRS),
        "vsd_greatest_gap": Figure(float(np.abs(answers["plain"] - answers["ours"]).max()), n=PAIRS, at_most=1e-6),
    }


def measure_file() -> dict[str, Figure]:
    """1,000 estimates in 125 pictures of 640x480, eight objects of 5,000 faces, one of them a cylinder."""
    rng = np.random.default_rng(SEED)
    models = {number: blob(number, 50, 51) for number in range(2, 9)} | {1: cylinder(50, 51)}
    truths, rows, targets = [], [], []
    for key in range(PICTURES):
        poses = some_poses(rng, len(models), 0.3)
        found = disturbed(rng, poses, 0.1, 0.01)
        truths.append([Instance(number, pose, 1.0) for number, pose in zip(models, poses, strict=True)])
        rows += [Row(key, n, float(s), p) for n, s, p in zip(models, rng.random(len(models)), found, strict=True)]
        targets += [Target(key, number, 1) for number in models]
    depths = [np.full(SIZE, 1.2, np.float32)] * PICTURES
    data, recall, precision, wall = Memory(models, truths, depths, targets, LENS), [], [], []

    def timed() -> None:
        begin = time.perf_counter()
        recall.append(score_bop19(data, rows))
        wall.append(time.perf_counter() - begin)

    spent = best(timed)
    other = best(lambda: precision.append(score_bop24(data, rows)), 1)
    assert len(rows) == ESTIMATES
    return {
        "file_1000_wall_s": Figure(min(wall), "s", n=TURNS, at_most=2.0),
        "file_1000_cpu_s": Figure(spent / 1e3, "s", n=TURNS),
        "file_1000_precision_cpu_s": Figure(other / 1e3, "s"),
        "file_1000_ar": Figure(recall[0].ar, "fraction", n=ESTIMATES),
        "file_1000_ap": Figure(precision[0].ap, "fraction", n=ESTIMATES),
    }


def main(out: Path) -> dict[str, Figure]:
    """Measure and write the result file; its figures are returned."""
    started = start_clock()
    figures = {**measure_errors(), **measure_diameter(), **measure_vsd(), **measure_file()}
    write_result(
        out,
        "pose_metrics",
        figures,
        [SEED],
        {"pairs": PAIRS, "turns": TURNS, "estimates": ESTIMATES, "pictures": PICTURES, "size": list(SIZE)},
        started=started,
        about=(
            "Pose metrics beside their straightforward definitions in numpy: MSSD, MSPD and ADI on a cylinder of "
            "16,384 vertices with 630 symmetries, diameters, VSD at 640x480, and a whole file of 1,000 estimates "
            "scored in one process at all 120 thresholds of BOP 2019 with ADD(-S)."
        ),
        command=f"python -m tests.benchmarks.bench_pose_metrics --out {out}",
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for key, figure in main(parser.parse_args().out).items():
        print(f"{key:35s} {figure.value:.6g} {figure.unit}")
