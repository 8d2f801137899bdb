"""Grasp: the phases of picking up a box from above, shared by the experts that need it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from envs.experts.base import CLOSED, OPEN, down, folded, yaw_of
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.geometry import FloatArray

HOVER_M = 0.08  # tool point above the grasp
NEAR_M = 0.01  # so near beside the grasp, the fingers may close
FUNNEL = 0.15  # how much farther off the way down may be, per metre above the grasp
AT_GRASP_M = 0.008
EMPTY_M = 0.012  # an opening below this holds nothing


class Phase(Enum):
    """Where a grasp stands."""

    HOVER = "hover"
    DESCEND = "descend"
    CLOSE = "close"
    HOLD = "hold"


@dataclass(frozen=True, eq=False)
class Waypoint:
    """What to command: tool position_m [3], rotation [3, 3] and gripper (-1 closed to 1 open)."""

    position_m: FloatArray
    rotation: FloatArray
    gripper: float


class Grasp:
    """Closes the gripper on a box, again if it slips.

    The phase follows from what can be seen (poses, opening, contact) and not from what was done before: a policy that
    imitates it from one observation is never asked to guess a hidden state.

    Args:
        world: where the box is.
        robot: whose gripper it is.
        body: the box.
        half_m: half its edge, metres.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, body: int, half_m: float) -> None:
        self._world, self._robot, self._body, self._half_m = world, robot, body, half_m

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
        phase = self._phase(tool, grasp)
        high = HOVER_M if phase is Phase.HOVER else 0.0
        gripper = CLOSED if phase in (Phase.CLOSE, Phase.HOLD) else OPEN
        return Waypoint(grasp + np.array([0.0, 0.0, high]), down(own_yaw + turned), gripper)

    def _phase(self, tool: FloatArray, grasp: FloatArray) -> Phase:
        # The hand's turn is not waited for: closing fingers turn a box the rest of the way.
        if self.holding:
            return Phase.HOLD
        beside = math.hypot(tool[0, 3] - grasp[0], tool[1, 3] - grasp[1])
        above, opening = float(tool[2, 3] - grasp[2]), self._robot.gripper_m()
        if abs(above) < AT_GRASP_M and beside < NEAR_M and opening > EMPTY_M:
            return Phase.CLOSE
        straight = beside < NEAR_M + FUNNEL * max(above, 0.0)
        wide = opening > 2 * self._half_m + 0.01
        return Phase.DESCEND if straight and wide and above < 1.5 * HOVER_M else Phase.HOVER
