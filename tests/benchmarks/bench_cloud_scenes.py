"""How fast generated data is made: labelled scenes of the simulator, and shapes.

``python -m tests.benchmarks.bench_cloud_scenes --out results/cloud_scenes.json``

Rates are per CPU-second of this process, best of several blocks: other work on the machine only ever makes a block
slower. Scenes come with their labels and boxes, shapes as batches of tensors. A file is a scene as it is stored for
training, read back through the data set.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from envs.cloud_scenes.room import RoomScenes
from envs.cloud_scenes.tabletop import TabletopScenes
from perceive.points.files.cloud import from_arrays
from perceive.points.files.folder import CloudFolder
from perceive.points.files.store import write_cloud
from perceive.points.shapes import ShapeSource
from perceive.results import Figure, start_clock, write_result

BLOCKS, SCENES, CLOUDS, BATCH = 4, 4, 128, 32


def rate(make: Callable[[int], None], per_block: int, each: int = 1) -> float:
    """How many of ``each`` per call are made in a CPU-second; calls get numbers that do not come twice."""
    make(0)
    best = 0.0
    for block in range(BLOCKS):
        begin = time.process_time()
        for number in range(per_block):
            make(1 + block * per_block + number)
        best = max(best, per_block * each / (time.process_time() - begin))
    return best


def measure_scenes(seed: int) -> dict[str, Figure]:
    """Scenes per CPU-second, and how large they are."""
    tabletop, room = TabletopScenes(seed), RoomScenes(seed)
    three = RoomScenes(seed, sweeps=3)
    try:
        points = [len(room.scene(number).xyz_m) for number in range(3)]
        return {
            "tabletop_scenes": Figure(rate(lambda number: void(tabletop.scene(number)), SCENES), "1/CPU-s"),
            "tabletop_points": Figure(len(tabletop.scene(0).xyz_m)),
            "room_scenes": Figure(rate(lambda number: void(room.scene(number)), SCENES), "1/CPU-s"),
            "room_scenes_of_three_sweeps": Figure(rate(lambda number: void(three.scene(number)), 2), "1/CPU-s"),
            "room_points": Figure(sum(points) / len(points), n=len(points)),
        }
    finally:
        for scenes in (tabletop, room, three):
            scenes.close()


def measure_shapes(seed: int) -> dict[str, Figure]:
    """Clouds of 1024 points per CPU-second."""
    plain = ShapeSource(seed)
    rough = ShapeSource(seed, rotation="so3", noise_m=0.01, outlier_share=0.02)
    seen = ShapeSource(seed, rotation="so3", noise_m=0.01, one_sided=True)

    def of(source: ShapeSource) -> float:
        def make(number: int) -> None:
            source.batch(range(number * BATCH, (number + 1) * BATCH))

        return rate(make, CLOUDS // BATCH, BATCH)

    return {
        "shapes": Figure(of(plain), "1/CPU-s", at_least=500.0),
        "shapes_turned_noisy_with_outliers": Figure(of(rough), "1/CPU-s", at_least=500.0),
        "shapes_seen_from_one_side": Figure(of(seen), "1/CPU-s"),
    }


def measure_files(seed: int) -> dict[str, Figure]:
    """Writing (without the wait for the disk) and reading of a room's scene."""
    room = RoomScenes(seed)
    try:
        cloud = from_arrays(room.scene(0).arrays())
    finally:
        room.close()
    with tempfile.TemporaryDirectory() as folder:
        written = rate(lambda number: void(write_cloud(Path(folder) / f"{number:06d}.npz", cloud)), 10)
        clouds = CloudFolder(folder)
        size = (Path(folder) / "000000.npz").stat().st_size
        read = rate(lambda number: void(clouds[number % len(clouds)]), 10)
    return {
        "files_written": Figure(written, "1/CPU-s"),
        "files_read": Figure(read, "1/CPU-s"),
        "file_size": Figure(size / 1e6, "MB"),
    }


def void(_: object) -> None:
    """Made, and let go."""


def main(out: Path, seed: int = 0) -> dict[str, Figure]:
    """Measure and write the result file; its figures are returned."""
    started = start_clock()
    figures = {**measure_shapes(seed), **measure_scenes(seed), **measure_files(seed)}
    write_result(
        out,
        "cloud_scenes",
        figures,
        [seed],
        {"blocks": BLOCKS, "scenes_per_block": SCENES, "clouds_per_block": CLOUDS, "points_per_shape": 1024},
        started=started,
        about=(
            "Generated data for point clouds: tabletops before two RGB-D cameras of 128 px (8192 points kept), rooms "
            "around a LiDAR of 32 lasers and 600 steps, and shapes of 1024 points; labels and boxes included."
        ),
        command=f"python -m tests.benchmarks.bench_cloud_scenes --out {out}",
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for key, figure in main(parser.parse_args().out).items():
        print(f"{key:40s} {figure.value:.6g} {figure.unit}")
