"""PickNamed: put the object that is named into a tray."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from envs.experts.pick_named import CLEAR_M, TopGrasp, top_grasps
from envs.experts.waypoints import KeyPose
from envs.pose_scenes.bodies import FreeBodies
from envs.pose_scenes.library import objects as shapes_of
from envs.pose_scenes.shape import ObjectShape
from envs.randomisation import Randomisation, draw_colour
from envs.robots.base import Robot
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.objects import Spot, scatter
from envs.tasks.pick_named_rest import Resting
from envs.tasks.place import Area
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import FloatArray

OBJECTS = ("hammer", "bolt", "bracket", "bottle", "zigzag", "can", "cube", "cone")
FLOOR_M, WALL_M, RIM_M = 0.004, 0.006, 0.025  # of the tray: thickness of floor and walls, height of the rim
TRAY_RGBA = (0.25, 0.27, 0.3, 1.0)
HUE_FREE = 0.6
SETTLE_STEPS, LONGEST_STEPS = 24, 480  # objects come to rest before an episode starts
STILL_M_S, STILL_RAD_S = 5e-3, 5e-2
LET_GO_M = 0.02  # the tool point leaves so much above the rim


@final
class PickNamed(KeyframeTask):
    """Objects with meshes lie on the table; "put the hammer in the tray".

    Every episode draws some of the objects; each lies on a random side on which it rests, turned about z at random.
    The tray always stands at the same place. The task is done when the named object lies in the tray, at rest, and no
    finger touches it. The meshes are those of :mod:`envs.pose_scenes.library`.

    The simulator's planner does not see these objects, which have several convex parts: actions of the mode "key_pose"
    keep clear of table and tray only.

    Args:
        objects: names of the objects that may come.
        fewest: of them at a time, at least.
        most: of them at a time, at most.
        area_low_m: lowest corner [2] (x, y) of where the objects' middles may be, base frame.
        area_high_m: highest corner [2].
        tray_m: middle [2] of the tray.
        tray_half_m: half its inner edges [2].
        reward: "dense" (reach, grasp, carry, 0 to 1) or "sparse" (0 when done, -1 otherwise).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        objects: Sequence[str] = OBJECTS,
        fewest: int = 3,
        most: int = 4,
        area_low_m: Sequence[float] = (0.38, -0.29),
        area_high_m: Sequence[float] = (0.64, 0.03),
        tray_m: Sequence[float] = (0.5, 0.24),
        tray_half_m: Sequence[float] = (0.11, 0.1),
        reward: str = "sparse",
    ) -> None:
        super().__init__("PickNamed", reward)
        if not 1 <= fewest <= most <= len(objects):
            got = f"{fewest}, {most}, {len(objects)} objects"
            raise SpecError("PickNamed, fewest and most", "1 <= fewest <= most <= objects", got, "Correct them.")
        if len(tray_m) != 2 or len(tray_half_m) != 2 or min(tray_half_m) < 0.04:
            got = f"{list(tray_m)}, {list(tray_half_m)}"
            raise SpecError("PickNamed, tray_m and tray_half_m", "x and y; halves of 0.04 or more", got, "Give metres.")
        self._shapes: dict[str, ObjectShape] = {shape.name: shape for shape in shapes_of(objects)}
        self._resting = {name: Resting(shape) for name, shape in self._shapes.items()}
        self._count = (fewest, most)
        self._area = Area(area_low_m, area_high_m)
        self._tray_m, self._tray_half_m = np.asarray(tray_m, float), np.asarray(tray_half_m, float)
        # Goes with the task: tasks are not closed.
        self._folder = Path(tempfile.mkdtemp(prefix="perceive-pick-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._free: FreeBodies | None = None
        self._named: dict[str, int] = {}
        self._asked = ""
        self._tray: list[int] = []

    @property
    def shapes(self) -> dict[str, ObjectShape]:
        """Name -> object, of all that may come."""
        return dict(self._shapes)

    @property
    def bodies(self) -> dict[str, int]:
        """Name -> body id, of this episode's objects."""
        return dict(self._named)

    @property
    def asked(self) -> str:
        """The name of the object that is to be put in the tray."""
        return self._asked

    def pose(self, name: str) -> FloatArray:
        """``base_from_object`` [4, 4] of one of this episode's objects: the truth, for experts and for scores."""
        assert self._free is not None, "attach() makes it"
        return self._free.pose(self._named[name])

    def attach(self, world: PyBulletWorld, robot: Robot) -> None:
        """Take world and robot, and put up the tray."""
        super().attach(world, robot)
        self._free = FreeBodies(world, self._folder)
        x, y = self._tray_m
        half_x, half_y = self._tray_half_m
        walls = [(half_x + WALL_M, WALL_M / 2, 0.0, side * (half_y + WALL_M / 2)) for side in (-1, 1)]
        walls += [(WALL_M / 2, half_y + WALL_M, side * (half_x + WALL_M / 2), 0.0) for side in (-1, 1)]
        floor = (half_x, half_y, FLOOR_M / 2)
        self._tray = [world.add_box(floor, (x, y, FLOOR_M / 2), mass_kg=0.0, rgba=TRAY_RGBA)]
        for wide, deep, dx, dy in walls:
            place = (x + dx, y + dy, RIM_M / 2)
            self._tray.append(world.add_box((wide, deep, RIM_M / 2), place, mass_kg=0.0, rgba=TRAY_RGBA))

    def arrange(self, rng: np.random.Generator, randomisation: Randomisation) -> str:
        """Lay objects on the table and name one."""
        world, _ = self.around()
        assert self._free is not None, "attach() makes it"
        count = int(rng.integers(self._count[0], self._count[1] + 1))
        chosen = [str(name) for name in rng.permutation(list(self._shapes))[:count]]
        lying = [self._resting[name].draw(rng if randomisation.place else np.random.default_rng(0)) for name in chosen]
        spots = [Spot(self._radius_m(name, turn)) for name, (turn, _) in zip(chosen, lying, strict=True)]
        places = scatter("PickNamed", rng, randomisation.place, self._area, spots)
        colour = draw_colour(rng, randomisation.object_colour, hue=HUE_FREE)
        for part in self._tray:
            world.recolour(part, colour if randomisation.object_colour else TRAY_RGBA)
        self._named = {}
        for name, spot, (turn, middle) in zip(chosen, places, lying, strict=True):
            start = np.eye(4)
            start[:3, :3] = turn
            start[:3, 3] = middle + np.array([*spot, 1e-3]) - turn @ self._shapes[name].middle_m
            self._named[name] = self.hold(self._free.add(self._shapes[name], start))
        self._settle()
        self._asked = chosen[0]  # they are in random order already
        return f"put the {self._asked} in the tray"

    def done(self) -> bool:
        """Whether the named object lies in the tray, let go of."""
        return self._inside() and self.left_alone(self._named[self._asked])

    def progress(self) -> float:
        """How far the named object has been carried."""
        return self.carried(self._named[self._asked], (*self._tray_m, RIM_M))

    def key_poses(self) -> list[KeyPose]:
        """Above, down, close, up; above the tray, down, open; with true poses."""
        world, robot = self.around()
        body, shape = self._named[self._asked], self._shapes[self._asked]
        if self._inside():
            return self.leave(body, CLEAR_M)
        held = world.fingers_touching(body) == 2
        others = [self._corners(name) for name in self._named if name != self._asked]
        found = top_grasps(self._corners(self._asked), self._middle(shape), others)
        if held:
            tool = robot.tool_pose()
            found = [TopGrasp(tool[:3, 3], tool[:3, :3])]
        lowest = float(self._corners(self._asked)[:, 2].min())
        return found[0].key_poses(body, held, lowest, self._tray_m, FLOOR_M, RIM_M)

    def _settle(self) -> None:
        world, _ = self.around()
        for _ in range(LONGEST_STEPS // SETTLE_STEPS):
            world.step(SETTLE_STEPS)
            speeds = [world.body_velocity(body) for body in self._named.values()]
            if all(np.linalg.norm(way) < STILL_M_S and np.linalg.norm(turn) < STILL_RAD_S for way, turn in speeds):
                return

    def _radius_m(self, name: str, turn: FloatArray) -> float:
        """Of the circle around an object that lies like this."""
        shape = self._shapes[name]
        return float(np.linalg.norm(((shape.vertices_m - shape.middle_m) @ turn.T)[:, :2], axis=1).max())

    def _corners(self, name: str) -> FloatArray:
        """Corners of its triangles and points on them [N, 3] in the base frame."""
        shape, pose = self._shapes[name], self.pose(name)
        corner = shape.vertices_m[shape.faces]
        # Long triangles have nothing between their corners: halve their sides twice.
        for _ in range(2):
            a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
            ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
            parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
            corner = np.concatenate([np.stack(part, 1) for part in parts])
        points = np.unique(corner.reshape(-1, 3).round(6), axis=0)
        return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])

    def _middle(self, shape: ObjectShape) -> FloatArray:
        pose = self.pose(shape.name)
        return np.asarray(pose[:3, :3] @ shape.middle_m + pose[:3, 3])

    def _inside(self) -> bool:
        """Whether the named object is in the tray: its middle, and low enough that it leans on nothing outside."""
        middle = self._middle(self._shapes[self._asked])
        within = (np.abs(middle[:2] - self._tray_m) < self._tray_half_m).all()
        lowest = float(self._corners(self._asked)[:, 2].min())
        return bool(within and lowest < RIM_M)
