"""Robot: the interface between a policy's action and the joints of a simulated robot."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from envs.robots.description import RobotDescription
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec
from sensors.geometry import FloatArray


class Robot(ABC):
    """One robot. Life: constructed -> ``attach`` once -> (``reset`` -> ``command`` ...) per episode."""

    @property
    @abstractmethod
    def description(self) -> RobotDescription:
        """Its model file and the meaning of its parts."""

    @abstractmethod
    def action_spec(self, mode: ActionMode, period_s: float) -> ActionSpec:
        """What an action's numbers mean in this mode."""

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
            SpecError: wrong shape, or not finite.
        """

    @abstractmethod
    def tool_pose(self) -> FloatArray:
        """``base_from_tool`` [4, 4] now."""

    @abstractmethod
    def gripper_m(self) -> float:
        """Opening between the fingers now, metres."""
