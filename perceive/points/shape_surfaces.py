"""Surfaces out of which shapes are put together, and points on them: boxes, cones, balls and rings, uniform by area.

A surface is one row of numbers, so that the points of many clouds are drawn at once, whatever they are points of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Turn = tuple[float, float, float, float, float, float, float, float, float]  # a rotation matrix, row by row

BOX, CONE, BALL, RING = range(4)
ROW = 19  # kind, area, part, turn 9, place 3, sizes 4
AS_IS: Turn = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ALONG_X: Turn = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0)  # what was up looks along +x
ALONG_Y: Turn = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)  # what was up looks along +y
_TINY = 1e-12


class Surfaces:
    """The surfaces of one shape, each belonging to a part of it.

    Attributes:
        rows: of :data:`ROW` numbers each.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def box(self, part: int, size: Sequence[float], middle: Sequence[float], turn: Turn = AS_IS) -> None:
        """A whole box: edge lengths [3] and its middle [3]."""
        x, y, z = size
        self._add(BOX, 2 * (x * y + y * z + z * x), part, turn, middle, (x, y, z, 0.0))

    def cone(
        self,
        part: int,
        low_radius: float,
        high_radius: float,
        height: float,
        foot: Sequence[float],
        turn: Turn = AS_IS,
        inwards: bool = False,
    ) -> None:
        """The round of a cylinder or of a cone, cut off or not; its foot's middle [3]. ``inwards``: a hole's wall."""
        area = math.pi * (low_radius + high_radius) * math.hypot(height, high_radius - low_radius)
        self._add(CONE, area, part, turn, foot, (low_radius, high_radius, height, -1.0 if inwards else 1.0))

    def disc(
        self,
        part: int,
        radius: float,
        middle: Sequence[float],
        turn: Turn = AS_IS,
        hole: float = 0.0,
        down: bool = False,
    ) -> None:
        """A disc that looks up, or down; with a hole, a ring. It is a cone without height."""
        self._add(CONE, math.pi * (radius**2 - hole**2), part, turn, middle, (hole, radius, 0.0, 1.0 if down else -1.0))

    def cylinder(self, part: int, radius: float, height: float, foot: Sequence[float], turn: Turn = AS_IS) -> None:
        """A whole cylinder, closed at both ends."""
        up = turn[2::3]
        self.cone(part, radius, radius, height, foot, turn)
        self.disc(part, radius, foot, turn, down=True)
        self.disc(part, radius, [at + height * way for at, way in zip(foot, up, strict=True)], turn)

    def ball(
        self, part: int, radius: float, middle: Sequence[float], low: float = -1.0, high: float = 1.0,
        inwards: bool = False,
    ) -> None:  # fmt: skip
        """A ball between two heights, each a share of its radius from -1 to 1. ``inwards``: a hollow."""
        area = 2 * math.pi * radius**2 * (high - low)
        self._add(BALL, area, part, AS_IS, middle, (radius, low, high, -1.0 if inwards else 1.0))

    def ring(
        self, part: int, radius: float, tube: float, middle: Sequence[float], turn: Turn = AS_IS, sweep: float = 1.0
    ) -> None:
        """A torus around its z axis, from +x on for a share ``sweep`` of the circle; ``tube`` < ``radius``."""
        area = 4 * math.pi**2 * radius * tube * sweep
        self._add(RING, area, part, turn, middle, (radius, tube, 2 * math.pi * sweep, 0.0))

    def _add(
        self, kind: int, area: float, part: int, turn: Turn, place: Sequence[float], sizes: tuple[float, ...]
    ) -> None:
        self.rows.append((kind, area, part, *turn, *place, *sizes))


def draw(row: Floats, chosen: NDArray[np.intp], chance: Floats) -> tuple[Floats, Floats]:
    """A point on each chosen surface, uniform over its area.

    Args:
        row: float [S, 19], surfaces.
        chosen: int [N], which surface.
        chance: float [N, 3], uniform in [0, 1).

    Returns:
        Points [N, 3] and outward unit normals [N, 3].
    """
    points, normals = np.empty((len(chosen), 3)), np.empty((len(chosen), 3))
    kind = row[:, 0].astype(np.int64)[chosen]
    for number, family in enumerate((_on_box, _on_cone, _on_ball, _on_ring)):
        mine = np.flatnonzero(kind == number)
        if len(mine):
            own = row[chosen[mine]]
            place, normal = family(own[:, 15:], chance[mine])
            turn = own[:, 3:12].reshape(-1, 3, 3)
            points[mine] = np.matmul(turn, place[..., None])[..., 0] + own[:, 12:15]
            normals[mine] = np.matmul(turn, normal[..., None])[..., 0]
    return points, normals


def _on_box(sizes: Floats, chance: Floats) -> tuple[Floats, Floats]:
    size = sizes[:, :3]
    x, y, z = size.T
    area = np.stack([y * z, z * x, x * y], axis=-1)
    ends = np.cumsum(area, axis=-1)
    # One number says which pair of faces, and which of the two.
    both = 2 * chance[:, 0]
    side = np.where(both < 1, -1.0, 1.0)
    axis = np.minimum((ends <= ((both % 1.0) * ends[:, 2])[:, None]).sum(axis=-1), 2)
    each = np.arange(len(size))
    place = np.empty_like(size)
    place[each, axis] = side / 2
    place[each, (axis + 1) % 3] = chance[:, 1] - 0.5
    place[each, (axis + 2) % 3] = chance[:, 2] - 0.5
    normal = np.zeros_like(size)
    normal[each, axis] = side
    return place * size, normal


def _on_cone(sizes: Floats, chance: Floats) -> tuple[Floats, Floats]:
    low, high, height, sign = sizes.T
    # The area up to a radius r grows with r^2; written so that equal radii need no case of their own.
    radius = np.sqrt(low**2 + chance[:, 0] * (high**2 - low**2))
    share = chance[:, 0] * (high + low) / np.maximum(radius + low, _TINY)
    angle = 2 * np.pi * chance[:, 1]
    cosine, sine = np.cos(angle), np.sin(angle)
    slant = sign / np.maximum(np.hypot(height, high - low), _TINY)
    outwards, upwards = height * slant, (low - high) * slant
    place = np.stack([radius * cosine, radius * sine, share * height], axis=-1)
    return place, np.stack([outwards * cosine, outwards * sine, upwards], axis=-1)


def _on_ball(sizes: Floats, chance: Floats) -> tuple[Floats, Floats]:
    radius, low, high, sign = sizes.T
    # Zones of equal height have equal area (Archimedes).
    up = low + chance[:, 0] * (high - low)
    flat, angle = np.sqrt(np.maximum(1 - up**2, 0.0)), 2 * np.pi * chance[:, 1]
    out = np.stack([flat * np.cos(angle), flat * np.sin(angle), up], axis=-1)
    return radius[:, None] * out, sign[:, None] * out


def _on_ring(sizes: Floats, chance: Floats) -> tuple[Floats, Floats]:
    radius, tube, sweep, _ = sizes.T
    around, about = sweep * chance[:, 0], 2 * np.pi * chance[:, 1]
    # Density is as 1 + (tube / radius) cos(about). An angle and its mirror image share 2: one keeps it or gives it up.
    about = np.where(2 * chance[:, 2] < 1 + tube / radius * np.cos(about), about, np.pi - about)
    out = np.cos(about)
    normal = np.stack([out * np.cos(around), out * np.sin(around), np.sin(about)], axis=-1)
    middle = np.stack([radius * np.cos(around), radius * np.sin(around), np.zeros_like(radius)], axis=-1)
    return middle + tube[:, None] * normal, normal
