"""InsertPeg: put the peg in the hand into a hole that no camera sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.experts.insert_peg import InsertPegExpert, Peg, StraightDownExpert
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.robots.base import Robot
from envs.tasks.base import Goal, Outcome, Task, attached, check_reward, no_goal
from envs.tasks.in_hand import grasp_here
from envs.tasks.place import Area
from envs.touch_models import (
    BLOCK_HALF_M,
    BLOCK_KG,
    BLOCK_TOP_M,
    BLOCK_TRAVEL_M,
    FEET_DAMPING_N_S_M,
    FEET_N_M,
    FUNNEL_M,
    socket_urdf,
)
from envs.world import PyBulletWorld
from sensors.action import ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

G_M_S2 = 9.81
PEG_TALL_M, PEG_KG = 0.09, 0.15
PEG_IN_TOOL_M = np.array([0.0, 0.0, 0.02])  # its middle in the tool frame, whose z points down
BELOW_M = PEG_TALL_M / 2 + float(PEG_IN_TOOL_M[2])  # the tip below the tool point
HOOD_M = 0.004  # air between the block and the hood that hides it


@final
class InsertPeg(Task):
    """Put a square peg into a square hole that is somewhere near the middle of a block, without pushing hard.

    The rim of the hole is a funnel. The block stands on rubber feet that give way a little, and under a hood of cloth
    that hides it from all cameras and that the peg does not feel: only the hood's middle is seen, and the hole is
    beside it by up to ``offset_m``. The offset is drawn in every episode, whatever the randomisation: without it there
    is nothing to be felt.

    Args:
        area_low_m: lowest corner [2] (x, y) of where the hood may stand, base frame.
        area_high_m: highest corner [2].
        half_m: half the edge of the peg.
        clearance_m: how much wider the hole is than the peg.
        offset_m: largest distance between the hole and the middle of the hood.
        depth_m: how deep the peg has to be in the hole, below the funnel around it.
        break_N: the force on the block that breaks it; it stays broken for the episode.
        reward: "dense" (near the block, then depth, 0 to 1; 0 for a broken block) or "sparse" (0 when done, -1
            otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.45, -0.1),
        area_high_m: Sequence[float] = (0.55, 0.1),
        half_m: float = 0.009,
        clearance_m: float = 0.001,
        offset_m: float = 0.010,
        depth_m: float = 0.015,
        break_N: float = 10.0,  # noqa: N803  (units keep their own capital letter)
        reward: str = "dense",
    ) -> None:
        if not 0.004 <= half_m <= 0.015:
            got, fix = repr(half_m), "It has to fit gripper and block."
            raise SpecError("InsertPeg, half_m", "0.004 <= half_m <= 0.015", got, fix)
        if not 2e-4 <= clearance_m <= 0.005:
            fix = "Less would jam, more is no insertion."
            raise SpecError("InsertPeg, clearance_m", "0.0002 <= clearance_m <= 0.005", repr(clearance_m), fix)
        if not 0 <= offset_m < FUNNEL_M:
            fix = "A peg beside the funnel cannot feel where the hole is."
            raise SpecError("InsertPeg, offset_m", f"0 <= offset_m < {FUNNEL_M:g}", repr(offset_m), fix)
        if not 0 < depth_m <= 0.025:
            raise SpecError("InsertPeg, depth_m", "0 < depth_m <= 0.025", repr(depth_m), "The hole is 35 mm deep.")
        if not break_N > 0:
            raise SpecError("InsertPeg, break_N", "a force > 0", repr(break_N), "Use 10.")
        self._area = Area(area_low_m, area_high_m)
        self._break_N = break_N
        self._broken = False
        self._half_m, self._offset_m, self._depth_m = half_m, offset_m, depth_m
        self._hole_m = 2 * half_m + clearance_m
        self._dense = check_reward("InsertPeg", reward)
        self._world: PyBulletWorld | None = None
        self._robot: Robot | None = None
        self._bodies: list[int] = []
        self._middle_m: FloatArray = np.zeros(3)
        self._hole_offset_m: FloatArray = np.zeros(2)

    @property
    def instruction(self) -> str:
        """The task in words."""
        return "put the peg into the hole under the hood"

    @property
    def has_goal(self) -> bool:
        """False: the place of the hole is what has to be found."""
        return False

    @property
    def peg(self) -> int:
        """The peg's body id."""
        return self._bodies[-1]

    @property
    def hole_offset_m(self) -> FloatArray:
        """Where the hole is beside the middle of the hood [2], in this episode."""
        return self._hole_offset_m

    @property
    def broken(self) -> bool:
        """Whether the block was broken in this episode."""
        return self._broken

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take the world and the robot."""
        self._world, self._robot = world, robot

    def clear(self) -> None:
        """Remove block, hood and peg."""
        world, _ = self._around()
        # Last in, first out, so that the next episode gets the same body numbers: they order the contacts.
        while self._bodies:
            world.remove(self._bodies.pop())

    def reset(self, rng: np.random.Generator, randomisation: Randomisation) -> None:
        """Put up a new block under a hood, and a peg in the hand."""
        world, robot = self._around()
        place, _ = self._area.draw(rng, randomisation.place)
        far, turn = self._offset_m * math.sqrt(rng.uniform()), rng.uniform(-math.pi, math.pi)
        self._hole_offset_m = np.array([far * math.cos(turn), far * math.sin(turn)])
        hue = uniform(rng, 0.0, 1.0, randomisation.object_colour)
        hood, peg = (draw_colour(rng, randomisation.object_colour, hue=each) for each in (hue, 0.0))
        self._middle_m = np.array([*place, BLOCK_TOP_M])
        block = world.add_articulated(socket_urdf(self._hole_m), (*(place + self._hole_offset_m), 0.0))
        self._bodies.append(block)
        for joint, stiffness in FEET_N_M.items():
            level = BLOCK_KG * G_M_S2 / stiffness if joint == "z" else 0.0
            world.drive_body_joint(block, joint, target=level, stiffness=stiffness, damping=FEET_DAMPING_N_S_M)
        half = BLOCK_HALF_M + BLOCK_TRAVEL_M + FUNNEL_M + HOOD_M
        tall = (BLOCK_TOP_M + HOOD_M) / 2
        self._bodies.append(world.add_box((half, half, tall), (*place, tall), mass_kg=0.0, rgba=hood, solid=False))
        self._bodies.append(
            world.add_box(
                (self._half_m, self._half_m, PEG_TALL_M / 2), (0.5, 0.0, 0.5), mass_kg=PEG_KG, rgba=peg, friction=1.0
            )
        )
        self._broken = False
        grasp_here(world, robot, self.peg, 2 * self._half_m, PEG_IN_TOOL_M, 0.0)

    def update(self) -> None:
        """Take note of how hard the block is pushed: its feet tell."""
        self._broken = self._broken or self.pushed_N() > self._break_N

    def pushed_N(self) -> float:  # noqa: N802
        """The force on the block now."""
        world, _ = self._around()
        pushed = [stiffness * world.body_joint(self._bodies[0], joint) for joint, stiffness in FEET_N_M.items()]
        return math.hypot(*pushed)

    def outcome(self) -> Outcome:
        """How deep the peg is."""
        world, _ = self._around()
        pose = world.body_pose(self.peg)
        tip = pose[:3, 3] - PEG_TALL_M / 2 * pose[:3, 2]
        block = world.body_link_pose(self._bodies[0], "block")[:3, 3]
        beside = float(np.abs(tip[:2] - block[:2]).max())
        depth = float(block[2] - tip[2]) - FUNNEL_M if beside < self._hole_m / 2 else 0.0
        success = depth >= self._depth_m and not self._broken
        if not self._dense:
            return Outcome(0.0 if success else -1.0, success)
        if self._broken:
            return Outcome(0.0, False)
        near = 1.0 - float(np.tanh(8.0 * np.linalg.norm(tip - self._middle_m)))
        held = world.fingers_touching(self.peg) == 2
        deep = min(max(depth / self._depth_m, 0.0), 1.0)
        return Outcome(1.0 if success else 0.3 * near + 0.1 * held + 0.5 * deep, success)

    def goal(self) -> Goal | None:
        """None: the place of the hole is what has to be found."""
        return None

    def compute_reward(self, achieved: ArrayLike, desired: ArrayLike) -> NDArray[np.float32]:
        """InsertPeg has no goal in space.

        Raises:
            SpecError: always.
        """
        raise no_goal("InsertPeg")

    def expert(self, spec: ActionSpec) -> InsertPegExpert:
        """A scripted solver for this episode, which feels its way."""
        return InsertPegExpert(*self._around(), spec, self._known())

    def blind_expert(self, spec: ActionSpec) -> StraightDownExpert:
        """The same without touch: straight down in the middle of the hood."""
        return StraightDownExpert(*self._around(), spec, self._known())

    def _known(self) -> Peg:
        x, y, z = self._middle_m.tolist()
        return Peg(self.peg, BELOW_M, PEG_KG * G_M_S2, (x, y, z), self._depth_m + FUNNEL_M)

    def _around(self) -> tuple[PyBulletWorld, Robot]:
        return attached("InsertPeg", self._world, self._robot)
