"""What depth noise costs: python -m tests.benchmarks.bench_depth_noise --out results/depth_noise.json.

CPU time of one picture with the stereo model of conf/sensor/front_stereo and with the square law, of a tilted table
with boxes on it; both alternate within one run, and a figure is the median over the rounds. Then how far the model's
axial noise is from what its settings state.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceive.build import build
from perceive.results import Figure, start_clock, write_result
from sensors.depth_noise import DepthNoise, SquareLawNoise, StereoDepthNoise
from sensors.geometry import intrinsics_from_fov
from tests.contracts import CONF, load_plain

SIZES = ((84, 84), (640, 480))
NEAR_M, FAR_M, FOV_DEG = 0.05, 3.0, 50.0
Image = NDArray[np.float32]


def scene(width: int, height: int) -> Image:
    """A table [H, W] that leans away by 60 degrees, 1 m off in the middle, with nine boxes 0.1 m in front of it."""
    _, focal, cx, cy = intrinsics_from_fov(width, height, FOV_DEG)
    v, u = np.mgrid[0:height, 0:width]
    depth = 1.0 / (1.0 + np.sqrt(3.0) * (v - cy) / focal)
    boxes = (np.abs((u - cx) / width * 6 % 2 - 1) < 0.4) & (np.abs((v - cy) / height * 6 % 2 - 1) < 0.4)
    return np.asarray(np.where(boxes, depth - 0.1, depth), dtype=np.float32)


def cost_ms(noise: DepthNoise, depth: Image, rng: np.random.Generator) -> float:
    """CPU milliseconds of one picture."""
    intrinsics = intrinsics_from_fov(depth.shape[1], depth.shape[0], FOV_DEG)
    before_s = time.process_time()
    noise.apply(depth, intrinsics, NEAR_M, FAR_M, rng)
    return 1000 * (time.process_time() - before_s)


def measure(noise: StereoDepthNoise, rounds: int) -> dict[str, Figure]:
    """The figures."""
    rng, figures = np.random.default_rng(0), {}
    for width, height in SIZES:
        depth = scene(width, height)
        for kind in (noise, SquareLawNoise(0.001)):
            cost_ms(kind, depth, rng)  # warm up
        costs = [(cost_ms(noise, depth, rng), cost_ms(SquareLawNoise(0.001), depth, rng)) for _ in range(rounds)]
        for name, values in zip(("stereo model", "square law"), zip(*costs, strict=True), strict=True):
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            figures[f"{name}, {width} x {height}"] = Figure(float(middle), "ms", float(low), float(high), n=rounds)
    figures["largest deviation of axial noise from its law"] = _axial_error(noise)
    return figures


def _axial_error(noise: StereoDepthNoise) -> Figure:
    """Of the measured over the stated standard deviation minus 1, at five distances, 160 000 pixels each."""
    flat = (400, 400)
    errors = []
    for number, distance_m in enumerate((0.3, 0.5, 1.0, 1.5, 2.5)):
        depth = np.full(flat, distance_m, np.float32)
        measured = noise.apply(depth, intrinsics_from_fov(*flat, FOV_DEG), NEAR_M, FAR_M, np.random.default_rng(number))
        stated = noise.axial_floor_m + noise.axial_m * distance_m**2
        errors.append(abs((measured - depth)[measured > 0].std() / stated - 1))
    return Figure(float(max(errors)), "fraction", n=len(errors), at_most=0.05)


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/depth_noise.json"))
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    started = start_clock()
    config = load_plain(CONF / "sensor" / "front_stereo.yaml")["depth_noise"]
    noise = build(config)
    assert isinstance(noise, StereoDepthNoise)
    figures = measure(noise, arguments.rounds)
    about = (
        "CPU time of the depth noise of one picture: the stereo model of conf/sensor/front_stereo and the square law, "
        "side by side in one process; the interval holds 90 % of the rounds."
    )
    command = "python -m tests.benchmarks.bench_depth_noise"
    settings = {"rounds": arguments.rounds, "noise": config}
    write_result(arguments.out, "Depth noise", figures, [0], settings, started=started, about=about, command=command)
    for name, figure in figures.items():
        print(f"{name}: {figure.value:.3g} {figure.unit}")


if __name__ == "__main__":
    main()
