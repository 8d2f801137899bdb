"""OpenDrawerPut: open a drawer and put a named block in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from envs import models
from envs.experts.base import CLOSED, OPEN, down, folded, yaw_of
from envs.experts.waypoints import AVOID, TOUCH, KeyPose
from envs.randomisation import Randomisation, uniform
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.objects import FINGERS_M, GAP_M, HUES, Spot, colours, scatter, shade
from envs.tasks.place import Area
from sensors.errors import SpecError
from sensors.geometry import FloatArray, invert

DENSITY_KG_M3 = 800.0
BLOCK_HALF_M = 0.02
CABINET_RGBA = (0.55, 0.42, 0.3, 1.0)
DRAWER_RGBA = (0.85, 0.78, 0.65, 1.0)
FRICTION_N = 3.0  # of the slide: it stays where it was left
PULL_M = 0.11  # how far the expert opens the drawer
ENOUGH_M = 0.09  # open so far, a block can be put in
HAND_M = 0.115  # half the width of the hand, with some air: the cabinet is higher than a hand that grasps a block
ABOVE_M = 0.11
OVER_RIM_M = 0.013  # tool point above the drawer's rim when the hand opens


@final
class OpenDrawerPut(KeyframeTask):
    """A cabinet with a drawer, shut, and coloured blocks: "open the drawer and put the red block in it".

    Args:
        front_low_m: lowest corner [2] (x, y) of where the middle of the cabinet's front may be, base frame.
        front_high_m: highest corner [2].
        turn_rad: the drawer faces the robot, turned to either side by up to this.
        area_low_m: lowest corner [2] of where the blocks may be.
        area_high_m: highest corner [2].
        blocks: how many there are, 1 to 4, each of another colour.
        reward: "dense" (open, reach, grasp, carry, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        front_low_m: Sequence[float] = (0.57, -0.1),
        front_high_m: Sequence[float] = (0.61, 0.1),
        turn_rad: float = 0.4,
        area_low_m: Sequence[float] = (0.36, -0.26),
        area_high_m: Sequence[float] = (0.6, 0.26),
        blocks: int = 2,
        reward: str = "sparse",
    ) -> None:
        super().__init__("OpenDrawerPut", reward)
        if not 1 <= blocks <= len(HUES):
            raise SpecError("OpenDrawerPut, blocks", f"1 to {len(HUES)}", repr(blocks), "Each needs its own colour.")
        if not 0 <= turn_rad <= math.pi / 4:
            raise SpecError("OpenDrawerPut, turn_rad", "0 to pi / 4", repr(turn_rad), "The hand turns no further.")
        self._fronts, self._area = Area(front_low_m, front_high_m), Area(area_low_m, area_high_m)
        self._turn_rad, self._count = turn_rad, blocks
        self._named: dict[str, int] = {}
        self._cabinet = self._block = -1

    @property
    def blocks(self) -> dict[str, int]:
        """Colour -> body id; the first is the one that goes in."""
        return dict(self._named)

    @property
    def cabinet(self) -> int:
        """The cabinet's body id; its joint "slide" is 0 when shut."""
        return self._cabinet

    def arrange(self, rng: np.random.Generator, randomisation: Randomisation) -> str:
        """Put up cabinet and blocks and say which block goes in."""
        world, _ = self.around()
        free = randomisation.place
        front, _ = self._fronts.draw(rng, free)
        yaw = math.pi + uniform(rng, -self._turn_rad, self._turn_rad, free)
        self._cabinet = self.hold(world.add_articulated(models.cabinet_urdf(), (*front, 0.0), yaw))
        world.drive_body_joint(self._cabinet, "slide", friction_N=FRICTION_N)
        for link, rgba in (("body", CABINET_RGBA), ("drawer", DRAWER_RGBA)):
            darker = uniform(rng, 0.7, 1.0, randomisation.object_colour)
            world.recolour(self._cabinet, (*(value * darker for value in rgba[:3]), 1.0), link)
        base_from_cabinet = self._frame()

        def fits(place: FloatArray) -> bool:
            return _is_free((invert(base_from_cabinet) @ np.array([*place, 0.0, 1.0]))[:2])

        names, half = colours(rng, self._count), BLOCK_HALF_M
        spots = [Spot(math.sqrt(2) * half)] * self._count
        places = scatter("OpenDrawerPut", rng, free, self._area, spots, fits)
        mass = DENSITY_KG_M3 * 8 * half**3
        self._named = {}
        for name, spot in zip(names, places, strict=True):
            turn = uniform(rng, -math.pi / 4, math.pi / 4, free)
            colour = shade(rng, name, randomisation.object_colour)
            body = world.add_box((half, half, half), (*spot, half), turn, mass_kg=mass, rgba=colour, friction=1.0)
            self._named[name] = self.hold(body)
        self._block = self._named[names[0]]
        return f"open the drawer and put the {names[0]} block in it"

    def done(self) -> bool:
        """Whether the block is in the drawer, let go of."""
        return self._inside() and self.left_alone(self._block)

    def progress(self) -> float:
        """Half for the open drawer, half for the block's way into it."""
        world, _ = self.around()
        opened = min(max(world.body_joint(self._cabinet, "slide") / ENOUGH_M, 0.0), 1.0)
        return 0.5 * opened + 0.5 * self.carried(self._block, self._release_m(ENOUGH_M)) * (opened == 1.0)

    def key_poses(self) -> list[KeyPose]:
        """Above the knob, down, close, pull, open, up; above the block, down, close, up; above the drawer, down, open.

        From an open drawer on: without the first six.
        """
        world, _ = self.around()
        if self._inside():
            return self.leave(self._block, ABOVE_M)
        opened = world.body_joint(self._cabinet, "slide")
        frame = self._frame()
        yaw, block_yaw = folded(yaw_of(frame[:3, :3]), math.pi), self.yaw_rad(self._block)
        if opened >= ENOUGH_M:
            return self.carry(self._block, block_yaw, self._release_m(opened), yaw, ABOVE_M)
        knob, pulled = (
            (frame @ np.array([models.KNOB_M + slid, 0.0, models.KNOB_HEIGHT_M, 1.0]))[:3] for slid in (opened, PULL_M)
        )
        turn, up = down(yaw), np.array([0.0, 0.0, ABOVE_M])
        opening = [
            KeyPose(knob + up, turn, OPEN, AVOID),
            KeyPose(knob, turn, OPEN, TOUCH),
            KeyPose(knob, turn, CLOSED, TOUCH),
            KeyPose(pulled, turn, CLOSED, TOUCH, self._cabinet),
            KeyPose(pulled, turn, OPEN, TOUCH),
            KeyPose(pulled + up, turn, OPEN, TOUCH),
        ]
        filling = self.carry(self._block, block_yaw, self._release_m(PULL_M), yaw, ABOVE_M)
        return [*self.away(knob, ABOVE_M), *opening, *filling]

    def _inside(self) -> bool:
        """Whether the block is in the drawer, held or not."""
        world, _ = self.around()
        drawer_from_base = invert(world.body_link_pose(self._cabinet, "drawer"))
        x, y, z = map(float, (drawer_from_base @ np.append(world.body_position(self._block), 1.0))[:3])
        wall = models.WALL_M
        inside = -models.DRAWER_DEPTH_M + wall < x < 0 and abs(y) < models.DRAWER_HALF_WIDTH_M - wall
        return inside and 0 < z < models.DRAWER_RIM_M + BLOCK_HALF_M / 2

    def _frame(self) -> FloatArray:
        """``base_from_cabinet`` [4, 4]."""
        return self.around()[0].body_link_pose(self._cabinet, "body")

    def _release_m(self, opened_m: float) -> FloatArray:
        """Tool point [3] where the hand opens: over the middle of what is free of the drawer."""
        height = models.DRAWER_RIM_M + OVER_RIM_M
        return np.asarray((self._frame() @ np.array([opened_m / 2, 0.0, height, 1.0]))[:3])


def _is_free(place_m: FloatArray) -> bool:
    """Whether a block at a place [2] of the cabinet's frame is out of the drawer's way, with room for the hand."""
    wide = models.CABINET_HALF_WIDTH_M
    out = PULL_M + models.KNOB_M + models.KNOB_HALF_M[0]
    from_cabinet = _distance(place_m, (-models.CABINET_DEPTH_M, -wide), (0.0, wide))
    from_drawer = _distance(place_m, (0.0, -wide), (out, wide))
    return from_cabinet > HAND_M and from_drawer > FINGERS_M + GAP_M


def _distance(place_m: FloatArray, low_m: tuple[float, float], high_m: tuple[float, float]) -> float:
    """Distance of a place [2] from a rectangle, metres."""
    return math.dist(place_m, np.clip(place_m, low_m, high_m))
