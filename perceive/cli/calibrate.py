"""perceive calibrate: a camera's intrinsics or where it is, by a printed board; a gel camera's colours, by a ball."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceive.build import build
from perceive.cli.app import App
from sensors.base import Sensor
from sensors.calibration.board import Board
from sensors.calibration.drawing import draw_reprojection
from sensors.calibration.files import read_lens, read_poses, write_beside, write_intrinsics, write_mount
from sensors.calibration.hand_eye import Mounting, calibrate_hand_eye
from sensors.calibration.intrinsics import Intrinsics, ViewFit, calibrate_intrinsics
from sensors.calibration.lens import Lens
from sensors.calibration.print_board import print_pdf, print_png
from sensors.calibration.simulation import Session, simulate_session, simulated_lens, write_session
from sensors.calibration.summary import hand_eye_summary, intrinsics_summary
from sensors.calibration.views import PICTURE_ENDINGS, Found, View, capture_views, read_pictures
from sensors.errors import SpecError
from sensors.geometry import FloatArray, rotation_angle_rad

_ABOUT = """Calibrate a camera with a printed ChArUco board: mode=board prints one, mode=intrinsics finds focal lengths,
middle and distortion, mode=eye_in_hand where a camera is on the hand (the board lies still), mode=eye_to_hand where a
camera is beside the robot (the hand holds the board).

Hand-eye calibration reads pictures and, beside them, poses.json: the hand's pose in the base frame at each picture, in
metres, quaternions as x y z w (or a matrix of four rows in the place of both):
  {"base_from_hand": {"0000.png": {"position_m": [0.4, 0.0, 0.5], "quaternion_xyzw": [1, 0, 0, 0]}, "0001.png": ...}}
Take 15 to 20 pictures at rest, the hand turned by 20 to 40 degrees to all sides; shifting alone tells nothing.

touch=digit or touch=gelsight_mini calibrates a fingertip that films its gel: press a ball of known radius into it, 20
to 50 times all over. pictures=<folder> holds background.png (nothing touches the gel) and press_*.png."""


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "calibrate",
        _ABOUT,
        (
            "perceive calibrate mode=board board.square_m=0.03 paper=a4",
            "perceive calibrate mode=eye_in_hand simulate=true        (try it, no camera needed)",
            "perceive calibrate mode=intrinsics pictures=my_pictures",
            "perceive calibrate mode=eye_in_hand pictures=my_pictures link=panda_hand",
            "perceive calibrate touch=digit touch.ball_radius_m=0.003 pictures=my_presses",
            "perceive calibrate touch=digit +sensor@camera=digit refit=runs/calibrate/touch.npz",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Calibrate as the config says; print the summary and where the files are."""
    output = Path(config["output"])
    if config["touch"] is not None:
        from perceive.cli.calibrate_touch import calibrate_gel  # brings torch, which boards do without

        calibrate_gel(config, output)
        return
    if config["refit"] is not None:
        raise SpecError("perceive calibrate", "refit with touch=...", "refit alone", "E.g. touch=digit.")
    board: Board = build(config["board"], where="board")
    if config["mode"] == "board":
        _print_board(config, board, output)
        return
    _check_sources(config)
    mounting = None if config["mode"] == "intrinsics" else Mounting(config["mode"])
    session: Session | None = None
    if config["simulate"]:
        session = _simulate(config, board, mounting or Mounting.EYE_IN_HAND)
        write_session(output / "pictures", session)
        config = {**config, "pictures": str(output / "pictures")}
        print(f"rendered {len(session.pictures)} pictures and poses.json: {output / 'pictures'}")
    if mounting is None:
        found = _views(config, board)
        lens = _intrinsics(config, board, found, output).lens
        _compare_lens(session, lens)
    else:
        _hand_eye(config, board, mounting, output, session)


