"""Calibrations on disk: intrinsics as JSON, mounts as YAML and JSON, and the poses that belong to pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sensors.calibration.board import Board
from sensors.calibration.hand_eye import HandEye, Mounting
from sensors.calibration.intrinsics import Intrinsics, ViewFit
from sensors.calibration.lens import COEFFICIENTS, Lens
from sensors.errors import DataError, SpecError, nearest
from sensors.geometry import FloatArray, matrix_to_quaternion, pose
from sensors.live import Mount

POSES_KEY = "base_from_hand"
_POSE_KEYS = ("position_m", "quaternion_xyzw")
_FARTHEST_M = 20.0  # no arm reaches so far: these are millimetres
_NOT_RIGID = 1e-3
_MOUNT_TARGET = "sensors.live.Mount"


def write_beside(path: str | Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it there, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_intrinsics(path: str | Path, found: Intrinsics, board: Board) -> None:
    """Write intrinsics as JSON: width, height, intrinsics_px, distortion, rms_px, and how far to trust them."""
    record = {
        "width": found.lens.width,
        "height": found.lens.height,
        "intrinsics_px": found.lens.intrinsics_px.tolist(),
        "distortion": found.lens.distortion.tolist(),
        "rms_px": found.rms_px,
        "intrinsics_std_px": found.intrinsics_std_px.tolist(),
        "distortion_std": found.distortion_std.tolist(),
        "covariance": found.covariance.tolist(),
        "coverage": found.coverage,
        "tilt_span_deg": found.tilt_span_deg,
        **_common(found.fits, board, found.warnings),
    }
    write_beside(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_lens(path: str | Path) -> tuple[Lens, FloatArray | None]:
    """Read a file of :func:`write_intrinsics`, or one with at least width, height and intrinsics_px.

    Returns:
        The lens, and the covariance [9, 9] of its numbers if the file has it.

    Raises:
        DataError: it is not such a file.
    """
    data = _read_json(path, "intrinsics")
    where = f"intrinsics '{Path(path).name}'"
    for key in ("width", "height", "intrinsics_px"):
        if key not in data:
            raise DataError(where, f"the key '{key}'", f"the keys {sorted(data)}", "Calibrate again: mode=intrinsics.")
    covariance = None
    if "covariance" in data:
        covariance = _numbers(data["covariance"], (4 + COEFFICIENTS, 4 + COEFFICIENTS), f"{where}.covariance")
    try:
        lens = Lens(
            int(data["width"]), int(data["height"]), np.array(data["intrinsics_px"], float),
            np.array(data.get("distortion", []), float),
        )  # fmt: skip
    except (SpecError, TypeError, ValueError) as error:
        raise DataError(where, "numbers of a camera", str(error), "Calibrate again: mode=intrinsics.") from None
    return lens, covariance


def write_mount(path: str | Path, found: HandEye, board: Board, link: str | None) -> None:
    """Write the mount twice: as YAML that builds :class:`sensors.live.Mount`, and beside it all details as JSON.

    Args:
        path: of the YAML file; the other one has the same name and ends in .json.
        found: the result.
        board: that was used.
        link: the robot's link whose poses were given, for a camera in the hand.

    Raises:
        SpecError: a link where the camera is fixed in the base, or none where it is not.
    """
    in_hand = found.mounting is Mounting.EYE_IN_HAND
    if in_hand != (link is not None):
        wanted = "the link whose poses were given" if in_hand else "no link"
        raise SpecError(f"mount of {found.mounting.value}", wanted, f"link {link!r}", "Set link accordingly.")
    path = Path(path)
    mount = {
        "link": link,
        "position_m": [round(value, 7) for value in found.position_m],
        "quaternion_xyzw": [round(value, 9) for value in found.quaternion_xyzw],
    }
    common = _common(found.fits, board, found.warnings)
    record = {
        "mount": mount,
        "mode": found.mounting.value,
        "rms_px": found.rms_px,
        "position_std_mm": (1000 * found.position_std_m).tolist(),
        "rotation_std_deg": np.rad2deg(found.rotation_std_rad).tolist(),
        f"{found.mounting.carrier}_from_camera": found.carrier_from_camera.tolist(),
        f"{found.mounting.board_carrier}_from_board": found.carrier_from_board.tolist(),
        "turn_deg": found.motion.turn_deg,
        "turn_across_deg": found.motion.across_deg,
        "board_scale": found.scale,
        "board_scale_std": found.scale_std,
        "start": found.start,
        **common,
    }
    carrier = found.mounting.carrier
    place, turn = _words(1000 * found.position_std_m), _words(np.rad2deg(found.rotation_std_rad))
    lines = [
        f"# {carrier}_from_camera, by `perceive calibrate mode={found.mounting.value}`, {common['date']}.",
        f"# {board.describe()}; {sum(f.used for f in found.fits)} of {len(found.fits)} views, {found.rms_px:.3f} px.",
        f"# Standard deviations: {place} mm along the {carrier}'s axes, {turn} degrees about the camera's.",
        f"_target_: {_MOUNT_TARGET}",
        *(f"{key}: {json.dumps(value)}" for key, value in mount.items()),
    ]
    write_beside(path, "\n".join(lines) + "\n")
    write_beside(path.with_suffix(".json"), json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_mount(path: str | Path) -> Mount:
    """The mount of a JSON file of :func:`write_mount`.

    Raises:
        DataError: it is not such a file.
    """
    data = _read_json(path, "mount")
    try:
        mount = data["mount"]
        found = Mount(mount["link"], tuple(mount["position_m"]), tuple(mount["quaternion_xyzw"]))
        found.matrix()
    except (KeyError, TypeError, ValueError) as error:
        where = f"mount '{Path(path).name}'"
        raise DataError(where, "link, position_m and quaternion_xyzw", repr(error), "Calibrate again.") from None
    return found


def write_poses(path: str | Path, base_from_hand: Mapping[str, FloatArray]) -> None:
    """Write the poses [4, 4] of the hand, by picture, as :func:`read_poses` reads them."""
    poses = {
        name: {
            "position_m": [round(float(v), 9) for v in matrix[:3, 3]],
            "quaternion_xyzw": [round(float(v), 12) for v in matrix_to_quaternion(matrix[:3, :3])],
        }
        for name, matrix in base_from_hand.items()
    }
    lines = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in poses.items()]
    write_beside(path, f'{{\n  "{POSES_KEY}": {{\n' + ",\n".join(lines) + "\n  }\n}\n")


def read_poses(path: str | Path) -> dict[str, FloatArray]:
    """Picture -> ``base_from_hand`` [4, 4], from JSON.

    ``{"base_from_hand": {"0000.png": {"position_m": [x, y, z], "quaternion_xyzw": [x, y, z, w]}, ...}}``; in
    the place of position and quaternion a pose may also be a matrix of four rows. Metres.

    Raises:
        DataError: the file is missing or malformed, or a pose is none; says which.
    """
    data, where = _read_json(path, "poses"), f"poses '{Path(path).name}'"
    form = '{"base_from_hand": {"0000.png": {"position_m": [x, y, z], "quaternion_xyzw": [x, y, z, w]}, ...}}'
    entries = data.get(POSES_KEY)
    if not isinstance(entries, dict):
        raise DataError(where, form, f"the keys {sorted(data)}", f"Put the poses under '{POSES_KEY}'.")
    if not entries:
        raise DataError(where, "a pose for every picture", "none", "Write the hand's pose of every picture.")
    return {str(name): _read_pose(value, f"{where}, '{name}'") for name, value in entries.items()}


def _read_pose(value: Any, where: str) -> FloatArray:
    if isinstance(value, dict):
        for key in value:
            if key not in _POSE_KEYS:
                raise DataError(where, f"the keys {list(_POSE_KEYS)}", f"'{key}'", nearest(str(key), _POSE_KEYS))
        position, quaternion = (
            _numbers(value.get(key), (n,), f"{where}.{key}") for key, n in zip(_POSE_KEYS, (3, 4), strict=True)
        )
        if abs(np.linalg.norm(quaternion) - 1) > 0.01:
            got = f"length {np.linalg.norm(quaternion):.3f}"
            raise DataError(f"{where}.quaternion_xyzw", "a quaternion of length 1", got, "Write x y z w.")
        matrix = pose(position, quaternion)
    else:
        matrix = _numbers(value, (4, 4), where)
        turn = matrix[:3, :3]
        rigid = np.abs(turn @ turn.T - np.eye(3)).max() < _NOT_RIGID and np.linalg.det(turn) > 0
        if not rigid or np.abs(matrix[3] - [0, 0, 0, 1]).max() > _NOT_RIGID:
            raise DataError(where, "a rigid transform [4, 4]", "another matrix", "Write base_from_hand, rows first.")
    if np.abs(matrix[:3, 3]).max() > _FARTHEST_M:
        got = f"{np.abs(matrix[:3, 3]).max():g} m"
        raise DataError(where, f"positions within {_FARTHEST_M:g} m", got, "Write metres, not millimetres.")
    return matrix


def _numbers(value: Any, shape: tuple[int, ...], where: str) -> FloatArray:
    try:
        out = np.array(value, float)
    except (TypeError, ValueError):
        out = np.array(np.nan)
    if out.shape != shape or not np.isfinite(out).all():
        wanted = " x ".join(map(str, shape))
        raise DataError(where, f"{wanted} finite numbers", repr(value)[:80], "Correct the file.")
    return out


def _read_json(path: str | Path, what: str) -> dict[str, Any]:
    path = Path(path)
    where = f"{what} '{path.name}'"
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            where, "a file that can be read", error.strerror or str(error), f"Check the path '{path}'."
        ) from None
    except ValueError as error:
        raise DataError(where, "JSON", str(error), "Correct the file.") from None
    if not isinstance(data, dict):
        raise DataError(where, "a JSON object", type(data).__name__, "Correct the file.")
    return data


def _common(fits: tuple[ViewFit, ...], board: Board, warnings: tuple[str, ...]) -> dict[str, Any]:
    return {
        "views": {fit.name: {"rms_px": round(fit.rms_px, 4), "used": fit.used} for fit in fits},
        "board": {
            "squares_x": board.squares_x, "squares_y": board.squares_y, "square_m": board.square_m,
            "marker_m": board.marker_m, "dictionary": board.dictionary, "legacy": board.legacy,
        },
        "warnings": list(warnings),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }  # fmt: skip


def _words(numbers: FloatArray) -> str:
    return " ".join(f"{value:.3f}" for value in numbers)
