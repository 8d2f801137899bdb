"""Crops: square cut-outs around an object, as a camera that looks straight at it would see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.templates.views import turn_rotations
from sensors.geometry import FloatArray

ROUND_RADII = 4.2  # side of a crop that is as large as its object, in root mean square radii of the mask


@final
@dataclass(frozen=True, eq=False)
class Crops:
    """N square pictures of S x S pixels.

    Attributes:
        rgb: float32 [N, S, S, 3] in 0 to 1.
        mask: bool [N, S, S], where the object is seen.
        depth_m: float32 [N, S, S], along the line of sight, relative to a reference distance; 0 where not ``placed``.
        placed: bool [N, S, S], where the object is seen and its depth is known.
        empty: bool [N, S, S], where the object cannot be: something behind it is seen.
        step_m: sides of a pixel at the reference distance.
    """

    rgb: NDArray[np.float32]
    mask: NDArray[np.bool_]
    depth_m: NDArray[np.float32]
    placed: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    step_m: float


@final
@dataclass(frozen=True, eq=False)
class SightCamera:
    """A camera at the place of the real one that looks along another line of sight.

    Attributes:
        camera_from_sight: float64 [3, 3].
        reference_m: distance that depths are relative to.
        side: of the square that it sees, in metres at one metre.
    """

    camera_from_sight: FloatArray
    reference_m: float
    side: float

    @staticmethod
    def towards(u_px: float, v_px: float, intrinsics_px: FloatArray, reference_m: float, side: float) -> SightCamera:
        """The one whose middle is a pixel; its x axis stays as level in the picture as it can."""
        fx, fy, cx, cy = (float(x) for x in intrinsics_px)
        sight = np.array([(u_px - cx) / fx, (v_px - cy) / fy, 1.0])
        sight /= np.linalg.norm(sight)
        right = np.array([1.0, 0.0, 0.0]) - sight[0] * sight
        right /= np.linalg.norm(right)
        return SightCamera(np.stack([right, np.cross(sight, right), sight], 1), reference_m, side)


def cut(
    rgb: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    mask: NDArray[np.bool_],
    intrinsics_px: FloatArray,
    camera: SightCamera,
    turns: int,
    shifts: FloatArray,
    pixels: int,
) -> Crops:
    """Cut-outs at all turns and shifts, [turns * shifts] with the shifts varying fastest.

    Args:
        rgb: [H, W, 3].
        depth_m: [H, W], z of the real camera; 0 or not finite = unknown.
        mask: [H, W].
        intrinsics_px: fx fy cx cy.
        camera: what is looked at.
        turns: in the picture plane, in equal steps.
        shifts: float [J, 2] in metres at one metre, of the crop's middle from the line of sight, after turning.
        pixels: S.
    """
    import cv2  # heavy

    height, width = mask.shape
    fx, fy, cx, cy = (float(x) for x in intrinsics_px)
    place = ((np.arange(pixels) - (pixels - 1) / 2) * (camera.side / pixels)).astype(np.float64)
    x, y = np.meshgrid(place, place)
    ray = np.stack([x, y, np.ones_like(x)], -1)[None] + np.pad(shifts, ((0, 0), (0, 1)))[:, None, None]
    turned = camera.camera_from_sight @ turn_rotations(turns)  # [T, 3, 3]
    ray = np.moveaxis(ray.reshape(-1, 3) @ turned.reshape(-1, 3).T, 0, 1)  # one product for all turns
    x, y, z = ray.reshape(turns, 3, -1, pixels, pixels).transpose(1, 0, 2, 3, 4).reshape(3, -1, pixels, pixels)
    ahead = z > 1e-6
    beyond = np.where(ahead, z, 1.0)
    u = np.where(ahead, fx * x / beyond + cx, -1e6)
    v = np.where(ahead, fy * y / beyond + cy, -1e6)
    column, row = np.rint(u).astype(np.int64), np.rint(v).astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = np.where(inside, row * width + column, 0)
    seen = mask.reshape(-1)[flat] & inside
    raw = np.where(inside, depth_m.reshape(-1)[flat], 0.0)
    known = np.isfinite(raw) & (raw > 0)
    raw = np.where(known, raw, 0.0)
    # z of the real camera to distance along the line of sight
    sight = camera.camera_from_sight[:, 2]
    along = raw * ((column - cx) / fx * sight[0] + (row - cy) / fy * sight[1] + sight[2])
    placed = seen & known
    empty = inside & ~seen & (~known | (along > camera.reference_m))
    colour = cv2.remap(
        rgb, u.reshape(-1, pixels).astype(np.float32), v.reshape(-1, pixels).astype(np.float32), cv2.INTER_LINEAR
    ).reshape(-1, pixels, pixels, 3)
    return Crops(
        (colour / np.float32(255)).astype(np.float32),
        seen,
        np.where(placed, along - camera.reference_m, 0.0).astype(np.float32),
        placed,
        empty,
        camera.side * camera.reference_m / pixels,
    )


def round_side(mask: NDArray[np.bool_], intrinsics_px: FloatArray) -> tuple[float, float, float]:
    """Middle (u, v) of a mask in pixels, and the side of a crop that is as large as it, in metres at one metre.

    Both turn with the mask, which a bounding box does not.
    """
    row, column = np.nonzero(mask)
    u, v = float(column.mean()), float(row.mean())
    fx, fy = float(intrinsics_px[0]), float(intrinsics_px[1])
    square = (((column - u) / fx) ** 2 + ((row - v) / fy) ** 2).mean() + (1.0 / 6.0) / (fx * fy)
    return u, v, ROUND_RADII * float(np.sqrt(square))
