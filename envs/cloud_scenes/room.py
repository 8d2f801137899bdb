"""RoomScenes: a room with furniture and moving people and carts around a LiDAR on a base that drives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from envs.cloud_scenes.furniture import MOVING, STANDING, heading_velocity, room
from envs.cloud_scenes.labels import ROOM, names
from envs.cloud_scenes.scene import CloudScene, thinned
from envs.cloud_scenes.sight import CARRIER, Sight
from envs.cloud_scenes.stage import Stage, pose_of
from envs.world import PyBulletWorld
from sensors.deskew import deskew
from sensors.errors import SpecError
from sensors.frames import LidarFrame
from sensors.geometry import FloatArray, invert, transform_points
from sensors.lidar import Lidar
from sensors.lidar_pattern import SpinningPattern, hdl_32
from sensors.timeline import Timing

WIDE_M, DEEP_M, HIGH_M = (6.0, 12.0), (7.0, 14.0), 2.8  # inside of the walls
FEWEST, MOST = 8, 18  # things that stand
FEWEST_MOVING, MOST_MOVING = 1, 4
BASE_RADIUS_M = 0.6  # around the base nothing stands
GAP_M, TRIES = 0.05, 60
LIDAR_M = (0.6, 1.1)  # height of the LiDAR
BASE_SPEED_M_S, BASE_TURN_RAD_S = 1.0, 0.6  # at most, if the base moves


@dataclass(frozen=True, eq=False)
class Drive:
    """The base's way: straight on over the ground while it turns steadily.

    Attributes:
        place_m: [2] at 0 s.
        yaw_rad: at 0 s.
        velocity_m_s: [2] over the ground.
        turn_rad_s: its turning.
    """

    place_m: FloatArray
    yaw_rad: float
    velocity_m_s: FloatArray
    turn_rad_s: float

    def world_from_base(self, now_s: float) -> FloatArray:
        """The pose [4, 4] at a moment."""
        place = self.place_m + now_s * self.velocity_m_s
        return pose_of(self.yaw_rad + now_s * self.turn_rad_s, np.array([*place, 0.0]))


@final
class RoomScenes:
    """Scenes by number; a scene is a pure function of seed and number.

    A spinning LiDAR measures one or more turns while its base drives and people and carts walk by: each ray starts
    where the sensor is at its own time, and meets things where they are then. The base frame is that of the base at the
    end of the last turn: x forwards, z up, the floor at z = 0. With ``compensated`` the base's own motion is taken out,
    so that what stands is where it is and only what moves is drawn out; without, each point lies where the device
    would put it if it did not know that it moves. The ground truth of a point is the body that its ray met.

    Args:
        seed: of everything.
        pattern: of the LiDAR; None = 32 lasers from -30.67 to 10.67 degrees, 600 steps, ten turns per second.
        sweeps: turns in a scene; ``time_s`` tells them apart.
        moving_base: whether the base moves.
        compensated: whether its motion is taken out.
        range_noise_m: standard deviation of ranges.
        max_m: greatest range.
        points: at most so many of the measured points are kept, at random; None = all.

    Attributes:
        classes: names of the points' and the boxes' classes.
        parts: names of the points' parts.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        seed: int,
        pattern: SpinningPattern | None = None,
        sweeps: int = 1,
        moving_base: bool = True,
        compensated: bool = True,
        range_noise_m: float = 0.01,
        max_m: float = 30.0,
        points: int | None = None,
    ) -> None:
        if seed < 0 or sweeps < 1 or (points is not None and points < 1):
            got = f"seed={seed}, sweeps={sweeps}, points={points}"
            raise SpecError("RoomScenes", "seed >= 0, at least 1 sweep and 1 point", got, "Correct them.")
        self._seed = seed
        self._pattern = hdl_32(600, 10.0) if pattern is None else pattern
        self._sweeps = sweeps
        self._moving_base = moving_base
        self._compensated = compensated
        self._noise_m = range_noise_m
        self._max_m = max_m
        self._points = points
        self._lidar(1.0)  # refuses wrong settings now
        self._world = PyBulletWorld()
        self.classes, self.parts = names(ROOM)

    def scene(self, number: int) -> CloudScene:
        """Scene ``number``, 0 or more.

        Raises:
            SpecError: a negative number.
        """
        if number < 0:
            raise SpecError("RoomScenes.scene", "a number >= 0", repr(number), "Correct it.")
        things, motion, noise, choice = np.random.default_rng([self._seed, number]).spawn(4)
        stage = Stage(self._world, ROOM)
        try:
            drive = self._furnish(stage, things, motion)
            offset_s = self._pattern.sweep(0.0).offset_s
            sight = Sight(self._world, stage, drive.world_from_base, offset_s)
            lidar = self._lidar(float(motion.uniform(*LIDAR_M)))
            lidar.open(sight)
            lidar.reset(noise)
            frames, bodies = [], []
            for turn in range(self._sweeps + 1):  # the first reading only tells the LiDAR where it comes from
                sight.set_time(turn * self._pattern.sweep_s)
                sight.blind = turn == 0
                frames.append(lidar.read(sight.time_s))
                bodies.append(sight.body)
            return self._scene(number, stage, drive, frames, bodies, choice)
        finally:
            stage.clear()

    def close(self) -> None:
        """Let go of the simulator. May be called twice."""
        self._world.close()

    def _scene(
        self,
        number: int,
        stage: Stage,
        drive: Drive,
        frames: list[LidarFrame],
        bodies: list[np.ndarray[tuple[int], np.dtype[np.int32]]],
        choice: np.random.Generator,
    ) -> CloudScene:
        end_s = frames[-1].stamp_s
        world_from_base = drive.world_from_base(end_s)
        base_from_world = invert(world_from_base)
        base_from_lidar = base_from_world @ frames[-1].base_from_lidar
        places, shine, when, met = [], [], [], []
        for before, frame, body in zip(frames, frames[1:], bodies[1:], strict=False):
            count = int(frame.count[0])
            xyz, offset = frame.xyz_m[:count].astype(float), frame.offset_s[:count]
            if self._compensated:
                poses = (before.base_from_lidar, frame.base_from_lidar)
                xyz = deskew(xyz, offset, *poses, self._pattern.sweep_s)
                xyz = transform_points(base_from_world, transform_points(frame.base_from_lidar, xyz))
            else:
                xyz = transform_points(base_from_lidar, xyz)
            places.append(xyz.astype(np.float32))
            shine.append(frame.intensity[:count])
            when.append((frame.stamp_s - end_s + offset).astype(np.float32))
            met.append(body[ray_of(frame, self._pattern)])
        kept = thinned(sum(map(len, met)), self._points, choice)
        semantic, instance, part = stage.truth(np.concatenate(met)[kept])
        return CloudScene(
            xyz_m=np.concatenate(places)[kept],
            intensity=np.concatenate(shine)[kept],
            time_s=np.concatenate(when)[kept],
            semantic=semantic,
            instance=instance,
            part=part,
            boxes=stage.boxes(instance, world_from_base, end_s),
            classes=self.classes,
            parts=self.parts,
            box_classes=self.classes,
            name=f"room {self._seed}/{number}",
            stamp_s=end_s,
        )

    def _furnish(self, stage: Stage, rng: np.random.Generator, motion: np.random.Generator) -> Drive:
        wide, deep = float(rng.uniform(*WIDE_M)), float(rng.uniform(*DEEP_M))
        for ground in room(wide, deep, HIGH_M):
            stage.put(ground, (0.0, 0.0, 0.0), ground=True)
        half = np.array([deep, wide]) / 2
        place, yaw = rng.uniform(-0.6, 0.6, 2) * half, float(rng.uniform(-math.pi, math.pi))
        turn, speed, heading = motion.uniform(
            (-BASE_TURN_RAD_S, 0.0, -0.3), (BASE_TURN_RAD_S, BASE_SPEED_M_S, 0.3)
        ).tolist()
        ahead = yaw + heading
        if not self._moving_base:
            turn = speed = 0.0
        drive = Drive(place, yaw, speed * np.array([math.cos(ahead), math.sin(ahead)]), turn)
        time_s = self._sweeps * self._pattern.sweep_s
        taken: list[tuple[FloatArray, float]] = [(place, BASE_RADIUS_M + speed * time_s)]
        for kinds, fewest, most in ((MOVING, FEWEST_MOVING, MOST_MOVING), (STANDING, FEWEST, MOST)):
            for _ in range(int(rng.integers(fewest, most + 1))):
                label = str(rng.choice(list(kinds)))
                thing, yaw = kinds[label](rng), float(rng.uniform(-math.pi, math.pi))
                velocity = heading_velocity(thing, yaw, motion) if kinds is MOVING else (0.0, 0.0, 0.0)
                needs = thing.radius_m + math.hypot(*velocity) * time_s
                at = _free(rng, half - needs, needs, taken)
                if at is not None:
                    taken.append((at, needs))
                    stage.put(thing, (*at, 0.0), yaw, velocity)
        return drive

    def _lidar(self, height_m: float) -> Lidar:
        return Lidar(
            timing=Timing(rate_hz=1.0 / self._pattern.sweep_s),
            pattern=self._pattern,
            link=CARRIER,
            position_m=(0.0, 0.0, height_m),
            min_m=0.3,
            max_m=self._max_m,
            range_noise_m=self._noise_m,
            angle_noise_rad=0.0003,
            see_robot=False,
        )


