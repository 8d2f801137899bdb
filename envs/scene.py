"""The table that all tasks stand on, and how it looks."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.randomisation import Randomisation, draw_light, draw_table, table_pattern
from envs.world import PyBulletWorld

TABLE_HALF_M = (0.55, 0.6, 0.02)
TABLE_CENTRE_M = (0.35, 0.0, -0.02)  # its top is the plane z = 0 of the base frame
TEXTURE_SIDE_PX = 256  # boxes show about a quarter of it
PATTERNS = 8  # loaded once: the software renderer does not see later changes of a texture's pixels


class Table:
    """A fixed table whose texture and colour are drawn anew in each episode.

    Args:
        world: where to put it.
    """

    def __init__(self, world: PyBulletWorld) -> None:
        self._world = world
        self.body = world.add_box(TABLE_HALF_M, TABLE_CENTRE_M, mass_kg=0.0, rgba=(1.0, 1.0, 1.0, 1.0), friction=0.8)
        with tempfile.TemporaryDirectory() as folder:
            self._textures = []
            for number in range(PATTERNS):
                path = Path(folder) / f"table_{number}.png"
                path.write_bytes(_png(table_pattern(number, TEXTURE_SIDE_PX)))
                self._textures.append(world.load_texture(path))

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Draw this episode's light, texture and colour."""
        self._world.set_light(draw_light(rng, randomisation.light))
        pattern, rgba = draw_table(rng, randomisation.table, PATTERNS)
        self._world.paint(self.body, rgba, self._textures[pattern])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of an RGB picture [h, w, 3]; the simulator loads its first texture from a file only."""
    height, width = pixels.shape[:2]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
