"""PickPlace: carry a box into a zone and let go of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.pick_place import PickPlaceExpert
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, goal_reward
from envs.tasks.place import Area, Zone
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

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
        if not 0 < threshold_m < nearest_m <= farthest_m:
            raise SpecError(
                "PickPlace, distances",
                "0 < threshold_m < nearest_m <= farthest_m",
                f"{threshold_m}, {nearest_m}, {farthest_m}",
                "Correct them.",
            )
        self._area = Area(area_low_m, area_high_m)
        self._halves = (half_low_m, half_high_m)
        self._apart = (nearest_m, farthest_m)
        self._threshold_m = threshold_m
        self._dense = check_reward("PickPlace", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._zone: Zone | None = None
        self._body = -1
        self._half_m = half_low_m
        self._target_m: FloatArray = np.zeros(3)

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
        return self._body

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove box and zone."""
        world, _ = attached("PickPlace", self._world, self._robot)
        if self._body >= 0:
            world.remove(self._body)
            self._body = -1
        if self._zone is not None:
            self._zone.remove()
            self._zone = None

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new box and a new zone."""
        world, _ = attached("PickPlace", self._world, self._robot)
        place, yaw = self._area.draw(rng, randomisation.place)
        self._half_m = half = uniform(rng, *self._halves, randomisation.size)
        colour = draw_colour(rng, randomisation.object_colour, hue=0.0)
        zone_colour = draw_colour(rng, randomisation.object_colour, hue=0.35)
        zone = self._area.draw_apart(rng, randomisation.place, place, *self._apart)
        self._body = world.add_box(
            (half, half, half), (*place, half), yaw, mass_kg=DENSITY_KG_M3 * 8 * half**3, rgba=colour, friction=1.0
        )
        self._target_m = np.array([*zone, half])
        self._zone = Zone(world, zone, half * 1.42 + self._threshold_m, zone_colour)

    def outcome(self) -> Outcome:
        """Where the box is and whether it was let go."""
        world, robot = attached("PickPlace", self._world, self._robot)
        box = world.body_position(self._body)
        fingers = world.fingers_touching(self._body)
        beside = float(np.linalg.norm(box[:2] - self._target_m[:2]))
        lies = float(box[2]) - self._half_m < LYING_M
        success = beside < self._threshold_m and lies and fingers == 0
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        near = 1.0 - float(np.tanh(8.0 * np.linalg.norm(robot.tool_pose()[:3, 3] - box)))
        carried = 1.0 - float(np.tanh(5.0 * beside))
        return Outcome(1.0 if success else 0.2 * near + 0.2 * (fingers == 2) + 0.4 * carried, success)

    def goal(self) -> Goal:
        """The box's middle, and where it is to be."""
        world, _ = attached("PickPlace", self._world, self._robot)
        return Goal(world.body_position(self._body).astype(np.float32), self._target_m.astype(np.float32))

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """Reward [...] of goals [..., 3]; whether the box was let go is not part of a goal."""
        return goal_reward(achieved, desired, self._threshold_m, self._dense)

    def expert(self, spec: ActionSpec) -> PickPlaceExpert:
        """A scripted solver for this episode."""
        world, robot = attached("PickPlace", self._world, self._robot)
        return PickPlaceExpert(world, robot, spec, self._body, self._half_m, self._target_m, self._threshold_m)
