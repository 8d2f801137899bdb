"""The expert of Push: behind the puck, down, and forwards with the puck between the fingertips."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from envs.experts.base import Expert, check_spec, down, folded, pose_action, yaw_of
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import Action, ActionSpec
from sensors.geometry import FloatArray

FINGER_M = 0.011  # half the thickness of a finger across the opening direction, with some air
BEHIND_M = 0.035  # free space to the puck while coming down
HOVER_M, PUSH_M = 0.11, 0.018  # height of the tool point above the table, on the way and while pushing
OPENING_M = 0.036  # the puck rests against both fingertips and cannot roll off sideways
ASIDE_M = 0.02  # the puck is this far beside the line of pushing: come again


@final
class PushExpert(Expert):
    """Pushes a puck to a place.

    Args:
        world: where the puck is.
        robot: which pushes it.
        spec: its end-effector-pose actions.
        body: the puck.
        radius_m: its radius, metres.
        target_m: where its middle is to be [3].
    """

    def __init__(
        self, world: PyBulletWorld, robot: Robot, spec: ActionSpec, body: int, radius_m: float, target_m: FloatArray
    ) -> None:
        check_spec("PushExpert", spec)
        self._world, self._robot, self._spec = world, robot, spec
        self._body, self._radius_m, self._target_m = body, radius_m, target_m
        self._gripper = 2 * OPENING_M / robot.description.gripper_open_m - 1
        self._gap_m = radius_m + BEHIND_M + FINGER_M
        self._pushing = False

    def act(self) -> Action:
        """The next action."""
        tool, puck = self._robot.tool_pose(), self._world.body_position(self._body)
        way = self._target_m[:2] - puck[:2]
        distance = math.hypot(way[0], way[1])
        ahead = way / max(distance, 1e-6)
        # The fingers open along the tool's y; across the way, so that both tips push. Half a turn is the same.
        rotation = down(folded(math.atan2(ahead[1], ahead[0]), math.pi))
        behind = puck[:2] - self._gap_m * ahead
        offset = puck[:2] - tool[:2, 3]
        along, aside = float(offset @ ahead), float(offset[0] * ahead[1] - offset[1] * ahead[0])
        turned = abs(folded(yaw_of(tool[:3, :3]) - yaw_of(rotation), math.pi))
        low = tool[2, 3] < PUSH_M + 0.012
        self._pushing = low and along > 0.3 * self._radius_m and abs(aside) < ASIDE_M and turned < 0.3
        if self._pushing:
            # The middle of the puck ends in the middle of the zone when the fingertips stop this far before it.
            stop = self._target_m[:2] - min(along, self._contact_m()) * ahead
            return pose_action(self._spec, np.array([*stop, PUSH_M]), rotation, self._gripper)
        there = math.hypot(*(behind - tool[:2, 3])) < 0.015 and turned < 0.15
        if there:
            return pose_action(self._spec, np.array([*behind, PUSH_M]), rotation, self._gripper)
        if tool[2, 3] < HOVER_M - 0.04 and math.hypot(*offset) < self._gap_m + 0.03:
            # Low and near the puck: straight up first, or the fingers would sweep it away.
            return pose_action(self._spec, np.array([*tool[:2, 3], HOVER_M]), rotation, self._gripper)
        return pose_action(self._spec, np.array([*behind, HOVER_M]), rotation, self._gripper)

    def _contact_m(self) -> float:
        """Distance between tool point and the puck's middle when both fingertips touch it, metres."""
        half = OPENING_M / 2
        reach = self._radius_m
        return math.sqrt(max(reach**2 - half**2, 0.0)) + FINGER_M - 0.002
