"""Where a picture of a cloud is taken from: around what is looked at, or straight above it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from sensors.errors import SpecError
from sensors.geometry import FloatArray, intrinsics_from_fov, invert, look_at, project, transform_points

FIELD_DEG = 40.0
# Nearer than this share of the distance to what is looked at, nothing is drawn.
NEAR = 0.02
# What counts as the extent of a cloud: a few strays far away must not make the rest small.
INNER = (1.0, 99.0)
MARGIN = 1.06
LEAST_M = 1e-3  # half the extent of a cloud of one place


@final
@dataclass(frozen=True, eq=False)
class View:
    """An ideal camera.

    Attributes:
        camera_from_base: [4, 4]; the camera looks along its +z, +x to the right of the picture, +y down.
        height: of the picture, px.
        width: of the picture, px.
        intrinsics_px: [4] fx, fy, cx, cy; of a parallel view, fx and fy are pixels per metre.
        distance_m: from the camera to what is looked at.
        parallel: rays do not meet in the eye, so that what is far is as large as what is near.
    """

    camera_from_base: FloatArray
    height: int
    width: int
    intrinsics_px: FloatArray
    distance_m: float
    parallel: bool

    @property
    def near_m(self) -> float:
        """Depth from which on something is drawn."""
        return -math.inf if self.parallel else NEAR * self.distance_m

    def seen(self, xyz_m: ArrayLike) -> FloatArray:
        """Points [..., 3] in the camera's frame, metres."""
        return transform_points(self.camera_from_base, np.asarray(xyz_m, float))

    def pixels(self, seen_m: FloatArray) -> FloatArray:
        """Pixels (u, v) [..., 2] of points [..., 3] in the camera's frame; NaN behind an eye."""
        if not self.parallel:
            return project(seen_m, self.intrinsics_px)[0]
        fx, fy, cx, cy = self.intrinsics_px
        return np.stack([seen_m[..., 0] * fx + cx, seen_m[..., 1] * fy + cy], axis=-1)


def extent(xyz_m: ArrayLike) -> tuple[FloatArray, float]:
    """Middle [3] and radius of where most of the finite points [N, 3] are; the origin and 1 m where there is none."""
    points = np.asarray(xyz_m, float).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.zeros(3), 1.0
    low, high = np.percentile(points, INNER, axis=0)
    middle = (low + high) / 2
    away = np.linalg.norm(points - middle, axis=1)
    return middle, max(float(np.percentile(away, INNER[1])), LEAST_M)


def around(xyz_m: ArrayLike, height: int, width: int, azimuth_rad: float = -2.2, elevation_rad: float = 0.5) -> View:
    """A view in perspective that shows a cloud whole.

    Args:
        xyz_m: [N, 3] what is to be seen.
        height: of the picture, px.
        width: of the picture, px.
        azimuth_rad: direction from the middle of the cloud to the eye, from +x towards +y.
        elevation_rad: of the eye above the middle.

    Raises:
        SpecError: a picture without pixels, or an eye straight above, where no direction is up.
    """
    _check("around", height, width)
    if not abs(elevation_rad) < math.pi / 2 - 1e-3:
        raise SpecError("around.elevation_rad", "less than pi / 2", f"{elevation_rad:g}", "Take above() for that.")
    middle, radius_m = extent(xyz_m)
    flat = math.cos(elevation_rad)
    towards = np.array([flat * math.cos(azimuth_rad), flat * math.sin(azimuth_rad), math.sin(elevation_rad)])
    # Around the origin and put in its place after: look_at would lose a direction of a metre beside a middle of 1e9.
    camera = look_at(towards, np.zeros(3))
    distance_m = _distance_m(xyz_m, middle, radius_m, camera[:3, :3], height, width)
    camera[:3, 3] = middle + distance_m * towards
    intrinsics = intrinsics_from_fov(width, height, FIELD_DEG)
    return View(invert(camera), height, width, intrinsics, distance_m, parallel=False)


def above(xyz_m: ArrayLike, height: int, width: int, half_m: float | None = None) -> View:
    """A view from straight above, +x upwards in the picture and +y to its left, as on a map of what lies ahead.

    Args:
        xyz_m: [N, 3] what is to be seen.
        height: of the picture, px.
        width: of the picture, px.
        half_m: half the edge of the square that fits into the picture; None = most of the points do.

    Raises:
        SpecError: a picture without pixels, or a square without size.
    """
    _check("above", height, width)
    if half_m is not None and not 0 < half_m < math.inf:
        raise SpecError("above.half_m", "a length above 0", f"{half_m:g}", "Correct it.")
    middle, radius_m = extent(xyz_m)
    half_m = radius_m if half_m is None else half_m
    base_from_camera = np.eye(4)
    base_from_camera[:3, :3] = [[0, -1, 0], [-1, 0, 0], [0, 0, -1]]
    base_from_camera[:3, 3] = middle
    scale = min(height, width) / (2 * half_m)
    intrinsics = np.array([scale, scale, (width - 1) / 2, (height - 1) / 2])
    return View(invert(base_from_camera), height, width, intrinsics, half_m, parallel=True)


def _distance_m(
    xyz_m: ArrayLike, middle: FloatArray, radius_m: float, rotation: FloatArray, height: int, width: int
) -> float:
    """How far from the middle an eye has to be for most points to be inside the picture."""
    points = np.asarray(xyz_m, float).reshape(-1, 3)
    points = (points[np.isfinite(points).all(axis=1)] - middle) @ rotation
    tall = math.tan(math.radians(FIELD_DEG) / 2)
    # |x| <= tan (distance + z) for what is z behind the middle, and y alike.
    need = np.maximum(np.abs(points[:, 0]) * height / width, np.abs(points[:, 1])) / tall - points[:, 2]
    most = float(np.percentile(need, INNER[1])) if len(need) else 0.0
    # Never inside the cloud, and with a rim.
    return MARGIN * max(most, 1.2 * radius_m)


def _check(where: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise SpecError(where, "a picture of at least 1 pixel", f"{height} by {width}", "Correct it.")
