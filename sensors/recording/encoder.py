"""FrameEncoder: one frame to its messages, and the messages back to the frame."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError, SpecError
from sensors.frames import Frame
from sensors.instruction import to_text
from sensors.recording import codecs, foxglove
from sensors.recording.layout import Carrier, Kind, Layout
from sensors.recording.wire import ArrayMessage

COLOUR_CODINGS = {"jpeg": codecs.JPEG, "png": codecs.PNG, "raw": codecs.RAW}
POSE_PREFIX = "base_from_"
FLOATS = ("float32", "float64")
OWN_MODULES = "sensors."

Array = NDArray[Any]


@dataclass(frozen=True)
class Coding:
    """How pictures are written.

    Attributes:
        colour: "jpeg" (lossy), "png" (exact) or "raw" (exact; the chunk's zstd still finds a sixth).
        jpeg_quality: 1 to 100.
        depth: "exact" (millimetres where those are exact, metres otherwise) or "mm" (always millimetres, rounded).
    """

    colour: str = "jpeg"
    jpeg_quality: int = 95
    depth: str = "exact"

    def __post_init__(self) -> None:
        legal = {
            "colour": self.colour in COLOUR_CODINGS,
            "jpeg_quality": 1 <= self.jpeg_quality <= 100,
            "depth": self.depth in ("exact", "mm"),
        }
        for name, good in legal.items():
            if not good:
                raise SpecError(f"Coding.{name}", "a value of its docstring", repr(getattr(self, name)), "Correct it.")


@dataclass(frozen=True)
class Part:
    """One message of a frame: its topic, the name of its schema and its bytes."""

    topic: str
    schema: str
    data: bytes


@final
class FrameEncoder:
    """Writes and reads the frames of one sensor that have one layout.

    Args:
        sensor: name of the sensor.
        layout: of its frames.
        coding: how pictures are written.
    """

    def __init__(self, sensor: str, layout: Layout, coding: Coding) -> None:
        self._sensor = sensor
        self._coding = coding
        self.layout = layout
        name = re.sub(r"[^A-Za-z0-9_]", "_", layout.frame_type.rpartition(".")[2])
        self.message = ArrayMessage(name, layout.own)
        self._specs = {spec.name: spec for spec in layout.fields}
        self._poses = [
            spec.name
            for spec in layout.fields
            if spec.name.startswith(POSE_PREFIX) and spec.shape == (4, 4) and spec.dtype in FLOATS
        ]
        # A cloud without a pose of its own is in the base frame; so are pictures that nobody placed.
        self._frame_id = self._child(self._poses[0]) if self._poses else foxglove.BASE
        first = next((c.field for c in layout.carriers if c.kind is not Kind.cloud), None)
        calibrated = first is not None and self._shape("intrinsics_px") == (4,)
        self._picture_px = self._specs[first].shape[:2] if calibrated and first is not None else None
        joints = self._shape("position_rad")
        self._joints = joints is not None and len(joints) == 1
        self._velocity = self._shape("velocity_rad_s") == joints
        self._gripper = self._shape("gripper_m") == (1,)
        text = self._specs.get("text")
        self._text = text is not None and text.dtype == "uint8" and len(text.shape) == 1

    @property
    def topic(self) -> str:
        """Of the frame's own message."""
        return f"/{self._sensor}"

    @property
    def carrier_topics(self) -> tuple[str, ...]:
        """Of the messages that carry fields, in the layout's order."""
        return tuple(f"{self.topic}/{carrier.field}" for carrier in self.layout.carriers)

    def encode(self, arrays: Mapping[str, Array], stamp_s: float, capture_ns: int) -> list[Part]:
        """The messages of a frame; its own comes last.

        Args:
            arrays: of a frame of this layout.
            stamp_s: its stamp on the recording's clock.
            capture_ns: the same since 1970 (UTC).
        """
        parts, coding = [], []
        for carrier, topic in zip(self.layout.carriers, self.carrier_topics, strict=True):
            code, schema, data = self._carry(carrier, arrays, capture_ns)
            coding.append(code)
            parts.append(Part(topic, schema, data))
        parts += self._views(arrays, capture_ns)
        parts.append(Part(self.topic, self.message.name, self.message.encode(stamp_s, coding, arrays)))
        return parts

    def decode(self, frame_class: type[Frame], own: bytes, carried: Sequence[bytes]) -> Frame:
        """The frame.

        Args:
            frame_class: see :func:`frame_class`.
            own: its own message.
            carried: the messages of the carriers, in the layout's order.

        Raises:
            DataError: a message is damaged.
        """
        stamp_s, coding, arrays = self.message.decode(own)
        try:
            for carrier, code, data in zip(self.layout.carriers, coding, carried, strict=True):
                arrays |= self._carried(carrier, code, data)
        except DataError:
            raise
        except Exception as error:  # protobuf's DecodeError is of no common base
            raise DataError(
                f"recorded sensor '{self._sensor}'", "whole messages", repr(error), "It is damaged."
            ) from None
        return frame_class(stamp_s=stamp_s, **{spec.name: arrays[spec.name] for spec in self.layout.fields})

    def _carry(self, carrier: Carrier, arrays: Mapping[str, Array], capture_ns: int) -> tuple[int, str, bytes]:
        value = arrays[carrier.field]
        if carrier.kind is Kind.cloud:
            data, _ = codecs.pack_points(carrier, self._specs, arrays)
            point = codecs.point_dtype(carrier, self._specs)
            return 0, "foxglove.PointCloud", foxglove.point_cloud(capture_ns, self._frame_id, point, data)
        if carrier.kind is Kind.colour and self._coding.colour != "raw":
            code, name = COLOUR_CODINGS[self._coding.colour], self._coding.colour
            data = codecs.encode_colour(value, code, self._coding.jpeg_quality)
            return code, "foxglove.CompressedImage", foxglove.compressed_image(capture_ns, self._frame_id, name, data)
        code = 0
        if carrier.kind is Kind.depth:
            code, value = codecs.code_depth(value, self._coding.depth == "exact")
        encoding = codecs.ENCODINGS[value.dtype.name, value.shape[2:]]
        if carrier.kind is Kind.depth and encoding == "mono16":
            encoding = "16UC1"  # the same bytes, and what viewers take for depth in millimetres
        return code, "foxglove.RawImage", foxglove.raw_image(capture_ns, self._frame_id, encoding, value)

    def _carried(self, carrier: Carrier, code: int, data: bytes) -> dict[str, Array]:
        spec = self._specs[carrier.field]
        if carrier.kind is Kind.cloud:
            message = foxglove.message_class("foxglove.PointCloud").FromString(data)
            return codecs.unpack_points(carrier, self._specs, message.data)
        if carrier.kind is Kind.colour and code != codecs.RAW:
            message = foxglove.message_class("foxglove.CompressedImage").FromString(data)
            return {carrier.field: codecs.decode_colour(message.data, spec.shape)}
        message = foxglove.message_class("foxglove.RawImage").FromString(data)
        if carrier.kind is Kind.depth:
            return {carrier.field: codecs.decode_depth(code, message.data, spec.shape)}
        little = np.dtype(spec.dtype).newbyteorder("<")
        return {carrier.field: np.frombuffer(message.data, little).astype(spec.dtype).reshape(spec.shape)}

    def _views(self, arrays: Mapping[str, Array], capture_ns: int) -> list[Part]:
        parts = []
        for name in self._poses:
            data = foxglove.frame_transform(capture_ns, self._child(name), arrays[name])
            if data is not None:
                parts.append(Part(f"{self.topic}/{name}", "foxglove.FrameTransform", data))
        if self._picture_px is not None:
            height, width = self._picture_px
            intrinsics = arrays["intrinsics_px"]
            data = foxglove.camera_calibration(capture_ns, self._frame_id, width, height, intrinsics)
            parts.append(Part(f"{self.topic}/intrinsics_px", "foxglove.CameraCalibration", data))
        if self._joints:
            velocity = arrays["velocity_rad_s"] if self._velocity else None
            gripper = arrays["gripper_m"] if self._gripper else None
            data = foxglove.joint_states(capture_ns, arrays["position_rad"], velocity, gripper)
            parts.append(Part(f"{self.topic}/position_rad", "foxglove.JointStates", data))
        if self._text:
            data = foxglove.log(capture_ns, self._sensor, to_text(arrays["text"]))
            parts.append(Part(f"{self.topic}/text", "foxglove.Log", data))
        return parts

    def _child(self, field: str) -> str:
        return f"{self._sensor}/{field.removeprefix(POSE_PREFIX)}"

    def _shape(self, field: str) -> tuple[int, ...] | None:
        """Shape of a field of floats; None if there is none of the name."""
        spec = self._specs.get(field)
        return spec.shape if spec is not None and spec.dtype in FLOATS else None


def frame_class(layout: Layout, known: Sequence[type[Frame]] = ()) -> type[Frame]:
    """The class of a layout's frames.

    Classes of this project are imported, others are taken from ``known``; no other code is run for a file's sake.
    Without a class of the name and fields, the frames get one made for them.
    """
    names = [spec.name for spec in layout.fields]
    module, _, name = layout.frame_type.rpartition(".")
    candidates: list[object] = [kind for kind in known if f"{kind.__module__}.{kind.__qualname__}" == layout.frame_type]
    if module.startswith(OWN_MODULES):
        with contextlib.suppress(ModuleNotFoundError):  # recorded by another version
            candidates.append(vars(importlib.import_module(module)).get(name))
    for kind in candidates:
        if not isinstance(kind, type) or not issubclass(kind, Frame):
            continue
        if {field.name for field in fields(kind)} == {"stamp_s", *names}:
            return kind
    return make_dataclass(
        re.sub(r"\W", "_", name) or "RecordedFrame", [(field, Any) for field in names], bases=(Frame,),
        frozen=True, eq=False, kw_only=True,
    )  # fmt: skip
