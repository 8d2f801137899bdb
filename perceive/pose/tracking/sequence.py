"""Made-up RGB-D films of one moving object with an occluder and noise, for tests and benchmarks; truth included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer, Rendering
from perceive.pose.tracking.shapes import box_mesh
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

Cover = tuple[tuple[float, float], ...]  # (time in s, covered share of the object's width), linear in between
AWAY = -0.6
_BLOCK_PX = 12


@final
@dataclass(frozen=True, eq=False)
class Shot:
    """One frame with what is true of it.

    Attributes:
        frame: what a camera delivers.
        camera_from_object: float64 [4, 4], the truth.
        visible_share: of the object's pixels, those not covered.
    """

    frame: RgbdFrame
    camera_from_object: FloatArray
    visible_share: float


@final
class MovingSequence:
    """A film; each frame is a function of the seed and its time.

    The object goes round an ellipse at a steady speed and turns about an axis that turns as well, over a tilted plane
    with things lying on it. A plate between camera and object follows the object and covers a share of its width that
    is given over time. Depth has noise that grows with the square of the distance, is rounded to millimetres, has
    holes, and is missing along jumps.

    Args:
        model: what moves.
        seed: of the start, the axis, the noise and the things.
        speed_m_s: of the object's origin.
        spin_rad_s: of its turning.
        away_m: mean distance from the camera.
        cover: at least two pairs of time and share; None = the plate is not there.
        noise_m: standard deviation of depth at one metre.
        size_px: height and width.
        things: how many boxes lie around; they are never nearer to the camera than the object's path.
        threads: of the renderers; 0 = all cores.

    Raises:
        SpecError: times of the cover do not grow.
    """

    def __init__(
        self,
        model: ObjectModel,
        seed: int,
        speed_m_s: float = 0.25,
        spin_rad_s: float = math.radians(60.0),
        away_m: float = 0.65,
        cover: Sequence[tuple[float, float]] | None = None,
        noise_m: float = 0.002,
        size_px: tuple[int, int] = (480, 640),
        things: int = 4,
        threads: int = 0,
    ) -> None:
        self.model, self._seed = model, seed
        self._cover: Cover | None = None if cover is None else tuple((float(t), float(s)) for t, s in cover)
        if self._cover is not None and any(b[0] <= a[0] for a, b in zip(self._cover, self._cover[1:], strict=False)):
            raise SpecError("MovingSequence.cover", "growing times", repr(cover), "Sort them.")
        height, width = size_px
        self.size_px = size_px
        self.intrinsics_px = np.array([0.96 * width, 0.96 * width, 0.5 * width - 0.5, 0.5 * height - 0.5])
        self._noise_m, self._speed, self._spin, self._away_m = noise_m, speed_m_s, spin_rad_s, away_m
        rng = np.random.default_rng([seed, 1])
        self._axis = rng.standard_normal(3)
        self._axis /= np.linalg.norm(self._axis)
        self._first = axis_angle_to_matrix(rng.standard_normal(3) * 1.5)
        self._phase, self._radius_m = rng.uniform(0, 2 * math.pi), 0.11
        self._tilt = rng.uniform(0.2, 0.5)
        self._object = MeshRenderer(model, threads)
        self._plate_m = 1.3 * model.diameter_m
        half = 0.5 * self._plate_m
        self._plate = MeshRenderer(
            ObjectModel.make(0, "plate", *box_mesh((-half, -half, -0.004), (half, half, 0.004)), (60, 60, 60)), threads
        )
        self._floor, self._floor_rgb = self._background()
        for _ in range(things):
            self._add_thing(rng, threads)

    def truth(self, stamp_s: float) -> FloatArray:
        """camera_from_object [4, 4] at a time."""
        angle = self._phase + self._speed * stamp_s / self._radius_m
        pose = np.eye(4)
        pose[:3, 3] = [
            self._radius_m * math.cos(angle),
            0.7 * self._radius_m * math.sin(angle),
            self._away_m + 0.7 * self._radius_m * math.sin(angle),
        ]
        swing = axis_angle_to_matrix([0.0, 0.3 * math.sin(0.9 * stamp_s), 0.0])  # the axis moves too, slowly
        pose[:3, :3] = swing @ axis_angle_to_matrix(self._axis * self._spin * stamp_s) @ self._first
        return pose

    def shot(self, stamp_s: float) -> Shot:
        """What the camera sees at a time."""
        depth, rgb = self._floor.copy(), self._floor_rgb.copy()
        pose = self.truth(stamp_s)
        whole = self._draw(self._object, pose, depth, rgb)
        number = 0
        if whole is not None:
            left, top, right, bottom = whole.box
            number = int((whole.depth_m[0] > 0).sum())
            plate = self._plate_pose(stamp_s, pose, whole)
            if plate is not None:
                self._draw(self._plate, plate, depth, rgb)
            part = depth[top:bottom, left:right]
            seen = int(((whole.depth_m[0] > 0) & (part == whole.depth_m[0])).sum())
        share = seen / number if number else 0.0
        measured = self._measure(depth, stamp_s)
        frame = RgbdFrame(
            stamp_s=stamp_s, rgb=rgb, depth_m=measured, intrinsics_px=self.intrinsics_px, base_from_camera=np.eye(4)
        )
        return Shot(frame, pose, share)

    def _background(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        height, width = self.size_px
        fx, fy, cx, cy = self.intrinsics_px
        row = (np.arange(height) - cy) / fy
        # a plane through (0, 0, far) that comes nearer towards the bottom of the picture
        far_m = self._away_m + 0.35
        depth = np.broadcast_to((far_m / (1.0 + math.tan(self._tilt) * row))[:, None], (height, width))
        column = (np.arange(width) - cx) / fx
        tile = (np.floor(depth * column / 0.06) + np.floor(depth * row[:, None] / 0.06)).astype(int) % 2
        rgb = np.where(tile[..., None] == 0, np.uint8(150), np.uint8(120)).repeat(3, -1)
        return depth.astype(np.float32), rgb

    def _add_thing(self, rng: np.random.Generator, threads: int) -> None:
        size = rng.uniform(0.02, 0.06, 3)
        mesh = box_mesh((-size[0], -size[1], -size[2]), (size[0], size[1], size[2]))
        colour = rng.integers(40, 220, 3)
        thing = MeshRenderer(ObjectModel.make(0, "thing", *mesh, colour), threads)
        pose = np.eye(4)
        pose[:3, :3] = axis_angle_to_matrix(rng.standard_normal(3))
        pose[:3, 3] = [rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2), self._away_m + rng.uniform(0.25, 0.35)]
        self._draw(thing, pose, self._floor, self._floor_rgb)

    def _draw(
        self, renderer: MeshRenderer, pose: FloatArray, depth: NDArray[np.float32], rgb: NDArray[np.uint8]
    ) -> Rendering | None:
        box = renderer.box(pose, self.intrinsics_px, *self.size_px)
        if box is None:
            return None
        drawn = renderer.render(pose, self.intrinsics_px, box)
        left, top, right, bottom = box
        part, colour = depth[top:bottom, left:right], rgb[top:bottom, left:right]
        nearer = (drawn.depth_m[0] > 0) & (drawn.depth_m[0] < part)
        light = np.array([0.3, -0.5, -0.81])
        bright = 0.45 + 0.55 * np.clip(drawn.normal[0] @ light, 0, 1)
        part[nearer] = drawn.depth_m[0][nearer]
        colour[nearer] = np.rint(drawn.rgb[0][nearer] * bright[nearer, None]).astype(np.uint8)
        return drawn

    def _plate_pose(self, stamp_s: float, pose: FloatArray, whole: Rendering) -> FloatArray | None:
        if self._cover is None:
            return None
        share = float(np.interp(stamp_s, [t for t, _ in self._cover], [s for _, s in self._cover]))
        if share <= 0.5 * AWAY:
            return None
        left, _, right, _ = whole.box
        middle = pose[:3, 3]
        near_m = float(middle[2]) - self.model.diameter_m * 0.5 - 0.08
        # Its right edge, in pixels, is where the share of the box ends; fully covered: it is in the middle.
        fx, _, cx, _ = self.intrinsics_px
        edge = (left + share * (right - left) - cx) / fx * near_m
        plate = np.eye(4)
        centred = (middle[0] / middle[2]) * near_m
        x = centred if share >= 1 else min(edge - 0.5 * self._plate_m, centred)
        plate[:3, 3] = [x, middle[1] / middle[2] * near_m, near_m]
        return plate

    def _measure(self, depth: NDArray[np.float32], stamp_s: float) -> NDArray[np.float32]:
        rng = np.random.default_rng([self._seed, 2, round(stamp_s * 1e6)])
        height, width = depth.shape
        blocks = rng.standard_normal((-(-height // _BLOCK_PX), -(-width // _BLOCK_PX)), np.float32)
        shared = blocks.repeat(_BLOCK_PX, 0).repeat(_BLOCK_PX, 1)[:height, :width]  # stereo errs in patches
        noise = 0.7 * shared + 0.7 * rng.standard_normal(depth.shape, np.float32)
        noisy = depth + noise * (self._noise_m * depth**2)
        jump = np.zeros(depth.shape, bool)
        for axis in (0, 1):
            step = np.abs(np.diff(depth, axis=axis)) > 0.02
            lower, upper = (slice(None, -1), slice(1, None))
            jump[(lower, slice(None)) if axis == 0 else (slice(None), lower)] |= step
            jump[(upper, slice(None)) if axis == 0 else (slice(None), upper)] |= step
        chance = rng.random(depth.shape, np.float32)
        lost = (jump & (chance < 0.5)) | (chance < 0.01)
        return np.where(lost, np.float32(0), np.round(noisy, 3).astype(np.float32))
