"""Frames for the benchmark of recording: drawn and noisy, so that no codec is flattered.

Colour is a table and balls under textures with structure at every scale (sums of noise of 2^2 to 2^9 cells) and 2 grey
levels of sensor noise; depth has noise of 1 mm at 1 m growing with its square, holes along edges and at 0.5 % of the
pixels, and is in whole millimetres as depth cameras give it. The camera moves from frame to frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import final

import cv2
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import Sensor, World
from sensors.frames import Frame, JointFrame, LidarFrame, RgbdFrame, TactileFrame
from sensors.geometry import FloatArray, pose
from sensors.spec import box
from sensors.timeline import Timing

HEIGHT, WIDTH, FOCAL_PX = 480, 640, 600.0
POINTS, TAXELS, JOINTS = 30_000, (24, 32), 7
FAR_M = 4.0
RING = 24  # different frames of a camera: more than half a second holds, which is what is compressed at once


@final
class CannedSensor(Sensor):
    """Gives prepared frames at its rate, as copies, on the clock of whoever reads it; none is passed over.

    Args:
        frames: prepared frames, given in turn.
        rate_hz: frames per second.
    """

    def __init__(self, frames: Sequence[Frame], rate_hz: float) -> None:
        self._frames = itertools.cycle(frames)
        self._space = spaces.Dict(
            {name: box(-1e9, 1e9, v.shape, v.dtype) if v.dtype.kind == "f" else box(0, 255, v.shape, v.dtype)
             for name, v in frames[0].arrays().items()}
        )  # fmt: skip
        self._timing = Timing(rate_hz=rate_hz, live=True)
        self._began_s: float | None = None
        self.given = 0
        self.ends_s = float("inf")

    @property
    def space(self) -> spaces.Dict:
        return self._space

    @property
    def timing(self) -> Timing:
        return self._timing

    def open(self, world: World | None) -> None:
        self._began_s = None

    def reset(self, rng: np.random.Generator) -> None:
        self._began_s = None

    def read(self, now_s: float) -> Frame | None:
        if self._began_s is None:
            self._began_s = now_s
        due_s = self._began_s + self.given / self._timing.rate_hz
        if due_s > now_s or due_s - self._began_s >= self.ends_s:
            return None
        self.given += 1
        frame = next(self._frames)
        return replace(frame, stamp_s=due_s, **{name: value.copy() for name, value in frame.arrays().items()})

    def close(self) -> None:
        pass


def texture(rng: np.random.Generator, size: int = 1024) -> NDArray[np.float32]:
    """float32 [size, size, 3] in 0 to 255 with structure at every scale."""
    out = np.zeros((size, size, 3), np.float32)
    for octave in range(2, 10):
        cells = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        out += cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC) / 2 ** (0.8 * octave)
    out -= out.min()
    return out / out.max() * 255


def rgbd_frames(seed: int, count: int = RING) -> list[RgbdFrame]:
    """Pictures 640 x 480 with depth of a camera that moves over a table with balls."""
    rng = np.random.default_rng(seed)
    paper = texture(rng)
    return [_rgbd(rng, paper, step) for step in range(count)]


def _rgbd(rng: np.random.Generator, paper: NDArray[np.float32], step: int) -> RgbdFrame:
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    rays = np.stack([(u - WIDTH / 2) / FOCAL_PX, (v - HEIGHT / 2) / FOCAL_PX, np.ones_like(u)], -1)
    cos, sin = np.cos(0.9), np.sin(0.9)  # looking down at the table
    rays = rays @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]], np.float32).T
    depth = np.where(rays[..., 1] > 0, 0.8 / np.maximum(rays[..., 1], 1e-3), FAR_M)
    depth = np.minimum(depth, FAR_M)
    body = np.zeros(depth.shape, int)
    for ball in range(6):
        angle = ball + 0.02 * step
        middle = np.array([0.3 * np.cos(angle), 0.7 - 0.02 * ball, 0.5 + 0.15 * ball], np.float32)
        along, square = rays @ middle, (rays * rays).sum(-1)
        inside = along**2 - square * (middle @ middle - (0.08 + 0.01 * ball) ** 2)
        distance = np.where(inside > 0, (along - np.sqrt(np.maximum(inside, 0))) / square, np.inf)
        hit = (distance > 0) & (distance < depth)
        depth, body = np.where(hit, distance, depth), np.where(hit, ball + 1, body)
    place = rays * depth[..., None]
    column = ((place[..., 0] + 0.001 * step) * 300 + 97 * body).astype(int) % len(paper)
    row = ((place[..., 2] + place[..., 1]) * 300 + 31 * body).astype(int) % len(paper)
    rgb = paper[row, column] * (1.1 - 0.15 * depth[..., None]) + rng.normal(size=(HEIGHT, WIDTH, 3)) * 2
    edges = np.abs(cv2.Laplacian(depth.astype(np.float32), cv2.CV_32F)) > 0.05
    holes = cv2.dilate(edges.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    measured = depth + rng.normal(size=depth.shape) * 0.001 * depth**2
    measured[holes | (rng.random(depth.shape) < 0.005)] = 0
    return RgbdFrame(
        stamp_s=0.0,
        rgb=np.clip(rgb, 0, 255).astype(np.uint8),
        depth_m=np.rint(measured * 1000).astype(np.float32) * np.float32(0.001),
        intrinsics_px=np.array([FOCAL_PX, FOCAL_PX, WIDTH / 2, HEIGHT / 2]),
        base_from_camera=pose((0.001 * step, 0.0, 0.5)),
    )


def lidar_frames(seed: int, count: int = 8) -> list[LidarFrame]:
    """Sweeps of 30,000 points in a room of 12 x 8 x 3 m, range noise 2 cm, one in ten rays without an answer."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        turn = np.linspace(0, 2 * np.pi, POINTS // 16, endpoint=False)
        rise = np.deg2rad(np.linspace(-15, 15, 16))
        turn, rise = (part.ravel() for part in np.meshgrid(turn, rise, indexing="ij"))
        rays = np.stack([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)], -1)
        walls = np.array([6.0, 4.0, 1.5]) / np.maximum(np.abs(rays), 1e-9)
        distance = walls.min(-1) + rng.normal(size=POINTS) * 0.02
        kept = rng.random(POINTS) > 0.1
        count_kept = int(kept.sum())
        xyz, intensity, offset = np.zeros((POINTS, 3), np.float32), np.zeros(POINTS, np.float32), np.zeros(POINTS)
        xyz[:count_kept] = (rays * distance[:, None])[kept]
        intensity[:count_kept] = rng.random(count_kept)
        offset[:count_kept] = np.linspace(0, 0.1, POINTS)[kept]
        found.append(
            LidarFrame(
                stamp_s=0.0, xyz_m=xyz, intensity=intensity, offset_s=offset.astype(np.float32),
                count=np.array([count_kept]), base_from_lidar=np.eye(4),
            )
        )  # fmt: skip
    return found


