"""How exact calibration is: python -m tests.benchmarks.bench_calibration --out results/calibration.json.

Each trial draws a mount, a board pose and 20 views at random. Twice over: once the corners are computed and carry
normal errors of 0.3 px, once pictures of the board are rendered with noise and the corners are detected in them. The
truth is known, so the errors are those of the result, not of its fit.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perceive.results import Figure, start_clock, write_result
from sensors.calibration.board import Board
from sensors.calibration.hand_eye import HandEye, Mounting, calibrate_hand_eye
from sensors.calibration.intrinsics import Intrinsics, calibrate_intrinsics
from sensors.calibration.lens import Lens
from sensors.calibration.rendering import BoardRenderer, random_views
from sensors.calibration.simulation import disturbed, exact_views, hand_poses, simulated_lens
from sensors.calibration.views import View, find_view
from sensors.errors import DataError
from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_axis_angle, pose, transform_points

MOST_MM, MOST_DEG = 1.0, 0.1
MOST_LENS = {"corner noise": (1.0, 5.0), "pictures": (0.2, 1.0)}  # focal length %, principal point px
ROBOT_MM, ROBOT_DEG = 0.1, 0.01  # what a good arm repeats to
Samples = defaultdict[str, list[float]]


def random_mount(rng: np.random.Generator, reach_m: float) -> FloatArray:
    """Any rotation, any place within reach."""
    out = pose(rng.uniform(-reach_m, reach_m, 3))
    axis = rng.normal(size=3)
    out[:3, :3] = axis_angle_to_matrix(axis / np.linalg.norm(axis) * rng.uniform(0, 3.1))
    return out


def note_mount(samples: Samples, name: str, found: HandEye, truth: FloatArray) -> None:
    """The errors of one mount, and whether its standard deviations held."""
    off_m = found.carrier_from_camera[:3, 3] - truth[:3, 3]
    off_rad = matrix_to_axis_angle(truth[:3, :3].T @ found.carrier_from_camera[:3, :3])
    samples[f"{name}, position"].append(1000 * float(np.linalg.norm(off_m)))
    samples[f"{name}, rotation"].append(float(np.rad2deg(np.linalg.norm(off_rad))))
    within = np.abs(np.concatenate([off_m / found.position_std_m, off_rad / found.rotation_std_rad])) < 2
    samples[f"within: {name}"] += within.astype(float).tolist()


def note_lens(samples: Samples, name: str, found: Intrinsics, truth: Lens) -> None:
    """The errors of one camera."""
    off_px = found.lens.intrinsics_px - truth.intrinsics_px
    samples[f"{name}, focal length"].append(100 * float(np.abs(off_px[:2] / truth.intrinsics_px[:2]).max()))
    samples[f"{name}, principal point"].append(float(np.linalg.norm(off_px[2:])))
    samples[f"within: {name}"] += (np.abs(off_px / found.intrinsics_std_px) < 2).astype(float).tolist()


def rendered_views(
    renderer: BoardRenderer, board: Board, seen: Sequence[FloatArray], rng: np.random.Generator, noise: float
) -> list[View | None]:
    """Views by detection in pictures; None where the detector found too little."""
    views: list[View | None] = []
    for number, matrix in enumerate(seen):
        try:
            views.append(find_view(renderer.render(matrix, rng, noise), board, f"{number:04d}"))
        except DataError:
            views.append(None)
    return views


def trial(seed: int, settings: argparse.Namespace, board: Board, renderer: BoardRenderer, samples: Samples) -> None:
    """One camera, one set of views, both mountings."""
    rng = np.random.default_rng(seed)
    lens = simulated_lens(settings.width, settings.height)
    seen = random_views(board, lens, settings.views, rng)
    corners = exact_views(board, lens, seen, rng, settings.corner_noise_px)
    detected = rendered_views(renderer, board, seen, rng, settings.picture_noise)
    kept = [number for number, view in enumerate(detected) if view is not None]
    pictures = [view for view in detected if view is not None]
    for number, view in zip(kept, pictures, strict=True):
        off = view.corners.pixels - lens.project(transform_points(seen[number], board.corners_m[view.corners.ids]))
        samples["detected u"] += off[:, 0].tolist()
        samples["detected v"] += off[:, 1].tolist()
    samples["tried"].append(len(seen))
    samples["missed"].append(len(seen) - len(kept))
    note_lens(samples, "intrinsics, corner noise", calibrate_intrinsics(corners, board), lens)
    camera = calibrate_intrinsics(pictures, board)
    note_lens(samples, "intrinsics, pictures", camera, lens)
    for mounting in Mounting:
        x, w = random_mount(rng, 0.3), random_mount(rng, 0.8)
        poses = hand_poses(mounting, x, w, seen)
        shaken = disturbed(poses, rng, ROBOT_MM / 1000, float(np.deg2rad(ROBOT_DEG)))
        name = mounting.value
        note_mount(samples, f"{name}, corner noise", calibrate_hand_eye(corners, poses, board, lens, mounting), x)
        for kind, said in (("pictures", poses), ("pictures and robot errors", shaken)):
            found = calibrate_hand_eye(
                pictures, said[kept], board, camera.lens, mounting, lens_covariance=camera.covariance
            )
            note_mount(samples, f"{name}, {kind}", found, x)


def median_figure(values: Sequence[float], unit: str, at_most: float | None = None) -> Figure:
    """The median over trials; its interval holds 80 % of them."""
    low, high = np.quantile(values, [0.1, 0.9])
    return Figure(float(np.median(values)), unit, float(low), float(high), len(values), at_most=at_most)


def figures_of(samples: Samples) -> dict[str, Figure | float]:
    """What is stated."""
    out: dict[str, Figure | float] = {}
    for mounting in Mounting:
        for kind in ("corner noise", "pictures", "pictures and robot errors"):
            name = f"{mounting.value}, {kind}"
            goal = not kind.endswith("errors")
            out[f"{name}: position, median error"] = median_figure(
                samples[f"{name}, position"], "mm", MOST_MM if goal else None
            )
            out[f"{name}: rotation, median error"] = median_figure(
                samples[f"{name}, rotation"], "deg", MOST_DEG if goal else None
            )
            out[f"{name}: errors within two stated standard deviations"] = share(samples[f"within: {name}"])
    for kind, (most_percent, most_px) in MOST_LENS.items():
        name = f"intrinsics, {kind}"
        focal, point = samples[f"{name}, focal length"], samples[f"{name}, principal point"]
        out[f"{name}: focal length, median error"] = median_figure(focal, "%", most_percent)
        out[f"{name}: principal point, median error"] = median_figure(point, "px", most_px)
        out[f"{name}: errors within two stated standard deviations"] = share(samples[f"within: {name}"])
    bias = max(abs(float(np.mean(samples[f"detected {axis}"]))) for axis in "uv")
    count = len(samples["detected u"])
    out["bias of detected corners in rendered pictures"] = Figure(bias, "px", n=count, at_most=0.05)
    spread = float(np.sqrt(np.mean(np.square(samples["detected u"] + samples["detected v"]))))
    out["error of detected corners, root mean square of each coordinate"] = Figure(spread, "px", n=count)
    out["pictures in which the board was not found"] = Figure(sum(samples["missed"]), n=int(sum(samples["tried"])))
    return out


def share(within: Sequence[float]) -> Figure:
    """A share that would be 95 % of normal errors."""
    return Figure(float(np.mean(within)), "fraction", n=len(within), at_least=0.9)


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/calibration.json"))
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--corner-noise-px", type=float, default=0.3)
    parser.add_argument("--picture-noise", type=float, default=3.0)
    settings = parser.parse_args()
    started = start_clock()
    board, samples = Board(), defaultdict[str, list[float]](list)
    renderer = BoardRenderer(board, simulated_lens(settings.width, settings.height))
    for seed in range(settings.trials):
        trial(seed, settings, board, renderer, samples)
    figures = figures_of(samples)
    config = {key: value for key, value in vars(settings).items() if key != "out"}
    config |= {"board": board.describe(), "robot_mm": ROBOT_MM, "robot_deg": ROBOT_DEG}
    about = (
        "A ChArUco board seen from 20 random poses through a lens with distortion, with a random mount in every trial. "
        "Corner noise: 0.3 px on every exact corner, intrinsics known. Pictures: rendered with blur and noise, corners "
        "detected, intrinsics calibrated from the same pictures; with robot errors, the poses given are off as well. "
        "Errors are of the result against the truth; the interval holds 80 % of the trials."
    )
    write_result(
        settings.out,
        "Calibration with a printed board",
        figures,
        list(range(settings.trials)),
        config,
        started=started,
        about=about,
        command="python -m tests.benchmarks.bench_calibration",
    )
    for name, figure in figures.items():
        assert isinstance(figure, Figure)
        met = "" if figure.met is None else f" ({'met' if figure.met else 'NOT met'})"
        print(f"{name}: {figure.value:.4f} {figure.unit}{met}")


if __name__ == "__main__":
    main()
