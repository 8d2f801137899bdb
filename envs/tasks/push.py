"""Push: slide a puck into a zone on the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.push import PushExpert
from envs.randomisation import Randomisation, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, check_reward, goal_reward
from envs.tasks.delivery import Delivery
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError

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
        self._delivery = Delivery("Push", area_low_m, area_high_m, nearest_m, farthest_m, threshold_m)
        self._radii = (radius_low_m, radius_high_m)
        self._threshold_m = threshold_m
        self._dense = check_reward("Push", reward)
        self._radius_m = radius_low_m

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
        return self._delivery.body

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._delivery.attach(world, robot)

    def clear(self) -> None:
        """Remove puck and zone."""
        self._delivery.clear()

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new puck and a new zone."""
        world, _ = self._delivery.around()
        place, _ = self._delivery.draw_place(rng, randomisation)
        self._radius_m = radius = uniform(rng, *self._radii, randomisation.size)
        height = PUCK_HEIGHT_M
        colour = self._delivery.draw_zone(rng, randomisation, place, height / 2, radius)
        mass = DENSITY_KG_M3 * np.pi * radius**2 * height
        middle = (*place, height / 2)
        self._delivery.take(world.add_cylinder(radius, height, middle, mass_kg=mass, rgba=colour, friction=0.5))

    def update(self) -> None:
        """Nothing happens by itself."""

    def outcome(self) -> Outcome:
        """How far the puck is from the zone."""
        _, robot = self._delivery.around()
        goal = self.goal()
        success = float(np.linalg.norm(goal.achieved.astype(float) - goal.desired)) < self._threshold_m
        reward = float(self.compute_reward(goal.achieved, goal.desired))
        if self._dense:
            reward -= float(np.linalg.norm(robot.tool_pose()[:3, 3] - goal.achieved))
        return Outcome(reward, success)

    def goal(self) -> Goal:
        """The puck's middle, and where it is to be."""
        return self._delivery.goal()

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of goals [..., 3]."""
        return goal_reward(achieved, desired, self._threshold_m, self._dense)

    def expert(self, spec: ActionSpec) -> PushExpert:
        """A scripted solver for this episode."""
        world, robot = self._delivery.around()
        return PushExpert(world, robot, spec, self.body, self._radius_m, self._delivery.target_m)