def touch_frames(seed: int, count: int = 32) -> list[TactileFrame]:
    """A dent that wanders over a gel, with noise."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[0 : TAXELS[0], 0 : TAXELS[1]]
    found = []
    for step in range(count):
        dent = 1e-3 * np.exp(-((row - 12) ** 2 + (column - step) ** 2) / 30) + rng.normal(size=TAXELS) * 2e-5
        felt = np.maximum(dent, 0).astype(np.float32)
        found.append(TactileFrame(stamp_s=0.0, indentation_m=felt, base_from_pad=np.eye(4), size_m=np.ones(2) * 0.02))
    return found


def joint_frames(seed: int, count: int = 1000) -> list[JointFrame]:
    """Joints that wander."""
    rng = np.random.default_rng(seed)
    place: FloatArray = np.cumsum(rng.normal(size=(count, JOINTS)) * 1e-3, axis=0)
    speed: FloatArray = rng.normal(size=(count, JOINTS))
    return [
        JointFrame(
            stamp_s=0.0, position_rad=place[k], velocity_rad_s=speed[k], gripper_m=np.array([0.04]),
            base_from_tool=pose(place[k, :3]),
        )
        for k in range(count)
    ]  # fmt: skip


def make_sensors() -> dict[str, CannedSensor]:
    """Two RGB-D cameras at 30 Hz, a LiDAR at 10 Hz, two fingertips at 60 Hz and joints at 1 kHz."""
    return {
        "left": CannedSensor(rgbd_frames(1), 30.0),
        "right": CannedSensor(rgbd_frames(2), 30.0),
        "lidar": CannedSensor(lidar_frames(3), 10.0),
        "touch_left": CannedSensor(touch_frames(4), 60.0),
        "touch_right": CannedSensor(touch_frames(5), 60.0),
        "joints": CannedSensor(joint_frames(6), 1000.0),
    }
