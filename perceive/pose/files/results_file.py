"""Files of pose estimates as the BOP challenges take them (Hodan et al., BOP): CSV, millimetres."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from perceive.pose.files.json_file import is_rotation
from perceive.pose.files.view import ViewKey
from sensors.calibration.files import write_beside
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

HEADER = "scene_id,im_id,obj_id,score,R,t,time"
UNKNOWN_TIME_S = -1.0
_TOLERANCE = 1e-3  # of a rotation: estimates come from networks in single precision, printed with a few digits
_SAME_S = 1e-9
_FIX = "Correct the line."


@final
@dataclass(frozen=True, eq=False)
class PoseRow:
    """One estimate.

    Attributes:
        key: the view.
        number: which object.
        score: higher is better.
        camera_from_object: float64 [4, 4], metres, OpenCV camera (z forwards, y down).
        time_s: time for the whole picture, the same in all its rows; -1 = unknown.
    """

    key: ViewKey
    number: int
    score: float
    camera_from_object: FloatArray
    time_s: float = UNKNOWN_TIME_S


def read_results(path: str | Path) -> tuple[PoseRow, ...]:
    """All estimates of a file, in its order.

    Raises:
        DataError: the file or its header is missing; with the number of the line: not 7 fields, something that is no
            number, a matrix that is no rotation, a time that differs from that of another row of the picture.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), "a readable file of results", str(error), "Check the path.") from None
    if not lines or lines[0].strip() != HEADER:
        raise DataError(str(path), f"the header '{HEADER}'", repr(lines[0][:80]) if lines else "an empty file", _FIX)
    rows: list[PoseRow] = []
    first: dict[ViewKey, tuple[float, int]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _row(line, where)
        time_s, before = first.setdefault(row.key, (row.time_s, number))
        if abs(row.time_s - time_s) > _SAME_S:
            raise DataError(
                where, f"the time {time_s} s as in line {before}, of the same picture", f"{row.time_s} s",
                "Give every row of a picture the time for the whole picture.",
            )  # fmt: skip
        rows.append(row)
    return tuple(rows)


def write_results(path: str | Path, rows: Iterable[PoseRow]) -> None:
    """Write estimates so that :func:`read_results` returns the same, whole or not at all.

    Raises:
        SpecError: a row that could not be read again.
    """
    lines, times = [HEADER], dict[ViewKey, float]()
    for row in rows:
        where = f"write_results, {row.key}, object {row.number}"
        transform = np.asarray(row.camera_from_object, np.float64)
        if (
            transform.shape != (4, 4)
            or not np.isfinite(transform).all()
            or not is_rotation(transform[:3, :3], _TOLERANCE)
        ):
            raise SpecError(where, "a rigid transform [4, 4]", f"{transform.tolist()}", "Pass camera_from_object.")
        if not math.isfinite(row.score):
            raise SpecError(where, "a finite score", str(row.score), "Leave out what has none.")
        if not math.isfinite(row.time_s) or (row.time_s < 0 and row.time_s != UNKNOWN_TIME_S):
            raise SpecError(where, "a time of 0 s or more, or -1 = unknown", str(row.time_s), "Correct it.")
        if times.setdefault(row.key, row.time_s) != row.time_s:
            raise SpecError(
                where, f"the time {times[row.key]} s, as of other rows of the picture", f"{row.time_s} s",
                "Give every row of a picture the time for the whole picture.",
            )  # fmt: skip
        turn = " ".join(repr(value) for value in transform[:3, :3].reshape(-1).tolist())
        shift = " ".join(repr(value) for value in (1000.0 * transform[:3, 3]).tolist())
        fields = (row.key.scene, row.key.image, row.number, float(row.score), turn, shift, _time(row.time_s))
        lines.append(",".join(str(field) for field in fields))
    write_beside(path, "\n".join(lines) + "\n")


def _row(line: str, where: str) -> PoseRow:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 7:
        raise DataError(where, f"7 fields ({HEADER})", f"{len(fields)}", _FIX)
    scene, image, number = (
        _whole(field, where, name) for field, name in zip(fields, ("scene_id", "im_id", "obj_id"), strict=False)
    )
    (score,), (time_s,) = _numbers(fields[3], 1, where, "score"), _numbers(fields[6], 1, where, "time")
    if time_s < 0 and time_s != UNKNOWN_TIME_S:
        raise DataError(where, "a time of 0 s or more, or -1 = unknown", f"{time_s}", _FIX)
    transform = np.eye(4)
    transform[:3, :3] = np.reshape(_numbers(fields[4], 9, where, "R"), (3, 3))
    transform[:3, 3] = np.divide(_numbers(fields[5], 3, where, "t"), 1000.0)
    if not is_rotation(transform[:3, :3], _TOLERANCE):
        raise DataError(where, "a rotation matrix R, row by row", fields[4], "Normalise it; or correct the line.")
    return PoseRow(ViewKey(scene, image), number, score, transform, time_s)


def _numbers(text: str, count: int, where: str, name: str) -> list[float]:
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        found = []
    if len(found) != count or not all(math.isfinite(value) for value in found):
        raise DataError(where, f"{name} as {count} numbers separated by spaces", repr(text), _FIX)
    return found


def _whole(text: str, where: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise DataError(where, f"{name} as a whole number", repr(text), _FIX)
    return int(text)


def _time(time_s: float) -> str:
    return "-1" if time_s == UNKNOWN_TIME_S else repr(float(time_s))