def ray_of(frame: LidarFrame, pattern: SpinningPattern) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Which ray of the pattern each point of a frame is of: the one of its firing time that looks its way."""
    count = int(frame.count[0])
    sweep = pattern.sweep(frame.stamp_s)
    fired = sweep.offset_s.astype(np.float32)
    first = np.searchsorted(fired, frame.offset_s[:count], side="left")
    last = np.searchsorted(fired, frame.offset_s[:count], side="right")
    at_once = int((last - first).max(initial=1))
    candidates = np.minimum(first[:, None] + np.arange(at_once), (last - 1)[:, None])
    along = np.einsum("nki,ni->nk", sweep.directions[candidates], frame.xyz_m[:count].astype(float))
    return np.asarray(np.take_along_axis(candidates, along.argmax(axis=1)[:, None], axis=1)[:, 0])


def _free(
    rng: np.random.Generator, half_m: FloatArray, radius_m: float, taken: list[tuple[FloatArray, float]]
) -> FloatArray | None:
    """A place [2] within +-``half_m`` with air around it; None = none was found."""
    if (half_m <= 0).any():
        return None
    for _ in range(TRIES):
        at = rng.uniform(-half_m, half_m)
        if all(math.dist(at, other) >= radius_m + reach + GAP_M for other, reach in taken):
            return np.asarray(at)
    return None
