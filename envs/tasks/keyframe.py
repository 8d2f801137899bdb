"""KeyframeTask: what the tasks have in common that are said in words and solved by a few key poses."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.base import OPEN, folded, yaw_of
from envs.experts.waypoints import TOUCH, KeyPose, WaypointExpert, pick, place
from envs.randomisation import Randomisation
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, no_goal
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.geometry import FloatArray

REST_M_S = 0.03  # a body that is slower rests


class KeyframeTask(Task):
    """A task whose instruction differs from episode to episode, and whose expert follows key poses.

    Args:
        name: of the task, for errors.
        reward: "dense" (progress, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: the reward is neither.
    """

    def __init__(self, name: str, reward: str) -> None:
        self._name = name
        self._dense = check_reward(name, reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._bodies: list[int] = []
        self._words = ""

    @abstractmethod
    def arrange(self, rng: np.random.Generator, randomisation: Randomisation) -> str:
        """Put up this episode's scene, every body of it by :meth:`hold`, and return the instruction."""

    @abstractmethod
    def done(self) -> bool:
        """Whether what was asked is done now."""

    @abstractmethod
    def progress(self) -> float:
        """How far what was asked has come, 0 to 1, for the dense reward."""

    @abstractmethod
    def key_poses(self) -> list[KeyPose]:
        """The key poses from the present state to the end of the task; at least one."""

    @property
    def instruction(self) -> str:
        """This episode's task in words."""
        return self._words

    @property
    def has_goal(self) -> bool:
        """False."""
        return False

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def around(self) -> tuple[PyBulletWorld, Robot]:
        """World and robot.

        Raises:
            SpecError: not attached.
        """
        return attached(self._name, self._world, self._robot)

    def hold(self, body: int) -> int:
        """Note a body of this episode, to be removed by :meth:`clear`, and return it."""
        self._bodies.append(body)
        return body

    def clear(self) -> None:
        """Remove this episode's bodies."""
        world, _ = self.around()
        # Last in, first out, so that the next episode gets the same body numbers: they order the contacts.
        while self._bodies:
            world.remove(self._bodies.pop())

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new scene with a new instruction."""
        self._words = self.arrange(rng, randomisation)

    def update(self) -> None:
        """Nothing happens by itself."""

    def outcome(self) -> Outcome:
        """How things stand."""
        success = self.done()
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        return Outcome(1.0 if success else self.progress(), success)

    def goal(self) -> Goal | None:
        """None: what is asked is said in words."""
        return None

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """There is no goal in space.

        Raises:
            SpecError: always.
        """
        raise no_goal(self._name)

    def expert(self, spec: ActionSpec) -> WaypointExpert:
        """A scripted solver for this episode, which follows :meth:`key_poses`."""
        world, robot = self.around()
        return WaypointExpert(world, robot, spec, self.key_poses)

    def left_alone(self, body: int) -> bool:
        """Whether no finger touches a body, and it moves no more; it may still turn or roll a little."""
        world, _ = self.around()
        return world.fingers_touching(body) == 0 and float(np.linalg.norm(world.body_velocity(body)[0])) < REST_M_S

    def leave(self, body: int, above_m: float) -> list[KeyPose]:
        """What is left to do once a body is where it was to go: open the hand, and up from it."""
        world, robot = self.around()
        tool = robot.tool_pose()
        up = KeyPose(tool[:3, 3] + np.array([0.0, 0.0, above_m]), tool[:3, :3], OPEN, TOUCH)
        held = world.fingers_touching(body) == 2
        return [KeyPose(tool[:3, 3], tool[:3, :3], OPEN, TOUCH), up] if held else [up]

    def carry(
        self, body: int, grasp_yaw_rad: float, release_m: FloatArray, release_yaw_rad: float, above_m: float
    ) -> list[KeyPose]:
        """Above the body, down, close, up; above the release, down, open. From a body in the hand on: the last three.

        Args:
            body: what is carried; it is grasped at its middle.
            grasp_yaw_rad: of the hand when it grasps.
            release_m: tool point [3] where the hand opens.
            release_yaw_rad: of the hand there.
            above_m: how much higher the key poses above are.
        """
        world, _ = self.around()
        onto = place(body, release_m, release_yaw_rad, above_m)
        if world.fingers_touching(body) == 2:
            return onto
        middle = world.body_position(body)
        return [*self.away(middle, above_m), *pick(body, middle, grasp_yaw_rad, above_m), *onto]

    def away(self, point_m: FloatArray, above_m: float) -> list[KeyPose]:
        """Straight up with an open hand if it is near a point [3] that it is to come to from above, else nothing."""
        tool = self.around()[1].tool_pose()
        if math.dist(tool[:3, 3], point_m) > above_m / 2:
            return []
        return [KeyPose(tool[:3, 3] + np.array([0.0, 0.0, above_m]), tool[:3, :3], OPEN, TOUCH)]

    def yaw_rad(self, body: int, period_rad: float = math.pi / 2) -> float:
        """Yaw of the hand that takes a body by its sides: the one nearest to 0 of those that look the same."""
        world, _ = self.around()
        return folded(yaw_of(world.body_pose(body)[:3, :3]), period_rad)

    def carried(self, body: int, target_m: ArrayLike) -> float:
        """Progress of carrying a body to a place [3]: near it, held, near the place; 0 to 0.8."""
        world, robot = self.around()
        middle = world.body_position(body)
        near = 1.0 - math.tanh(8.0 * math.dist(robot.tool_pose()[:3, 3], middle))
        there = 1.0 - math.tanh(5.0 * math.dist(middle, np.asarray(target_m, float)))
        return 0.2 * near + 0.2 * (world.fingers_touching(body) == 2) + 0.4 * there
