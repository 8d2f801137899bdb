"""Arm: what has to be known of a robot's arm to plan its moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from envs.robots.controller import SpeedLimits, Workspace
from envs.robots.kinematics import SerialChain, rotation_between
from sensors.geometry import FloatArray

OUTLINE_M = 0.12  # hand, fingers and what they hold reach about this far from the tool point


@dataclass(frozen=True, eq=False)
class Arm:
    """Kinematics and limits.

    Attributes:
        chain: its kinematics.
        rest_rad: joint positions [J] that redundant joints drift to.
        limits: speeds of the tool, and how far the commanded pose may be ahead of the real one.
        workspace: the box that the tool point is kept in.
    """

    chain: SerialChain
    rest_rad: FloatArray
    limits: SpeedLimits
    workspace: Workspace

    def sweep_m(self, first_rad: FloatArray, second_rad: FloatArray) -> float:
        """How far the arm's joints and the corners of its hand are apart in two joint positions [J], at most."""
        return float(np.sqrt(np.square(self._outline(second_rad) - self._outline(first_rad)).sum(axis=1).max()))

    def seconds(self, joints_rad: FloatArray) -> FloatArray:
        """When [N] each joint position of a path [N, J] is reached at the speed limits; the first at 0 s."""
        tools = [self.chain.forward(joints) for joints in joints_rad]
        out = np.zeros(len(joints_rad))
        for index in range(1, len(out)):
            before, after = tools[index - 1], tools[index]
            way, turn = after[:3, 3] - before[:3, 3], rotation_between(before[:3, :3], after[:3, :3])
            change = np.abs(joints_rad[index] - joints_rad[index - 1])
            out[index] = out[index - 1] + max(
                math.sqrt(way @ way) / self.limits.linear_m_s,
                math.sqrt(turn @ turn) / self.limits.angular_rad_s,
                float((change / self.chain.max_velocity).max()),
            )
        return out

    def _outline(self, position_rad: FloatArray) -> FloatArray:
        joints_m, tool = self.chain.joints_and_tool(position_rad)
        corners = tool[:3, 3] + OUTLINE_M * np.array(
            [tool[:3, 0], -tool[:3, 0], tool[:3, 1], -tool[:3, 1], tool[:3, 2]]
        )
        return np.concatenate([joints_m, corners])
