"""models_info.json: sizes and symmetries of a data set's objects, millimetres in the file, metres here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from perceive.pose.files.json_file import numbers, read_numbered
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.calibration.files import write_beside
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_AXES = ("x", "y", "z")


@final
@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What the file says of one object.

    Attributes:
        diameter_m: the greatest distance between two vertices; None = not stated.
        symmetries: discrete and continuous ones.
        low_m: float64 [3], the lower corner of the bounding box; None = not stated.
        size_m: float64 [3], its edges; None = not stated.
        name: what it is called; None = not stated (BOP's own files number objects only).
    """

    diameter_m: float | None
    symmetries: Symmetries
    low_m: FloatArray | None
    size_m: FloatArray | None
    name: str | None = None


def read_models_info(path: str | Path) -> dict[int, ModelInfo]:
    """Object's number -> what is said of it.

    Raises:
        DataError: the file is missing or damaged, a transform is not rigid, an axis has no direction.
    """
    return {number: info_of(record, f"{path}, object {number}") for number, record in read_numbered(Path(path)).items()}


def write_models_info(path: str | Path, models: Iterable[ObjectModel]) -> None:
    """Write sizes, diameters and symmetries of models, whole or not at all."""
    records = {str(model.number): record_of(model) for model in sorted(models, key=lambda one: one.number)}
    text = "{\n" + ",\n".join(f"  {json.dumps(n)}: {json.dumps(record)}" for n, record in records.items()) + "\n}\n"
    write_beside(path, text)


def info_of(record: Any, where: str) -> ModelInfo:
    """One entry.

    Raises:
        DataError: as :func:`read_models_info`.
    """
    if not isinstance(record, dict):
        raise DataError(where, "a JSON object", type(record).__name__, "Correct the file.")
    diameter_m = None
    if record.get("diameter") is not None:
        diameter_m = float(numbers(record["diameter"], 1, where, "diameter")[0]) / 1000.0
        if diameter_m <= 0:
            raise DataError(where, "a diameter > 0", f"{1000.0 * diameter_m} mm", "Correct the file.")
    name = record.get("name")
    return ModelInfo(
        diameter_m,
        _symmetries(record, where),
        _corner(record, "min_", where),
        _corner(record, "size_", where),
        None if name is None else str(name),
    )


def record_of(model: ObjectModel) -> dict[str, Any]:
    """The entry that :func:`info_of` reads."""
    low, size = 1000.0 * model.low_m, 1000.0 * (model.high_m - model.low_m)
    record: dict[str, Any] = {"name": model.name, "diameter": 1000.0 * model.diameter_m}
    record.update({f"min_{axis}": float(value) for axis, value in zip(_AXES, low, strict=True)})
    record.update({f"size_{axis}": float(value) for axis, value in zip(_AXES, size, strict=True)})
    if len(model.symmetries.discrete):
        flat = model.symmetries.discrete.copy()
        flat[:, :3, 3] *= 1000.0
        record["symmetries_discrete"] = flat.reshape(-1, 16).tolist()
    if model.symmetries.continuous:
        record["symmetries_continuous"] = [
            {"axis": one.axis.tolist(), "offset": (1000.0 * one.offset_m).tolist()}
            for one in model.symmetries.continuous
        ]
    return record


def _symmetries(record: dict[str, Any], where: str) -> Symmetries:
    discrete = []
    for each in _listed(record, "symmetries_discrete", where):
        matrix = numbers(each, 16, where, "symmetries_discrete").reshape(4, 4)
        matrix[:3, 3] /= 1000.0
        discrete.append(matrix)
    try:
        continuous = []
        for each in _listed(record, "symmetries_continuous", where):
            if not isinstance(each, dict) or "axis" not in each:
                raise DataError(where, "symmetries_continuous with axis and offset", repr(each), "Correct the file.")
            axis = numbers(each["axis"], 3, where, "axis")
            offset = numbers(each.get("offset", (0.0, 0.0, 0.0)), 3, where, "offset")
            continuous.append(ContinuousSymmetry.make(axis, offset / 1000.0))
        return Symmetries.make(discrete, continuous)
    except SpecError as error:
        raise DataError(where, error.expected, error.got, error.fix) from error


def _listed(record: dict[str, Any], name: str, where: str) -> list[Any]:
    value = record.get(name, [])
    if not isinstance(value, list):
        raise DataError(where, f"{name} as a list", type(value).__name__, "Correct the file.")
    return value


def _corner(record: dict[str, Any], prefix: str, where: str) -> FloatArray | None:
    values = [record.get(prefix + axis) for axis in _AXES]
    if any(value is None for value in values):
        return None
    return np.asarray(numbers(values, 3, where, f"{prefix}x to {prefix}z") / 1000.0)
