"""Coding of colour, depth and points: numpy arrays to the bytes inside Foxglove messages, and back.

Chosen by ``tests/benchmarks/bench_recording.py`` (results/recording.json): JPEG for colour; for depth 16-bit
millimetres that the chunk's zstd compresses, which is a quarter of PNG's CPU time for the same size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.recording.layout import Carrier
from sensors.recording.wire import ArraySpec

# How a picture was coded; written beside every frame.
RAW, JPEG, PNG = 0, 1, 2
METRES, MM_TIMES, MM_OVER, MM_ROUNDED = 0, 1, 2, 3
MM_M = np.float32(0.001)
MOST_MM = 65535
SAMPLE_STEP = 97  # pixels between those that are tried before a whole picture is
ENCODINGS = {("uint8", (3,)): "rgb8", ("uint8", ()): "mono8", ("uint16", ()): "mono16", ("float32", ()): "32FC1"}
AXES = ("x", "y", "z")
COLOURS = ("red", "green", "blue")

Array = NDArray[Any]


def encode_colour(rgb: Array, coding: int, quality: int) -> bytes:
    """JPEG or PNG bytes of a picture uint8 [H, W, 3]; ``quality`` is JPEG's, 1 to 100."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if coding == JPEG else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, data = cv2.imencode(".jpg" if coding == JPEG else ".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    assert done, "OpenCV writes any picture of bytes"
    return data.tobytes()


def decode_colour(data: bytes, shape: tuple[int, ...]) -> Array:
    """The picture uint8 [H, W, 3].

    Raises:
        DataError: the bytes are no picture of that shape.
    """
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None or picture.shape != shape:
        got = "no picture" if picture is None else f"shape {picture.shape}"
        raise DataError("picture in a recording", f"shape {shape}", got, "The file is damaged.")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def code_depth(depth_m: Array, exact: bool) -> tuple[int, Array]:
    """How a depth picture is written, and the picture: uint16 millimetres or float32 metres [H, W].

    Depth cameras give whole millimetres; if that is what these metres are made of, bit by bit, millimetres hold them
    exactly. Otherwise metres are kept, or, unless ``exact``, rounded to millimetres: an error of 0.5 mm at most; what
    is not within 0 to 65.535 m becomes 0, no measurement.
    """
    if depth_m.size:
        sample = depth_m.reshape(-1)[::SAMPLE_STEP]
        for coding in (MM_TIMES, MM_OVER):
            if _same(sample, _metres(_millimetres(sample), coding)):
                with np.errstate(invalid="ignore"):  # what does not fit is found out by the comparison
                    whole = np.rint(depth_m * np.float32(1000)).astype(np.uint16)
                if _same(depth_m, _metres(whole, coding)):
                    return coding, whole
    return (METRES, depth_m) if exact else (MM_ROUNDED, _millimetres(depth_m))


def decode_depth(coding: int, data: bytes, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`code_depth`: float32 metres [H, W]."""
    if coding == METRES:
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    return _metres(np.frombuffer(data, "<u2"), coding).reshape(shape)


def pack_points(carrier: Carrier, specs: Mapping[str, ArraySpec], arrays: Mapping[str, Array]) -> tuple[bytes, int]:
    """The points of a frame, one after the other as :func:`point_fields` says, and how many.

    Rows from the count on are left out if they hold nothing but zero bits, as padding does; so nothing is ever lost.
    """
    rows = len(arrays[carrier.field])
    kept = rows
    if carrier.count is not None:
        count = int(arrays[carrier.count][0])
        if 0 <= count < rows and not any(_any_bit(arrays[name][count:]) for name in (carrier.field, *carrier.others)):
            kept = count
    packed = np.empty(kept, point_dtype(carrier, specs))
    for names, value in _columns(carrier, arrays):
        for i, name in enumerate(names):
            packed[name] = value[:kept] if value.ndim == 1 else value[:kept, i]
    return packed.tobytes(), kept


def unpack_points(carrier: Carrier, specs: Mapping[str, ArraySpec], data: bytes) -> dict[str, Array]:
    """The inverse of :func:`pack_points`: field -> array of the full size."""
    packed = np.frombuffer(data, point_dtype(carrier, specs))
    arrays = {name: np.zeros(specs[name].shape, specs[name].dtype) for name in (carrier.field, *carrier.others)}
    for names, value in _columns(carrier, arrays):
        for i, name in enumerate(names):
            (value if value.ndim == 1 else value[:, i])[: len(packed)] = packed[name]
    return arrays


def point_dtype(carrier: Carrier, specs: Mapping[str, ArraySpec]) -> np.dtype[Any]:
    """The packed little-endian dtype of one point: x y z, then the other fields, colour as red green blue."""
    columns = [(axis, specs[carrier.field].dtype) for axis in AXES]
    for name in carrier.others:
        columns += [(part, "uint8") for part in COLOURS] if len(specs[name].shape) == 2 else [(name, specs[name].dtype)]
    return np.dtype([(name, np.dtype(dtype).newbyteorder("<")) for name, dtype in columns])


def _columns(carrier: Carrier, arrays: Mapping[str, Array]) -> list[tuple[Sequence[str], Array]]:
    found: list[tuple[Sequence[str], Array]] = [(AXES, arrays[carrier.field])]
    found += [(COLOURS if arrays[name].ndim == 2 else (name,), arrays[name]) for name in carrier.others]
    return found


def _any_bit(value: Array) -> bool:
    return bool(np.ascontiguousarray(value).view(np.uint8).any())  # the bytes, since -0.0 is zero and NaN is not


def _millimetres(depth_m: Array) -> NDArray[np.uint16]:
    scaled = np.rint(depth_m * np.float32(1000))
    # The comparison is False for NaN, too.
    return np.where((scaled >= 0) & (scaled <= MOST_MM), scaled, 0).astype(np.uint16)


def _metres(millimetres: NDArray[np.uint16], coding: int) -> NDArray[np.float32]:
    # Both are in use, and differ in the last bit: a device's scale as a float, and a division in double precision.
    if coding == MM_OVER:
        return (millimetres / 1000.0).astype(np.float32)
    return millimetres.astype(np.float32) * MM_M


def _same(one: Array, other: Array) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(one).view(np.uint32), np.ascontiguousarray(other).view(np.uint32)))
