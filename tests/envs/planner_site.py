"""A Panda before a table and what stands on it, to plan in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from envs.experts.base import down
from envs.planner import Plan, Planner
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.geometry import FloatArray, pose

WHITE = (1.0, 1.0, 1.0, 1.0)
MOVING = ("panda_link2", "panda_link3", "panda_link4", "panda_link5", "panda_link6", "panda_link7", "panda_hand")
FINGERS = ("panda_leftfinger", "panda_rightfinger")
TIP_M = 0.0088  # fingertips reach this far below the tool point
Half = Sequence[float]


def at(x: float, y: float, z: float, rotation: FloatArray | None = None) -> FloatArray:
    """A pose of the tool, pointing down unless told otherwise."""
    out = pose((x, y, z))
    out[:3, :3] = down(0.0) if rotation is None else rotation
    return out


class Site:
    """A Panda before a table."""

    def __init__(self, start: FloatArray) -> None:
        self.world, self.robot = PyBulletWorld(), Panda()
        self.robot.attach(self.world)
        self.box((0.55, 0.6, 0.02), (0.35, 0.0, -0.02))
        self.robot.reset(start)
        self.start_rad = self.world.joint_state().position_rad

    def box(self, half_m: Half, middle_m: Half, mass_kg: float = 0.0) -> int:
        return self.world.add_box(half_m, middle_m, mass_kg=mass_kg, rgba=WHITE)

    def plan(self, goal: FloatArray, avoid: bool = True, seed: int = 0) -> Plan:
        scene = self.world.collision_scene() if avoid else None
        start_rad = self.world.joint_state().position_rad
        return Planner(self.robot.arm).plan(start_rad, goal, scene, np.random.default_rng(seed))

    def tools(self, plan: Plan) -> FloatArray:
        """The tool's poses [N, 4, 4] along a plan."""
        assert plan.joints_rad is not None
        return np.stack([self.robot.arm.chain.forward(joints) for joints in plan.joints_rad])

    def clear(self, plan: Plan, margin_m: float) -> bool:
        """Whether the moving links keep a margin along a plan and half way between its points."""
        assert plan.joints_rad is not None
        between = [(a + b) / 2 for a, b in itertools.pairwise(plan.joints_rad)]
        for joints in (*plan.joints_rad, *between):
            self.world.place_joints(joints, 0.08)
            if any(self.world.touches(link, margin_m) for link in (*MOVING, *FINGERS)):
                return False
        return True


GOAL = at(0.5, 0.2, 0.1)


def wall(height_m: float) -> tuple[Half, Half]:
    """Across the straight way."""
    return (0.2, 0.01, height_m / 2), (0.5, 0.0, height_m / 2)


def shelf(put: Callable[[Half, Half], int]) -> FloatArray:
    """A shelf of a board and two sides, and a pose of the tool in it that points away from the base."""
    put((0.1, 0.15, 0.005), (0.65, 0.0, 0.3))
    for side in (-1.0, 1.0):
        put((0.1, 0.005, 0.15), (0.65, side * 0.15, 0.15))
    return at(0.6, 0.0, 0.15, np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]))
