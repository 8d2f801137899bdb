"""Layout: which of a frame's fields goes into which message of a recording, decided by name, dtype and shape.

Every frame has one message of its own on ``/<sensor>`` with its stamp and its small arrays, exact. Fields that Foxglove
has a schema for are carried by a message of that schema on ``/<sensor>/<field>`` instead:

| field | carried by |
|---|---|
| ``rgb``, uint8 [H, W, 3] | CompressedImage (jpeg, png) or RawImage (rgb8) |
| ``depth_m``, float32 [H, W] | RawImage, 16UC1 (millimetres) or 32FC1 (metres) |
| other pictures: float32, uint8, uint16 [H, W], uint8 [H, W, 3] | RawImage, exact |
| ``xyz_m`` [N, 3] with what else there is for each point | PointCloud of the first ``count`` points |

What Foxglove shows but does not hold exactly (a pose as a quaternion, for one) is written a second time as a *view*
that the reader does not look at: ``base_from_<x>`` as FrameTransform, ``intrinsics_px`` as CameraCalibration,
``position_rad`` as JointStates, ``text`` as Log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.frames import Frame
from sensors.recording.wire import ArraySpec

LEAST_PICTURE_PX = 8  # an array smaller than this (a 4x4 pose, for one) is no picture
POINT_NAMES = ("x", "y", "z", "red", "green", "blue", "count")  # taken, within a point
POINT_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class Kind(str, Enum):
    """What carries a field."""

    colour = "colour"
    depth = "depth"
    picture = "picture"
    cloud = "cloud"


@dataclass(frozen=True)
class Carrier:
    """One Foxglove message that holds fields of a frame.

    Attributes:
        kind: how.
        field: the field that names its topic.
        others: fields with one entry for each point, of a cloud.
        count: the field that says how many points are there; None = all.
    """

    kind: Kind
    field: str
    others: tuple[str, ...] = ()
    count: str | None = None


@dataclass(frozen=True)
class Layout:
    """How the frames of one type, with the same dtypes and shapes, are written.

    Attributes:
        frame_type: import path of the frame's class.
        fields: all array fields, in order.
        carriers: the Foxglove messages that hold some of them.
    """

    frame_type: str
    fields: tuple[ArraySpec, ...]
    carriers: tuple[Carrier, ...]

    @property
    def own(self) -> tuple[ArraySpec, ...]:
        """The fields in the frame's own message."""
        carried = {name for carrier in self.carriers for name in (carrier.field, *carrier.others)}
        return tuple(spec for spec in self.fields if spec.name not in carried)

    def to_json(self) -> str:
        """For the metadata of a channel."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Layout:
        """The inverse of :meth:`to_json`.

        Raises:
            DataError: the text is no layout.
        """
        try:
            data = json.loads(text)
            return Layout(
                data["frame_type"],
                tuple(ArraySpec(s["name"], s["dtype"], tuple(s["shape"])) for s in data["fields"]),
                tuple(Carrier(Kind(c["kind"]), c["field"], tuple(c["others"]), c["count"]) for c in data["carriers"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("layout of a recording", "its JSON", repr(error), "The file is damaged.") from None


def layout_of(kind: type[Frame], arrays: Mapping[str, NDArray[Any]]) -> Layout:
    """The layout of the frames of a class, from the arrays of one of them."""
    specs = tuple(ArraySpec(name, value.dtype.name, value.shape) for name, value in arrays.items())
    return Layout(f"{kind.__module__}.{kind.__qualname__}", specs, _carriers(specs))


def _carriers(specs: Sequence[ArraySpec]) -> tuple[Carrier, ...]:
    found = []
    for spec in specs:
        if spec.name == "xyz_m" and spec.shape[1:] == (3,) and spec.dtype in ("float32", "float64"):
            found.append(_cloud(spec, specs))
        elif len(spec.shape) in (2, 3) and min(spec.shape[:2]) >= LEAST_PICTURE_PX:
            found += _picture(spec)
    return tuple(found)


def _picture(spec: ArraySpec) -> list[Carrier]:
    look = (spec.dtype, spec.shape[2:])
    if look == ("uint8", (3,)):
        # Only what is named colour may be coded lossily; another picture may hold labels.
        colour = spec.name == "rgb" or spec.name.endswith("_rgb")
        return [Carrier(Kind.colour if colour else Kind.picture, spec.name)]
    if look == ("float32", ()):
        depth = spec.name.startswith("depth") and spec.name.endswith("_m")
        return [Carrier(Kind.depth if depth else Kind.picture, spec.name)]
    return [Carrier(Kind.picture, spec.name)] if look in (("uint8", ()), ("uint16", ())) else []


def _cloud(points: ArraySpec, specs: Sequence[ArraySpec]) -> Carrier:
    size = points.shape[0]
    others = [
        spec.name
        for spec in specs
        if (spec.shape == (size,) and spec.dtype in POINT_TYPES and spec.name not in POINT_NAMES)
        or (spec.name == "rgb" and spec.shape == (size, 3) and spec.dtype == "uint8")
    ]
    counts = [spec.name for spec in specs if spec.name == "count" and spec.shape == (1,) and spec.dtype == "int64"]
    return Carrier(Kind.cloud, points.name, tuple(others), counts[0] if counts else None)
