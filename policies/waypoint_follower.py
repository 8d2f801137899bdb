"""Follower: leads the tool from waypoint to waypoint, period by period, and says when one has failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from sensors.action import Action, ActionSpec
from sensors.geometry import FloatArray, matrix_to_rotation_6d, rotation_angle_rad
from sensors.timeline import EPSILON_S

OPEN, CLOSED = 1.0, -1.0
OPEN_M = 0.08  # gripper opening that is command 1
NEAR_M, NEAR_RAD = 0.004, 0.03  # the tool has arrived
STUCK_M, STUCK_RAD = 0.012, 0.12  # a tool that comes no nearer has arrived all the same, if it is this near
PATIENCE_S = 0.75  # without coming nearer


@final
@dataclass(frozen=True, eq=False)
class Waypoint:
    """Where the tool is to be.

    Attributes:
        pose: ``base_from_tool`` [4, 4].
        gripper: -1 closed or 1 open, once the tool is there.
        wait_s: how long it stays there then.
        needed: whether a tool that cannot come there has failed; otherwise it goes on with the next waypoint.
        holding_m: at the end, fingers that are nearer to each other than this have failed; 0 = never.
    """

    pose: FloatArray
    gripper: float
    wait_s: float
    needed: bool = False
    holding_m: float = 0.0


@final
class Follower:
    """Follows waypoints.

    Args:
        spec: end-effector poses with rotation and gripper.
    """

    def __init__(self, spec: ActionSpec) -> None:
        self._spec = spec
        self._ahead: list[Waypoint] = []
        self._gripper = OPEN
        self._there_s: float | None = None
        self._best, self._best_s = np.inf, -np.inf  # the nearest that the tool has come, and when
        self.failed = False

    def reset(self) -> None:
        """Forget everything."""
        self._ahead, self._gripper, self.failed = [], OPEN, False
        self._next()

    def going(self) -> bool:
        """Whether waypoints are left."""
        return bool(self._ahead)

    def go(self, waypoints: Sequence[Waypoint]) -> None:
        """Follow these from now on."""
        self._ahead = list(waypoints)
        self._next()
        self.failed = False

    def act(self, tool: FloatArray, opening_m: float, now_s: float) -> Action:
        """The next command on the way, ``tool`` [4, 4] being where it is now.

        After the last waypoint, or one that has failed, ``going`` is False.
        """
        way = self._ahead[0]
        if self._there_s is None:
            there, stuck = self._progress(way, tool, now_s)
            if there:
                self._there_s, self._gripper = now_s, way.gripper
            elif stuck:
                away_m, away_rad = _apart(tool, way.pose)
                if way.needed and (away_m > STUCK_M or away_rad > STUCK_RAD):
                    return self._fail(tool)
                self._there_s, self._gripper = now_s, way.gripper
        elif now_s - self._there_s >= way.wait_s - EPSILON_S:
            if way.holding_m > 0 and opening_m < way.holding_m:
                return self._fail(tool)
            self._ahead.pop(0)
            self._next()
            if not self._ahead:
                return self._action(way.pose)
            way = self._ahead[0]
        return self._action(way.pose)

    def hold(self, tool: FloatArray, opening_m: float) -> Action:
        """The command that moves nothing."""
        self._gripper = OPEN if opening_m > OPEN_M / 2 else self._gripper
        return self._action(tool)

    def _fail(self, tool: FloatArray) -> Action:
        self._ahead, self.failed = [], True
        self._next()
        return self._action(tool)

    def _next(self) -> None:
        self._there_s = None
        self._best, self._best_s = np.inf, -np.inf

    def _progress(self, way: Waypoint, tool: FloatArray, now_s: float) -> tuple[bool, bool]:
        """Whether the tool is there, and whether it has come no nearer for a while."""
        away_m, away_rad = _apart(tool, way.pose)
        away = away_m + 0.1 * away_rad
        if away < self._best - 1e-3:
            self._best, self._best_s = away, now_s
        return away_m < NEAR_M and away_rad < NEAR_RAD, now_s - self._best_s > PATIENCE_S

    def _action(self, pose: FloatArray) -> Action:
        values = np.empty(self._spec.size, np.float32)
        values[self._spec.part("position_m")] = pose[:3, 3]
        values[self._spec.part("rotation_6d")] = matrix_to_rotation_6d(pose[:3, :3])
        values[self._spec.part("gripper")] = self._gripper
        return Action(np.clip(values, self._spec.space.low, self._spec.space.high), self._spec)


def _apart(first: FloatArray, second: FloatArray) -> tuple[float, float]:
    """Metres and radians between two poses [4, 4]."""
    return (
        float(np.linalg.norm(first[:3, 3] - second[:3, 3])),
        float(rotation_angle_rad(first[:3, :3], second[:3, :3])),
    )
