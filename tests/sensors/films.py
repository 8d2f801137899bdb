"""Films for the tests: every picture carries its number, lossless, with stamps as asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 160, 120
BITS, CELL = 8, 16  # the number stands in the top rows, a cell of 16 x 16 pixels per bit
RED, GREEN, BLUE = (210, 40, 30), (20, 190, 50), (30, 60, 220)


def picture(number: int) -> NDArray[np.uint8]:
    """A picture [120, 160, 3] RGB: its number on top; below, red, green and blue from left to right."""
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            out[:CELL, bit * CELL : (bit + 1) * CELL] = 255
    for column, colour in enumerate((RED, GREEN, BLUE)):
        out[CELL:, column * WIDTH // 3 : (column + 1) * WIDTH // 3] = colour
    return out


def number_of(rgb: NDArray[np.uint8]) -> int:
    """The number that a picture carries."""
    cells = rgb[CELL // 2, CELL // 2 : BITS * CELL : CELL].mean(axis=-1) > 127
    return int(np.sum(1 << np.flatnonzero(cells)))


def write_film(
    path: Path, pictures: Iterable[NDArray[np.uint8]], stamps_s: Sequence[float] | None = None, rate_hz: int = 30
) -> None:
    """A lossless film of RGB pictures; ``stamps_s`` to the millisecond, else evenly at ``rate_hz``."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=rate_hz)
        stream.pix_fmt = "bgr0"
        if stamps_s is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, rgb in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = rgb.shape[:2]
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgr0")
            if stamps_s is not None:
                frame.pts, frame.time_base = round(1000 * stamps_s[number]), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
