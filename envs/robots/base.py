"""Robot: the interface between a policy's action and the joints of a simulated robot."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from envs.robots.arm import Arm
from envs.robots.description import RobotDescription
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec
from sensors.geometry import FloatArray


class Robot(ABC):
    """One robot. Life: constructed -> ``attach`` once -> (``reset`` -> ``command`` or ``follow`` ...) per episode."""

    @property
    @abstractmethod
    def description(self) -> RobotDescription:
        """Its model file and the meaning of its parts."""

    @abstractmethod
    def action_spec(self, mode: ActionMode, period_s: float) -> ActionSpec:
        """What an action's numbers mean in this mode."""

    @property
    @abstractmethod
    def arm(self) -> Arm:
        """Kinematics and limits of its arm, to plan with."""

    @abstractmethod
    def attach(self, world: PyBulletWorld) -> None:
        """Load the robot into a world."""

    @abstractmethod
    def reset(self, base_from_tool: FloatArray) -> None:
        """Stand at rest with the tool there and the gripper open.

        Raises:
            SpecError: the pose is out of reach.
        """

    @abstractmethod
    def command(self, values: NDArray[np.float32], spec: ActionSpec) -> NDArray[np.float32]:
        """Start to act on an action; the world is stepped afterwards.

        Returns:
            float32 [A]: the action as it is obeyed, after clipping to the limits and the workspace.

        Raises:
            SpecError: wrong shape, or not finite; or a key pose, which takes a whole move (:mod:`envs.key_moves`).
        """

    @abstractmethod
    def follow(self, position_rad: FloatArray, gripper: float, period_s: float) -> None:
        """Go to these joint positions [J] within ``period_s``, which must be near; the world is stepped afterwards.

        ``gripper`` is -1 (closed) to 1 (open).
        """

    @property
    @abstractmethod
    def gripper(self) -> float:
        """What the gripper was told last, -1 (closed) to 1 (open)."""

    @abstractmethod
    def tool_pose(self) -> FloatArray:
        """``base_from_tool`` [4, 4] now."""

    @abstractmethod
    def gripper_m(self) -> float:
        """Opening between the fingers now, metres."""
