"""Pictures of a data set: colour, depth and masks, read so that a cut-off file is an error and not a grey half."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_FIX = "Copy the file again."


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], red first; a grey picture has three equal channels, one of 16 bits is cut to 8.

    Raises:
        DataError: the file is missing or damaged.
    """
    import cv2  # needed by those who read pictures only

    # As it is stored: an EXIF note must not turn a picture whose annotations are not turned.
    picture = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(picture[..., ::-1], np.uint8)


def read_depth(path: Path, metres_per_unit: float) -> NDArray[np.float32]:
    """float32 [H, W] in metres; 0 = no measurement. What is not finite in the file, or negative, is 0.

    Raises:
        DataError: the file is missing, damaged or has several channels.
    """
    import cv2

    picture = _decode(path, cv2.IMREAD_UNCHANGED)
    if picture.ndim != 2:
        raise DataError(str(path), "one channel of depth", f"{picture.shape}", "Is it a picture of colours?")
    depth = picture.astype(np.float64) * metres_per_unit
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """bool [H, W].

    Raises:
        DataError: the file is missing or damaged.
    """
    import cv2

    return np.asarray(_decode(path, cv2.IMREAD_GRAYSCALE) > 0)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width; of PNG and JPEG from the first bytes alone.

    Raises:
        DataError: the file is missing or damaged.
    """
    import cv2

    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise DataError(str(path), "a picture", str(error), "Check the path.") from None
    if head.startswith(_PNG) and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return int(height), int(width)
    if head.startswith(_JPEG):
        size = _jpeg_size(head)
        if size is not None:
            return size
    picture = _decode(path, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    return int(picture.shape[0]), int(picture.shape[1])


def write_rgb(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3], red first, in the format that the name ends with."""
    _encode(path, np.ascontiguousarray(rgb[..., ::-1]))


def write_depth(path: Path, units: NDArray[np.uint16]) -> None:
    """Write uint16 [H, W] as PNG."""
    _encode(path, units)


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write bool [H, W] as PNG of 0 and 255."""
    _encode(path, np.where(mask, np.uint8(255), np.uint8(0)))


def _decode(path: Path, flags: int) -> NDArray[Any]:
    import cv2

    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), "a picture", str(error), "Check the path.") from None
    # Decoders fill up what is cut off with grey; so the mark at the end is asked for.
    for begin, end in ((_PNG, _PNG_END), (_JPEG, _JPEG_END)):
        if data.startswith(begin) and end not in data[-64:]:
            raise DataError(str(path), "a whole picture", f"one that is cut off after {len(data)} bytes", _FIX)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise DataError(str(path), "a readable picture", str(error).strip(), _FIX) from None
    if picture is None:
        raise DataError(str(path), "a readable picture", f"{len(data)} bytes that are none", _FIX)
    return np.asarray(picture)


def _encode(path: Path, picture: NDArray[Any]) -> None:
    import cv2

    done, data = cv2.imencode(path.suffix, picture)
    assert done, path.suffix
    path.write_bytes(data.tobytes())  # the folder as a whole is renamed when it is complete


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """From the frame header, which follows other segments of stated length; None = not in these bytes."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        kind = head[place + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return int(height), int(width)
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None
