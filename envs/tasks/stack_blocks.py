"""StackBlocks: put one coloured block on another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from envs.experts.waypoints import KeyPose
from envs.randomisation import Randomisation, uniform
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.objects import HUES, Spot, colours, scatter, shade
from envs.tasks.place import Area
from sensors.errors import SpecError
from sensors.geometry import FloatArray

DENSITY_KG_M3 = 800.0
LEVEL_M = 0.006  # so near to its height on top, a block lies there
ABOVE_M = 0.09


@final
class StackBlocks(KeyframeTask):
    """Coloured blocks, two of which are named: "stack the red block on the blue block".

    Args:
        area_low_m: lowest corner [2] (x, y) of where the blocks may be, base frame.
        area_high_m: highest corner [2].
        blocks: how many there are, 2 to 4, each of another colour.
        half_m: half their edge.
        aligned_m: horizontal distance of the middles that counts as stacked, once the block lies and was let go of.
        reward: "dense" (reach, grasp, carry, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.38, -0.2),
        area_high_m: Sequence[float] = (0.62, 0.2),
        blocks: int = 3,
        half_m: float = 0.02,
        aligned_m: float = 0.02,
        reward: str = "sparse",
    ) -> None:
        super().__init__("StackBlocks", reward)
        if not 2 <= blocks <= len(HUES):
            raise SpecError("StackBlocks, blocks", f"2 to {len(HUES)}", repr(blocks), "Each needs its own colour.")
        if not 0.015 <= half_m <= 0.027:
            raise SpecError(
                "StackBlocks, half_m", "0.015 to 0.027", repr(half_m), "A block has to fit the gripper at any turn."
            )
        if not 0 < aligned_m <= half_m:
            raise SpecError("StackBlocks, aligned_m", "0 < aligned_m <= half_m", repr(aligned_m), "Use half_m.")
        self._area = Area(area_low_m, area_high_m)
        self._count, self._half_m, self._aligned_m = blocks, half_m, aligned_m
        self._named: dict[str, int] = {}
        self._moved = self._below = -1

    @property
    def blocks(self) -> dict[str, int]:
        """Colour -> body id. The first named is to come onto the second."""
        return dict(self._named)

    def arrange(self, rng: np.random.Generator, randomisation: Randomisation) -> str:
        """Put up the blocks and say which is to be stacked on which."""
        world, _ = self.around()
        names, half = colours(rng, self._count), self._half_m
        spots = [Spot(math.sqrt(2) * half)] * self._count
        places = scatter("StackBlocks", rng, randomisation.place, self._area, spots)
        mass = DENSITY_KG_M3 * 8 * half**3
        self._named = {}
        for name, spot in zip(names, places, strict=True):
            yaw = uniform(rng, -math.pi / 4, math.pi / 4, randomisation.place)
            colour = shade(rng, name, randomisation.object_colour)
            body = world.add_box((half, half, half), (*spot, half), yaw, mass_kg=mass, rgba=colour, friction=1.0)
            self._named[name] = self.hold(body)
        # The names are in random order already; the first two of them are the task.
        self._moved, self._below = self._named[names[0]], self._named[names[1]]
        return f"stack the {names[0]} block on the {names[1]} block"

    def done(self) -> bool:
        """Whether the block lies on the other, let go of."""
        return self._stacked() and self.left_alone(self._moved)

    def progress(self) -> float:
        """How far the block has been carried."""
        return self.carried(self._moved, self._target_m())

    def key_poses(self) -> list[KeyPose]:
        """Above, down, close, up; above the other, down, open. From a block in the hand on: the last three."""
        moved, below = self._moved, self._below
        if self._stacked():
            return self.leave(self._moved, ABOVE_M)
        return self.carry(moved, self.yaw_rad(moved), self._target_m(), self.yaw_rad(below), ABOVE_M)

    def _stacked(self) -> bool:
        """Whether the block is on the other, held or not."""
        offset = self.around()[0].body_position(self._moved) - self._target_m()
        return abs(float(offset[2])) < LEVEL_M and math.hypot(offset[0], offset[1]) < self._aligned_m

    def _target_m(self) -> FloatArray:
        """Where the block's middle is to be [3]."""
        world, _ = self.around()
        return np.asarray(world.body_position(self._below) + np.array([0.0, 0.0, 2 * self._half_m]))
