"""Delivery: an object on the table and the zone that it is to come to, shared by the tasks that have both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.randomisation import Randomisation, draw_colour
from envs.robots.base import Robot
from envs.tasks.base import Goal, attached
from envs.tasks.place import Area, Zone
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import FloatArray

OBJECT_HUE, ZONE_HUE = 0.0, 0.35


class Delivery:
    """One object and one zone per episode.

    Args:
        task: its name, for errors.
        area_low_m: lowest corner [2] (x, y) of where both may be, base frame.
        area_high_m: highest corner [2].
        nearest_m: smallest distance between the two at the start.
        farthest_m: largest distance.
        threshold_m: distance of the middles that counts as done.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        task: str,
        area_low_m: Sequence[float],
        area_high_m: Sequence[float],
        nearest_m: float,
        farthest_m: float,
        threshold_m: float,
    ) -> None:
        if not 0 < threshold_m < nearest_m <= farthest_m:
            got = f"{threshold_m}, {nearest_m}, {farthest_m}"
            raise SpecError(f"{task}, distances", "0 < threshold_m < nearest_m <= farthest_m", got, "Correct them.")
        self._task = task
        self._area = Area(area_low_m, area_high_m)
        self._apart = (nearest_m, farthest_m)
        self._threshold_m = threshold_m
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._zone: Zone | None = None
        self._body = -1
        self._target_m: FloatArray = np.zeros(3)

    @property
    def body(self) -> int:
        """The object's body id."""
        return self._body

    @property
    def target_m(self) -> FloatArray:
        """Where its middle is to be [3], base frame."""
        return self._target_m

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def around(self) -> tuple[PyBulletWorld, Robot]:
        """World and robot.

        Raises:
            SpecError: not attached.
        """
        return attached(self._task, self._world, self._robot)

    def clear(self) -> None:
        """Remove object and zone."""
        world, _ = self.around()
        if self._body >= 0:
            world.remove(self._body)
            self._body = -1
        if self._zone is not None:
            self._zone.remove()
            self._zone = None

    def draw_place(self, rng: np.random.Generator, randomisation: Randomisation) -> tuple[FloatArray, float]:
        """Where the object stands [2], and its yaw in radians."""
        return self._area.draw(rng, randomisation.place)

    def draw_zone(
        self,
        rng: np.random.Generator,
        randomisation: Randomisation,
        place: FloatArray,
        height_m: float,
        radius_m: float,
    ) -> tuple[float, float, float, float]:
        """Put a zone up at the right distance from ``place`` and return the colour [4] that the object is to have.

        Args:
            rng: of the episode.
            randomisation: what varies.
            place: where the object stands [2].
            height_m: of the object's middle when it lies.
            radius_m: of the object.
        """
        world, _ = self.around()
        colour = draw_colour(rng, randomisation.object_colour, hue=OBJECT_HUE)
        zone_colour = draw_colour(rng, randomisation.object_colour, hue=ZONE_HUE)
        zone = self._area.draw_apart(rng, randomisation.place, place, *self._apart)
        self._target_m = np.array([*zone, height_m])
        self._zone = Zone(world, zone, radius_m + self._threshold_m, zone_colour)
        return colour

    def take(self, body: int) -> None:
        """Take the object that was put up for this episode."""
        self._body = body

    def goal(self) -> Goal:
        """The object's middle, and where it is to be."""
        world, _ = self.around()
        return Goal(world.body_position(self._body).astype(np.float32), self._target_m.astype(np.float32))
