"""Push: slide a puck into a zone on the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.push import PushExpert
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, goal_reward
from envs.tasks.place import Area, Zone
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

PUCK_HEIGHT_M = 0.04
DENSITY_KG_M3 = 800.0


@final
class Push(Task):
    """Slide a puck into a zone.

    Args:
        area_low_m: lowest corner [2] (x, y) of where puck and zone may be, base frame.
        area_high_m: highest corner [2].
        radius_low_m: smallest radius of the puck.
        radius_high_m: largest radius.
        nearest_m: smallest distance between puck and zone at the start.
        farthest_m: largest distance.
        threshold_m: distance of the middles that counts as done.
        reward: "dense" (minus ten times the distances puck-zone and, a tenth of it, tool-puck) or "sparse" (0 or -1).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.4, -0.15),
        area_high_m: Sequence[float] = (0.6, 0.15),
        radius_low_m: float = 0.03,
        radius_high_m: float = 0.035,
        nearest_m: float = 0.1,
        farthest_m: float = 0.22,
        threshold_m: float = 0.02,
        reward: str = "dense",
    ) -> None:
        if not 0.025 <= radius_low_m <= radius_high_m <= 0.05:
            raise SpecError(
                "Push, radius_low_m and radius_high_m",
                "0.025 <= low <= high <= 0.05",
                f"{radius_low_m}, {radius_high_m}",
                "Correct them.",
            )
        if not 0 < threshold_m < nearest_m <= farthest_m:
            raise SpecError(
                "Push, distances",
                "0 < threshold_m < nearest_m <= farthest_m",
                f"{threshold_m}, {nearest_m}, {farthest_m}",
                "Correct them.",
            )
        self._area = Area(area_low_m, area_high_m)
        self._radii = (radius_low_m, radius_high_m)
        self._apart = (nearest_m, farthest_m)
        self._threshold_m = threshold_m
        self._dense = check_reward("Push", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._zone: Zone | None = None
        self._body = -1
        self._radius_m = radius_low_m
        self._target_m: FloatArray = np.zeros(3)

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "push the puck into the zone"

    @property
    def has_goal(self) -> bool:
        """True: the zone's place."""
        return True

    @property
    def body(self) -> int:
        """The puck's body id."""
        return self._body

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove puck and zone."""
        world, _ = attached("Push", self._world, self._robot)
        if self._body >= 0:
            world.remove(self._body)
            self._body = -1
        if self._zone is not None:
            self._zone.remove()
            self._zone = None

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new puck and a new zone."""
        world, _ = attached("Push", self._world, self._robot)
        place, _ = self._area.draw(rng, randomisation.place)
        self._radius_m = radius = uniform(rng, *self._radii, randomisation.size)
        colour = draw_colour(rng, randomisation.object_colour, hue=0.0)
        zone_colour = draw_colour(rng, randomisation.object_colour, hue=0.35)
        zone = self._area.draw_apart(rng, randomisation.place, place, *self._apart)
        height = PUCK_HEIGHT_M
        mass = DENSITY_KG_M3 * np.pi * radius**2 * height
        self._body = world.add_cylinder(radius, height, (*place, height / 2), mass_kg=mass, rgba=colour, friction=0.5)
        self._target_m = np.array([*zone, height / 2])
        self._zone = Zone(world, zone, radius + self._threshold_m, zone_colour)

    def outcome(self) -> Outcome:
        """How far the puck is from the zone."""
        _, robot = attached("Push", self._world, self._robot)
        goal = self.goal()
        success = float(np.linalg.norm(goal.achieved.astype(float) - goal.desired)) < self._threshold_m
        reward = float(self.compute_reward(goal.achieved, goal.desired))
        if self._dense:
            reward -= float(np.linalg.norm(robot.tool_pose()[:3, 3] - goal.achieved))
        return Outcome(reward, success)

    def goal(self) -> Goal:
        """The puck's middle, and where it is to be."""
        world, _ = attached("Push", self._world, self._robot)
        return Goal(world.body_position(self._body).astype(np.float32), self._target_m.astype(np.float32))

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of goals [..., 3]."""
        return goal_reward(achieved, desired, self._threshold_m, self._dense)

    def expert(self, spec: ActionSpec) -> PushExpert:
        """A scripted solver for this episode."""
        world, robot = attached("Push", self._world, self._robot)
        return PushExpert(world, robot, spec, self._body, self._radius_m, self._target_m)
