"""Area and Zone: where on the table something may stand, and where it is to go."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from envs.randomisation import uniform
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import FloatArray

ZONE_THICKNESS_M = 0.002


class Area:
    """A rectangle on the table.

    Args:
        low_m: lowest corner [2] (x, y), base frame.
        high_m: highest corner [2].

    Raises:
        SpecError: the corners are not in order.
    """

    def __init__(self, low_m: Sequence[float], high_m: Sequence[float]) -> None:
        if len(low_m) != 2 or len(high_m) != 2 or not (low_m[0] <= high_m[0] and low_m[1] <= high_m[1]):
            raise SpecError(
                "area", "low <= high in x and y", f"{list(low_m)}, {list(high_m)}", "Correct the task's config."
            )
        self._low = (float(low_m[0]), float(low_m[1]))
        self._high = (float(high_m[0]), float(high_m[1]))

    def draw(self, rng: np.random.Generator, free: bool) -> tuple[FloatArray, float]:
        """A place [2] in metres and a yaw in radians; the middle and 0 if not ``free``."""
        place = np.array([uniform(rng, low, high, free) for low, high in zip(self._low, self._high, strict=True)])
        return place, uniform(rng, -math.pi, math.pi, free)

    def draw_apart(
        self, rng: np.random.Generator, free: bool, other_m: FloatArray, nearest_m: float, farthest_m: float
    ) -> FloatArray:
        """A place [2] between ``nearest_m`` and ``farthest_m`` from ``other_m`` [2].

        Draws until one fits; the fallback after 200 draws is the corner farthest from ``other_m``.
        """
        for _ in range(200):
            place = rng.uniform(self._low, self._high)
            if free and nearest_m <= math.dist(place, other_m) <= farthest_m:
                return np.asarray(place)
        corners = [np.array([x, y]) for x in (self._low[0], self._high[0]) for y in (self._low[1], self._high[1])]
        way = max(corners, key=lambda corner: math.dist(corner, other_m)) - other_m
        length = float(np.linalg.norm(way))
        return np.asarray(other_m + way * min(1.0, farthest_m / max(length, 1e-9)))


class Zone:
    """A flat coloured disc on the table, to be seen only.

    Args:
        world: where to put it.
        middle_m: its middle [2] (x, y), base frame.
        radius_m: its radius.
        rgba: its colour.
    """

    def __init__(self, world: PyBulletWorld, middle_m: FloatArray, radius_m: float, rgba: Sequence[float]) -> None:
        self._world = world
        place = (float(middle_m[0]), float(middle_m[1]), ZONE_THICKNESS_M / 2)
        self._body = world.add_cylinder(radius_m, ZONE_THICKNESS_M, place, mass_kg=0.0, rgba=rgba, solid=False)

    def remove(self) -> None:
        """Take it away."""
        self._world.remove(self._body)
