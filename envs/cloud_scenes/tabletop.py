"""TabletopScenes: 5 to 12 things of ten classes on a table, seen by RGB-D cameras."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from envs.cloud_scenes.labels import TABLETOP, names
from envs.cloud_scenes.scene import CloudScene, thinned
from envs.cloud_scenes.sight import Sight
from envs.cloud_scenes.stage import Stage
from envs.cloud_scenes.tabletop_things import MAKERS, SMALL, room_on
from envs.cloud_scenes.things import Thing
from envs.randomisation import Randomisation
from envs.scene import Table
from envs.world import PyBulletWorld
from sensors.camera import RgbdCamera
from sensors.errors import SpecError
from sensors.geometry import FloatArray, look_at, matrix_to_quaternion, transform_points, unproject
from sensors.timeline import Timing

FEWEST, MOST = 5, 12
MIDDLE_M, HALF_M = (0.45, 0.0), (0.3, 0.42)  # of the area in which middles of things may be; the table is larger
GAP_M = 0.01  # of air between things
TRIES = 200  # draws of a place per thing
ON_SHARE = 0.25  # of small things that are put on or into another thing, if there is one that has room
HEIGHT_M = 0.0  # of the table's top


@final
class TabletopScenes:
    """Scenes by number; a scene is a pure function of seed and number.

    Things stand or lie at rest; some small ones stand on boxes, in trays and in bowls. Cameras stand around the table
    at 0.8 to 1.1 m and look at its middle. The base frame is that of the robot that would work there: x forwards, z up,
    the table's top at z = 0. The ground truth of a point is the body that the renderer drew in its pixel.

    Args:
        seed: of everything.
        cameras: how many there are.
        width: of their pictures, pixels.
        height: of their pictures, pixels.
        depth_noise_m: standard deviation of depth at 1 m; it grows with the square of the depth.
        colour_noise: standard deviation of a pixel's noise, counts of 255.
        points: at most so many of the measured points are kept, at random; None = all.
        renderer: "tiny" (CPU), "egl" (GPU) or "auto". Scenes are equal only if drawn by the same one.

    Attributes:
        classes: names of the points' and the boxes' classes.
        parts: names of the points' parts.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        seed: int,
        cameras: int = 2,
        width: int = 128,
        height: int = 128,
        depth_noise_m: float = 0.001,
        colour_noise: float = 2.0,
        points: int | None = 8192,
        renderer: str = "tiny",
    ) -> None:
        if seed < 0 or cameras < 1 or (points is not None and points < 1):
            got = f"seed={seed}, cameras={cameras}, points={points}"
            raise SpecError("TabletopScenes", "seed >= 0, at least 1 camera and 1 point", got, "Correct them.")
        self._seed = seed
        self._cameras = cameras
        self._size = (width, height)
        self._noise = (depth_noise_m, colour_noise)
        self._points = points
        self._camera((1.0, 0.0, 0.5))  # refuses wrong settings now
        self._world = PyBulletWorld(renderer=renderer)
        self._table = Table(self._world)
        self.classes, self.parts = names(TABLETOP)

    def scene(self, number: int) -> CloudScene:
        """Scene ``number``, 0 or more.

        Raises:
            SpecError: a negative number.
        """
        if number < 0:
            raise SpecError("TabletopScenes.scene", "a number >= 0", repr(number), "Correct it.")
        # One generator for each cause: what one draws never shifts the others.
        look, things, views, noise, choice = np.random.default_rng([self._seed, number]).spawn(5)
        stage = Stage(self._world, TABLETOP)
        stage.note(self._table.body, "table", "top")
        try:
            self._table.reset(look, Randomisation())
            arrange(stage, things)
            places, colours, bodies = [], [], []
            for eye in viewpoints(self._cameras, views):
                sight = Sight(self._world, stage)
                camera = self._camera(eye)
                camera.open(sight)
                camera.reset(noise.spawn(1)[0])
                frame = camera.read(0.0)
                # With some near and far planes, the renderer's background has a depth just short of the far one.
                measured = (frame.depth_m > 0) & (sight.body >= 0)
                points = unproject(frame.depth_m, frame.intrinsics_px)[measured]
                places.append(transform_points(frame.base_from_camera, points).astype(np.float32))
                colours.append(frame.rgb[measured])
                bodies.append(sight.body[measured])
            kept = thinned(sum(map(len, bodies)), self._points, choice)
            semantic, instance, part = stage.truth(np.concatenate(bodies)[kept])
            return CloudScene(
                xyz_m=np.concatenate(places)[kept],
                rgb=np.concatenate(colours)[kept],
                semantic=semantic,
                instance=instance,
                part=part,
                boxes=stage.boxes(instance, np.eye(4), 0.0),
                classes=self.classes,
                parts=self.parts,
                box_classes=self.classes,
                name=f"tabletop {self._seed}/{number}",
            )
        finally:
            stage.clear()

    def close(self) -> None:
        """Let go of the simulator. May be called twice."""
        self._world.close()

    def _camera(self, eye_m: tuple[float, float, float]) -> RgbdCamera:
        depth_noise_m, colour_noise = self._noise
        return RgbdCamera(
            timing=Timing(rate_hz=30.0),
            width=self._size[0],
            height=self._size[1],
            fov_y_deg=48.0,
            position_m=eye_m,
            quaternion_xyzw=matrix_to_quaternion(look_at(eye_m, (*MIDDLE_M, 0.02))[:3, :3]).tolist(),
            near_m=0.1,
            far_m=3.0,
            colour_noise=colour_noise,
            depth_noise=depth_noise_m,
        )


def viewpoints(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Where cameras stand [3]: evenly around the table from a random direction on, each at a height of its own."""
    out = []
    first = float(rng.uniform(0.0, 2 * math.pi))
    for number in range(count):
        shift, up, far = rng.uniform((-0.3, 0.5, 0.8), (0.3, 0.95, 1.1)).tolist()
        around = first + 2 * math.pi * number / count + shift
        flat = far * math.cos(up)
        out.append((MIDDLE_M[0] + flat * math.cos(around), flat * math.sin(around), far * math.sin(up)))
    return out


def arrange(stage: Stage, rng: np.random.Generator) -> None:
    """Put 5 to 12 things on the table, apart from each other or one on the other."""
    count = int(rng.integers(FEWEST, MOST + 1))
    labels = [str(label) for label in rng.permutation([*MAKERS, *rng.choice(list(MAKERS), 3 * MOST)])]
    standing: list[tuple[Thing, FloatArray]] = []
    taken: set[int] = set()
    for label in labels:
        if stage.count == count:
            return
        thing, yaw = MAKERS[label](rng), float(rng.uniform(-math.pi, math.pi))
        hosts = [
            index
            for index, (host, _) in enumerate(standing)
            if index not in taken and label in SMALL and room_on(host)[1] > thing.radius_m
        ]
        if hosts and rng.random() < ON_SHARE:
            index = hosts[int(rng.integers(len(hosts)))]
            taken.add(index)
            host, place = standing[index]
            stage.put(thing, (*place, room_on(host)[0]), yaw)
            continue
        for _ in range(TRIES):
            place = np.array(MIDDLE_M) + rng.uniform(-1, 1, 2) * HALF_M
            apart = [math.dist(place, other) - host.radius_m - thing.radius_m for host, other in standing]
            if min(apart, default=math.inf) >= GAP_M:
                stage.put(thing, (*place, HEIGHT_M), yaw)
                standing.append((thing, place))
                break
