"""PutIn: put a named thing in a named container."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from envs import models
from envs.experts.waypoints import KeyPose
from envs.randomisation import Randomisation, draw_colour, uniform
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.objects import Spot, colours, scatter, shade
from envs.tasks.place import Area
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import FloatArray, invert

DENSITY_KG_M3 = 1600.0  # the simulated grasp of a light or thin cylinder is loose
BOX_HALF_M = 0.02
CYLINDER_RADIUS_M, CYLINDER_M = 0.025, 0.045
BAR_HALF_M = (0.04, 0.012, 0.015)
ABOVE_M = 0.1
OVER_RIM_M = 0.016  # tool point above the rim when the hand opens: the fingertips do not touch the walls
HEAPED_M = 0.01  # a thing is inside if its middle is not higher than this above the rim


@dataclass(frozen=True)
class Shape:
    """A kind of thing.

    Attributes:
        half_height_m: of its middle above the table.
        radius_m: of the circle around it.
        period_rad: it looks the same to the hand after each such turn; 0 = after any.
    """

    half_height_m: float
    radius_m: float
    period_rad: float


SHAPES = {
    "box": Shape(BOX_HALF_M, math.sqrt(2) * BOX_HALF_M, math.pi / 2),
    "cylinder": Shape(CYLINDER_M / 2, CYLINDER_RADIUS_M, 0.0),
    "bar": Shape(BAR_HALF_M[2], math.hypot(BAR_HALF_M[0], BAR_HALF_M[1]), math.pi),
}


@dataclass(frozen=True)
class Kind:
    """A kind of container.

    Attributes:
        urdf: writes its model.
        inner_m: distance of the walls from the middle.
        sides: how many walls there are.
        rim_m: their height.
    """

    urdf: Callable[[], Path]
    inner_m: float
    sides: int
    rim_m: float

    @property
    def radius_m(self) -> float:
        """Of the circle around it."""
        return (self.inner_m + models.WALL_M) / math.cos(math.pi / self.sides)

    def holds(self, point_m: FloatArray) -> bool:
        """Whether a point [3] of its own frame is inside."""
        turns = 2 * math.pi * np.arange(self.sides) / self.sides
        outwards = point_m[0] * np.cos(turns) + point_m[1] * np.sin(turns)
        return bool(outwards.max() < self.inner_m and 0 < point_m[2] < self.rim_m + HEAPED_M)


KINDS = {
    "tray": Kind(models.tray_urdf, models.TRAY_HALF_M, 4, models.TRAY_WALL_M),
    "bowl": Kind(models.bowl_urdf, models.BOWL_RADIUS_M, models.BOWL_SIDES, models.BOWL_WALL_M),
}


@final
class PutIn(KeyframeTask):
    """Things of different shapes, a tray and a bowl: "put the cylinder in the blue bowl".

    Args:
        area_low_m: lowest corner [2] (x, y) of where the middles of things and containers may be, base frame.
        area_high_m: highest corner [2].
        things: how many of box, cylinder and bar there are, 2 or 3.
        reward: "dense" (reach, grasp, carry, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        area_low_m: Sequence[float] = (0.36, -0.25),
        area_high_m: Sequence[float] = (0.64, 0.25),
        things: int = 3,
        reward: str = "sparse",
    ) -> None:
        super().__init__("PutIn", reward)
        if not 2 <= things <= len(SHAPES):
            raise SpecError("PutIn, things", f"2 to {len(SHAPES)}", repr(things), "There is one of each shape.")
        self._area = Area(area_low_m, area_high_m)
        self._count = things
        self._things: dict[str, int] = {}
        self._containers: dict[str, int] = {}
        self._thing, self._kind = "box", "tray"

    @property
    def things(self) -> dict[str, int]:
        """Shape -> body id."""
        return dict(self._things)

    @property
    def containers(self) -> dict[str, int]:
        """Kind -> body id."""
        return dict(self._containers)

    def arrange(self, rng: np.random.Generator, randomisation: Randomisation) -> str:
        """Put up things and containers and say which goes where."""
        world, _ = self.around()
        chosen = [str(name) for name in rng.permutation(list(SHAPES))[: self._count]]
        kinds = [str(name) for name in rng.permutation(list(KINDS))]
        spots = [Spot(KINDS[kind].radius_m, graspable=False) for kind in kinds]
        spots += [Spot(SHAPES[name].radius_m) for name in chosen]
        places = scatter("PutIn", rng, randomisation.place, self._area, spots)
        self._containers, self._things = {}, {}
        words = dict(zip(kinds, colours(rng, len(kinds)), strict=True))
        for kind, spot in zip(kinds, places, strict=False):
            yaw = uniform(rng, -math.pi / 4, math.pi / 4, randomisation.place)
            body = self.hold(world.add_articulated(KINDS[kind].urdf(), (*spot, 0.0), yaw))
            world.recolour(body, shade(rng, words[kind], randomisation.object_colour))
            self._containers[kind] = body
        for name, spot in zip(chosen, places[len(kinds) :], strict=True):
            yaw = uniform(rng, -math.pi / 4, math.pi / 4, randomisation.place)
            colour = draw_colour(rng, randomisation.object_colour, hue=0.08)
            self._things[name] = self.hold(_put_up(world, name, spot, yaw, colour))
        # Both are in random order already; the first of each is the task.
        self._thing, self._kind = chosen[0], kinds[0]
        return f"put the {self._thing} in the {words[self._kind]} {self._kind}"

    def done(self) -> bool:
        """Whether the thing is inside, let go of."""
        return self._inside() and self.left_alone(self._things[self._thing])

    def progress(self) -> float:
        """How far the thing has been carried."""
        return self.carried(self._things[self._thing], self._release_m())

    def key_poses(self) -> list[KeyPose]:
        """Above, down, close, up; above the container, down, open. From a thing in the hand on: the last three."""
        if self._inside():
            return self.leave(self._things[self._thing], ABOVE_M)
        body, container = self._things[self._thing], self._containers[self._kind]
        period = SHAPES[self._thing].period_rad
        grasp = self.yaw_rad(body, period) if period else 0.0
        release = self.yaw_rad(container, 2 * math.pi / KINDS[self._kind].sides)
        return self.carry(body, grasp, self._release_m(), release, ABOVE_M)

    def _inside(self) -> bool:
        """Whether the thing is in the container, held or not."""
        world, _ = self.around()
        body, container = self._things[self._thing], self._containers[self._kind]
        inside = invert(world.body_link_pose(container, "body")) @ np.append(world.body_position(body), 1.0)
        return KINDS[self._kind].holds(inside[:3])

    def _release_m(self) -> FloatArray:
        """Tool point [3] where the hand opens."""
        world, _ = self.around()
        out = world.body_link_pose(self._containers[self._kind], "body")[:3, 3]
        return np.asarray(out + np.array([0.0, 0.0, KINDS[self._kind].rim_m + OVER_RIM_M]))


def _put_up(world: PyBulletWorld, name: str, spot: FloatArray, yaw_rad: float, rgba: Sequence[float]) -> int:
    middle = (*spot, SHAPES[name].half_height_m)
    if name == "cylinder":
        mass = DENSITY_KG_M3 * math.pi * CYLINDER_RADIUS_M**2 * CYLINDER_M
        return world.add_cylinder(CYLINDER_RADIUS_M, CYLINDER_M, middle, mass_kg=mass, rgba=rgba, friction=1.0)
    half = BAR_HALF_M if name == "bar" else (BOX_HALF_M,) * 3
    return world.add_box(half, middle, yaw_rad, mass_kg=DENSITY_KG_M3 * 8 * math.prod(half), rgba=rgba, friction=1.0)
