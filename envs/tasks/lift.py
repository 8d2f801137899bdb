"""Lift: raise a box from the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.lift import LiftExpert
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, no_goal
from envs.tasks.place import Area
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError

DENSITY_KG_M3 = 800.0  # of hard wood


@final
class Lift(Task):
    """Raise a box.

    Args:
        area_low_m: lowest corner [2] (x, y) of where the box may stand, base frame.
        area_high_m: highest corner [2].
        half_low_m: smallest half edge of the box.
        half_high_m: largest half edge.
        height_m: how high its lower side has to be above the table.
        reward: "dense" (reach, grasp and height, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.4, -0.15),
        area_high_m: Sequence[float] = (0.6, 0.15),
        half_low_m: float = 0.02,
        half_high_m: float = 0.025,
        height_m: float = 0.1,
        reward: str = "dense",
    ) -> None:
        if not 0 < half_low_m <= half_high_m <= 0.035:
            raise SpecError(
                "Lift, half_low_m and half_high_m",
                "0 < low <= high <= 0.035",
                f"{half_low_m}, {half_high_m}",
                "It has to fit the gripper.",
            )
        self._area = Area(area_low_m, area_high_m)
        self._half_low_m, self._half_high_m, self._height_m = half_low_m, half_high_m, height_m
        self._dense = check_reward("Lift", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._body = -1
        self._half_m = half_low_m

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "lift the box"

    @property
    def has_goal(self) -> bool:
        """False."""
        return False

    @property
    def body(self) -> int:
        """The box's body id."""
        return self._body

    @property
    def half_m(self) -> float:
        """Half the box's edge in this episode, metres."""
        return self._half_m

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove the box."""
        if self._body >= 0:
            attached("Lift", self._world, self._robot)[0].remove(self._body)
            self._body = -1

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new box."""
        world, _ = attached("Lift", self._world, self._robot)
        place, yaw = self._area.draw(rng, randomisation.place)
        self._half_m = half = uniform(rng, self._half_low_m, self._half_high_m, randomisation.size)
        colour = draw_colour(rng, randomisation.object_colour, hue=0.0)
        self._body = world.add_box(
            (half, half, half), (*place, half), yaw, mass_kg=DENSITY_KG_M3 * 8 * half**3, rgba=colour, friction=1.0
        )

    def update(self) -> None:
        """Nothing happens by itself."""

    def outcome(self) -> Outcome:
        """How high the box is."""
        world, robot = attached("Lift", self._world, self._robot)
        middle = world.body_position(self._body)
        raised = float(middle[2]) - self._half_m
        success = raised >= self._height_m
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        near = 1.0 - float(np.tanh(8.0 * np.linalg.norm(robot.tool_pose()[:3, 3] - middle)))
        held = world.fingers_touching(self._body) == 2
        height = min(max(raised / self._height_m, 0.0), 1.0)
        return Outcome(1.0 if success else 0.2 * near + 0.2 * held + 0.5 * height * held, success)

    def goal(self) -> Goal | None:
        """None: any place above the table will do."""
        return None

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Lift has no goal in space.

        Raises:
            SpecError: always.
        """
        raise no_goal("Lift")

    def expert(self, spec: ActionSpec) -> LiftExpert:
        """A scripted solver for this episode."""
        world, robot = attached("Lift", self._world, self._robot)
        return LiftExpert(world, robot, spec, self._body, self._half_m, self._height_m + 2 * self._half_m + 0.04)
