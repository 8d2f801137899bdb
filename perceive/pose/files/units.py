"""Which unit a mesh is in: files do not say, and a factor of 1000 makes every pose wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from perceive.pose.diameter import diameter
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_LOG = logging.getLogger(__name__)
Unit = Literal["auto", "m", "mm"]
METRES = {"m": 1.0, "mm": 0.001}
_NAMES = {"m": "metres", "mm": "millimetres"}
_LEAST_M, _MOST_M = 1e-3, 10.0  # an object that one can hold, or at least walk around
_SURELY_MM, _SURELY_M = 10.0, 1.0  # extents in the file; between them (1 to 10 mm, or 1 to 10 m) it could be both
_SAME = 1.1  # two diameters that agree within this factor are one: meshes are decimated
_THOUSAND = (300.0, 3000.0)


def metres_per_unit(path: Path, vertices: FloatArray, unit: Unit, diameter_m: float | None) -> float:
    """What to multiply the vertices [V, 3] of a file with.

    Args:
        path: named in errors.
        vertices: as in the file.
        unit: "m", "mm", or "auto" to decide by the diameter, or without one by the size.
        diameter_m: as somebody else states it (models_info.json); None = not known.

    Raises:
        DataError: the size is absurd in the unit, or not that of the diameter; which unit it is likely in is named.
        SpecError: an unknown unit.
    """
    if unit not in ("auto", *METRES):
        raise SpecError("load_model, unit", "'auto', 'm' or 'mm'", repr(unit), "Correct it.")
    extent = float((vertices.max(0) - vertices.min(0)).max())
    if extent <= 0:
        raise DataError(str(path), "a mesh with an extent", "all vertices at one place", "Export the mesh again.")
    if unit == "auto":
        unit = _by_size(path, extent) if diameter_m is None else _by_diameter(path, vertices, diameter_m)
    other: Literal["m", "mm"] = "m" if unit == "mm" else "mm"
    size_m = extent * METRES[unit]
    if not _LEAST_M <= size_m <= _MOST_M:
        likely = _LEAST_M <= extent * METRES[other] <= _MOST_M
        raise DataError(
            str(path), f"an object of {1000 * _LEAST_M:g} mm to {_MOST_M:g} m, read as {_NAMES[unit]}",
            f"a greatest extent of {extent:g} {unit}",
            f"The file is likely in {_NAMES[other]}: pass unit='{other}', or convert it." if likely
            else "It is neither in metres nor in millimetres: convert it.",
        )  # fmt: skip
    if diameter_m is not None:
        _check_diameter(path, diameter(vertices) * METRES[unit], diameter_m, unit, other)
    return METRES[unit]


def _by_size(path: Path, extent: float) -> Literal["m", "mm"]:
    if extent > _SURELY_MM:
        return "mm"
    if extent < _SURELY_M:
        return "m"
    raise DataError(
        str(path), "a mesh whose size tells its unit", f"a greatest extent of {extent:g}: could be mm, could be m",
        "Pass unit='mm' or unit='m', or the diameter.",
    )  # fmt: skip


def _by_diameter(path: Path, vertices: FloatArray, diameter_m: float) -> Literal["m", "mm"]:
    found = diameter(vertices)
    for unit in ("mm", "m"):
        if 1 / _SAME <= found * METRES[unit] / diameter_m <= _SAME:
            return "mm" if unit == "mm" else "m"
    raise DataError(
        str(path), f"a mesh of the stated diameter, {diameter_m:g} m",
        f"one of {found:g} in the file's unit, neither m nor mm", "Is it another object's mesh, or in inches?",
    )  # fmt: skip


def _check_diameter(path: Path, found_m: float, stated_m: float, unit: str, other: str) -> None:
    ratio = found_m / stated_m
    if any(_THOUSAND[0] <= r <= _THOUSAND[1] for r in (ratio, 1 / ratio)):
        factor = METRES[other] / METRES[unit]
        mesh_is_other = (ratio > 1) == (factor < 1)
        raise DataError(
            str(path), f"the stated diameter, {stated_m:g} m",
            f"{found_m:g} m with the file read as {_NAMES[unit]}, a factor of about 1000",
            f"The mesh is likely in {_NAMES[other]}: pass unit='{other}', or convert it." if mesh_is_other
            else "The stated diameter is likely in another unit: BOP's files are in millimetres.",
        )  # fmt: skip
    if not 1 / _SAME <= ratio <= _SAME:
        _LOG.warning(
            "%s: the mesh has a diameter of %g m, %g m are stated, which is what counts; is it the same object?",
            path, found_m, stated_m,
        )  # fmt: skip
