"""LiDAR encoders, from a sweep to sets, groups and tokens: python -m tests.benchmarks.bench_lidar_encoders --out ...

A sweep of 100k points over +-75 m, as a frame of a LiDAR with its pose, goes the way of the encoders: read (and
straightened by the motion since the frame before, timed apart), sorted into pillars of 0.32 m, cut into sets or groups,
through the blocks, to tokens. Jobs take turns; figures in ms are medians with the fastest and the slowest repetition as
the interval: on two threads, for which the goal is, on the wall of an idle machine; with
``OMP_NUM_THREADS=1 ... --threads 1`` CPU time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder
from perceive.encoders.pillars import PillarNet
from perceive.encoders.point_frame import PointReader
from perceive.encoders.point_sets import PointSetEncoder, partition_of
from perceive.encoders.point_snake import PointSnakeEncoder, snake_passes
from perceive.encoders.point_voxels import PointVoxelEncoder
from perceive.points.padding import partition_sets, windows_of
from perceive.points.voxels import voxelise
from perceive.results import Figure, start_clock, write_result
from sensors.spec import box
from tests.benchmarks.bench_points import lidar_sweep, milliseconds, ratio, timed

GOAL_MS = 150.0
LOW_M, HIGH_M, EDGE_M = (-74.88, -74.88, -5.0), (74.88, 74.88, 3.0), 0.32
WIDTH, TOKENS = 128, 512
WINDOWS = (((12, 12, 1), (0, 0, 0)), ((24, 24, 1), (6, 6, 0)))


def space_of(count: int) -> spaces.Dict:
    """As of a LidarFrame."""
    return spaces.Dict(
        {
            "xyz_m": box(-100, 100, (count, 3)),
            "intensity": box(0, 1, (count,)),
            "offset_s": box(-0.1, 0, (count,)),
            "count": box(0, count, (1,), "int64"),
            "base_from_lidar": box(-1e3, 1e3, (4, 4)),
        }
    )


def sweeps(count: int, steps: int) -> BatchStream:
    """One sample of so many sweeps of a LiDAR that drives at 10 m/s."""
    generator = torch.Generator().manual_seed(3)
    pose = torch.eye(4).repeat(1, steps, 1, 1)
    pose[0, :, 0, 3] = torch.arange(steps) - (steps - 1.0)
    data = {
        "xyz_m": torch.stack([lidar_sweep(count, generator) for _ in range(steps)])[None],
        "intensity": torch.rand(1, steps, count, generator=generator),
        "offset_s": -0.1 * torch.rand(1, steps, count, generator=generator),
        "count": torch.full((1, steps, 1), count),
        "base_from_lidar": pose,
    }
    age = 0.1 * (steps - 1.0 - torch.arange(steps))[None]
    return BatchStream(data, age, torch.ones(1, steps, dtype=torch.bool))


def encoder_of(cls: type[Encoder], count: int, **changes: Any) -> Encoder:
    """An encoder at its defaults over the whole street."""
    torch.manual_seed(0)
    street = {"tokens": TOKENS, "edge_m": EDGE_M, "low_m": LOW_M, "high_m": HIGH_M}
    return cls(space_of(count), 1, WIDTH, **{**street, **changes}).eval()


@torch.no_grad()
def measure(count: int, repetitions: int) -> dict[str, Figure]:
    """Times of the parts and of the whole."""
    one, two = sweeps(count, 1), sweeps(count, 2)
    reader, straight = (PointReader("bench", space_of(count), None, flag) for flag in (False, True))
    net = PillarNet("bench", reader, 96, TOKENS, EDGE_M, None, LOW_M, HIGH_M).eval()
    sets = encoder_of(PointSetEncoder, count)
    snake = encoder_of(PointSnakeEncoder, count)
    light = encoder_of(PointVoxelEncoder, count)

    def to_sets() -> None:
        points = reader.read(one)
        edge = (EDGE_M, EDGE_M, HIGH_M[2] - LOW_M[2])
        voxels = voxelise(
            points.in_base(points.xyz_m), edge, valid=points.valid, origin_m=LOW_M, low_m=LOW_M, high_m=HIGH_M
        )
        for shape, shift in WINDOWS:
            windows = windows_of(voxels.cell, voxels.sample, shape, shift)
            partition_sets(windows, 36, "x")
            partition_sets(windows, 36, "y")

    def to_groups() -> None:
        snake_passes(net(reader.read(one)), (9, 9), 69)

    times = milliseconds(
        {
            "pillars": lambda: net(reader.read(one)),
            "sets": to_sets,
            "groups": to_groups,
            "set tokens": lambda: sets(one),
            "snake tokens": lambda: snake(one),
            "light tokens": lambda: light(one),
            "read": lambda: reader.read(two),
            "straightened": lambda: straight.read(two),
        },
        repetitions,
    )
    pillars = net(reader.read(one))
    by_x = partition_of(pillars, *WINDOWS[0], 36).by_x
    return {
        "100k LiDAR points, as a frame, to pillars and 4 partitions into sets": timed(times["sets"], GOAL_MS),
        "100k LiDAR points to pillar features": timed(times["pillars"]),
        "100k LiDAR points to pillar features and 4 snakes of groups": timed(times["groups"]),
        "100k LiDAR points to 512 tokens, sets": timed(times["set tokens"]),
        "100k LiDAR points to 512 tokens, snake": timed(times["snake tokens"]),
        "100k LiDAR points to 512 tokens, light voxels": timed(times["light tokens"]),
        "sets over light voxels": ratio(times["set tokens"], times["light tokens"]),
        "snake over light voxels": ratio(times["snake tokens"], times["light tokens"]),
        "two sweeps of 100k points read": timed(times["read"]),
        "two sweeps of 100k points read and straightened": timed(times["straightened"]),
        "pillars of the sweep": Figure(float(len(pillars.cell)), "pillars"),
        "places of sets over pillars, windows of 12": Figure(by_x.index.numel() / len(pillars.cell), "times"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/lidar_encoders.json"))
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few repetitions of a small sweep, to see whether it runs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    started = start_clock()
    count, repetitions = (5_000, 2) if given.quick else (100_000, given.repetitions)
    figures = measure(count, repetitions)
    about = (
        f"LiDAR encoders at their default size over a street of +-75 m in pillars of 0.32 m, threads: {given.threads}; "
        f"{'CPU time' if given.threads == 1 else 'time on the wall'}, median, with the fastest and slowest repetition "
        "as the interval. The goal is that of the way to sets: reading, pillars and all four partitions, without "
        "the network."
    )
    config = {"points": count, "repetitions": repetitions, "threads": given.threads}
    command = "python -m tests.benchmarks.bench_lidar_encoders --out results/lidar_encoders.json"
    write_result(given.out, "LiDAR encoders", figures, [0], config, started=started, about=about, command=command)
    for name, figure in figures.items():
        goal = "" if figure.met is None else " (met)" if figure.met else " (NOT met)"
        interval = "" if figure.low is None else f" [{figure.low:.4g}, {figure.high:.4g}]"
        print(f"{name}: {figure.value:.4g} {figure.unit}{interval}{goal}")


if __name__ == "__main__":
    main()
