"""Speed and exactness of registration: one pair of clouds, many hypotheses at once, and RANSAC.

``python -m tests.benchmarks.bench_registration --out results/registration.json``

Ours and Open3D take turns in the same process with the same number of threads on the same clouds and starts: two
independent samples of one bumpy surface, both with true normals on the model. Times are the best of several turns,
since other work on the machine only ever makes a turn slower: on the wall for ratios, and CPU time of all threads.
Trees are built anew for each registration by both, as Open3D cannot keep them; the grid, which is meant for models
that are used again and again, is built once and its time is stated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import open3d
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from perceive.points.registration.icp import icp
from perceive.points.registration.kabsch import align
from perceive.points.registration.ransac import ransac
from perceive.points.registration.rigid import exp_twist
from perceive.points.registration.surface import Surface
from perceive.results import Figure, start_clock, write_result
from tests.perceive.points.test_icp import blob, some

TURNS, SEED = 7, 0
POINTS, MODEL, HYPOTHESES, SAMPLE = 5000, 5000, 64, 512
TURN_RAD, SHIFT_M = 0.15, 0.02  # 8.6 degrees; the model measures about 20 cm
WITHIN_M, FIRST_M, ITERATIONS = 0.02, 0.06, 30


def in_turns(jobs: Mapping[str, Callable[[], object]]) -> tuple[dict[str, float], dict[str, float]]:
    """Best wall and CPU milliseconds of each job; one turn to warm up, then each after the other."""
    wall: dict[str, list[float]] = {name: [] for name in jobs}
    cpu: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(TURNS + 1):
        for name, job in jobs.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            job()
            if turn:
                wall[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - begin_cpu)
    return tuple({name: 1e3 * min(values) for name, values in table.items()} for table in (wall, cpu))  # type: ignore[return-value]


def motions(count: int) -> Tensor:
    """Starts, all equally far from the truth, which is the identity."""
    parts = [
        size * torch.nn.functional.normalize(some(SEED + 10 + k, count, 3), dim=-1)
        for k, size in enumerate((TURN_RAD, SHIFT_M))
    ]
    return exp_twist(torch.cat(parts, -1))


def degrees(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles [B] of transforms [B, 4, 4] from the identity."""
    angle: NDArray[np.float64] = np.rad2deg(Rotation.from_matrix(found[:, :3, :3]).magnitude())
    return angle


def open3d_cloud(xyz: Tensor, normal: Tensor | None = None) -> open3d.geometry.PointCloud:
    """Open3D's cloud of points [N, 3]."""
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz.double().numpy()))
    if normal is not None:
        cloud.normals = open3d.utility.Vector3dVector(normal.double().numpy())
    return cloud


def open3d_icp(
    moving: open3d.geometry.PointCloud, fixed: open3d.geometry.PointCloud, start: NDArray[np.float64], within_m: float
) -> NDArray[np.float64]:
    """Point-to-plane with Open3D's own stop rule."""
    tools = open3d.pipelines.registration
    found = tools.registration_icp(
        moving,
        fixed,
        within_m,
        start,
        tools.TransformationEstimationPointToPlane(),
        tools.ICPConvergenceCriteria(1e-6, 1e-6, ITERATIONS),
    )
    return np.array(found.transformation)


def measure_pair(seed: int) -> dict[str, Figure]:
    """One cloud of 5,000 points onto another."""
    (xyz, normal), (source, _) = blob(seed, MODEL), blob(seed + 1, POINTS)
    xyz, normal, source = xyz.float(), normal.float(), source.float()
    start = motions(1)
    moving, fixed = open3d_cloud(source), open3d_cloud(xyz, normal)
    surface = Surface(xyz, normal, "grid")
    answers: dict[str, NDArray[np.float64]] = {}

    def ours(search: str) -> None:
        onto = surface if search == "grid" else Surface(xyz, normal)
        found = icp(source, onto, start, within_m=FIRST_M, iterations=ITERATIONS, stop_rad=1e-5, stop_m=1e-6)
        answers[search] = found.model_from_source.numpy()

    def theirs() -> None:
        answers["open3d"] = open3d_icp(moving, fixed, start[0].numpy(), FIRST_M)[None]

    wall, cpu = in_turns({"tree": lambda: ours("tree"), "grid": lambda: ours("grid"), "open3d": theirs})
    figures = {f"pair_5k_{name}_cpu_ms": Figure(value, "ms", n=TURNS) for name, value in cpu.items()}
    # Known to be lost: a k-d tree in Python's reach is slower than one inside of a loop in C++.
    figures["pair_5k_time_over_open3d_tree"] = Figure(wall["tree"] / wall["open3d"], "x", n=TURNS)
    figures["pair_5k_time_over_open3d_grid"] = Figure(wall["grid"] / wall["open3d"], "x", n=TURNS)
    figures |= {f"pair_5k_{name}_error_deg": Figure(float(degrees(found)[0]), "deg") for name, found in answers.items()}
    return figures


