"""The expert of PickPlace: grasp, carry above the zone, set down, let go."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from envs.experts.base import OPEN, Expert, check_spec, down, pose_action, yaw_of
from envs.experts.grasp import Grasp
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import Action, ActionSpec
from sensors.geometry import FloatArray

CARRY_M = 0.07  # clearance under the box on its way
OVER_M = 0.012  # so near above the zone's middle, the box may be set down
DOWN_M = 0.006  # so near to the table, the box may be let go


@final
class PickPlaceExpert(Expert):
    """Carries a box to a place.

    Args:
        world: where the box is.
        robot: which carries it.
        spec: its end-effector-pose actions.
        body: the box.
        half_m: half its edge, metres.
        target_m: where its middle is to be [3].
        threshold_m: how far from there is near enough.
    """

    def __init__(
        self,
        world: PyBulletWorld,
        robot: Robot,
        spec: ActionSpec,
        body: int,
        half_m: float,
        target_m: FloatArray,
        threshold_m: float,
    ) -> None:
        check_spec("PickPlaceExpert", spec)
        self._world, self._robot, self._spec = world, robot, spec
        self._body, self._half_m, self._target_m, self._threshold_m = body, half_m, target_m, threshold_m
        self._grasp = Grasp(world, robot, body, half_m)
        self._lift_m: FloatArray | None = None

    def act(self) -> Action:
        """The next action."""
        box, tool = self._world.body_position(self._body), self._robot.tool_pose()
        beside = math.hypot(*(self._target_m[:2] - box[:2]))
        height = float(box[2]) - self._half_m
        if beside < 0.7 * self._threshold_m and height < DOWN_M:
            # In the zone and on the table: let go and leave upwards once the fingers are off.
            free = self._world.fingers_touching(self._body) == 0
            leave = np.array([tool[0, 3], tool[1, 3], tool[2, 3] + (0.1 if free else 0.0)])
            return pose_action(self._spec, leave, down(yaw_of(tool[:3, :3])), OPEN)
        way = self._grasp.act()
        if not self._grasp.holding:
            self._lift_m = None
            return pose_action(self._spec, way.position_m, way.rotation, way.gripper)
        if self._lift_m is None:
            self._lift_m = np.array([way.position_m[0], way.position_m[1], CARRY_M + 2 * self._half_m])
        # The tool is where the box is plus what it slipped in the hand; the box is what has to arrive.
        slip = tool[:3, 3] - box
        slip[2] = 0.0
        target: FloatArray
        if beside < OVER_M:
            target = self._target_m + slip
        elif height < CARRY_M - 0.03:
            target = self._lift_m
        else:
            target = np.array([self._target_m[0], self._target_m[1], self._lift_m[2]]) + slip
        return pose_action(self._spec, target, way.rotation, way.gripper)
