"""Rendering of virtual views and readout of heat maps: python -m tests.benchmarks.bench_rvt_kernels --out ...

On one thread, each of ours side by side with what it replaces, alternating within one run:

- our pictures with a brute-force renderer (every pixel tests every point, as a naive rasteriser does), a vectorised
  numpy renderer, and Open3D's own where it can open a window without a screen. The first two give the same pictures,
  which is checked; Open3D draws squares of 3 pixels and reads back colour and depth only.
- our readout with scores for all S^3 voxels as a mean of blended look-ups whose indices and weights are cached.

Figures in ms are CPU time of the process, the same as on the wall of an idle machine: medians, with the fastest and the
slowest repetition as the interval.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer draws in the thread that asks

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from perceive.results import Figure, start_clock, write_result
from perceive.rvt.cube import Cube, in_cube
from perceive.rvt.readout import gaussian_targets, peak, peak_of_logits
from perceive.rvt.renderer import channels, render
from perceive.rvt.views import View, pixel_of, views_named
from sensors.errors import SensorError
from tests.perceive.rvt.reference import Cloud, argmax_pixels, brute_force, gaussian_logits, numpy_renderer

VIEWS = views_named(("top", "front", "right"))
POINTS, SIZE = 65_536, 224
SMALL_POINTS, SMALL_SIZE = 4096, 56
BATCH, BATCH_POINTS, BATCH_SIZE, ZOOM = 16, 40_000, 112, 4.0
SPLAT_PX = 1.344
SHORT_MS = 50.0


def table_cloud(batch: int, count: int, generator: torch.Generator) -> Cloud:
    """Points of a table top and of boxes that stand on it, in units of the cube, with colours; all valid."""
    points = torch.rand(batch, count, 3, generator=generator) * 1.8 - 0.9
    table = torch.arange(count) < count // 2
    points[..., 2] = torch.where(table, -0.5 + 0.004 * torch.randn(batch, count, generator=generator), points[..., 2])
    box = torch.randint(0, 12, (batch, count), generator=generator)
    centres = torch.rand(batch, 12, 2, generator=generator) * 1.4 - 0.7
    middle = centres.gather(1, box[..., None].expand(-1, -1, 2))
    points[..., :2] = torch.where(table[:, None], points[..., :2], middle + 0.12 * points[..., :2])
    points[..., 2] = torch.where(table, points[..., 2], -0.5 + 0.3 * (points[..., 2] + 0.9))
    return points, torch.rand(batch, count, 3, generator=generator), torch.ones(batch, count, dtype=torch.bool)


def milliseconds(jobs: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """CPU times of jobs that take turns.

    A short job is called once more before it is timed: fetching back from the system the memory that a long one before
    it gave up can take several times as long as the job itself.
    """

    def once(job: Callable[[], object]) -> float:
        before_s = time.process_time()
        job()
        return 1e3 * (time.process_time() - before_s)

    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repetitions):
        for name, job in jobs.items():
            first = once(job)
            times[name].append(once(job) if first < SHORT_MS else first)
    return times


def timed(times_ms: Sequence[float], at_most: float | None = None) -> Figure:
    """The median with the fastest and slowest repetition."""
    return Figure(float(np.median(times_ms)), "ms", min(times_ms), max(times_ms), len(times_ms), at_most=at_most)


def ratio(slow_ms: Sequence[float], fast_ms: Sequence[float], scale: float = 1.0, goal: float | None = None) -> Figure:
    """How many times slower: of the medians, with the lowest and highest of single rounds."""
    rounds = [scale * slow / fast for slow, fast in zip(slow_ms, fast_ms, strict=True)]
    middle = scale * float(np.median(slow_ms)) / float(np.median(fast_ms))
    return Figure(middle, "times", min(rounds), max(rounds), len(rounds), at_least=goal)


# ------------------------------------------------------------------------------------------------- what ours replaces


def open3d_renderer(cloud: Cloud, size: int) -> Callable[[], list[np.ndarray]]:
    """A function that uploads the cloud to Open3D and reads colour and depth of the three faces back.

    Raises:
        SensorError: it can open no window here.
    """
    import open3d

    cloud_of_o3d = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud[0][0].numpy()))
    cloud_of_o3d.colors = open3d.utility.Vector3dVector(cloud[1][0].numpy())
    window = open3d.visualization.Visualizer()
    if not window.create_window(visible=False, width=size, height=size):
        raise SensorError("Open3D", "an off-screen window", "none", "Install EGL.")
    window.get_render_option().point_size = 3.0
    window.add_geometry(cloud_of_o3d)
    control = window.get_view_control()
    control.change_field_of_view(-90)  # the narrowest is an orthographic camera
    control.set_zoom(1 / float(cloud_of_o3d.get_axis_aligned_bounding_box().get_max_extent()))

    def draw() -> list[np.ndarray]:
        window.update_geometry(cloud_of_o3d)
        pictures = []
        for view in VIEWS:
            front, up = np.zeros(3), np.zeros(3)
            front[view.towards.index], up[view.down.index] = view.towards.sign, -view.down.sign
            control.set_front(front)
            control.set_up(up)
            control.set_lookat(np.zeros(3))
            pictures.append(np.asarray(window.capture_screen_float_buffer(do_render=True)))
            pictures.append(np.asarray(window.capture_depth_float_buffer(do_render=False)))
        return pictures

    return draw


class CachedLookUps:
    """Scores of all S^3 voxels as the mean over the views of four blended pixels, by cached indices and weights.

    The maths of RVT's readout (Goyal et al., CoRL 2023), in whole tensors as there: a voxel's projection falls between
    pixels whose integer index is taken for their place, and is blended by inverse distance.
    """

    def __init__(self, views: Sequence[View], size: int) -> None:
        line = (torch.arange(size) + 0.5) * 2 / size - 1
        self._index = torch.empty(len(views), size**3, 4, dtype=torch.int64)
        self._weight = torch.empty(len(views), size**3, 4)
        steps = torch.tensor(list(itertools.product((0, 1), repeat=2)))
        for number, x in enumerate(line):
            slab = slice(number * size**2, (number + 1) * size**2)
            pixels = pixel_of(torch.cartesian_prod(x[None], line, line)[None], views, size)[0, :, :, None]
            corners = pixels.floor() + steps  # [V, S^2, 4, 2]
            weight = torch.where((corners < size).all(3), 1 / ((pixels - corners).norm(dim=3) + 1e-6), 0.0)
            column, row = corners.long().clamp(max=size - 1).unbind(3)
            self._index[:, slab] = row * size + column
            self._weight[:, slab] = weight / weight.sum(2, keepdim=True)
        self.bytes = self._index.nbytes + self._weight.nbytes

    def best(self, maps: Tensor) -> int:
        """The index of the best voxel for maps [V, S, S]."""
        score = torch.zeros(self._index.shape[1])
        for flat, index, weight in zip(maps.flatten(1), self._index, self._weight, strict=True):
            score += (flat[index] * weight).sum(1)
        return int((score / len(maps)).argmax())


# ---------------------------------------------------------------------------------------------------------- measuring


def rendering(repetitions: int, notes: list[str]) -> dict[str, Figure]:
    """Ours against the others."""
    generator = torch.Generator().manual_seed(0)
    cloud, small = table_cloud(1, POINTS, generator), table_cloud(1, SMALL_POINTS, generator)
    many = table_cloud(BATCH, BATCH_POINTS, generator)
    whole = Cube(torch.zeros(BATCH, 3), torch.ones(BATCH))
    zoomed = whole.zoomed(many[0][:, -1], ZOOM).normalise(many[0])
    inside = float(in_cube(zoomed).float().mean())

    ours = render(*cloud, VIEWS, SIZE, SPLAT_PX)
    one_row, all_rows = (
        brute_force(cloud, VIEWS, SIZE, SPLAT_PX, 1),
        brute_force(small, VIEWS, SMALL_SIZE, SPLAT_PX, SMALL_SIZE),
    )
    for brute, fast in ((one_row, ours), (all_rows, render(*small, VIEWS, SMALL_SIZE, SPLAT_PX))):
        rows = brute.hit.shape[2]
        assert brute.hit.equal(fast.hit[:, :, :rows])
        assert brute.xyz.equal(fast.xyz[:, :, :, :rows])
        assert brute.depth.equal(fast.depth[:, :, :rows])
    np.testing.assert_allclose(numpy_renderer(cloud, VIEWS, SIZE), channels(ours, VIEWS)[0].numpy(), atol=1e-6)

    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: channels(render(*cloud, VIEWS, SIZE, SPLAT_PX), VIEWS),
        "numpy": lambda: numpy_renderer(cloud, VIEWS, SIZE),
        "brute row": lambda: brute_force(cloud, VIEWS, SIZE, SPLAT_PX, 1),
        "ours small": lambda: channels(render(*small, VIEWS, SMALL_SIZE, SPLAT_PX), VIEWS),
        "brute small": lambda: brute_force(small, VIEWS, SMALL_SIZE, SPLAT_PX, SMALL_SIZE),
        "batch": lambda: channels(render(*many, VIEWS, BATCH_SIZE, SPLAT_PX), VIEWS),
        "zoomed": lambda: channels(render(zoomed, *many[1:], VIEWS, BATCH_SIZE, SPLAT_PX), VIEWS),
    }
    try:
        jobs["open3d"] = open3d_renderer(cloud, SIZE)
    except (ImportError, SensorError) as error:
        notes.append(f"Open3D was not measured: {error}")
    times = milliseconds(jobs, repetitions)
    scene = f"{POINTS:,} points, {len(VIEWS)} x {SIZE} px"
    figures = {
        f"render and channels, {scene}": timed(times["ours"], at_most=20.0),
        f"numpy's minimum.at over ours, {scene}": ratio(times["numpy"], times["ours"]),
        f"brute force over ours, {scene}, one row of {SIZE} measured": ratio(
            times["brute row"], times["ours"], SIZE, 1000.0
        ),
        f"brute force over ours, whole, {SMALL_POINTS:,} points, {len(VIEWS)} x {SMALL_SIZE} px": ratio(
            times["brute small"], times["ours small"]
        ),
        f"render and channels, {BATCH} clouds of {BATCH_POINTS:,} points, {BATCH_SIZE} px": timed(times["batch"]),
        f"the same zoomed by {ZOOM:g}, {inside:.0%} of the points inside": timed(times["zoomed"]),
    }
    if "open3d" in times:
        figures[f"Open3D's window (software GL) over ours, {scene}"] = ratio(times["open3d"], times["ours"])
    return figures


def reading(repetitions: int) -> dict[str, Figure]:
    """Our readout against the whole cube."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(BATCH, 3, generator=generator) * 1.6 - 0.8
    clean = gaussian_targets(points, VIEWS, SIZE)
    noisy = gaussian_logits(points[:1], VIEWS, SIZE, 0.3, generator)[0].flatten(2).softmax(2).view(1, 3, SIZE, SIZE)
    noise = torch.randn(1, 3, SIZE * SIZE, generator=generator).softmax(2).view(1, 3, SIZE, SIZE)
    # No bound helps against these: each of two planes is high on every second voxel along z, never on the same.
    stripes = torch.zeros(1, 3, SIZE, SIZE)
    stripes[:, 1, ::2] = stripes[:, 2, 1::2] = 1.0
    before_s = time.process_time()
    cached = CachedLookUps(VIEWS, SIZE)
    built_s = time.process_time() - before_s

    kinds = {"noisy Gaussians": noisy, "noise only": noise, "flat maps": torch.zeros_like(noise), "stripes": stripes}
    jobs: dict[str, Callable[[], object]] = {
        name: (lambda maps=maps: peak(maps, VIEWS)) for name, maps in {"clean": clean[:1], **kinds}.items()
    }
    jobs["batch"] = lambda: peak(clean, VIEWS)
    jobs["whole cube"] = lambda: cached.best(clean[0])
    times = milliseconds(jobs, repetitions)
    found = peak(clean[:1], VIEWS).voxel[0]
    index = cached.best(clean[0])
    theirs = torch.tensor([index // SIZE**2, index // SIZE % SIZE, index % SIZE])
    assert (found - theirs).abs().max() <= 1, "half a pixel of the other convention"
    scene = f"{len(VIEWS)} x {SIZE} px"
    figures = {f"peak, {scene}, Gaussian": timed(times["clean"], at_most=5.0)}
    figures |= {f"peak, {scene}, {name}": timed(times[name], at_most=5.0) for name in kinds}
    return figures | {
        f"peak, {BATCH} samples of {scene}": timed(times["batch"]),
        f"cached look-ups of all {SIZE}^3 voxels over ours": ratio(times["whole cube"], times["clean"], goal=500.0),
        "cache of those look-ups": Figure(cached.bytes / 1e6, "MB"),
        "time to build that cache": Figure(built_s, "s"),
        "memory beyond the maps, Gaussian": Figure(extra_megabytes(clean[:1]), "MB", at_most=10.0),
        "memory beyond the maps, worst case": Figure(extra_megabytes(stripes), "MB", at_most=10.0),
    }


def extra_megabytes(maps: Tensor) -> float:
    """The most memory that torch held for :func:`peak` at one time, its answer included."""
    peak(maps, VIEWS)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        peak(maps, VIEWS)
    results = profiler.profiler
    assert results is not None
    changes = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())])
    return float(held.max()) / 1e6


