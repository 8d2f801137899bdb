"""The experts of InsertPeg: one that gives way to what pushes the peg aside, and one that feels nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from envs.experts.base import CLOSED, Expert, check_spec, down, pose_action
from envs.experts.feel import feel
from envs.robots.base import Robot
from envs.touch_models import FEET_N_M
from envs.world import PyBulletWorld
from sensors.action import Action, ActionSpec
from sensors.geometry import FloatArray

HOVER_M = 0.08  # the tip above the block while it is far beside
CENTRED_M, SLOPE = 0.002, 3.0  # so near beside the middle, down to it; farther off, this much higher per metre
LOW_M = 0.004  # the tip is so near above the block: from here on it is felt for
FAR_M = 0.012  # the hole is nearer to the middle of the hood than this; farther off, come again
STEP_M = 0.0015  # way down per step at most, from LOW_M on
PUSH_N = 5.5  # wanted on the peg's tip
YIELDING = 1.7  # the hand goes this times the way by which the socket was pushed aside; 2 would swing


@dataclass(frozen=True)
class Peg:
    """What is known of a peg in the hand and of the block that it goes into.

    Attributes:
        body: the peg.
        below_m: how far its tip is below the tool point.
        weight_N: its weight.
        middle_m: the middle of the block's upper side as seen [3], base frame; the hole is somewhere near it.
        depth_m: how deep its tip is to go below that.
    """

    body: int
    below_m: float
    weight_N: float  # noqa: N815  (units keep their own capital letter)
    middle_m: tuple[float, float, float]
    depth_m: float


@final
class InsertPegExpert(Expert):
    """Presses the peg lightly down and gives way to what pushes it aside, until it stands in the hole.

    The slopes of the funnel around the hole push the peg towards the hole, and so do the walls in it: what both pads
    feel of the force on the peg shows where to go. Each action follows from what is felt and seen now, and from nothing
    that was before.

    Args:
        world: where the peg is.
        robot: whose hand holds it.
        spec: its end-effector-pose actions.
        peg: what is known of it.

    Raises:
        SpecError: actions without rotation or gripper.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, spec: ActionSpec, peg: Peg) -> None:
        check_spec("InsertPegExpert", spec)
        self._world, self._robot, self._spec, self._peg = world, robot, spec, peg
        self._rotation = down(0.0)  # as the block stands

    def act(self) -> Action:
        """The next action."""
        tool = self._robot.tool_pose()[:3, 3]
        tip = tool - np.array([0.0, 0.0, self._peg.below_m])
        way = tip - np.array(self._peg.middle_m)
        beside = math.hypot(way[0], way[1])
        step = self._come(way, beside) if way[2] > LOW_M or beside > FAR_M else self._search()
        return pose_action(self._spec, tool + step, self._rotation, CLOSED)

    def _come(self, way: FloatArray, beside: float) -> FloatArray:
        """The way to the middle of the block, from above."""
        high = min(max(SLOPE * (beside - CENTRED_M), 0.0), HOVER_M)
        step: FloatArray = -way + np.array([0.0, 0.0, high + LOW_M - STEP_M])
        if way[2] < LOW_M:  # beside the hole on the block: up first
            step[:2] = 0.0
        return step

    def _search(self) -> FloatArray:
        push = feel(self._world, self._peg.body).force_N + np.array([0.0, 0.0, self._peg.weight_N])
        down_m = min(max((PUSH_N - push[2]) / FEET_N_M["z"], -STEP_M), STEP_M)
        return np.array([YIELDING * push[0] / FEET_N_M["x"], YIELDING * push[1] / FEET_N_M["y"], -down_m])


@final
class StraightDownExpert(Expert):
    """Pushes the peg down where the hole is to be by its looks: what can be done without touch.

    Args:
        world: where the peg is.
        robot: whose hand holds it.
        spec: its end-effector-pose actions.
        peg: what is known of it.

    Raises:
        SpecError: actions without rotation or gripper.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, spec: ActionSpec, peg: Peg) -> None:
        check_spec("StraightDownExpert", spec)
        self._robot, self._spec, self._peg = robot, spec, peg
        self._rotation = down(0.0)  # as the block stands

    def act(self) -> Action:
        """The next action."""
        tool = self._robot.tool_pose()[:3, 3]
        middle = np.array(self._peg.middle_m)
        beside = math.hypot(*(tool[:2] - middle[:2]))
        high = min(max(SLOPE * (beside - CENTRED_M), 0.0), HOVER_M)
        tip = float(tool[2]) - self._peg.below_m
        near = tip < middle[2] + 2 * LOW_M
        # Not farther down than the block gives way, so that the peg is not pushed up in the hand.
        low = max(tip - (STEP_M if near else 1.0), float(middle[2]) - self._peg.depth_m - LOW_M)
        target = np.array(
            [middle[0], middle[1], max(low, float(middle[2]) + high if high else low) + self._peg.below_m]
        )
        return pose_action(self._spec, target, self._rotation, CLOSED)
