"""The expert of Lift: grasp, then straight up."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from envs.experts.base import Expert, check_spec, pose_action
from envs.experts.grasp import Grasp
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import Action, ActionSpec

FITS_M = 0.075  # of the 0.08 that the hand opens


@final
class LiftExpert(Expert):
    """Lifts a box.

    Args:
        world: where the box is.
        robot: which lifts it.
        spec: its end-effector-pose actions.
        body: the box.
        half_m: half its edge, metres.
        lift_m: how high the tool is to rise above the table.
    """

    def __init__(
        self, world: PyBulletWorld, robot: Robot, spec: ActionSpec, body: int, half_m: float, lift_m: float
    ) -> None:
        check_spec("LiftExpert", spec)
        self._robot, self._spec = robot, spec
        # A box whose diagonal fits between the fingers is taken as it stands: a turn would be one thing more to learn.
        self._grasp = Grasp(world, robot, body, half_m, turn=2 * math.sqrt(2) * half_m > FITS_M)
        self._lift_m = lift_m

    def act(self) -> Action:
        """The next action."""
        way = self._grasp.act()
        target = way.position_m
        if self._grasp.holding:
            tool = self._robot.tool_pose()
            target = np.array([tool[0, 3], tool[1, 3], self._lift_m])
        return pose_action(self._spec, target, way.rotation, way.gripper)
