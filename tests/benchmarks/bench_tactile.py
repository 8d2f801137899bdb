"""Pictures of a gel: how fast, and how close to taxim: python -m tests.benchmarks.bench_tactile [--taxim PYTHON]

On one thread, pinned to one core. Frames per second count everything from the height map to eight-bit colours in
memory, with the gel's smoothing, in CPU time of the process, the same as on the wall of an idle machine: medians, with
the fastest and the slowest repetition as the interval; the 95th percentile is on the wall and includes whatever else
ran.

``--taxim PYTHON``: an interpreter that has torch and taxim 1.4.1 (a batched port of Taxim, torch backend)::

    python -m venv there && there/bin/pip install torch==2.13.0 taxim==1.4.1 numpy

The same height maps with the same calibration, which is read from taxim's own package, go through both; the two take
turns in one run. Its torch-scatter and torchvision are stood in for by small modules, see taxim_worker.py. Ours then
runs twice: in the manner of taxim (same kernels at full resolution, same borders, same bins), for which pictures are
compared, and with its own gel and finer bins. taxim's gel is flattened, as our maps are heights over a flat gel. Where
a gel is flat, its direction, which chooses the colour, is 0 in ours and in taxim what its Fourier transforms left of
rounding; pictures are therefore compared where the gel is tilted, and all over as well, beside a picture of taxim's own
whose height maps were made deeper by a millionth. Neither casts rays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from perceive.results import Figure, start_clock, write_result
from sensors.errors import DataError
from sensors.tactile import shapes
from sensors.tactile.blur import Blur
from sensors.tactile.deform import Softness
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.presets import PRESETS, preset_gel, preset_light, preset_optics
from sensors.tactile.shadow import Shadow
from sensors.tactile.slopes import slopes
from sensors.tactile.table import ColourTable, Lookup, TableColour

SIZES = {(64, 64): 1000.0, (120, 160): 200.0, (240, 320): 50.0}
BATCH = 16
KINDS: tuple[Lookup | None, ...] = (None, "fine", "linear")  # lights in closed form, and ways to look up a table
PIXEL_M = 2.95e-5  # of taxim's calibrations, 480 x 640 pixels
CALIBRATIONS = ("gelsight", "gelsight_mini")
# Widths of the kernels of taxim's parameters, shares of the picture's width, as in both of its calibrations.
TAXIM_SIGMAS = (0.04765625, 0.02421875, 0.0125, 0.00546875, 0.003125, 0.00171875)
TAXIM_FINAL = 0.003125


def prints(gel: Gel, count: int, seed: int = 0) -> Tensor:
    """Height maps [count, h, w] of balls, bars, blocks, cones, rods and pairs of them, deep and shallow."""
    rng = np.random.default_rng(seed)
    maps = []
    for number in range(count):
        x, y = rng.uniform(-0.2, 0.2, 2) * (gel.width_m, gel.height_m)
        depth, yaw = rng.uniform(2e-4, 1e-3), rng.uniform(0, np.pi)
        kind = number % 6
        if kind == 0:
            one = shapes.sphere(gel, rng.uniform(2e-3, 6e-3), depth, x, y)
        elif kind == 1:
            one = shapes.cylinder(gel, rng.uniform(1e-3, 4e-3), depth, yaw, x, y)
        elif kind == 2:
            one = shapes.box(gel, rng.uniform(2e-3, 8e-3), rng.uniform(2e-3, 5e-3), depth, yaw, x, y, 0.03)
        elif kind == 3:
            one = shapes.cone(gel, rng.uniform(0.2, 0.8), depth, x, y)
        elif kind == 4:
            one = shapes.punch(gel, rng.uniform(1e-3, 3e-3), depth, x, y)
        else:
            one = shapes.sphere(gel, 2e-3, depth, x, y) + shapes.sphere(gel, 3e-3, 0.7 * depth, -x, -y)
        maps.append(one)
    return torch.cat(maps)


class Clock:
    """CPU and wall times of jobs that take turns."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, list[float]] = {}
        self.wall_s: dict[str, list[float]] = {}

    def run(self, jobs: Mapping[str, Callable[[], tuple[float, float]]], repetitions: int) -> None:
        """Each job once without being timed, then in turns. A job gives the CPU and wall time of what it did."""
        for repetition in range(repetitions + 1):
            for name, job in jobs.items():
                cpu, wall = job()
                if repetition:
                    self.cpu_s.setdefault(name, []).append(cpu)
                    self.wall_s.setdefault(name, []).append(wall)

    def rate(self, name: str, frames: int, goal: float | None = None) -> Figure:
        """Frames per second of CPU time."""
        times = self.cpu_s[name]
        return Figure(
            frames / float(np.median(times)), "fps", frames / max(times), frames / min(times), len(times), at_least=goal
        )

    def per_frame(self, name: str, frames: int) -> Figure:
        """CPU time of a frame."""
        times = [1e3 * each / frames for each in self.cpu_s[name]]
        return Figure(float(np.median(times)), "ms", min(times), max(times), len(times))

    def late(self, name: str, frames: int) -> Figure:
        """The 95th percentile of the time of a frame on the wall."""
        times = [1e3 * each / frames for each in self.wall_s[name]]
        return Figure(float(np.percentile(times, 95)), "ms", n=len(times))

    def times_faster(self, slow: str, slow_frames: int, fast: str, fast_frames: int, goal: float | None) -> Figure:
        """How many times as long the slow one takes for a frame: of medians, with the extremes of single rounds."""
        scale = fast_frames / slow_frames
        rounds = [scale * a / b for a, b in zip(self.cpu_s[slow], self.cpu_s[fast], strict=True)]
        middle = scale * float(np.median(self.cpu_s[slow]) / np.median(self.cpu_s[fast]))
        return Figure(middle, "times", min(rounds), max(rounds), len(rounds), at_least=goal)


