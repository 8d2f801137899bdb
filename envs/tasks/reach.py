"""Reach: bring the tool to a marker in the air."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.reach import ReachExpert
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, goal_reward
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

MARKER_RADIUS_M = 0.015


@final
class Reach(Task):
    """Bring the tool point to a marker.

    Args:
        volume_low_m: lowest corner [3] of where the marker may be, base frame.
        volume_high_m: highest corner [3].
        threshold_m: distance that counts as reached.
        reward: "dense" (minus ten times the distance in metres) or "sparse" (0 when reached, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        volume_low_m: Sequence[float] = (0.38, -0.2, 0.05),
        volume_high_m: Sequence[float] = (0.62, 0.2, 0.35),
        threshold_m: float = 0.02,
        reward: str = "dense",
    ) -> None:
        if not all(low <= high for low, high in zip(volume_low_m, volume_high_m, strict=True)):
            raise SpecError(
                "Reach, volume",
                "low <= high in x, y, z",
                f"{volume_low_m}, {volume_high_m}",
                "Correct the task's config.",
            )
        if not threshold_m > 0:
            raise SpecError("Reach, threshold_m", "a distance > 0", repr(threshold_m), "Use 0.02.")
        self._low, self._high = tuple(volume_low_m), tuple(volume_high_m)
        self._threshold_m = threshold_m
        self._dense = check_reward("Reach", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._marker = -1
        self._target_m: FloatArray = np.zeros(3)

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "reach the marker"

    @property
    def has_goal(self) -> bool:
        """True: the marker's place."""
        return True

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove the marker."""
        if self._marker >= 0:
            attached("Reach", self._world, self._robot)[0].remove(self._marker)
            self._marker = -1

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new marker."""
        world, _ = attached("Reach", self._world, self._robot)
        bounds = zip(self._low, self._high, strict=True)
        self._target_m = np.array([uniform(rng, low, high, randomisation.place) for low, high in bounds])
        colour = draw_colour(rng, randomisation.object_colour, hue=0.0)
        self._marker = world.add_sphere(MARKER_RADIUS_M, self._target_m, rgba=colour)

    def update(self) -> None:
        """Nothing happens by itself."""

    def outcome(self) -> Outcome:
        """How far the tool is."""
        goal = self.goal()
        distance = float(np.linalg.norm(goal.achieved.astype(float) - goal.desired))
        reward = float(self.compute_reward(goal.achieved, goal.desired))
        return Outcome(reward, distance < self._threshold_m)

    def goal(self) -> Goal:
        """The tool point, and the marker."""
        _, robot = attached("Reach", self._world, self._robot)
        return Goal(robot.tool_pose()[:3, 3].astype(np.float32), self._target_m.astype(np.float32))

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of goals [..., 3]."""
        return goal_reward(achieved, desired, self._threshold_m, self._dense)

    def expert(self, spec: ActionSpec) -> ReachExpert:
        """A scripted solver for this episode."""
        _, robot = attached("Reach", self._world, self._robot)
        return ReachExpert(robot, spec, self._target_m)
