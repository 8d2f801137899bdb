"""Point operations side by side with other libraries: python -m tests.benchmarks.bench_points --out ...

Each of ours takes turns with what does the same in SciPy and Open3D, and, if ``--rivals PYTHON`` names an interpreter
of the same version that has them, in fpsample, small_gicp and spconv (its CPU wheel, on one thread: on more its
answers differ from run to run). Their trees and tables are built within the time, as ours are. Answers are compared
first.

Figures in ms are medians, with the fastest and the slowest repetition as the interval: on two threads, for which the
goals are, on the wall of an idle machine; with ``OMP_NUM_THREADS=1 ... --threads 1`` CPU time, which other work on the
machine changes little. The scene of the goals for sparse convolution is scattered (a voxel meets 2 others); surfaces,
which meet 9, are given beside it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import open3d
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from perceive.points.group import group
from perceive.points.neighbours import nearest
from perceive.points.padding import partition_sets, snake_groups, snake_order, windows_of
from perceive.points.pair_features import estimate_normals
from perceive.points.sample import pick_farthest
from perceive.points.serialise import encode, serialise
from perceive.points.sparse_conv import SubmanifoldConv3d, kernel_map
from perceive.points.voxels import voxelise
from perceive.results import Figure, start_clock, write_result

Jobs = Mapping[str, Callable[[], object]]
RIVALS = ("fpsample", "small_gicp", "spconv")
VOXELS, WIDTHS, GOALS_MS = 20_000, (32, 128), (12.0, 25.0)


def milliseconds(jobs: Jobs, repetitions: int) -> dict[str, list[float]]:
    """Times of jobs that take turns, after one round that does not count: CPU time of one thread, else on the wall."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(repetitions + 1):
        for name, job in jobs.items():
            begin = clock()
            job()
            if number:
                times[name].append(1e3 * (clock() - begin))
    return times


def timed(times_ms: Sequence[float], at_most: float | None = None) -> Figure:
    """The median with the fastest and slowest repetition."""
    return Figure(float(np.median(times_ms)), "ms", min(times_ms), max(times_ms), len(times_ms), at_most=at_most)


def ratio(theirs_ms: Sequence[float], ours_ms: Sequence[float]) -> Figure:
    """How many times longer theirs takes: of the medians, with the lowest and highest of single rounds."""
    rounds = [theirs / ours for theirs, ours in zip(theirs_ms, ours_ms, strict=True)]
    return Figure(float(np.median(theirs_ms) / np.median(ours_ms)), "times", min(rounds), max(rounds), len(rounds))


def compared(what: str, jobs: Jobs, repetitions: int, at_most: float | None = None) -> dict[str, Figure]:
    """Ours (the first job) in ms, and each other over ours."""
    times = milliseconds(jobs, repetitions)
    ours, *others = times
    figures = {what: timed(times[ours], at_most)}
    return figures | {f"{name} over ours, {what}": ratio(times[name], times[ours]) for name in others}


def cloud_of(points: Tensor) -> open3d.geometry.PointCloud:
    """Points [N, 3] as Open3D takes them."""
    return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.double().numpy()))


# ------------------------------------------------------------------------------------------------------------- scenes


def lidar_sweep(count: int, generator: torch.Generator) -> Tensor:
    """Points of a spinning LiDAR on a plain with walls [N, 3], m: dense near, sparse far, +-75 m."""
    azimuth_rad = torch.rand(count, generator=generator) * 2 * torch.pi
    range_m = 3 + 72 * torch.rand(count, generator=generator) ** 2.5
    height_m = torch.where(torch.rand(count, generator=generator) < 0.6, 0.03, 2.5) * torch.rand(
        count, generator=generator
    )
    return torch.stack([range_m * azimuth_rad.cos(), range_m * azimuth_rad.sin(), height_m - 1.8], 1)


def surface_cells(generator: torch.Generator) -> Tensor:
    """Voxels [N, 3] of a floor and a wavy wall."""
    points = torch.rand(4 * VOXELS, 3, generator=generator)
    floor = torch.arange(len(points)) % 2 == 0
    points[:, 2] = torch.where(floor, 0.0, points[:, 2])
    points[:, 0] = torch.where(floor, points[:, 0], 0.5 + 0.1 * torch.sin(10 * points[:, 2]))
    return voxelise(points, 0.01).cell[:VOXELS]