def timed(job: Callable[[], object]) -> Callable[[], tuple[float, float]]:
    """A job that says how long it took."""

    def run() -> tuple[float, float]:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        job()
        return time.process_time() - cpu_s, time.perf_counter() - wall_s

    return run


# --------------------------------------------------------------------------------------------------------------- ours


def speed(repetitions: int) -> dict[str, Figure]:
    """Frames per second of ours with lights in closed form and with a table, without and with shadows."""
    figures: dict[str, Figure] = {}
    for (rows, columns), goal in SIZES.items():
        maps = prints(preset_gel("gelsight_mini", rows, columns), BATCH)
        jobs = {}
        for table, shadow in itertools.product(KINDS, (False, True)):
            optics = preset_optics("gelsight_mini", rows, columns, table=table, shadow=shadow)
            name = f"{'lights' if table is None else f'{table} table'}{', shadows' if shadow else ''}"
            jobs[name] = timed(lambda optics=optics, maps=maps: optics.picture(maps))
            if not shadow and table != "linear":
                jobs[f"{name}, one by one"] = timed(lambda optics=optics, maps=maps: optics.picture(maps[:1]))
        clock = Clock()
        clock.run(jobs, repetitions)
        size = f"{rows} x {columns}"
        for name in jobs:
            frames = 1 if "one by one" in name else BATCH
            wanted = goal if name in ("lights", "fine table") else None
            figures[f"{size}, {name}"] = clock.rate(name, frames, wanted)
            figures[f"{size}, {name}: CPU time of a frame"] = clock.per_frame(name, frames)
            figures[f"{size}, {name}: 95 % of frames within"] = clock.late(name, frames)
    return figures