def decoding(count: int) -> dict[str, Figure]:
    """Errors of the read point."""
    generator = torch.Generator().manual_seed(2)
    errors: dict[tuple[float, str], np.ndarray] = {}
    for log_noise in (0.0, 0.3):
        points = torch.rand(count, 3, generator=generator) * 1.6 - 0.8
        logits, at = gaussian_logits(points, VIEWS, BATCH_SIZE, log_noise, generator)
        found = peak_of_logits(logits, VIEWS).point
        errors[log_noise, "3D"] = ((found - points).norm(dim=1) * BATCH_SIZE / 2).numpy()
        seen = pixel_of(found[:, None], VIEWS, BATCH_SIZE)[:, :, 0]
        errors[log_noise, "2D"] = (seen - at).norm(dim=2).mean(1).numpy()
        errors[log_noise, "argmax"] = (argmax_pixels(logits) - at).norm(dim=2).mean(1).numpy()
    share = float(errors[0.3, "3D"].mean() / errors[0.3, "argmax"].mean())
    names = {"3D": "error of the point (3D)", "2D": "the same seen in a view (2D)", "argmax": "2D argmax of a view"}
    figures = {}
    for (log_noise, kind), each in errors.items():
        half = 1.96 * float(each.std(ddof=1)) / count**0.5
        mean = float(each.mean())
        goal = 0.05 if kind == "3D" and log_noise == 0 else None
        noise = "clean Gaussians" if log_noise == 0 else f"log-noise {log_noise}"
        figures[f"{names[kind]}, {noise}"] = Figure(mean, "px", mean - half, mean + half, count, at_most=goal)
    figures["error of the point over 2D argmax, log-noise 0.3"] = Figure(share, "fraction", n=count, at_most=0.25)
    return figures


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/rvt_kernels.json"))
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--decoded", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see whether it runs")
    arguments = parser.parse_args()
    repetitions, decoded = (3, 50) if arguments.quick else (arguments.repetitions, arguments.decoded)
    torch.set_num_threads(1)
    started = start_clock()
    notes: list[str] = []
    figures = rendering(repetitions, notes) | reading(repetitions) | decoding(decoded)
    about = (
        "Virtual views and their readout on one thread against what they replace, taking turns in one run: CPU time, "
        "median, with the fastest and slowest repetition as the interval; errors with 95 % intervals. The brute-force "
        "and the numpy renderer give the same pictures; the cached look-ups find the same voxel within one, their "
        "pixels being half a pixel off. Stripes are the worst case of the search."
    )
    config = {"repetitions": repetitions, "decoded": decoded, "splat_px": SPLAT_PX, "views": [v.name for v in VIEWS]}
    if notes:
        config["notes"] = notes
    command = "python -m tests.benchmarks.bench_rvt_kernels"
    title = "Kernels of the virtual views"
    write_result(arguments.out, title, figures, [0, 1, 2], config, started=started, about=about, command=command)
    for name, figure in figures.items():
        goal = "" if figure.met is None else " (met)" if figure.met else " (NOT met)"
        interval = "" if figure.low is None else f" [{figure.low:.4g}, {figure.high:.4g}]"
        print(f"{name}: {figure.value:.4g} {figure.unit}{interval}{goal}")


if __name__ == "__main__":
    main()
