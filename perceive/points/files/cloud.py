"""LabelledCloud: one cloud of points with all that is known about them, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import SpecError

UNLABELLED = -1  # a class, instance or part that is not known, or is to be ignored

Arrays = dict[str, NDArray[Any]]

# field -> dtype and shape of one row
_OF_POINTS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "xyz_m": (np.float32, (3,)),
    "rgb": (np.uint8, (3,)),
    "intensity": (np.float32, ()),
    "time_s": (np.float32, ()),
    "normal": (np.float32, (3,)),
    "semantic": (np.int64, ()),
    "instance": (np.int64, ()),
    "part": (np.int64, ()),
}
_OF_BOXES: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "centre_m": (np.float64, (3,)),
    "size_m": (np.float64, (3,)),
    "yaw_rad": (np.float64, ()),
    "label": (np.int64, ()),
    "velocity_m_s": (np.float64, (3,)),
    "instance": (np.int64, ()),
    "points": (np.int64, ()),
}
_NAMES = ("classes", "parts", "box_classes")
_BOXES = "boxes/"


@final
@dataclass(frozen=True, eq=False)
class Boxes:
    """K boxes that stand upright, in the frame of their cloud.

    Attributes:
        centre_m: float64 [K, 3], middles.
        size_m: float64 [K, 3], edge lengths along the box's own x (forwards), y (left) and z (up).
        yaw_rad: float64 [K], turn of the box about z.
        label: int64 [K], into ``box_classes`` of the cloud; -1 = not known.
        velocity_m_s: float64 [K, 3]; NaN = not known.
        instance: int64 [K], the number that its points carry in ``instance``; -1 = they carry none.
        points: int64 [K], how many points were measured on it; -1 = not known.

    Raises:
        SpecError: shapes that do not fit together, or a box without place or size.
    """

    centre_m: NDArray[np.float64]
    size_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    label: NDArray[np.int64]
    velocity_m_s: NDArray[np.float64]
    instance: NDArray[np.int64]
    points: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, (dtype, row) in _OF_BOXES.items():
            _check("Boxes", name, getattr(self, name), dtype, (len(self.centre_m), *row))
        for name in ("centre_m", "size_m", "yaw_rad"):
            if not np.isfinite(getattr(self, name)).all():
                raise SpecError(f"Boxes.{name}", "finite numbers", "NaN or infinity", "Leave such boxes out.")
        if (self.size_m < 0).any():
            raise SpecError("Boxes.size_m", "edge lengths >= 0", f"{self.size_m.min():g}", "Correct the box.")

    def __len__(self) -> int:
        """K."""
        return len(self.centre_m)

    @classmethod
    def none(cls) -> Boxes:
        """No box: a scene that was searched and held none."""
        return cls(**{name: np.zeros((0, *row), dtype) for name, (dtype, row) in _OF_BOXES.items()})


@final
@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """N points of one scene or object, in one frame, in metres. What is None was not measured or not labelled.

    Attributes:
        xyz_m: float32 [N, 3], finite; relative to ``origin_m``.
        frame: what the coordinates are relative to, e.g. "velodyne", "base", "object".
        rgb: uint8 [N, 3].
        intensity: float32 [N] in [0, 1].
        time_s: float32 [N], capture time relative to ``stamp_s``.
        normal: float32 [N, 3].
        semantic: int64 [N], class of each point; -1 = to be ignored.
        instance: int64 [N], number of the object that it belongs to; -1 = none.
        part: int64 [N], which part of it; -1 = none.
        boxes: the objects in it.
        label: class of the cloud as a whole, into ``classes``.
        classes: names of ``semantic`` and ``label``; empty = not known.
        parts: names of ``part``.
        box_classes: names of ``boxes.label``.
        name: where it comes from, for people.
        stamp_s: when it was measured, on the data's own clock.
        origin_m: float64 [3], what was taken off all coordinates; maps lie millions of metres from their origin.
        dropped: how many points were left out since a coordinate of theirs was not finite.

    Raises:
        SpecError: arrays that do not fit together, or coordinates that are not finite.
    """

    xyz_m: NDArray[np.float32]
    frame: str
    rgb: NDArray[np.uint8] | None = None
    intensity: NDArray[np.float32] | None = None
    time_s: NDArray[np.float32] | None = None
    normal: NDArray[np.float32] | None = None
    semantic: NDArray[np.int64] | None = None
    instance: NDArray[np.int64] | None = None
    part: NDArray[np.int64] | None = None
    boxes: Boxes | None = None
    label: int | None = None
    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    box_classes: tuple[str, ...] = ()
    name: str = ""
    stamp_s: float = 0.0
    origin_m: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    dropped: int = 0

    def __post_init__(self) -> None:
        where = f"LabelledCloud '{self.name}'" if self.name else "LabelledCloud"
        for name, (dtype, row) in _OF_POINTS.items():
            value = getattr(self, name)
            if value is not None:
                _check(where, name, value, dtype, (len(self.xyz_m), *row))
        if not np.isfinite(self.xyz_m).all():
            bad = int((~np.isfinite(self.xyz_m).all(axis=1)).sum())
            raise SpecError(
                f"{where}.xyz_m", "finite coordinates", f"{bad} points without", "Build it with cloud_of()."
            )
        for name, names, value in (
            ("semantic", self.classes, self.semantic),
            ("part", self.parts, self.part),
            ("boxes.label", self.box_classes, None if self.boxes is None else self.boxes.label),
            ("label", self.classes, None if self.label is None else np.array([self.label])),
        ):
            if value is not None and len(value) and (value.min() < UNLABELLED or (names and value.max() >= len(names))):
                got = f"{value.min()} to {value.max()}"
                raise SpecError(f"{where}.{name}", f"numbers from -1 to {len(names) - 1}", got, "Correct the labels.")

    def __len__(self) -> int:
        """N."""
        return len(self.xyz_m)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> LabelledCloud:
        """The cloud of some of the points; boxes stay, with their count of points as it was."""
        chosen: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[index] for name in _OF_POINTS
        }
        others = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _OF_POINTS}
        return LabelledCloud(**chosen, **others)

    def arrays(self) -> Arrays:
        """All that is known, as plain arrays by name; see :func:`from_arrays`."""
        out: Arrays = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "boxes" or value is None:
                continue
            out[item.name] = np.asarray(value, "U") if item.name in _NAMES else np.asarray(value)
        if self.boxes is not None:
            out.update({_BOXES + name: getattr(self.boxes, name) for name in _OF_BOXES})
        return out


def cloud_of(xyz_m: NDArray[np.floating[Any]], frame: str, **known: Any) -> LabelledCloud:
    """A cloud of points some of which may not be finite: those are dropped, with all that belongs to them, and counted.

    Args:
        xyz_m: float [N, 3].
        frame: see :class:`LabelledCloud`.
        **known: its other attributes; per-point arrays of any number type.

    Raises:
        SpecError: arrays that do not fit together.
    """
    with np.errstate(over="ignore"):  # what does not fit into 32 bits becomes infinite, and is dropped
        points = np.asarray(xyz_m, np.float32)
    if points.ndim != 2 or points.shape[1] != 3:
        raise SpecError("cloud_of, xyz_m", "an array [N, 3]", f"{list(points.shape)}", "Correct it.")
    arrays = {name: np.asarray(known.pop(name)) for name in list(_OF_POINTS) if known.get(name) is not None}
    for name, value in arrays.items():
        if value.shape[:1] != points.shape[:1]:
            raise SpecError(f"cloud_of, {name}", f"{len(points)} rows", f"{list(value.shape)}", "Correct it.")
    arrays["xyz_m"] = points
    kept = np.isfinite(points).all(axis=1)
    dropped = len(points) - int(kept.sum())
    if dropped:
        arrays = {name: value[kept] for name, value in arrays.items()}
    rows: dict[str, Any] = {name: np.ascontiguousarray(value, _OF_POINTS[name][0]) for name, value in arrays.items()}
    return LabelledCloud(frame=frame, **rows, **{**known, "dropped": dropped + int(known.get("dropped", 0))})


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> LabelledCloud:
    """The cloud that :meth:`LabelledCloud.arrays` was called of, or anything else that gives arrays of these names.

    Raises:
        SpecError: a name is missing or unknown, or arrays do not fit together.
    """
    known: dict[str, Any] = {item.name: None for item in fields(LabelledCloud)}
    names = [*known, *(_BOXES + name for name in _OF_BOXES)]
    strange = sorted(set(arrays) - set(names))
    missing = sorted({"xyz_m", "frame"} - set(arrays))
    parts = [name for name in _OF_BOXES if _BOXES + name in arrays]
    if strange or missing or (parts and len(parts) < len(_OF_BOXES)):
        got = f"unknown {strange}, missing {missing or sorted(set(_OF_BOXES) - set(parts))}"
        raise SpecError("from_arrays", f"xyz_m, frame and any of {names}", got, "Correct the names.")
    values: dict[str, Any] = {}
    for name, value in arrays.items():
        if name in _NAMES:
            values[name] = tuple(str(each) for each in value)
        elif name in ("frame", "name"):
            values[name] = str(value)
        elif name in ("label", "dropped"):
            values[name] = int(value)
        elif name == "stamp_s":
            values[name] = float(value)
        elif not name.startswith(_BOXES):
            values[name] = value
    if parts:
        values["boxes"] = Boxes(**{name: arrays[_BOXES + name] for name in _OF_BOXES})
    return LabelledCloud(**values)


def _check(
    where: str, name: str, value: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]
) -> None:  # the length is that of the first array, which is checked by all others
    if value.dtype != dtype or value.shape != shape:
        expected, got = f"{np.dtype(dtype).name} {list(shape)}", f"{value.dtype.name} {list(value.shape)}"
        raise SpecError(f"{where}.{name}", expected, got, "Convert it.")