def scattered_cells(generator: torch.Generator) -> Tensor:
    """Voxels [N, 3] anywhere in a cube of 64^3: one in twelve is there."""
    return voxelise(torch.rand(VOXELS + 1500, 3, generator=generator), 1 / 64).cell[:VOXELS]


# ---------------------------------------------------------------------------------------------------------- measuring


def curves(repetitions: int) -> dict[str, Figure]:
    """Codes, and codes with their orders."""
    cell = torch.randint(0, 1 << 16, (100_000, 3), generator=torch.Generator().manual_seed(0))
    jobs: Jobs = {
        "four": lambda: [
            encode(part, 16, "hilbert") for part in (cell, cell[:, [1, 0, 2]], cell.flip(1), cell.roll(1, 1))
        ],
        "all": lambda: serialise(cell, 16),
    }
    times = milliseconds(jobs, repetitions)
    return {
        "Hilbert codes of 4 curves, 100k points, 16 levels": timed(times["four"], 120.0),
        "z and Hilbert, both ways, with orders, 100k points": timed(times["all"]),
    }


def farthest(repetitions: int, rivals: Mapping[str, ModuleType]) -> dict[str, Figure]:
    """Farthest point sampling: many small clouds, and one large."""
    generator = torch.Generator().manual_seed(1)
    many, one = torch.rand(32, 1024, 3, generator=generator), torch.rand(1, 4096, 3, generator=generator)
    large = torch.rand(1, 10_000, 3, generator=generator)
    start = torch.zeros(1, dtype=torch.int64)

    def ours(points: Tensor, count: int) -> Tensor:
        first = start.expand(len(points))
        return pick_farthest(points, torch.ones(points.shape[:2], dtype=torch.bool), count, first).index

    clouds, single = [cloud_of(points) for points in many], cloud_of(one[0])
    small_jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(many, 64),
        "Open3D": lambda: [cloud.farthest_point_down_sample(64) for cloud in clouds],
    }
    large_jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(one, 1024),
        "Open3D": lambda: single.farthest_point_down_sample(1024),
    }
    # Open3D gives what it picked in the order of the cloud.
    theirs = np.asarray(single.farthest_point_down_sample(1024).points)
    assert np.array_equal(theirs, one[0, ours(one, 1024)[0].sort().values].double().numpy()), "Open3D picks others"
    if "fpsample" in rivals:
        exact = rivals["fpsample"].fps_sampling
        got = exact(large[0].numpy(), 1000, start_idx=0)
        assert got.tolist() == ours(large, 1000)[0].tolist(), "fpsample picks others"
        small_jobs["fpsample"] = lambda: [exact(points.numpy(), 64, start_idx=0) for points in many]
        large_jobs["fpsample"] = lambda: exact(one[0].numpy(), 1024, start_idx=0)
    return compared("farthest points, 32 clouds, 64 of 1024", small_jobs, repetitions, 15.0) | compared(
        "farthest points, one cloud, 1024 of 4096", large_jobs, repetitions
    )


def searching(repetitions: int, threads: int, rivals: Mapping[str, ModuleType]) -> dict[str, Figure]:
    """Neighbours, groups and normals."""
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(1, 20_000, 3, generator=generator)
    plain = points[0].double().numpy()
    many = torch.rand(32, 1024, 3, generator=generator)
    centres = many[:, :64]
    everything, some = torch.ones(1, 20_000, dtype=torch.bool), torch.ones(32, 1024, dtype=torch.bool)

    def by_tree() -> Tensor:
        return torch.from_numpy(cKDTree(plain).query(plain, 16, workers=threads)[1])

    def by_open3d() -> Tensor:
        search = open3d.core.nns.NearestNeighborSearch(open3d.core.Tensor(plain))
        search.knn_index()
        return torch.from_numpy(search.knn_search(open3d.core.Tensor(plain), 16)[0].numpy())

    found = nearest(points, points, 16).index[0]
    for name, theirs in (("SciPy", by_tree()), ("Open3D", by_open3d())):
        assert (found == theirs).float().mean() > 0.999, f"{name} finds others"  # but for ties in single precision
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: nearest(points, points, 16),
        "SciPy": by_tree,
        "Open3D": by_open3d,
    }
    if "small_gicp" in rivals:
        gicp = rivals["small_gicp"]
        jobs["small_gicp"] = lambda: gicp.KdTree(plain, num_threads=threads).batch_knn_search(
            plain, 16, num_threads=threads
        )
    figures = compared("16 neighbours of 20k points", jobs, repetitions)
    jobs = {
        "ours": lambda: nearest(centres, many, 32),
        "SciPy": lambda: [cKDTree(own).query(at, 32) for own, at in zip(many.numpy(), centres.numpy(), strict=True)],
    }
    figures |= compared("32 neighbours of 64 centres in 1024 points, 32 clouds", jobs, repetitions)
    figures |= compared(
        "32 clouds of 1024 to 64 groups of 32", {"ours": lambda: group(many, some, 64, 32)}, repetitions
    )

    def open3d_normals() -> None:
        cloud = cloud_of(points[0])
        cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(16))

    jobs = {"ours": lambda: estimate_normals(points, everything, 16), "Open3D": open3d_normals}
    return figures | compared("normals of 20k points from 16 neighbours", jobs, repetitions)


