"""Light and the look of tables: what differs between two pictures and says nothing about the objects."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.world import Light
from sensors.geometry import FloatArray

PATTERNS = ("plain", "grain", "checks", "stripes", "wood")
_LATTICE = 64  # of random values, repeated


@final
@dataclass(frozen=True, eq=False)
class Look:
    """How surfaces that are no objects are painted, and in what light all is seen.

    Attributes:
        light: of the renderer.
        tint: float [3], colour of the light and exposure; pictures are multiplied with it.
        pattern: of the table, one of :data:`PATTERNS`.
        colours: float [2, 3] of the pattern, 0 to 1.
        period_m: of the pattern.
        turn_rad: of the pattern.
        lattice: float [64, 64] of random values, 0 to 1.
        floor: float [3], colour below the table.
    """

    light: Light
    tint: FloatArray
    pattern: str
    colours: FloatArray
    period_m: float
    turn_rad: float
    lattice: FloatArray
    floor: FloatArray

    @staticmethod
    def draw(rng: np.random.Generator) -> Look:
        """A light from above at up to 55 degrees from the vertical, from warm to cold, on a table of any colour."""
        turn, tilt, ambient, diffuse, specular = rng.uniform(
            (0.0, 0.0, 0.35, 0.35, 0.0), (2 * math.pi, math.radians(55), 0.6, 0.6, 0.3)
        ).tolist()
        direction = (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), math.cos(tilt))
        warmth, exposure = rng.uniform((-0.12, 0.8), (0.12, 1.15)).tolist()
        first = _colour(rng)
        second = np.clip(first + rng.uniform(-0.3, 0.3) + rng.uniform(-0.08, 0.08, 3), 0.05, 0.95)
        return Look(
            light=Light(direction, ambient, diffuse, specular),
            tint=exposure * np.array([1.0 + warmth, 1.0, 1.0 - warmth]),
            pattern=str(rng.choice(PATTERNS)),
            colours=np.stack([first, second]),
            period_m=float(rng.uniform(0.02, 0.12)),
            turn_rad=float(rng.uniform(0.0, math.pi)),
            lattice=rng.random((_LATTICE, _LATTICE)),
            floor=_colour(rng),
        )

    def table(self, xy_m: FloatArray) -> FloatArray:
        """Colours [N, 3], 0 to 1, of places [N, 2] on the table."""
        cosine, sine = math.cos(self.turn_rad), math.sin(self.turn_rad)
        u = (xy_m[:, 0] * cosine + xy_m[:, 1] * sine) / self.period_m
        v = (xy_m[:, 1] * cosine - xy_m[:, 0] * sine) / self.period_m
        if self.pattern == "plain":
            share = np.zeros(len(u))
        elif self.pattern == "grain":
            share = 0.6 * self._noise(u, v) + 0.4 * self._noise(3.7 * u, 3.7 * v)
        elif self.pattern == "checks":
            share = ((np.floor(u) + np.floor(v)) % 2).astype(float)
        elif self.pattern == "stripes":
            share = 0.5 + 0.5 * np.sin(2 * math.pi * u)
        else:
            share = np.abs((2.0 * v + 1.5 * self._noise(0.3 * u, v)) % 1.0 - 0.5) * 2.0
        return np.asarray(self.colours[0] + share[:, None] * (self.colours[1] - self.colours[0]))

    def _noise(self, u: FloatArray, v: FloatArray) -> FloatArray:
        """Random values at whole numbers, straight between them."""
        low_u, low_v = np.floor(u), np.floor(v)
        part_u, part_v = u - low_u, v - low_v
        i, j = low_u.astype(np.int64) % _LATTICE, low_v.astype(np.int64) % _LATTICE
        after_i, after_j = (i + 1) % _LATTICE, (j + 1) % _LATTICE
        low = self.lattice[i, j] * (1 - part_u) + self.lattice[after_i, j] * part_u
        high = self.lattice[i, after_j] * (1 - part_u) + self.lattice[after_i, after_j] * part_u
        return np.asarray(low * (1 - part_v) + high * part_v)


def shaded(
    rgb: NDArray[np.uint8], table: NDArray[np.bool_], xy_m: FloatArray, floor: NDArray[np.bool_], look: Look
) -> FloatArray:
    """The picture [H, W, 3], 0 to 255 and unrounded, in a light of this colour with a patterned table and a floor.

    Args:
        rgb: uint8 [H, W, 3] as drawn with a white table and a white floor, so that these carry their shading.
        table: bool [H, W], where the table is seen.
        xy_m: where on the table these N pixels look [N, 2].
        floor: bool [H, W], where neither table nor objects are seen.
        look: light and paint.
    """
    out = rgb.astype(np.float64)
    out[table] *= look.table(xy_m)
    out[floor] *= look.floor
    return out * look.tint


def _colour(rng: np.random.Generator) -> FloatArray:
    hue, saturation, value = rng.uniform((0.0, 0.0, 0.2), (1.0, 0.6, 0.95)).tolist()
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))
