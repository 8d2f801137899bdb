"""PickPlace: carry a box into a zone and let go of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.pick_place import PickPlaceExpert
from envs.randomisation import Randomisation, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, check_reward, goal_reward
from envs.tasks.delivery import Delivery
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError

DENSITY_KG_M3 = 800.0
LYING_M = 0.006  # the box lies on the table when its lower side is lower than this


@final
class PickPlace(Task):
    """Carry a box into a zone.

    Args:
        area_low_m: lowest corner [2] (x, y) of where box and zone may be, base frame.
        area_high_m: highest corner [2].
        half_low_m: smallest half edge of the box.
        half_high_m: largest half edge.
        nearest_m: smallest distance between box and zone at the start.
        farthest_m: largest distance.
        threshold_m: distance of the middles that counts as placed, once the box lies and no finger touches it.
        reward: "dense" (reach, grasp, carry, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.4, -0.15),
        area_high_m: Sequence[float] = (0.6, 0.15),
        half_low_m: float = 0.02,
        half_high_m: float = 0.025,
        nearest_m: float = 0.1,
        farthest_m: float = 0.3,
        threshold_m: float = 0.03,
        reward: str = "dense",
    ) -> None:
        if not 0 < half_low_m <= half_high_m <= 0.035:
            raise SpecError(
                "PickPlace, half_low_m and half_high_m",
                "0 < low <= high <= 0.035",
                f"{half_low_m}, {half_high_m}",
                "It has to fit the gripper.",
            )
        self._delivery = Delivery("PickPlace", area_low_m, area_high_m, nearest_m, farthest_m, threshold_m)
        self._halves = (half_low_m, half_high_m)
        self._threshold_m = threshold_m
        self._dense = check_reward("PickPlace", reward)
        self._half_m = half_low_m

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "put the box into the zone"

    @property
    def has_goal(self) -> bool:
        """True: the zone's place."""
        return True

    @property
    def body(self) -> int:
        """The box's body id."""
        return self._delivery.body

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._delivery.attach(world, robot)

    def clear(self) -> None:
        """Remove box and zone."""
        self._delivery.clear()

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new box and a new zone."""
        world, _ = self._delivery.around()
        place, yaw = self._delivery.draw_place(rng, randomisation)
        self._half_m = half = uniform(rng, *self._halves, randomisation.size)
        colour = self._delivery.draw_zone(rng, randomisation, place, half, half * 1.42)
        middle, mass = (*place, half), DENSITY_KG_M3 * 8 * half**3
        self._delivery.take(world.add_box((half, half, half), middle, yaw, mass_kg=mass, rgba=colour, friction=1.0))

    def update(self) -> None:
        """Nothing happens by itself."""

    def outcome(self) -> Outcome:
        """Where the box is and whether it was let go."""
        world, robot = self._delivery.around()
        box = world.body_position(self.body)
        fingers = world.fingers_touching(self.body)
        beside = float(np.linalg.norm(box[:2] - self._delivery.target_m[:2]))
        lies = float(box[2]) - self._half_m < LYING_M
        success = beside < self._threshold_m and lies and fingers == 0
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        near = 1.0 - float(np.tanh(8.0 * np.linalg.norm(robot.tool_pose()[:3, 3] - box)))
        carried = 1.0 - float(np.tanh(5.0 * beside))
        return Outcome(1.0 if success else 0.2 * near + 0.2 * (fingers == 2) + 0.4 * carried, success)

    def goal(self) -> Goal:
        """The box's middle, and where it is to be."""
        return self._delivery.goal()

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of goals [..., 3]; whether the box was let go is not part of a goal."""
        return goal_reward(achieved, desired, self._threshold_m, self._dense)

    def expert(self, spec: ActionSpec) -> PickPlaceExpert:
        """A scripted solver for this episode."""
        world, robot = self._delivery.around()
        target_m = self._delivery.target_m
        return PickPlaceExpert(world, robot, spec, self.body, self._half_m, target_m, self._threshold_m)