def gridding(repetitions: int) -> dict[str, Figure]:
    """Voxels, and the way of a LiDAR sweep to sets and groups."""
    generator = torch.Generator().manual_seed(3)
    sweep = lidar_sweep(100_000, generator)
    cloud = cloud_of(sweep)
    low, high = (-74.88, -74.88, -5.0), (74.88, 74.88, 3.0)

    def means() -> Tensor:
        voxels = voxelise(sweep, 0.2)
        return voxels.means(sweep)

    def sets() -> list[Tensor]:
        voxels = voxelise(sweep, (0.32, 0.32, 8.0), low_m=low, high_m=high, origin_m=low)
        made = []
        for shape, shift in (((12, 12, 1), (0, 0, 0)), ((24, 24, 1), (6, 6, 0))):
            windows = windows_of(voxels.cell, voxels.sample, shape, shift)
            made += [partition_sets(windows, 36, major).index for major in ("x", "y")]
        return made

    def snakes() -> list[Tensor]:
        voxels = voxelise(sweep, (0.32, 0.32, 8.0), low_m=low, high_m=high, origin_m=low)
        made = []
        for shift in ((0, 0), (4, 4)):
            for along in ("x", "y"):
                order = snake_order(voxels.cell, voxels.sample, (9, 9), shift, along)
                made.append(snake_groups(order, voxels.sample, 1, 69).index)
        return made

    jobs = {"ours": means, "Open3D": lambda: cloud.voxel_down_sample(0.2)}
    figures = compared("means of 100k points in voxels of 0.2 m", jobs, repetitions)
    times = milliseconds({"sets": sets, "snakes": snakes}, repetitions)
    figures["100k LiDAR points to pillars and 4 partitions into sets"] = timed(times["sets"], 150.0)
    figures["100k LiDAR points to pillars and 4 snakes of groups"] = timed(times["snakes"])
    return figures


def convolving(repetitions: int, threads: int, rivals: Mapping[str, ModuleType]) -> dict[str, Figure]:
    """Submanifold convolution, with its map and without, forward and back."""
    generator = torch.Generator().manual_seed(4)
    figures: dict[str, Figure] = {}
    for scene, cell in (("scattered", scattered_cells(generator)), ("surfaces", surface_cells(generator))):
        sample = torch.zeros(len(cell), dtype=torch.int64)
        found = kernel_map(cell, sample, 3)
        figures[f"voxels that a kernel meets, {scene}"] = Figure(found.mean_neighbours)
        for width, goal in zip(WIDTHS, GOALS_MS, strict=True):
            layer = SubmanifoldConv3d(width, width)
            features = torch.randn(len(cell), width, generator=generator)

            def whole(
                layer: SubmanifoldConv3d = layer,
                features: Tensor = features,
                cell: Tensor = cell,
                sample: Tensor = sample,
            ) -> Tensor:
                with torch.no_grad():
                    return layer(features, kernel_map(cell, sample, 3))

            what = f"convolution k3 with its map, 20k voxels, {scene}, C = {width}"
            jobs: dict[str, Callable[[], object]] = {"ours": whole}
            if "spconv" in rivals:
                theirs = spconv_layer(rivals["spconv"], layer, cell, features)
                torch.testing.assert_close(one_thread(theirs, threads), whole() - layer.bias, rtol=1e-4, atol=1e-4)
                jobs["spconv on one thread"] = lambda theirs=theirs: one_thread(theirs, threads)
            figures |= compared(what, jobs, repetitions, goal if scene == "scattered" else None)
            inputs = features.clone().requires_grad_()
            times = milliseconds(
                {
                    "map": lambda cell=cell, sample=sample: kernel_map(cell, sample, 3),
                    "search": lambda cell=cell, sample=sample: kernel_map(cell, sample, 3, table_cells=0),
                    "both": lambda layer=layer, inputs=inputs, found=found: layer(inputs, found).sum().backward(),
                },
                repetitions,
            )
            figures[f"the same forward and back, without the map, {scene}, C = {width}"] = timed(times["both"])
            if width == WIDTHS[0]:
                figures[f"map by a table, {scene}"] = timed(times["map"])
                figures[f"map by sorting and searching, {scene}"] = timed(times["search"])
    return figures


