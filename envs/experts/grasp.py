"""Grasp: picking up a box from above, shared by the experts that need it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from envs.experts.base import CLOSED, OPEN, down, folded, yaw_of
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.geometry import FloatArray

HOVER_M = 0.08  # tool point above the grasp while it is far beside
CENTRED_M, SLOPE = 0.012, 3.0  # so near beside the grasp, down to it; farther off, this much higher per metre
NEAR_M, AT_GRASP_M = 0.01, 0.008  # beside and above the grasp: there the fingers may close
EMPTY_M = 0.012  # an opening below this holds nothing


@dataclass(frozen=True, eq=False)
class Waypoint:
    """What to command: tool position_m [3], rotation [3, 3] and gripper (-1 closed to 1 open)."""

    position_m: FloatArray
    rotation: FloatArray
    gripper: float


class Grasp:
    """Closes the gripper on a box, again if it slips.

    What to do follows from what can be seen (poses, opening, contact) and not from what was done before, and the way
    down is a funnel instead of a switch: a policy that imitates it from one observation is never asked to guess a
    hidden state, and to be a little off is to be a little high. The hand's turn is not waited for, since closing
    fingers turn a box the rest of the way, or hold it as it stands.

    Args:
        world: where the box is.
        robot: whose gripper it is.
        body: the box.
        half_m: half its edge, metres.
        turn: whether to turn the hand to the box's sides; otherwise it keeps its yaw.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, body: int, half_m: float, turn: bool = True) -> None:
        self._world, self._robot, self._body, self._half_m, self._turn = world, robot, body, half_m, turn

    @property
    def holding(self) -> bool:
        """Whether the box is in the hand."""
        tool, grasp = self._robot.tool_pose(), self._world.body_position(self._body)
        between = math.hypot(tool[0, 3] - grasp[0], tool[1, 3] - grasp[1]) < 1.5 * self._half_m
        level = abs(tool[2, 3] - grasp[2]) < 1.2 * self._half_m
        return between and level and self._world.fingers_touching(self._body) == 2

    def act(self) -> Waypoint:
        """The next waypoint; while holding, the present grasp pose with closed gripper."""
        tool, grasp = self._robot.tool_pose(), self._world.body_position(self._body)
        own_yaw = yaw_of(tool[:3, :3])
        # Of the box's four equivalent yaws the one nearest to the hand's.
        turned = folded(yaw_of(self._world.body_pose(self._body)[:3, :3]) - own_yaw, math.pi / 2)
        rotation, opening = down(own_yaw + turned * self._turn), self._robot.gripper_m()
        beside = math.hypot(tool[0, 3] - grasp[0], tool[1, 3] - grasp[1])
        there = abs(tool[2, 3] - grasp[2]) < AT_GRASP_M and beside < NEAR_M and opening > EMPTY_M
        if self.holding or there:
            return Waypoint(grasp, rotation, CLOSED)
        wide = opening > 2 * self._half_m + 0.01
        high = min(max(SLOPE * (beside - CENTRED_M), 0.0), HOVER_M) if wide else HOVER_M
        return Waypoint(grasp + np.array([0.0, 0.0, high]), rotation, OPEN)