def alternatives(repetitions: int) -> dict[str, Figure]:
    """The ways of blurring and of looking up that were tried, side by side, at 240 x 320: nanoseconds of a pixel."""
    rows, columns = 240, 320
    gel = preset_gel("gelsight_mini", rows, columns)
    maps = prints(gel, 1)
    jobs: dict[str, Callable[[], object]] = {}
    for name, sigma in (("wide", 15.25), ("narrow", 1.75)):
        blur = Blur(rows, columns, (sigma, sigma))
        half = 2 * round(3.5 * sigma) + 1
        kernel = torch.rand(half)
        edges = (half // 2,) * 4

        def convolve(kernel: Tensor = kernel, edges: tuple[int, ...] = edges) -> Tensor:
            wide = functional.pad(maps[:, None], edges, mode="replicate")
            return functional.conv2d(functional.conv2d(wide, kernel[None, None, None]), kernel[None, None, :, None])

        def transform(edges: tuple[int, ...] = edges) -> Tensor:
            wide = functional.pad(maps[:, None], edges, mode="replicate")
            spectrum = torch.fft.rfft2(wide)
            return torch.fft.irfft2(spectrum * spectrum)

        jobs[f"{name} blur, ours"] = lambda blur=blur: blur(maps)
        jobs[f"{name} blur, convolutions"] = convolve
        jobs[f"{name} blur, Fourier transforms"] = transform
    pyramid, full = (GelOptics(gel, preset_light("gelsight_mini", gel), torch.zeros(3, rows, columns), s).deform
                     for s in (Softness(), Softness(pyramid=False)))  # fmt: skip
    jobs["all kernels, on halved pictures"] = lambda: pyramid(maps)
    jobs["all kernels, at full resolution"] = lambda: full(maps)
    table = ColourTable.from_light(preset_light("gelsight_mini", gel))
    index = torch.randint(0, 125 * 125, (rows, columns)).sort(dim=1).values.flatten()
    bins = torch.tensor(table.coefficients, dtype=torch.float32).reshape(-1, 18)
    basis = torch.rand(len(index), 6)
    each = torch.arange(6)
    colour, slope = TableColour(table, gel, "floor"), slopes(pyramid(maps), gel)
    jobs["look-up, a row for each power (with its angles)"] = lambda: colour(*slope)
    jobs["look-up, a row for each bin"] = lambda: torch.bmm(bins[index].view(-1, 3, 6), basis[:, :, None])
    jobs["look-up, embedding bags"] = lambda: functional.embedding_bag(
        index[:, None] * 6 + each,
        bins.view(-1, 3, 6).transpose(1, 2).reshape(-1, 3),
        per_sample_weights=basis,
        mode="sum",
    )
    clock = Clock()
    clock.run({name: timed(torch.no_grad()(job)) for name, job in jobs.items()}, repetitions)
    figures = {}
    for name in jobs:
        times = [1e9 * each / (rows * columns) for each in clock.cpu_s[name]]
        figures[f"ns of a pixel: {name}"] = Figure(float(np.median(times)), "ns", min(times), max(times), len(times))
    return figures


# -------------------------------------------------------------------------------------------------------------- taxim


class Taxim:
    """taxim in the other interpreter.

    Raises:
        DataError: it does not answer.
    """

    def __init__(self, python: str, folder: Path) -> None:
        self.folder = folder
        worker = Path(__file__).with_name("taxim_worker.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            [python, str(worker), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """One order, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            fix = "pip install torch==2.13.0 taxim==1.4.1 numpy there; see what it printed above."
            raise DataError("taxim", "an interpreter with taxim", "one that ended", fix)
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def take(self, maps: Tensor) -> None:
        """Give it height maps."""
        np.save(self.folder / "maps.npy", -1000 * maps.numpy())
        self.ask("maps", file="maps.npy")

    def pictures(self, maps: Tensor) -> np.ndarray:
        """Its pictures of height maps, uint8 [B, h, w, 3], without shadows."""
        self.take(maps)
        self.ask("render", start=0, stop=len(maps), shadow=False)
        self.ask("keep", file="pictures.npy")
        pictures: np.ndarray = np.load(self.folder / "pictures.npy")
        return pictures

    def job(self, frames: int, shadow: bool) -> Callable[[], tuple[float, float]]:
        """Render all maps, so many at a time."""

        def run() -> tuple[float, float]:
            answer = self.ask("render", start=0, stop=frames, shadow=shadow)
            return answer["cpu_s"], answer["wall_s"]

        return run

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


def against(taxim: Taxim, repetitions: int, shadowed_repetitions: int) -> dict[str, Figure]:
    """The same maps with the same calibrations through both: how alike the pictures are, and how long they take."""
    figures: dict[str, Figure] = {}
    for calibration in CALIBRATIONS:
        table = ColourTable.load(taxim.ask("load", calibration=calibration)["table"], 480, 640)
        for rows, columns in (*SIZES, (480, 640)):
            gel = Gel(480 * PIXEL_M, 640 * PIXEL_M, 0.004, rows, columns)
            maps = prints(gel, BATCH)
            taxim.take(maps)
            background = torch.from_numpy(np.load(taxim.folder / "background.npy"))
            same = _optics(gel, table, background, "floor", as_taxim=True)
            size = f"{calibration}, {rows} x {columns}"
            theirs = taxim.pictures(maps)
            tilted = _tilted(same, maps)
            ours = same.picture(maps).numpy()
            figures |= {
                f"{size}: mean difference to taxim": Figure(_mean(ours, theirs), "grey levels", n=BATCH, at_most=1.0),
                f"{size}: tilted pixels within 2 of taxim": Figure(
                    _near(ours, theirs, tilted), "fraction", n=int(tilted.sum()), at_least=0.99
                ),
                f"{size}: tilted pixels within 2 of taxim, the worst print": Figure(
                    min(_near(*one) for one in zip(ours, theirs, tilted, strict=True)), "fraction", n=BATCH
                ),
                f"{size}: all pixels within 2 of taxim": Figure(_near(ours, theirs), "fraction", n=tilted.size),
                f"{size}: tilted pixels": Figure(float(tilted.mean()), "fraction"),
            }
            again = taxim.pictures(maps * (1 + 1e-6))
            figures |= {
                f"{size}: all pixels of taxim within 2 of itself, a millionth deeper": Figure(
                    _near(again, theirs), "fraction", n=tilted.size
                ),
                f"{size}: tilted pixels of taxim within 2 of itself, a millionth deeper": Figure(
                    _near(again, theirs, tilted), "fraction", n=int(tilted.sum())
                ),
            }
            own = _optics(gel, table, background, "fine")
            apart = _mean(own.picture(maps).numpy(), theirs)
            figures[f"{size}: mean difference of our own gel and finer bins to taxim"] = Figure(
                apart, "grey levels", n=BATCH
            )
            if calibration == CALIBRATIONS[-1] and (rows, columns) in SIZES:
                figures |= _race(taxim, size, maps, same, own, repetitions, shadowed_repetitions)
    return figures


def _mean(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours.astype(int) - theirs).mean())


def _near(ours: np.ndarray, theirs: np.ndarray, chosen: np.ndarray | None = None) -> float:
    """Share of the (chosen) pixels none of whose colours differs by more than 2."""
    near = np.abs(ours.astype(int) - theirs).max(axis=-1) <= 2
    return float(near.mean() if chosen is None else near[chosen].mean())


def _tilted(optics: GelOptics, maps: Tensor) -> np.ndarray:
    """Where the gel is tilted by more than 0.01 degrees."""
    along_x, along_y = slopes(optics.deform(maps), optics.gel)
    tilted: np.ndarray = (torch.hypot(along_x, along_y) > np.deg2rad(0.01)).numpy()
    return tilted


def _optics(gel: Gel, table: ColourTable, background: Tensor, lookup: Lookup, as_taxim: bool = False) -> GelOptics:
    width = 640 * PIXEL_M
    softness = Softness(
        sigmas_m=tuple(share * width for share in TAXIM_SIGMAS), final_sigma_m=TAXIM_FINAL * width,
        contact_share=0.4, reach_m=None, pyramid=False, border="reflect", taper="sampled",
    )  # fmt: skip
    return GelOptics(gel, TableColour(table, gel, lookup), background, softness if as_taxim else None)


def _race(
    taxim: Taxim, size: str, maps: Tensor, same: GelOptics, own: GelOptics, repetitions: int, shadowed: int
) -> dict[str, Figure]:
    shaded = GelOptics(
        own.gel, own.colour, own.get_buffer("background"), None, Shadow(own.gel, PRESETS["gelsight_mini"].lamps)
    )
    jobs = {
        "taxim": taxim.job(BATCH, False),
        "taxim, one by one": taxim.job(1, False),
        "same": timed(lambda: same.picture(maps)),
        "own": timed(lambda: own.picture(maps)),
        "own, one by one": timed(lambda: own.picture(maps[:1])),
    }
    clock, dark = Clock(), Clock()
    clock.run(jobs, repetitions)
    dark.run({"taxim": taxim.job(BATCH, True), "own": timed(lambda: shaded.picture(maps))}, shadowed)
    return {
        f"{size}: taxim": clock.rate("taxim", BATCH),
        f"{size}: taxim, one by one": clock.rate("taxim, one by one", 1),
        f"{size}: taxim, shadows": dark.rate("taxim", BATCH),
        f"{size}: ours in its manner": clock.rate("same", BATCH),
        f"{size}: ours": clock.rate("own", BATCH),
        f"{size}: ours, shadows": dark.rate("own", BATCH),
        f"{size}: taxim over ours in its manner": clock.times_faster("taxim", BATCH, "same", BATCH, None),
        f"{size}: taxim over ours": clock.times_faster("taxim", BATCH, "own", BATCH, 2.0),
        f"{size}: taxim over ours, one by one": clock.times_faster("taxim, one by one", 1, "own, one by one", 1, 2.0),
        f"{size}: taxim over ours, shadows": dark.times_faster("taxim", BATCH, "own", BATCH, 1.5),
    }


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/tactile.json"))
    parser.add_argument("--taxim", help="an interpreter with torch and taxim 1.4.1")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see whether it runs")
    arguments = parser.parse_args()
    repetitions = 3 if arguments.quick else arguments.repetitions
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the other interpreter inherits it; they take turns
    started = start_clock()
    figures = speed(repetitions) | alternatives(repetitions)
    about = (
        "Height maps to eight-bit pictures of a gel on one pinned thread, with the gel's smoothing: CPU time, median, "
        "with the slowest and fastest repetition as the interval; 95th percentiles on the wall."
    )
    if arguments.taxim:
        with tempfile.TemporaryDirectory() as folder:
            taxim = Taxim(arguments.taxim, Path(folder))
            try:
                figures |= against(taxim, repetitions, max(2, repetitions // 4))
            finally:
                taxim.close()
        about += (
            " taxim 1.4.1 (torch) got the same maps and calibration and took turns with ours; its torch-scatter and "
            "torchvision were stood in for by small modules, so that its times with shadows are indicative, and its "
            "gel was flat. Pictures are compared without shadows, ours following its kernels, borders and bins; where "
            "the gel is tilted by less than 0.01 degrees taxim's colours are a matter of rounding, as its own pictures "
            "of maps deeper by a millionth show. Shadows are cast in another way in ours. Neither casts rays."
        )
    config = {"batch": BATCH, "repetitions": repetitions, "threads": 1, "taxim": bool(arguments.taxim)}
    command = "python -m tests.benchmarks.bench_tactile" + (" --taxim PYTHON" if arguments.taxim else "")
    title = "Pictures of a gel"
    write_result(arguments.out, title, figures, [0], config, started=started, about=about, command=command)
    for name, figure in figures.items():
        goal = "" if figure.met is None else " (met)" if figure.met else " (NOT met)"
        interval = "" if figure.low is None else f" [{figure.low:.4g}, {figure.high:.4g}]"
        print(f"{name}: {figure.value:.4g} {figure.unit}{interval}{goal}")


if __name__ == "__main__":
    main()