def one_thread(job: Callable[[], Tensor], threads: int) -> Tensor:
    """What a job gives on one thread."""
    torch.set_num_threads(1)
    try:
        return job()
    finally:
        torch.set_num_threads(threads)


def spconv_layer(spconv: ModuleType, layer: SubmanifoldConv3d, cell: Tensor, features: Tensor) -> Callable[[], Tensor]:
    """spconv with the weights of a layer of ours, without the bias, which it refuses on the CPU."""
    pytorch = importlib.import_module(f"{spconv.__name__}.pytorch")
    width = features.shape[1]
    theirs = pytorch.SubMConv3d(width, width, 3, bias=False)
    with torch.no_grad():
        theirs.weight.copy_(layer.weight)
    low = cell.amin(0)
    size = (cell.amax(0) - low + 1).tolist()
    rows = torch.cat([torch.zeros(len(cell), 1), cell - low], 1).int().contiguous()

    def forward() -> Tensor:
        with torch.no_grad():
            return theirs(pytorch.SparseConvTensor(features, rows, size, 1)).features

    return forward


def find_rivals(python: Path | None, notes: list[str]) -> dict[str, ModuleType]:
    """Packages of another interpreter of the same version, behind everything of this one."""
    if python is not None:
        ask = "import site, sys; print(sys.version_info[:2], site.getsitepackages()[0], sep='\\n')"
        version, folder = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )[:2]
        assert version == str(sys.version_info[:2]), f"Python {sys.version_info[:2]} is needed, not {version}"
        sys.path.append(folder)
    found = {}
    for name in RIVALS:
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            notes.append(f"{name} was not measured: {error}")
            continue
        notes.append(f"{name} {importlib.metadata.version(name)}")
    return found


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/points_ops.json"))
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rivals", type=Path, help="a Python with fpsample, small_gicp, spconv")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see whether it runs")
    arguments = parser.parse_args()
    repetitions = 2 if arguments.quick else arguments.repetitions
    threads = arguments.threads
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    started = start_clock()
    notes = [f"scipy {importlib.metadata.version('scipy')}", f"open3d {open3d.__version__}"]
    rivals = find_rivals(arguments.rivals, notes)
    figures = (
        curves(repetitions)
        | farthest(repetitions, rivals)
        | searching(repetitions, threads, rivals)
        | gridding(repetitions)
        | convolving(repetitions, threads, rivals)
    )
    about = (
        f"Point operations in torch, taking turns with other libraries in one run, threads: {threads}; "
        f"{'CPU time' if threads == 1 else 'time on the wall'}, median, with the fastest and slowest repetition as the "
        "interval. 'X over ours' above 1 means that ours is faster. Trees, tables and maps are built within the time. "
        "spconv runs on one thread, since its answers on more differ from run to run; without bias, which it refuses "
        "on the CPU."
    )
    config = {"repetitions": repetitions, "threads": threads, "compared_with": notes}
    command = "python -m tests.benchmarks.bench_points --out results/points_ops.json --rivals PYTHON"
    write_result(arguments.out, "Point operations", figures, [0], config, started=started, about=about, command=command)
    for name, figure in figures.items():
        goal = "" if figure.met is None else " (met)" if figure.met else " (NOT met)"
        interval = "" if figure.low is None else f" [{figure.low:.4g}, {figure.high:.4g}]"
        print(f"{name}: {figure.value:.4g} {figure.unit}{interval}{goal}")


if __name__ == "__main__":
    main()
