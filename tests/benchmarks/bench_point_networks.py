"""Networks over clouds, whole: the published PTv3 and the encoders of a manipulation robot.

``python -m tests.benchmarks.bench_point_networks --out results/point_networks.json``

PTv3 (Wu et al., CVPR 2024) at its published size, 46.2 M parameters with random values, on 20k occupied cells of a
floor and a wall, patches of 1024, in a process of its own whose greatest memory is told. The encoders at their
defaults take 8,192 points of a table to tokens, one frame at a time. Medians on the wall of an idle machine, with the
fastest and the slowest repetition as the interval.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from gymnasium import spaces

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder
from perceive.encoders.point_groups import PointGroupEncoder
from perceive.encoders.point_transformer import PointTransformerEncoder
from perceive.encoders.point_voxels import PointVoxelEncoder
from perceive.points.ptv3.levels import grid_cloud
from perceive.points.ptv3.network import PointTransformerV3
from perceive.results import Figure, start_clock, write_result
from sensors.spec import box
from tests.benchmarks.bench_points import milliseconds, surface_cells, timed

PTV3_MS, PTV3_MB, LIGHT_MS = 2200.0, 1500.0, 15.0
POINTS, WIDTH = 8192, 128
ENCODERS: dict[str, type[Encoder]] = {
    "light voxels": PointVoxelEncoder, "groups": PointGroupEncoder, "small PTv3": PointTransformerEncoder,
}  # fmt: skip


def table(count: int) -> BatchStream:
    """One frame of points, coloured, of a table in front of a robot with boxes on it."""
    draw = torch.Generator().manual_seed(5)
    low, high = torch.tensor([0.2, -0.4, 0.0]), torch.tensor([0.8, 0.4, 0.0])
    xyz_m = low + (high - low) * torch.rand(count, 3, generator=draw)
    for x, y in ((0.4, 0.1), (0.6, -0.2), (0.5, 0.3)):
        on = ((xyz_m[:, :2] - torch.tensor([x, y])).abs() < 0.05).all(1)
        xyz_m[on, 2] = 0.1 * torch.rand(int(on.sum()), generator=draw)
    data = {
        "xyz_m": xyz_m[None, None],
        "rgb": torch.randint(0, 256, (1, 1, count, 3), generator=draw, dtype=torch.uint8),
        "count": torch.full((1, 1, 1), count),
    }
    return BatchStream(data, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))


@torch.no_grad()
def encoders(count: int, repetitions: int) -> dict[str, Figure]:
    """Times of the encoders at their defaults."""
    space = spaces.Dict(
        {
            "xyz_m": box(-9, 9, (count, 3)),
            "rgb": box(0, 255, (count, 3), "uint8"),
            "count": box(0, count, (1,), "int64"),
        }
    )
    frame, figures = table(count), {}
    for name, cls in ENCODERS.items():
        torch.manual_seed(0)
        encoder = cls(space, 1, WIDTH).eval()
        times = milliseconds({"tokens": lambda encoder=encoder: encoder(frame)}, repetitions)["tokens"]
        found = int(encoder(frame).valid.sum())
        figures[f"{count:,} points to tokens, {name}"] = timed(times, LIGHT_MS if name == "light voxels" else None)
        figures[f"tokens of them, {name}"] = Figure(float(found))
    return figures


@torch.no_grad()
def published(cells: int, repetitions: int, threads: int) -> dict[str, float | list[float]]:
    """In this process: times of the published PTv3 in ms, its parameters, and the greatest memory in MB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = PointTransformerV3().eval()
    xyz_m = (surface_cells(torch.Generator().manual_seed(6))[:cells] + 0.5) * 0.01
    features = torch.randn(len(xyz_m), 6, generator=torch.Generator().manual_seed(7))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    found: list[int] = []

    def job() -> None:
        cloud, voxels = grid_cloud(xyz_m[None], features[None], 0.01)
        found.append(len(voxels.cell))
        network(cloud)

    times = milliseconds({"ptv3": job}, repetitions)["ptv3"]
    return {
        "times_ms": times, "parameters": float(sum(p.numel() for p in network.parameters())), "before_mb": before,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "cells": float(found[0]),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/point_networks.json"))
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cells", type=int, default=20_000, help="of the cloud of PTv3")
    parser.add_argument("--child", action="store_true", help="measure PTv3 in this process and print it")
    given = parser.parse_args(arguments)
    if given.child:
        print(json.dumps(published(given.cells, given.repetitions, given.threads)))
        return
    torch.set_num_threads(given.threads)
    started = start_clock()
    words = ["--child", "--cells", str(given.cells), "--threads", str(given.threads)]
    words += ["--repetitions", str(max(given.repetitions // 2, 1))]
    child = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_point_networks", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ptv3 = json.loads(child.stdout.splitlines()[-1])
    figures = {
        "PTv3, parameters": Figure(ptv3["parameters"]),
        "PTv3, cells of the cloud": Figure(ptv3["cells"]),
        "PTv3, one cloud to features of all cells": timed(ptv3["times_ms"], PTV3_MS),
        "PTv3, greatest memory of the process": Figure(ptv3["peak_mb"], "MB", at_most=PTV3_MB),
        "PTv3, memory of the process before": Figure(ptv3["before_mb"], "MB"),
        **encoders(POINTS, given.repetitions),
    }
    write_result(
        given.out, "Networks over point clouds", figures, [0],
        {"cells": given.cells, "repetitions": given.repetitions, "threads": given.threads}, started=started,
        about="Published PTv3 with random values on the surface of a floor and a wall, patches of 1024; encoders at "
        f"their defaults over {POINTS:,} points of a table. Wall time of an idle machine, threads: {given.threads}.",
        command="python -m tests.benchmarks.bench_point_networks --out results/point_networks.json",
    )  # fmt: skip
    for name, figure in figures.items():
        print(f"{name}: {figure.value:.4g} {figure.unit}" + ("" if figure.met is None else f" (met: {figure.met})"))


if __name__ == "__main__":
    main()