def _print_board(config: Mapping[str, Any], board: Board, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    print_pdf(board, output / "board.pdf", config["dpi"], config["paper"])
    width, height = print_png(board, output / "board.png", config["dpi"])
    print(board.describe())
    print(f"board: {output / 'board.pdf'} ({config['paper']}), {output / 'board.png'} ({width} x {height} px)")
    print("Print it in true size (100 %, not 'fit to page'), glue it on something flat and measure a square:")
    print("what it measures, in metres, is board.square_m=... of the other modes.")


def _check_sources(config: Mapping[str, Any]) -> None:
    mode = config["mode"]
    given = [name for name in ("pictures", "camera") if config[name] is not None] + ["simulate"] * config["simulate"]
    if len(given) != 1:
        raise SpecError(
            "perceive calibrate", "one of pictures=<folder>, +sensor@camera=<name>, simulate=true",
            " and ".join(given) or "none of them", "Say where the pictures come from.",
        )  # fmt: skip
    if mode != "intrinsics" and config["camera"] is not None:
        raise SpecError(
            f"perceive calibrate mode={mode}", "pictures with the hand's poses", "a live camera, which knows no poses",
            "Save a picture and the hand's pose at each stop: pictures=<folder> with poses.json (see --help).",
        )  # fmt: skip
    if mode == "eye_in_hand" and config["link"] is None and not config["simulate"]:
        raise SpecError(
            "perceive calibrate mode=eye_in_hand", "link=<the robot's link whose poses stand in poses.json>", "none",
            "E.g. link=panda_hand; link=tool for the point between the fingertips.",
        )  # fmt: skip
    if mode == "eye_to_hand" and config["link"] is not None:
        raise SpecError(
            "perceive calibrate mode=eye_to_hand", "no link: the camera is fixed in the base frame",
            f"link={config['link']}", "Leave it out, or take mode=eye_in_hand.",
        )  # fmt: skip


def _simulate(config: Mapping[str, Any], board: Board, mounting: Mounting) -> Session:
    said = config["simulated"]
    return simulate_session(
        board, simulated_lens(said["width"], said["height"]), mounting, config["count"], config["seed"],
        picture_noise=said["picture_noise"], robot_position_m=said["robot_mm"] / 1000,
        robot_rotation_rad=float(np.deg2rad(said["robot_deg"])),
    )  # fmt: skip


def _views(config: Mapping[str, Any], board: Board, names: Sequence[str] | None = None) -> Found:
    if config["camera"] is None:
        return read_pictures(config["pictures"], board, names)
    sensor = build(config["camera"], where="camera")
    if not isinstance(sensor, Sensor):
        raise SpecError("camera", "a sensor", type(sensor).__name__, "Choose one: +sensor@camera=<name>.")
    print(f"show the board, {config['count']} times: rest, then move or tilt it")
    return Found(tuple(capture_views(sensor, board, config["count"], config["timeout_s"], report=print)), {})


def _intrinsics(config: Mapping[str, Any], board: Board, found: Found, output: Path) -> Intrinsics:
    result = calibrate_intrinsics(
        found.views, board, coefficients=config["coefficients"], least_views=config["least_views"],
        least_coverage=config["least_coverage"],
    )  # fmt: skip
    write_intrinsics(output / "intrinsics.json", result, board)
    _show(
        output,
        "intrinsics",
        intrinsics_summary(result, board, found.without),
        found.views,
        result.residuals_px,
        result.fits,
    )
    print(f"intrinsics: {output / 'intrinsics.json'}")
    return result


def _hand_eye(
    config: Mapping[str, Any], board: Board, mounting: Mounting, output: Path, session: Session | None
) -> None:
    folder = Path(config["pictures"])
    poses = read_poses(config["poses"] or folder / "poses.json")
    found = read_pictures(folder, board, list(poses))
    files = {path.name for path in folder.iterdir() if path.suffix.lower() in PICTURE_ENDINGS}
    for name in sorted(files - set(poses)):
        print(f"warning: '{name}' has no pose in the file and is not used")
    if config["intrinsics"]:
        lens, covariance = read_lens(config["intrinsics"])
    else:
        camera = _intrinsics(config, board, found, output)
        lens, covariance = camera.lens, camera.covariance
    base_from_hand = np.stack([poses[view.name] for view in found.views])
    result = calibrate_hand_eye(
        found.views, base_from_hand, board, lens, mounting,
        lens_covariance=covariance, max_rms_px=config["max_rms_px"],
    )  # fmt: skip
    link = config["link"] or ("tool" if mounting is Mounting.EYE_IN_HAND else None)
    path = output / f"{mounting.value}.yaml"
    write_mount(path, result, board, link)
    _show(
        output,
        mounting.value,
        hand_eye_summary(result, board, found.without),
        found.views,
        result.residuals_px,
        result.fits,
    )
    print(f"mount: {path}, details: {path.with_suffix('.json')}")
    if session is not None:
        off = result.carrier_from_camera[:3, 3] - session.carrier_from_camera[:3, 3]
        turned = rotation_angle_rad(result.carrier_from_camera[:3, :3], session.carrier_from_camera[:3, :3])
        print(f"off the truth by {1000 * np.linalg.norm(off):.2f} mm and {np.rad2deg(turned):.3f} degrees")


def _compare_lens(session: Session | None, lens: Lens) -> None:
    if session is not None:
        off = ", ".join(f"{value:+.2f}" for value in lens.intrinsics_px - session.lens.intrinsics_px)
        print(f"off the truth by {off} px (fx fy cx cy)")


def _show(
    output: Path,
    name: str,
    summary: str,
    views: Sequence[View],
    residuals_px: Sequence[FloatArray],
    fits: Sequence[ViewFit],
) -> None:
    import cv2

    picture = draw_reprojection(views, residuals_px, fits)
    write_beside(output / f"{name}_reprojection.png", bytes(cv2.imencode(".png", picture[..., ::-1])[1]))
    write_beside(output / f"{name}_summary.txt", summary + "\n")
    print(summary)
    print(f"picture: {output / f'{name}_reprojection.png'}")
