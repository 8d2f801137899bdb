"""A scene without a task, to try key poses in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.base import RobotEnv
from envs.experts.base import Expert, down
from envs.randomisation import Randomisation
from envs.robots.base import Robot
from envs.robots.panda import Panda
from envs.tasks.base import Goal, Outcome, Task, no_goal
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.geometry import FloatArray, rotation_angle_rad
from sensors.joints import JointSensor
from sensors.rig import SensorRig
from sensors.timeline import Timing

WHITE = (1.0, 1.0, 1.0, 1.0)
PERIOD_S = 1 / 12
OPEN, CLOSED, AVOID, TOUCH = 1.0, -1.0, 1.0, -1.0


@final
class Site(Task):
    """A scene to move in, with a record of what happened between the steps; it is never done.

    Args:
        put_up: puts the bodies of an episode up and returns them.
    """

    def __init__(self, put_up: Callable[[PyBulletWorld], list[int]] = lambda world: []) -> None:
        self._put_up = put_up
        self._episode = 0
        self.bodies: list[int] = []
        self.times_s: list[float] = []
        self.tools: list[FloatArray] = []
        self.openings_m: list[float] = []

    @property
    def instruction(self) -> str:
        return f"episode {self._episode}"

    @property
    def has_goal(self) -> bool:
        return False

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        self.world, self.robot = world, robot

    def clear(self) -> None:
        for body in self.bodies:
            self.world.remove(body)
        self.bodies = []

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        self._episode += 1
        self.bodies = self._put_up(self.world)

    def update(self) -> None:
        self.times_s.append(self.world.time_s)
        self.tools.append(self.robot.tool_pose())
        self.openings_m.append(self.robot.gripper_m())

    def outcome(self) -> Outcome:
        return Outcome(0.0, False)

    def goal(self) -> Goal | None:
        return None

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        raise no_goal("Site")

    def expert(self, spec: ActionSpec) -> Expert:
        raise NotImplementedError


def rig(**sensors: Timing) -> SensorRig:
    return SensorRig(
        {name: JointSensor(timing=timing) for name, timing in (sensors or {"joints": Timing(12.0)}).items()}
    )


def built(task: Task | None = None, sensors: SensorRig | None = None, **settings: Any) -> RobotEnv:
    still = Randomisation(start=False)
    return RobotEnv(
        task or Site(), Panda(), sensors or rig(), "key_pose", randomisation=still, renderer="tiny", **settings
    )


def key(
    position_m: ArrayLike, gripper: float = OPEN, avoid: float = AVOID, rotation: FloatArray | None = None
) -> NDArray[np.float32]:
    turn = down(0.0) if rotation is None else rotation
    return np.array([*np.asarray(position_m), *turn[:, 0], *turn[:, 1], gripper, avoid], np.float32)


def apart(env: RobotEnv, position_m: ArrayLike, rotation: FloatArray | None = None) -> tuple[float, float]:
    tool = env.robot.tool_pose()
    turn = float(rotation_angle_rad(tool[:3, :3], down(0.0) if rotation is None else rotation))
    return float(np.linalg.norm(tool[:3, 3] - position_m)), turn
