"""Planner: how the arm gets from where it is to a pose, without hitting what stands around it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from envs.clearance import Clearance
from envs.collision import CollisionScene
from envs.robots.arm import Arm
from envs.robots.kinematics import rotation_between, turned
from envs.rrt import connect, shortened
from sensors.geometry import FloatArray

STEP_M, STEP_RAD = 0.01, math.radians(3.0)  # between two checked poses of a straight line
JUMP_RAD = 0.3  # a joint that turns this much in one step of a straight line has changed to another solution
REST_GAIN = 0.025  # in the four steps of 4 cm as much drift of the elbow as in one control step of the pose mode
ITERATIONS = 40  # of inverse kinematics
GUESSES, GUESS_RAD = 60, 0.8  # random first guesses, every other around a good posture with this deviation
SOLUTIONS, ENOUGH, SAME_RAD = 4, 12, 0.2  # how many are kept; guesses after which one is enough; these are the same
RISE_M = (0.04, 0.1, 0.18, 0.28)  # via points: this much above the higher one of start and goal
BACK_M = 0.08  # and this far back along the approach
INNER_M = 0.34  # or drawn in to this distance from the base, to pass before what is in the way
STEEP = 0.95  # an approach that is this vertical is left upwards anyway
TRIES = 2000  # samples of the random search

REACHED, UNREACHABLE, BLOCKED = "", "unreachable", "blocked"


@dataclass(frozen=True, eq=False)
class Plan:
    """A way, or why there is none.

    Attributes:
        joints_rad: float [N, J] from the present joint positions to the goal, close together; None = there is no way.
        reason: "", "unreachable" (the arm cannot take the pose) or "blocked" (something is in the way).
    """

    joints_rad: FloatArray | None
    reason: str


@final
class Planner:
    """Plans the moves of one arm.

    The straight line of the tool comes first. Where something is in its way: up, over and down, or back, over and in
    again, at several heights; or drawn in towards the base; and last a random search through joint space
    (:mod:`envs.rrt`), cut short.

    Args:
        arm: its kinematics and limits.
    """

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def plan(
        self,
        start_rad: FloatArray,
        base_from_goal: FloatArray,
        scene: CollisionScene | None,
        rng: np.random.Generator,
    ) -> Plan:
        """A way from joint positions [J] to a pose of the tool [4, 4].

        Args:
            start_rad: where the arm is.
            base_from_goal: where the tool is to be.
            scene: what to keep clear of (:class:`envs.clearance.Clearance` says how), up to date; None = of nothing.
            rng: of the first guesses and the search.
        """
        line = self._line(start_rad, base_from_goal)
        rule: Clearance | None = None
        if line is not None:
            if scene is None:
                return Plan(line, REACHED)
            rule = Clearance(self._arm, scene, start_rad, line[-1])
            if rule.goal_free(line[-1]) and rule.path_free(line):
                return Plan(line, REACHED)
        goals = self._solutions(start_rad, base_from_goal, rng)
        if line is not None:
            goals.insert(0, line[-1])
        if not goals:
            return Plan(None, UNREACHABLE)
        if scene is None:
            return Plan(self._dense([start_rad, goals[0]]), REACHED)
        if rule is None:
            rule = Clearance(self._arm, scene, start_rad, goals[0])
        goals = [goal for goal in goals if rule.goal_free(goal)]
        if not goals:
            return Plan(None, BLOCKED)
        path = self._over(start_rad, base_from_goal, rule)
        if path is None:
            path = self._searched(start_rad, goals, rule, rng)
        return Plan(path, BLOCKED if path is None else REACHED)

    def _over(self, start_rad: FloatArray, base_from_goal: FloatArray, rule: Clearance) -> FloatArray | None:
        """The shortest of the ways over via points that is free."""
        start = self._arm.chain.forward(start_rad)
        ways = sorted(
            _ways_over(start, base_from_goal, self._arm.workspace.high_m[2]), key=lambda w: _length([start, *w])
        )
        for way in ways:
            path = start_rad[None]
            for pose in way:
                leg = self._line(path[-1], pose, rule)
                if leg is None:
                    break
                path = np.concatenate([path, leg[1:]])
            else:
                return path
        return None

    def _searched(
        self, start_rad: FloatArray, goals: Sequence[FloatArray], rule: Clearance, rng: np.random.Generator
    ) -> FloatArray | None:
        """A way by random search, from the start or a little away from it, to any of the goals or a little before."""
        exits, entries = [start_rad[None]], [goal[None] for goal in goals]
        for found, roots in ((exits, [start_rad]), (entries, goals)):
            for root in roots:
                for pose in _away(self._arm.chain.forward(root)):
                    leg = self._line(root, pose, rule)
                    if leg is not None:
                        found.append(leg)
        starts, ends = (np.stack([leg[-1] for leg in legs]) for legs in (exits, entries))
        chain = self._arm.chain
        met = connect(starts, ends, rule.edge_free, chain.low, chain.high, rng, TRIES)
        if met is None:
            return None
        points, first, last = met
        middle = self._dense(shortened(points, rule.edge_free, rng))
        return np.concatenate([exits[first][:-1], middle, entries[last][::-1][1:]])

    def _line(
        self, start_rad: FloatArray, base_from_goal: FloatArray, rule: Clearance | None = None
    ) -> FloatArray | None:
        """Joint positions [N, J] along the straight line of the tool; None where the arm or the rule forbids it."""
        chain = self._arm.chain
        start = chain.forward(start_rad)
        way, turn = base_from_goal[:3, 3] - start[:3, 3], rotation_between(start[:3, :3], base_from_goal[:3, :3])
        count = max(math.ceil(max(math.sqrt(way @ way) / STEP_M, math.sqrt(turn @ turn) / STEP_RAD)), 1)
        joints = [start_rad]
        for step in range(1, count + 1):
            pose = np.eye(4)
            pose[:3, 3] = start[:3, 3] + way * (step / count)
            pose[:3, :3] = turned(start[:3, :3], turn * (step / count)) if step < count else base_from_goal[:3, :3]
            found, met = chain.solve(pose, joints[-1], self._arm.rest_rad, REST_GAIN)
            if not met or float(np.abs(found - joints[-1]).max()) > JUMP_RAD:
                return None
            if rule is not None and not rule.edge_free(joints[-1], found):
                return None
            joints.append(found)
        return np.stack(joints)

    def _solutions(
        self, start_rad: FloatArray, base_from_goal: FloatArray, rng: np.random.Generator
    ) -> list[FloatArray]:
        """Joint positions of a pose, the nearest to ``start_rad`` first."""
        chain, rest = self._arm.chain, self._arm.rest_rad
        found: list[FloatArray] = []
        for number, guess in enumerate(self._guesses(start_rad, base_from_goal, rng)):
            if len(found) == SOLUTIONS or (found and number >= ENOUGH):
                break
            joints, met = chain.solve(base_from_goal, guess, rest, iterations=ITERATIONS)
            if met and all(float(np.abs(joints - other).max()) > SAME_RAD for other in found):
                found.append(joints)
        return sorted(found, key=lambda joints: float(np.abs(joints - start_rad).max()))

    def _guesses(
        self, start_rad: FloatArray, base_from_goal: FloatArray, rng: np.random.Generator
    ) -> Iterator[FloatArray]:
        """Where inverse kinematics may start; about every fifth leads to a solution of a pose within reach."""
        chain, rest = self._arm.chain, self._arm.rest_rad
        facing = rest.copy()
        facing[0] = math.atan2(base_from_goal[1, 3], base_from_goal[0, 3])
        yield start_rad
        yield rest
        yield facing
        for number in range(GUESSES):
            guess = (
                facing + GUESS_RAD * rng.normal(size=len(rest)) if number % 2 else rng.uniform(chain.low, chain.high)
            )
            yield np.minimum(np.maximum(guess, chain.low), chain.high)

    def _dense(self, points: Sequence[FloatArray]) -> FloatArray:
        """Joint positions [N, J] on the straight lines between these, close together."""
        out = [points[0]]
        for first, second in itertools.pairwise(points):
            count = max(math.ceil(self._arm.sweep_m(first, second) / STEP_M), 1)
            out += [first + share * (second - first) for share in np.arange(1, count + 1) / count]
        return np.stack(out)


def _away(pose: FloatArray) -> list[FloatArray]:
    """Poses a little back along the approach, and a little higher."""
    ways = [-BACK_M * pose[:3, 2]] if -pose[2, 2] < STEEP else []
    return [_moved(pose, way) for way in (*ways, np.array([0.0, 0.0, RISE_M[1]]))]


def _ways_over(start: FloatArray, goal: FloatArray, highest_m: float) -> Iterator[list[FloatArray]]:
    """Lists of poses [4, 4] to go through, the goal last."""
    outs = [[]] if -start[2, 2] >= STEEP else [[], [_moved(start, -BACK_M * start[:3, 2])]]
    ins = [[goal]] if -goal[2, 2] >= STEEP else [[goal], [_moved(goal, -BACK_M * goal[:3, 2]), goal]]
    top_m = max(start[2, 3], goal[2, 3])
    levels = sorted({min(top_m + rise, max(highest_m, top_m)) for rise in RISE_M})
    for out in outs:
        for back in ins:
            if len(out) + len(back) > 1:
                yield [*out, *back]
            for level_m in levels:
                over = [_at_height((out or [start])[-1], level_m), _at_height(back[0], level_m)]
                yield [*out, *over, *back]
    for level_m in sorted({top_m, levels[-1]}):
        yield [_drawn_in(start, level_m), _drawn_in(goal, level_m), goal]


def _moved(pose: FloatArray, way_m: FloatArray) -> FloatArray:
    out = pose.copy()
    out[:3, 3] += way_m
    return out


def _at_height(pose: FloatArray, height_m: float) -> FloatArray:
    out = pose.copy()
    out[2, 3] = height_m
    return out


def _drawn_in(pose: FloatArray, height_m: float) -> FloatArray:
    """The pose nearer to the base, unless it is near already."""
    out = _at_height(pose, height_m)
    out[:2, 3] *= min(INNER_M / math.hypot(*out[:2, 3]), 1.0)
    return out


def _length(poses: Sequence[FloatArray]) -> float:
    return sum(math.dist(a[:3, 3], b[:3, 3]) for a, b in itertools.pairwise(poses))
