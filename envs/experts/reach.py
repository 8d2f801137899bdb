"""The expert of Reach: point at the marker."""

from __future__ import annotations

from typing import final

from envs.experts.base import CLOSED, OPEN, Expert, check_spec, down, folded, pose_action, yaw_of
from envs.robots.base import Robot
from sensors.action import Action, ActionSpec
from sensors.geometry import FloatArray


@final
class ReachExpert(Expert):
    """Goes to a point.

    Args:
        robot: which goes there.
        spec: its end-effector-pose actions, with or without rotation and gripper.
        target_m: the point [3], base frame.
    """

    def __init__(self, robot: Robot, spec: ActionSpec, target_m: FloatArray) -> None:
        check_spec("ReachExpert", spec, needs_all=False)
        self._spec = spec
        self._target_m = target_m
        tool = robot.tool_pose()
        self._rotation = down(folded(yaw_of(tool[:3, :3]), 6.283185307179586))
        self._gripper = OPEN if robot.gripper_m() > 0.01 else CLOSED

    def act(self) -> Action:
        """The next action: the same until the marker is reached."""
        return pose_action(self._spec, self._target_m, self._rotation, self._gripper)