def measure_batch(seed: int) -> dict[str, Figure]:
    """64 hypotheses of 512 points each."""
    (xyz, normal), (source, _) = blob(seed, MODEL), blob(seed + 1, SAMPLE)
    xyz, normal, source = xyz.float(), normal.float(), source.float()
    starts = motions(HYPOTHESES)
    begin = time.process_time()
    grid = Surface(xyz, normal, "grid")
    built_ms = 1e3 * (time.process_time() - begin)
    tree = Surface(xyz, normal)
    moving, fixed = open3d_cloud(source), open3d_cloud(xyz, normal)
    answers: dict[str, NDArray[np.float64]] = {}

    def ours(name: str, surface: Surface) -> None:
        found = icp(
            source,
            surface,
            starts,
            within_m=WITHIN_M,
            first_within_m=FIRST_M,
            iterations=ITERATIONS,
            stop_rad=1e-4,
            stop_m=1e-5,
        )
        answers[name] = found.model_from_source.numpy()

    def theirs() -> None:
        answers["open3d"] = np.stack([open3d_icp(moving, fixed, one.numpy(), FIRST_M) for one in starts])

    wall, cpu = in_turns({"grid": lambda: ours("grid", grid), "tree": lambda: ours("tree", tree), "open3d": theirs})
    figures = {f"hypotheses_64x512_{name}_cpu_ms": Figure(value, "ms", n=TURNS) for name, value in cpu.items()}
    figures["hypotheses_64x512_wall_ms"] = Figure(wall["grid"], "ms", n=TURNS, at_most=35.0)
    for name in ("grid", "tree"):
        figures[f"hypotheses_64x512_open3d_time_over_{name}"] = Figure(wall["open3d"] / wall[name], "x", n=TURNS)
    figures["grid_built_cpu_ms"] = Figure(built_ms, "ms")
    for name, found in answers.items():
        angle = degrees(found)
        figures[f"hypotheses_64x512_{name}_within_1_deg"] = Figure(
            float((angle < 1).mean()), "fraction", n=HYPOTHESES, at_least=None if name == "open3d" else 0.95
        )
        figures[f"hypotheses_64x512_{name}_median_error_deg"] = Figure(float(np.median(angle)), "deg", n=HYPOTHESES)
    return figures


def measure_closed_forms(seed: int) -> dict[str, Figure]:
    """6,000 triplets at once, and RANSAC on 1,000 matches of which 70 % are wrong."""
    source, target = some(seed, 6000, 3, 3).float(), some(seed + 1, 6000, 3, 3).float()
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform(-0.5, 0.5, (1000, 3)))
    pose = exp_twist(some(seed + 2, 6))
    matched = points @ pose[:3, :3].T + pose[:3, 3] + 0.002 * some(seed + 3, 1000, 3)
    elsewhere = torch.from_numpy(rng.uniform(-1, 1, (1000, 3)))
    matched = torch.where(torch.from_numpy(rng.random((1000, 1)) < 0.7), elsewhere, matched)
    tools = open3d.pipelines.registration
    moving, fixed = open3d_cloud(points), open3d_cloud(matched)
    pairs = open3d.utility.Vector2iVector(np.tile(np.arange(1000)[:, None], 2))
    answers: dict[str, NDArray[np.float64]] = {}

    def ours() -> None:
        answers["ours"] = ransac(points[None], matched[None], inlier_m=0.01, seed=seed).target_from_source.numpy()

    def theirs() -> None:
        open3d.utility.random.seed(seed)
        found = tools.registration_ransac_based_on_correspondence(
            moving,
            fixed,
            pairs,
            0.01,
            tools.TransformationEstimationPointToPoint(),
            3,
            [tools.CorrespondenceCheckerBasedOnEdgeLength(0.9)],
            tools.RANSACConvergenceCriteria(4096, 0.999),
        )
        answers["open3d"] = np.array(found.transformation)[None]

    wall, cpu = in_turns({"kabsch": lambda: align(source, target), "ransac": ours, "open3d": theirs})
    truth = np.linalg.inv(pose.numpy())
    figures = {
        "kabsch_6000x3_cpu_ms": Figure(cpu["kabsch"], "ms", n=TURNS),
        "ransac_1000_cpu_ms": Figure(cpu["ransac"], "ms", n=TURNS),
    }
    figures["ransac_1000_open3d_cpu_ms"] = Figure(cpu["open3d"], "ms", n=TURNS)
    figures["ransac_1000_time_over_open3d"] = Figure(wall["ransac"] / wall["open3d"], "x", n=TURNS)
    for name, found in answers.items():
        figures[f"ransac_1000_{name}_error_deg"] = Figure(float(degrees(truth @ found)[0]), "deg")
    return figures


def main(out: Path) -> dict[str, Figure]:
    """Measure and write the result file; its figures are returned."""
    started = start_clock()
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    figures = {**measure_pair(SEED), **measure_batch(SEED), **measure_closed_forms(SEED)}
    write_result(
        out,
        "registration",
        figures,
        [SEED],
        {
            "turns": TURNS,
            "points": POINTS,
            "model": MODEL,
            "hypotheses": HYPOTHESES,
            "sample": SAMPLE,
            "turn_rad": TURN_RAD,
            "shift_m": SHIFT_M,
            "within_m": WITHIN_M,
            "first_within_m": FIRST_M,
            "iterations": ITERATIONS,
        },
        started=started,
        about=(
            "Point-to-plane registration of two independent samples of one surface, 8.6 degrees and 2 cm apart; ours "
            "with an exact tree and with the grid, beside Open3D in turns on the same clouds. For one pair Open3D is "
            "the faster; that loss is stated, and register_pair can use it."
        ),
        command=f"python -m tests.benchmarks.bench_registration --out {out}",
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for key, figure in main(parser.parse_args().out).items():
        print(f"{key:45s} {figure.value:.6g} {figure.unit}")
