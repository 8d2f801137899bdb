"""The experts of HeldTool: one that feels how the tool lies between the fingers, and one that takes it as straight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from envs.experts.base import CLOSED, Expert, check_spec, down, pose_action, yaw_of
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import Action, ActionSpec
from sensors.geometry import FloatArray, invert
from sensors.pad import PadGrid

PAD_LINK, PAD_M, PAD_TURN = "panda_leftfinger", (0.0, 0.0, 0.045), (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
PAD_POINTS, PAD_SIDE_M, GEL_M = 24, 0.016, 0.003
LEAST_ROWS = 4  # of a pad that have to be pressed to tell a direction
HOVER_M = 0.06  # the tip above the mark while it is far beside
CENTRED_M, SLOPE = 0.002, 3.0  # so near beside the mark, down to it; farther off, this much higher per metre
OVER_M = 0.002  # the tip is to end so high above the mark


@dataclass(frozen=True)
class Held:
    """What is known of a tool in the hand and of its mark.

    Attributes:
        body: the tool.
        along_m: from the point of its axis that is nearest to the tool point, to its tip.
        mark_m: where the tip is to be [3], base frame.
    """

    body: int
    along_m: float
    mark_m: tuple[float, float, float]


class PadLook:
    """The axis of a straight tool from the dent that it makes in the left finger's gel.

    Args:
        world: where the tool is.
        body: the tool.
    """

    def __init__(self, world: PyBulletWorld, body: int) -> None:
        self._world, self._body = world, body
        self._grid = PadGrid(PAD_M, PAD_TURN, PAD_POINTS, PAD_POINTS, PAD_SIDE_M, PAD_SIDE_M, GEL_M)

    def axis(self) -> tuple[float, float] | None:
        """Where the tool's axis passes the tool point along the hand's x, and the angle by which it leans to +x.

        Both in the plane of the pad, metres and radians; None = too little is pressed.
        """
        grid, world = self._grid, self._world
        base_from_pad = world.link_pose(PAD_LINK) @ grid.link_from_pad
        pressed = grid.reach_m(world, base_from_pad, [self._body]) > 0
        counts = pressed.sum(axis=1)
        # Where the tool is cut off by the pad's edge, the middle of what is left is not that of the tool.
        rows = (counts > 0) & ~pressed[:, 0] & ~pressed[:, -1]
        if rows.sum() < LEAST_ROWS:
            return None
        across, along = grid.places_m[..., 0], grid.places_m[:, 0, 1]
        middle = (across * pressed).sum(axis=1)[rows] / counts[rows]
        slope, at = np.polyfit(along[rows], middle, 1)
        tool_from_pad = invert(world.link_pose("tool")) @ base_from_pad
        first, second = (tool_from_pad @ np.array([at + slope * y, y, 0.0, 1.0]) for y in (0.0, 1.0))
        way = second - first
        lean = math.atan2(way[0] * math.copysign(1.0, way[2]), abs(way[2]))
        return float(first[0] - first[2] * math.tan(lean)), lean


def tip_in_tool(axis: tuple[float, float], along_m: float) -> FloatArray:
    """The tip [3] in the tool frame of a tool whose axis is as :meth:`PadLook.axis` says."""
    at, lean = axis
    across = at * math.cos(lean)
    return np.array([
        across * math.cos(lean) + along_m * math.sin(lean), 0.0, along_m * math.cos(lean) - across * math.sin(lean)
    ])  # fmt: skip


@final
class HeldToolExpert(Expert):
    """Feels where the tool's tip is, and puts the tip on the mark.

    It sees the mark, and knows how long the tool is; how it lies between the fingers is read from the dent in the gel.

    Args:
        world: where the tool is.
        robot: whose hand holds it.
        spec: its end-effector-pose actions.
        held: what is known of the tool.
        feels: whether it feels; otherwise it takes the tool as straight in the middle of the hand.

    Raises:
        SpecError: actions without rotation or gripper.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, spec: ActionSpec, held: Held, feels: bool = True) -> None:
        check_spec("HeldToolExpert", spec)
        self._robot, self._spec, self._held = robot, spec, held
        self._look = PadLook(world, held.body) if feels else None
        self._rotation = down(yaw_of(robot.tool_pose()[:3, :3]))

    def act(self) -> Action:
        """The next action."""
        felt = self._look.axis() if self._look is not None else None
        tip = self._rotation @ tip_in_tool(felt or (0.0, 0.0), self._held.along_m)
        way = np.array(self._held.mark_m) - (self._robot.tool_pose()[:3, 3] + tip)
        high = min(max(SLOPE * (math.hypot(way[0], way[1]) - CENTRED_M), 0.0), HOVER_M)
        target = np.array(self._held.mark_m) - tip + np.array([0.0, 0.0, OVER_M + high])
        return pose_action(self._spec, target, self._rotation, CLOSED)
