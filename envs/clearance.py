"""Clearance: what a move may come near, where on its way, and what it has to stay away from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import final

import numpy as np

from envs.collision import CollisionScene, Nearness, Part
from envs.robots.arm import Arm
from sensors.geometry import FloatArray

CLEAR_M = 0.01  # kept from everything on the way
END_M = 0.06  # the first and the last part of the way, where the tool is this near to the start or the goal
SLACK_M = 0.003  # at the ends, contact may be this much deeper than it is at the start or the goal itself
DEEP_M = 0.015  # hand and held body may be this deep in something at the goal: it gives way, or stops them there
TOUCH_M = 0.002  # the arm stays at least this far away everywhere
SWEEP_M = 2 * CLEAR_M  # between two checked joint positions no point of the robot moves further

Touched = dict[tuple[Part, int], float]


@final
class Clearance:
    """The rule of one move.

    Everything of the robot keeps ``CLEAR_M`` from everything else, with these exceptions:

    - in the first ``END_M``, hand and held bodies may touch what they touch (or are nearer than ``CLEAR_M`` to) at the
      start, and in the last ``END_M`` what they touch at the goal; in both cases at most ``SLACK_M`` deeper than there;
    - in the first and last ``END_M`` the arm keeps ``TOUCH_M`` only, or what it has at the start;
    - the hand may touch an articulated body that it has gripped, all the way.

    At the goal itself hand and held bodies may be up to ``DEEP_M`` inside of something.

    Args:
        arm: the arm.
        scene: what stands around it, up to date.
        start_rad: where the arm is [J].
        goal_rad: joint positions [J] with the tool at the goal; any of them, since only hand and tool matter.
    """

    def __init__(self, arm: Arm, scene: CollisionScene, start_rad: FloatArray, goal_rad: FloatArray) -> None:
        self._arm, self._scene = arm, scene
        self._start_m, self._goal_m = (arm.chain.forward(joints)[:3, 3] for joints in (start_rad, goal_rad))
        self._at_start = _touched(scene.near(start_rad, CLEAR_M))
        self._at_goal = _touched(scene.near(goal_rad, CLEAR_M))
        self._handles = scene.handles

    def goal_free(self, goal_rad: FloatArray) -> bool:
        """Whether the robot may stand at the goal like this [J]."""
        deep = any(
            distance < -DEEP_M and distance < self._at_start.get(key, math.inf) - SLACK_M
            for key, distance in self._at_goal.items()
            if key[0] is not Part.ARM and not self._is_handle(*key)
        )
        return not deep and self.free(goal_rad)

    def free(self, position_rad: FloatArray) -> bool:
        """Whether the robot may be there [J]."""
        tool_m = self._arm.chain.forward(position_rad)[:3, 3]
        starts, ends = math.dist(tool_m, self._start_m) <= END_M, math.dist(tool_m, self._goal_m) <= END_M
        if not (starts or ends) and not np.array_equal(self._arm.workspace.clip(tool_m), tool_m):
            return False
        found = self._scene.near(position_rad, CLEAR_M)
        return all(near.distance_m >= self._least_m(near, starts, ends) for near in found)

    def edge_free(self, first_rad: FloatArray, second_rad: FloatArray) -> bool:
        """Whether the robot may go straight from one joint position [J] to another; the first is not looked at."""
        count = max(math.ceil(self._arm.sweep_m(first_rad, second_rad) / SWEEP_M), 1)
        # The end first: it is the farthest from what is known to be free.
        shares = np.arange(count, 0, -1) / count
        return all(self.free(first_rad + share * (second_rad - first_rad)) for share in shares)

    def path_free(self, joints_rad: FloatArray) -> bool:
        """Whether a path [N, J] may be followed; its first point is not looked at."""
        return all(self.edge_free(a, b) for a, b in itertools.pairwise(joints_rad))

    def _is_handle(self, part: Part, body: int) -> bool:
        return part is Part.HAND and body in self._handles

    def _least_m(self, near: Nearness, starts: bool, ends: bool) -> float:
        """The least distance that this part may have from this body, in the first or last part of the way or not."""
        key = (near.part, near.body)
        if self._is_handle(*key):
            return -math.inf
        allowed = [CLEAR_M]
        if near.part is Part.ARM:
            if starts and key in self._at_start:
                allowed.append(min(self._at_start[key], TOUCH_M) - SLACK_M)
            if ends:
                allowed.append(TOUCH_M)
        else:
            if starts and key in self._at_start:
                allowed.append(min(self._at_start[key], 0.0) - SLACK_M)
            if ends and key in self._at_goal:
                allowed.append(min(self._at_goal[key], 0.0) - SLACK_M)
        return min(allowed)


def _touched(found: Iterable[Nearness]) -> Touched:
    out: Touched = {}
    for near in found:
        key = (near.part, near.body)
        out[key] = min(near.distance_m, out.get(key, math.inf))
    return out
