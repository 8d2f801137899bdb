"""Frames -> mp4 or PNG, written beside and renamed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from perceive.viewing.draw import Picture, contact_sheet
from sensors.errors import DataError


def write_mp4(path: str | Path, frames: Iterable[Picture], hz: float) -> Path:
    """H.264 film that browsers and phones play.

    Args:
        path: the file.
        frames: uint8 [H, W, 3], all of one even size.
        hz: frames per second.

    Raises:
        DataError: no frame came.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    rate = Fraction(hz).limit_denominator(1000)
    count = 0
    try:
        with av.open(str(beside), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
            stream.pix_fmt = "yuv420p"  # the only layout that every player knows
            for frame in frames:
                if count == 0:
                    stream.height, stream.width = frame.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
                count += 1
            if count:
                container.mux(stream.encode())
        if not count:
            raise DataError(str(path), "at least one frame", "none", "Choose another episode.")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def write_png(path: str | Path, picture: Picture) -> Path:
    """One picture, uint8 [H, W, 3] RGB."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    if not done:
        raise DataError(str(path), "a picture that PNG can hold", f"{picture.dtype} {picture.shape}", "Pass uint8 RGB.")
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_bytes(data.tobytes())
    beside.replace(path)
    return path


def write_sheet(path: str | Path, frames: Sequence[Picture], labels: Sequence[str], columns: int = 3) -> Path:
    """Several frames on one PNG, for where a film cannot be shown."""
    return write_png(path, contact_sheet(frames, labels, columns))
