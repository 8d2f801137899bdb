"""Foxglove's published messages: built from arrays, and their schemas for the file's header.

The classes are those of the package foxglove-schemas-protobuf, imported where they are used.
Schemas: https://docs.foxglove.dev/docs/sdk/schemas.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA_ENCODING = MESSAGE_ENCODING = "protobuf"
BASE = "base"  # name of the robot's base frame
NUMBERS = {  # numpy dtype -> foxglove.PackedElementField.NumericType
    "uint8": 1, "int8": 2, "uint16": 3, "int16": 4, "uint32": 5, "int32": 6, "float32": 7, "float64": 8,
}  # fmt: skip

Array = NDArray[Any]


def message_class(schema: str) -> Any:
    """The class of a schema, e.g. of ``foxglove.RawImage``."""
    name = schema.rpartition(".")[2]
    return vars(importlib.import_module(f"foxglove_schemas_protobuf.{name}_pb2"))[name]


def schema_bytes(schema: str) -> bytes:
    """The serialised ``FileDescriptorSet`` of a schema with all that it needs."""
    from google.protobuf import descriptor_pb2

    files, seen = descriptor_pb2.FileDescriptorSet(), set()

    def add(file: Any) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for needed in file.dependencies:
            add(needed)
        file.CopyToProto(files.file.add())

    add(message_class(schema).DESCRIPTOR.file)
    data: bytes = files.SerializeToString()
    return data


def compressed_image(capture_ns: int, frame_id: str, coding: str, data: bytes) -> bytes:
    """``foxglove.CompressedImage``; ``coding`` is jpeg or png."""
    from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage

    message = CompressedImage(frame_id=frame_id, format=coding, data=data)
    return _stamped(message, capture_ns)


def raw_image(capture_ns: int, frame_id: str, encoding: str, picture: Array) -> bytes:
    """``foxglove.RawImage`` of a picture [H, W, ...] in little-endian bytes."""
    from foxglove_schemas_protobuf.RawImage_pb2 import RawImage

    height, width = picture.shape[:2]
    little = np.ascontiguousarray(picture, picture.dtype.newbyteorder("<"))
    message = RawImage(
        frame_id=frame_id, width=width, height=height, encoding=encoding,
        step=width * little.itemsize * math.prod(picture.shape[2:]), data=little.tobytes(),
    )  # fmt: skip
    return _stamped(message, capture_ns)


def point_cloud(capture_ns: int, frame_id: str, point: np.dtype[Any], data: bytes) -> bytes:
    """``foxglove.PointCloud`` of packed points in ``frame_id``."""
    from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud

    message = PointCloud(frame_id=frame_id, point_stride=point.itemsize, data=data)
    message.pose.orientation.w = 1.0
    assert point.fields is not None, "points are structured"
    for name, (dtype, offset, *_) in point.fields.items():
        message.fields.add(name=name, offset=offset, type=NUMBERS[dtype.name])
    return _stamped(message, capture_ns)


def frame_transform(capture_ns: int, child: str, base_from_child: Array) -> bytes | None:
    """``foxglove.FrameTransform`` of a pose [4, 4]; None if it is no pose."""
    from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform

    rows = base_from_child.tolist()
    quaternion = _quaternion(rows)
    if quaternion is None:
        return None
    message = FrameTransform(parent_frame_id=BASE, child_frame_id=child)
    place, turn = message.translation, message.rotation
    place.x, place.y, place.z = rows[0][3], rows[1][3], rows[2][3]
    turn.x, turn.y, turn.z, turn.w = quaternion
    return _stamped(message, capture_ns)


def camera_calibration(capture_ns: int, frame_id: str, width: int, height: int, intrinsics_px: Array) -> bytes:
    """``foxglove.CameraCalibration`` of a pinhole camera without distortion; intrinsics [4] are fx fy cx cy."""
    from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration

    fx, fy, cx, cy = intrinsics_px.tolist()
    message = CameraCalibration(
        frame_id=frame_id, width=width, height=height, distortion_model="plumb_bob",
        K=[fx, 0, cx, 0, fy, cy, 0, 0, 1], R=[1, 0, 0, 0, 1, 0, 0, 0, 1], P=[fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0],
    )  # fmt: skip
    return _stamped(message, capture_ns)


def joint_states(capture_ns: int, position_rad: Array, velocity_rad_s: Array | None, gripper_m: Array | None) -> bytes:
    """``foxglove.JointStates`` of joints [J] named joint_0 ... and of the gripper's opening [1]."""
    from foxglove_schemas_protobuf.JointStates_pb2 import JointStates

    message = JointStates()
    speeds = [None] * len(position_rad) if velocity_rad_s is None else velocity_rad_s.tolist()
    for i, (position, velocity) in enumerate(zip(position_rad.tolist(), speeds, strict=True)):
        message.joints.add(name=f"joint_{i}", position=position, velocity=velocity)
    if gripper_m is not None:
        message.joints.add(name="gripper", position=gripper_m.tolist()[0])
    return _stamped(message, capture_ns)


def log(capture_ns: int, name: str, text: str) -> bytes:
    """``foxglove.Log`` of a text that ``name`` says."""
    from foxglove_schemas_protobuf.Log_pb2 import Log

    return _stamped(Log(level=Log.Level.INFO, name=name, message=text), capture_ns)


def _stamped(message: Any, capture_ns: int) -> bytes:
    message.timestamp.seconds, message.timestamp.nanos = divmod(capture_ns, 1_000_000_000)
    data: bytes = message.SerializeToString()
    return data


def _quaternion(rows: list[list[float]]) -> tuple[float, float, float, float] | None:
    """Unit quaternion (x y z w) of a pose's rotation; None if that is not finite.

    By floats: :func:`sensors.geometry.matrix_to_quaternion` takes 30 times as long for one matrix, and some sensors
    give a thousand poses a second. Sizes of the components by Shepperd (1978), stable for every angle.
    """
    (a, b, c, *_), (d, e, f, *_), (g, h, i, *_) = rows[:3]
    sizes = (1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i)
    best = max(range(4), key=lambda k: sizes[k])
    found = (
        (sizes[0], b + d, c + g, h - f),
        (b + d, sizes[1], f + h, c - g),
        (c + g, f + h, sizes[2], d - b),
        (h - f, c - g, d - b, sizes[3]),
    )[best]
    length = math.hypot(*found)
    if not (0 < length < math.inf) or not all(math.isfinite(row[3]) for row in rows[:3]):
        return None
    x, y, z, w = (part / length for part in found)
    return x, y, z, w
