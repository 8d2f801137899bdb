"""JPEG as USB cameras send it: torn pictures are noticed, and large ones decoded small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

START, END = b"\xff\xd8", b"\xff\xd9"  # the markers of a picture's first and last bytes


def decode_jpeg(data: NDArray[np.uint8], shrink: int = 1) -> NDArray[np.uint8] | None:
    """A JPEG's picture.

    Args:
        data: uint8 of any shape; bytes after the picture's end are padding.
        shrink: 1, 2, 4 or 8: means over squares of so many pixels, which come out of the transform for less than all of
            them would cost.

    Returns:
        uint8 [H, W, 3] BGR, H and W divided by ``shrink`` and rounded up; None if the picture is torn, the rest of
        which decoders would paint grey.
    """
    import cv2

    flat = np.ascontiguousarray(data).reshape(-1)
    raw = flat.tobytes()
    if not raw.startswith(START) or raw.rfind(END) < len(START):
        return None
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    image = cv2.imdecode(flat, flags[shrink])
    return None if image is None else np.asarray(image, np.uint8)
