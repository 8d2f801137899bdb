"""ObjectScenes: known objects dropped on a table, seen by an RGB-D camera from several places."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from envs.pictures import check_renderer
from envs.pose_scenes.bodies import FreeBodies
from envs.pose_scenes.library import NUMBERS, objects
from envs.pose_scenes.pile import Rested, drop
from envs.pose_scenes.scene import ObjectScene, ObjectView
from envs.pose_scenes.surroundings import Look, shaded
from envs.world import PyBulletWorld
from sensors.depth_noise import DepthNoise
from sensors.errors import SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, intrinsics_from_fov, look_at

NEAR_M, FAR_M = 0.1, 4.0
AWAY_M, RISE_RAD = (0.45, 0.9), (math.radians(20), math.radians(75))
AIM_M, ROLL_RAD = 0.05, math.radians(20)  # how far past the pile's middle a camera looks, and how it is turned about z
HEIGHT_M = 0.03  # a camera looks at this height over the table


@final
class ObjectScenes:
    """Scenes by number; a scene is a pure function of the settings and its number.

    Objects fall on a table one over the other and come to rest; those that fall off are gone. Cameras look at the pile
    from 0.45 to 0.9 m, 20 to 75 degrees above the table, from all sides. Light and table differ from scene to scene.
    Truth is the simulator's: poses of its bodies, and the body that its renderer drew in each pixel.

    Args:
        seed: of everything.
        objects: names of the objects (see :mod:`envs.pose_scenes.library`); each falls at most ``copies`` times.
        fewest: objects that are dropped, at least.
        most: objects that are dropped, at most.
        copies: how often the same object may be in a scene.
        spread_m: objects fall within this radius, metres; a narrow heap hides more of them.
        views: pictures of a scene.
        width: of a picture, pixels.
        height: of a picture, pixels.
        fov_y_deg: vertical field of view.
        depth_noise: what is wrong with the depth; None = exact.
        colour_noise: standard deviation of a pixel's noise, counts of 255.
        renderer: "tiny" (CPU), "egl" (GPU) or "auto". Scenes are equal only if drawn by the same one.

    Attributes:
        shapes: the objects, in the order of their names.
        numbers: their numbers in dataset folders.

    Raises:
        SpecError: an argument is out of its range.
        DataError: a mesh file is missing.
    """

    def __init__(
        self,
        seed: int,
        objects: Sequence[str],
        fewest: int = 4,
        most: int = 8,
        copies: int = 1,
        spread_m: float = 0.07,
        views: int = 3,
        width: int = 640,
        height: int = 480,
        fov_y_deg: float = 43.0,
        depth_noise: DepthNoise | None = None,
        colour_noise: float = 2.0,
        renderer: str = "tiny",
    ) -> None:
        where = "ObjectScenes"
        if seed < 0 or views < 1 or copies < 1 or not 1 <= fewest <= most or not 0 <= spread_m <= 0.4:
            got = f"seed={seed}, views={views}, copies={copies}, fewest={fewest}, most={most}, spread_m={spread_m}"
            expected = "seed >= 0, views and copies >= 1, 1 <= fewest <= most, 0 <= spread_m <= 0.4"
            raise SpecError(where, expected, got, "Correct them.")
        if width < 16 or height < 16 or not 0 < fov_y_deg < 170 or not 0 <= colour_noise < 100:
            got = f"width={width}, height={height}, fov_y_deg={fov_y_deg}, colour_noise={colour_noise}"
            raise SpecError(
                where, "pictures of 16 px or more, seen at 0 to 170 degrees, noise of 0 to 100", got, "Correct them."
            )
        if most > copies * len(objects):
            got = f"most={most} of {len(objects)} objects, copies={copies}"
            raise SpecError(where, "at most as many objects as there are", got, "Lower 'most' or raise 'copies'.")
        check_renderer(renderer)
        self.shapes = _library(objects)
        self.numbers = tuple(NUMBERS[name] for name in objects)
        self._seed = seed
        self._count = (fewest, most)
        self._copies = copies
        self._spread_m = spread_m
        self._views = views
        self._size = (width, height)
        self._camera = intrinsics_from_fov(width, height, fov_y_deg)
        self._depth_noise = depth_noise
        self._colour_noise = colour_noise
        self._renderer = renderer
        self._folder = tempfile.TemporaryDirectory(prefix="perceive-objects-")

    def scene(self, number: int) -> ObjectScene:
        """Scene ``number``, 0 or more.

        Raises:
            SpecError: a negative number.
        """
        if number < 0:
            raise SpecError("ObjectScenes.scene", "a number >= 0", repr(number), "Correct it.")
        # One generator for each cause: what one draws never shifts the others.
        choice, fall, light, eyes, noise = np.random.default_rng([self._seed, number]).spawn(5)
        count = int(choice.integers(self._count[0], self._count[1] + 1))
        drawn = choice.permutation(np.repeat(np.arange(len(self.shapes)), self._copies))[:count]
        # A world of its own for each scene: what a simulator remembers of an earlier one would change how things fall.
        world = PyBulletWorld(renderer=self._renderer)
        try:
            bodies = FreeBodies(world, Path(self._folder.name))
            rested = drop(world, bodies, tuple(self.shapes[k] for k in drawn), self._spread_m, fall)
            look = Look.draw(light)
            world.set_light(look.light)
            middle = rested.world_from_object[:, :3, 3].mean(0) if len(rested.index) else np.zeros(3)
            cameras = viewpoints(self._views, middle[:2], eyes)
            views = tuple(
                self._view(world, rested, look, camera, each)
                for camera, each in zip(cameras, noise.spawn(self._views), strict=True)
            )
        finally:
            world.close()
        return ObjectScene(
            number, tuple(self.shapes[drawn[k]].name for k in rested.index), rested.world_from_object, views
        )

    def close(self) -> None:
        """Let go of the files of the objects. May be called twice."""
        self._folder.cleanup()

    def _view(
        self, world: PyBulletWorld, rested: Rested, look: Look, camera: FloatArray, rng: np.random.Generator
    ) -> ObjectView:
        colours, depths = rng.spawn(2)
        picture = world.render(camera, self._camera, *self._size, NEAR_M, FAR_M)
        on_table = picture.body == rested.table
        places = _places(picture.depth_m, on_table, self._camera, camera)
        rgb = shaded(picture.rgb, on_table, places, (picture.body < 0) | (picture.body == rested.floor), look)
        if self._colour_noise > 0:
            rgb = rgb + self._colour_noise * colours.standard_normal(rgb.shape, dtype=np.float32)
        depth = np.where(picture.body >= 0, picture.depth_m, np.float32(0))
        if self._depth_noise is not None:
            depth = self._depth_noise.apply(depth, self._camera, NEAR_M, FAR_M, depths)
        highest = max(int(picture.body.max(initial=0)), int(rested.body.max(initial=0)))
        row = np.full(highest + 2, -1, np.int32)  # the last entry is what belongs to no body
        row[rested.body] = np.arange(len(rested.body))
        return ObjectView(
            rgb=np.clip(np.rint(rgb), 0, 255).astype(np.uint8),
            depth_m=depth,
            intrinsics_px=self._camera,
            world_from_camera=camera,
            instance=row[picture.body],
        )


_library = objects  # the constructor's argument has the same name


def viewpoints(count: int, middle_m: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    """``world_from_camera`` [4, 4] evenly around a place [2] from a random direction on, each as far as it likes."""
    out = []
    first = float(rng.uniform(0.0, 2 * math.pi))
    for number in range(count):
        shift, rise, away, roll = rng.uniform(
            (-0.5, RISE_RAD[0], AWAY_M[0], -ROLL_RAD), (0.5, RISE_RAD[1], AWAY_M[1], ROLL_RAD)
        ).tolist()
        around = first + 2 * math.pi * number / count + shift
        aim = np.array([*middle_m, HEIGHT_M])
        flat = away * math.cos(rise)
        eye = aim + np.array([flat * math.cos(around), flat * math.sin(around), away * math.sin(rise)])
        aim[:2] += rng.uniform(-AIM_M, AIM_M, 2)
        camera = look_at(eye, aim)
        camera[:3, :3] = camera[:3, :3] @ axis_angle_to_matrix((0.0, 0.0, roll))
        out.append(camera)
    return out


def _places(depth_m: NDArray[np.float32], where: NDArray[np.bool_], camera: FloatArray, pose: FloatArray) -> FloatArray:
    """x and y [N, 2] in the world of the pixels that are chosen."""
    row, column = np.nonzero(where)
    fx, fy, cx, cy = camera
    depth = depth_m[row, column].astype(np.float64)
    points = np.stack([(column - cx) / fx * depth, (row - cy) / fy * depth, depth], -1)
    return np.asarray(points @ pose[:2, :3].T + pose[:2, 3])
