"""The pinhole camera with five distortion coefficients: projection, its derivative, and its inverse.

The model is that of D. C. Brown, "Close-Range Camera Calibration", Photogrammetric Engineering 37(8), 1971, in the
order and scale of OpenCV: k1 k2 p1 p2 k3, on coordinates of the plane z = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from sensors.errors import SpecError
from sensors.geometry import FloatArray

COEFFICIENTS = 5
_NEWTON_STEPS = 20
_CONVERGED = 1e-12  # of the plane z = 1; far below any pixel


@final
@dataclass(frozen=True, eq=False)
class Lens:
    """How a camera maps its frame to pixels.

    Attributes:
        width: of the picture, px.
        height: of the picture, px.
        intrinsics_px: [4], fx fy cx cy; integer pixels are pixel centres.
        distortion: [5], k1 k2 p1 p2 k3; fewer (none, or the first four) are filled with zeros.

    Raises:
        SpecError: a number is missing, not finite, or a focal length is not positive.
    """

    width: int
    height: int
    intrinsics_px: FloatArray
    distortion: FloatArray

    def __post_init__(self) -> None:
        intrinsics, given = np.asarray(self.intrinsics_px, float), np.asarray(self.distortion, float).ravel()
        if intrinsics.shape != (4,) or not np.isfinite(intrinsics).all() or not (intrinsics[:2] > 0).all():
            raise SpecError(
                "Lens.intrinsics_px", "fx fy cx cy, finite, fx and fy > 0", repr(intrinsics), "Calibrate again."
            )
        if len(given) not in (0, 4, COEFFICIENTS) or not np.isfinite(given).all():
            raise SpecError("Lens.distortion", "k1 k2 p1 p2 k3, finite", repr(given), "Calibrate with 5 coefficients.")
        if self.width < 1 or self.height < 1:
            got = f"{self.width} x {self.height}"
            raise SpecError("Lens", "a picture of at least one pixel", got, "Give width and height in pixels.")
        object.__setattr__(self, "intrinsics_px", intrinsics)
        object.__setattr__(self, "distortion", np.pad(given, (0, COEFFICIENTS - len(given))))

    @property
    def matrix(self) -> FloatArray:
        """The camera matrix [3, 3]."""
        fx, fy, cx, cy = self.intrinsics_px
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def project(self, points_camera_m: ArrayLike) -> FloatArray:
        """Pixels [..., 2] of camera-frame points [..., 3]; NaN for points at or behind the camera."""
        points = np.asarray(points_camera_m, float)
        z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        bent = distort(points[..., :2] / z[..., None], self.distortion)
        pixels: FloatArray = bent * self.intrinsics_px[:2] + self.intrinsics_px[2:]
        return pixels

    def project_with_jacobian(self, points_camera_m: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Pixels [..., 2] and their derivative [..., 2, 3] by the point, px/m. No point may be at z = 0."""
        points = np.asarray(points_camera_m, float)
        z = points[..., 2]
        flat = points[..., :2] / z[..., None]
        by_point = np.zeros((*points.shape[:-1], 2, 3))
        by_point[..., 0, 0] = by_point[..., 1, 1] = 1 / z
        by_point[..., :, 2] = -flat / z[..., None]
        bent = distort(flat, self.distortion)
        focal = self.intrinsics_px[:2]
        pixels: FloatArray = bent * focal + self.intrinsics_px[2:]
        return pixels, focal[:, None] * (distort_jacobian(flat, self.distortion) @ by_point)

    def by_parameters(self, points_camera_m: ArrayLike) -> FloatArray:
        """The derivative [..., 2, 9] of the pixels of points [..., 3] by fx fy cx cy k1 k2 p1 p2 k3."""
        points = np.asarray(points_camera_m, float)
        flat = points[..., :2] / points[..., 2:]
        x, y = flat[..., 0], flat[..., 1]
        r2 = x * x + y * y
        out = np.zeros((*points.shape[:-1], 2, 4 + COEFFICIENTS))
        bent, focal = distort(flat, self.distortion), self.intrinsics_px[:2]
        out[..., 0, 0], out[..., 1, 1] = bent[..., 0], bent[..., 1]
        out[..., 0, 2] = out[..., 1, 3] = 1.0
        for column, power in ((4, r2), (5, r2**2), (8, r2**3)):
            out[..., column] = flat * power[..., None] * focal
        out[..., 6] = np.stack([2 * x * y, r2 + 2 * y * y], axis=-1) * focal
        out[..., 7] = np.stack([r2 + 2 * x * x, 2 * x * y], axis=-1) * focal
        return out

    def rays(self, pixels: ArrayLike) -> FloatArray:
        """Points [..., 2] of the plane z = 1 that are seen at pixels [..., 2]."""
        bent = (np.asarray(pixels, float) - self.intrinsics_px[2:]) / self.intrinsics_px[:2]
        return undistort(bent, self.distortion)


def distort(flat: FloatArray, coefficients: FloatArray) -> FloatArray:
    """What the lens makes of points [..., 2] of the plane z = 1."""
    k1, k2, p1, p2, k3 = coefficients
    x, y = flat[..., 0], flat[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([bent_x, bent_y], axis=-1)


def distort_jacobian(flat: FloatArray, coefficients: FloatArray) -> FloatArray:
    """The derivative [..., 2, 2] of :func:`distort`."""
    k1, k2, p1, p2, k3 = coefficients
    x, y = flat[..., 0], flat[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))  # of `radial` by r2, twice
    cross = x * y * slope + 2 * p1 * x + 2 * p2 * y
    out = np.empty((*flat.shape[:-1], 2, 2))
    out[..., 0, 0] = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
    out[..., 1, 1] = radial + y * y * slope + 6 * p1 * y + 2 * p2 * x
    out[..., 0, 1] = out[..., 1, 0] = cross
    return out


def undistort(bent: FloatArray, coefficients: FloatArray) -> FloatArray:
    """The inverse of :func:`distort`, by Newton's method.

    Raises:
        SpecError: a point lies outside what this lens can show (the polynomial folds back there).
    """
    flat = np.array(bent, float)
    for _ in range(_NEWTON_STEPS):
        missing = distort(flat, coefficients) - bent
        if not np.abs(missing).max(initial=0.0) > _CONVERGED:
            break
        j = distort_jacobian(flat, coefficients)
        by = j[..., 0, 0] * j[..., 1, 1] - j[..., 0, 1] * j[..., 1, 0]
        flat[..., 0] -= (j[..., 1, 1] * missing[..., 0] - j[..., 0, 1] * missing[..., 1]) / by
        flat[..., 1] -= (j[..., 0, 0] * missing[..., 1] - j[..., 1, 0] * missing[..., 0]) / by
    if not np.isfinite(flat).all() or np.abs(distort(flat, coefficients) - bent).max(initial=0.0) > 1e-6:
        raise SpecError(
            "lens distortion", "coefficients that hold over the whole picture",
            f"{np.round(coefficients, 5).tolist()}, which fold back",
            "Calibrate with corners out to the edges of the picture.",
        )  # fmt: skip
    return flat
