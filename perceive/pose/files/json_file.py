"""JSON files of a data set, read so that damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sensors.errors import DataError
from sensors.geometry import FloatArray

_FIX = "Copy the file again."


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    data = _read(path)
    if not isinstance(data, dict):
        raise DataError(str(path), "a JSON object", type(data).__name__, "Is it the right file?")
    return data


def read_list(path: Path) -> list[Any]:
    """A JSON list.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    data = _read(path)
    if not isinstance(data, list):
        raise DataError(str(path), "a JSON list", type(data).__name__, "Is it the right file?")
    return data


def read_numbered(path: Path) -> dict[int, Any]:
    """A JSON object whose names are whole numbers, in their order.

    Raises:
        DataError: the file is missing or damaged, or a name is no number.
    """
    data = read_object(path)
    for name in data:
        if not name.isascii() or not name.isdigit():
            raise DataError(str(path), "numbers as names", repr(name), "Is it the right file?")
    return {number: data[name] for number, name in sorted((int(name), name) for name in data)}


def whole(value: Any, where: str, what: str) -> int:
    """A whole number of 0 or more.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(where, f"{what} as a whole number of 0 or more", repr(value), "Correct the file.")
    return value


def numbers(value: Any, count: int, where: str, what: str) -> FloatArray:
    """So many finite numbers, as float64 [count]; nested lists are taken row by row.

    Raises:
        DataError: there are more, fewer or none, or they are not finite.
    """
    try:
        found = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if len(found) != count or not np.isfinite(found).all():
        raise DataError(where, f"{what} as {count} finite numbers", _short(value), "Correct the file.")
    return found


def is_rotation(matrix: FloatArray, tolerance: float) -> bool:
    """Whether [3, 3] is a rotation: ``R R^T`` is the identity up to the tolerance, and there is no reflection."""
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() <= tolerance and np.linalg.det(matrix) > 0)


def rigid(turn: Any, shift_mm: Any, where: str, names: tuple[str, str], tolerance: float) -> FloatArray:
    """A rigid transform [4, 4] in metres from 9 numbers row by row and 3 in millimetres.

    Raises:
        DataError: they are not those, or the 9 are no rotation.
    """
    out = np.eye(4)
    out[:3, :3] = numbers(turn, 9, where, names[0]).reshape(3, 3)
    out[:3, 3] = numbers(shift_mm, 3, where, names[1]) / 1000.0
    if not is_rotation(out[:3, :3], tolerance):
        raise DataError(
            where, f"{names[0]} as a rotation, row by row", _short(out[:3, :3].tolist()), "Normalise it; or correct it."
        )
    return out


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(str(path), "a JSON file", "no such file", "Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(str(path), "a whole JSON file", f"{type(error).__name__}: {error}", _FIX) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
