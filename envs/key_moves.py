"""KeyMoves: key poses carried out - plan, drive there, close or open the gripper, and wait until all is at rest."""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.planner import Planner
from envs.robots.base import Robot
from envs.robots.kinematics import rotation_between
from envs.stepping import Stepping
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.geometry import FloatArray, rotation_6d_to_matrix

AT_M, AT_RAD = 0.002, math.radians(1.0)  # the tool has arrived
NEAR_M = 0.01  # a tool that was stopped this near to the goal has reached it: it rests on something
STALL_S = 0.5  # without progress for this long the arm is stopped by something
LESS = 0.95  # the distance to the goal has to shrink to this share of itself to count as progress
SETTLED_M = 1e-4  # the fingers have moved less than this in one control period
GRIP_S = 2.0  # the longest that is waited for them
STALLED = "stalled"


@final
class KeyMoves:
    """Carries out key poses with one robot.

    Sensors are not read on the way, only once all is at rest: the observation after a move then shows frames of the
    scene as it stands, the whole history included, and costs no pictures that nobody looks at.

    Args:
        world: where the robot is.
        robot: which moves.
        stepping: its time.
        spec: its key poses.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, stepping: Stepping, spec: ActionSpec) -> None:
        self._world, self._robot, self._stepping, self._spec = world, robot, stepping, spec
        self._planner = Planner(robot.arm)
        self._rng = np.random.default_rng(0)

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode; the planner's random numbers come from ``rng``."""
        self._rng = rng

    def carry_out(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
        """Make one whole move.

        Returns:
            float32 [A]: the key pose after clipping to the limits; and "" when it was reached, or why not:
            "unreachable" or "blocked" (there is no way: nothing moves for one control period), or "stalled" (something
            on the way stopped the arm more than ``NEAR_M`` from the goal; the gripper acted all the same).

        Raises:
            SpecError: wrong shape, not finite, or no rotation.
        """
        spec = self._spec
        sent = np.clip(spec.check(values), spec.space.low, spec.space.high)
        goal: FloatArray = np.eye(4)
        goal[:3, 3] = sent[spec.part("position_m")]
        goal[:3, :3] = rotation_6d_to_matrix(sent[spec.part("rotation_6d")])
        scene = self._world.collision_scene() if sent[spec.part("avoid")][0] > 0 else None
        plan = self._planner.plan(self._world.joint_state().position_rad, goal, scene, self._rng)
        if plan.joints_rad is None:
            self._stepping.period()
            return sent, plan.reason
        joints_rad, reason = self._drive(plan.joints_rad, goal)
        self._grip(joints_rad, float(sent[spec.part("gripper")][0]))
        self._stepping.refresh()
        return sent, reason

    def _drive(self, path_rad: FloatArray, goal: FloatArray) -> tuple[FloatArray, str]:
        """Follow a path [N, J] as far as it goes; the joint positions [J] that are commanded now, and the reason."""
        robot, period_s = self._robot, self._spec.period_s
        arm, gripper = robot.arm, robot.gripper
        times_s = arm.seconds(path_rad)
        way_s, end_s, joints_rad = 0.0, float(times_s[-1]), path_rad[0]
        least, idle_s = math.inf, 0.0
        while True:
            next_s = min(way_s + period_s, end_s)
            ahead_rad = _at(path_rad, times_s, next_s)
            # The command waits for an arm that something holds back, as in the pose mode.
            moved = next_s > way_s and self._within_leash(ahead_rad)
            if moved or end_s == 0.0:
                way_s, joints_rad = next_s, ahead_rad
            robot.follow(joints_rad, gripper, period_s)
            self._stepping.blind()
            apart_m, apart_rad = _apart(robot.tool_pose(), goal)
            if way_s >= end_s and apart_m <= AT_M and apart_rad <= AT_RAD:
                return joints_rad, ""
            left = max(apart_m / AT_M, apart_rad / AT_RAD)
            idle_s = 0.0 if moved or left < LESS * least else idle_s + period_s
            least = min(left, least)
            if idle_s >= STALL_S:
                if apart_m <= NEAR_M:
                    return joints_rad, ""
                return self._world.joint_state().position_rad, STALLED  # it does not push on

    def _within_leash(self, joints_rad: FloatArray) -> bool:
        arm = self._robot.arm
        apart_m, apart_rad = _apart(self._robot.tool_pose(), arm.chain.forward(joints_rad))
        return apart_m <= arm.limits.leash_m and apart_rad <= arm.limits.leash_rad

    def _grip(self, joints_rad: FloatArray, gripper: float) -> None:
        """Close or open, and wait until the fingers rest."""
        robot, period_s = self._robot, self._spec.period_s
        changes = gripper != robot.gripper
        robot.follow(joints_rad, gripper, period_s)
        if not changes:
            return
        before_m = robot.gripper_m()
        for _ in range(round(GRIP_S / period_s)):
            self._stepping.blind()
            now_m = robot.gripper_m()
            if abs(now_m - before_m) < SETTLED_M:
                return
            before_m = now_m
            robot.follow(joints_rad, gripper, period_s)


def _at(path_rad: FloatArray, times_s: FloatArray, moment_s: float) -> FloatArray:
    """The path's joint positions [J] at a moment."""
    after = min(int(np.searchsorted(times_s, moment_s)), len(times_s) - 1)
    if after == 0:
        first: FloatArray = path_rad[0]
        return first
    span_s = float(times_s[after] - times_s[after - 1])
    share = (moment_s - float(times_s[after - 1])) / span_s if span_s > 0 else 1.0
    between: FloatArray = path_rad[after - 1] + share * (path_rad[after] - path_rad[after - 1])
    return between


def _apart(first: FloatArray, second: FloatArray) -> tuple[float, float]:
    """Metres and radians between two poses [4, 4]."""
    way, turn = second[:3, 3] - first[:3, 3], rotation_between(first[:3, :3], second[:3, :3])
    return math.sqrt(float(way @ way)), math.sqrt(float(turn @ turn))
