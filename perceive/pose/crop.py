"""Crops of a picture around one object, as pictures of a camera that looks straight at it.

A square cut out of a picture shows an object from another side than the middle of the picture would. So the crop is
what a camera at the same place, *turned* towards the object, would have seen (perspective crops: Yu et al., CVPR 2021):
its principal point is the middle of the crop, a turn about its axis is a turn of the picture, and rays, depth and poses
are exact. Everything is stated in the crop's frame, whose origin lies on that axis at the distance of the object, so
where the object stands in the picture and how far away it is hardly matters to whoever looks at the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

BLIND = 0.8  # longer side of what is seen of an object, as a share of its diameter: the guess where depth is missing
_MOST_SAMPLES = 4  # along each side of a pixel of the crop, where the picture is finer than the crop


@final
@dataclass(frozen=True, eq=False)
class CropView:
    """A camera at the place of another one, turned towards an object.

    Attributes:
        crop_from_camera: float64 [3, 3], a rotation.
        intrinsics_px: float64 [4] of the crop.
        size_px: S, height and width of the crop.
        distance_m: of the origin of the crop's frame, along the axis.
    """

    crop_from_camera: FloatArray
    intrinsics_px: FloatArray
    size_px: int
    distance_m: float

    @property
    def frame_from_crop(self) -> FloatArray:
        """[4, 4], the crop's frame from its camera: ``base_from_camera`` of the crop."""
        out = np.eye(4)
        out[2, 3] = -self.distance_m
        return out

    @property
    def frame_from_camera(self) -> FloatArray:
        """[4, 4], the crop's frame from the camera of the whole picture."""
        out = np.eye(4)
        out[:3, :3] = self.crop_from_camera
        out[2, 3] = -self.distance_m
        return out


def aim(
    pixel_px: ArrayLike,
    intrinsics_px: ArrayLike,
    distance_m: float,
    extent_m: float,
    size_px: int,
    turn_rad: float = 0.0,
) -> CropView:
    """The view whose axis goes through a pixel, and that is ``extent_m`` wide at ``distance_m``.

    Args:
        pixel_px: (u, v).
        intrinsics_px: fx fy cx cy of the whole picture.
        distance_m: from the camera, along the axis.
        extent_m: width of what is shown there.
        size_px: S.
        turn_rad: about the axis; 0 keeps the picture's rows as level as can be.

    Raises:
        SpecError: lengths that are not above 0, or no pixels.
    """
    if not (0 < distance_m < math.inf and 0 < extent_m < math.inf and size_px >= 2):
        got = f"distance_m {distance_m}, extent_m {extent_m}, size_px {size_px}"
        raise SpecError("aim", "lengths above 0 and at least 2 px", got, "Correct them.")
    u, v = np.asarray(pixel_px, np.float64)
    fx, fy, cx, cy = np.asarray(intrinsics_px, np.float64)
    ahead = np.array([(u - cx) / fx, (v - cy) / fy, 1.0])
    ahead /= np.linalg.norm(ahead)
    right = np.array([1.0, 0.0, 0.0]) - ahead[0] * ahead
    right /= np.linalg.norm(right)
    level = np.stack([right, np.cross(ahead, right), ahead])
    c, s = math.cos(turn_rad), math.sin(turn_rad)
    focal, middle = size_px * distance_m / extent_m, (size_px - 1) / 2
    return CropView(
        np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ level,
        np.array([focal, focal, middle, middle]),
        size_px,
        float(distance_m),
    )


def aim_at_mask(frame: RgbdFrame, mask: NDArray[np.bool_], diameter_m: float, size_px: int, extent: float) -> CropView:
    """The view of an object of known size that covers the pixels of a mask.

    The axis goes through the middle of the mask's box. The distance is the median of the depth in the mask; without
    any, that at which an object of this diameter would fill the box.

    Args:
        frame: the whole picture.
        mask: bool [H, W].
        diameter_m: of the object.
        size_px: S.
        extent: width of the crop, in diameters.

    Raises:
        DataError: the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise DataError("aim_at_mask", "a mask with pixels", "an empty one", "The object is not in view: skip it.")
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]])
    pixel = (low + high) / 2.0
    camera = np.asarray(frame.intrinsics_px, np.float64)
    seen = frame.depth_m[mask]
    seen = seen[np.isfinite(seen) & (seen > 0)]
    slant = math.hypot((pixel[0] - camera[2]) / camera[0], (pixel[1] - camera[3]) / camera[1], 1.0)
    if len(seen):
        distance = float(np.median(seen)) * slant
    else:
        distance = float(camera[:2].mean()) * diameter_m * BLIND / float((high - low + 1).max()) * slant
    return aim(pixel, camera, distance, extent * diameter_m, size_px)


def cut(frame: RgbdFrame, view: CropView) -> RgbdFrame:
    """What the view shows of a picture: colours averaged, depth of the nearest pixel, both 0 beyond the picture.

    Returns:
        [S, S]; its depth is along the view's own axis, its ``base_from_camera`` is ``view.frame_from_crop``.
    """
    import cv2

    fine = max(1, min(_MOST_SAMPLES, round(float(np.asarray(frame.intrinsics_px)[0]) / view.intrinsics_px[0])))
    where, _ = _places(view, frame.intrinsics_px, fine)
    rgb = cv2.remap(frame.rgb, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if fine > 1:
        rgb = cv2.resize(rgb, (view.size_px, view.size_px), interpolation=cv2.INTER_AREA)
    where, stretch = _places(view, frame.intrinsics_px, 1)
    depth = np.where(np.isfinite(frame.depth_m), frame.depth_m, 0.0).astype(np.float32)
    nearest = cv2.remap(depth, where[..., 0], where[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return RgbdFrame(
        stamp_s=frame.stamp_s,
        rgb=np.asarray(rgb, np.uint8),
        depth_m=np.asarray(nearest * stretch, np.float32),
        intrinsics_px=view.intrinsics_px,
        base_from_camera=view.frame_from_crop,
    )


def cut_mask(mask: NDArray[np.bool_], intrinsics_px: ArrayLike, view: CropView) -> NDArray[np.bool_]:
    """What the view shows of a mask, bool [S, S]; the nearest pixel counts."""
    import cv2

    where, _ = _places(view, intrinsics_px, 1)
    plain = mask.astype(np.uint8)
    found = cv2.remap(plain, where[..., 0], where[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(found, bool)


def halved(view: CropView, factor: int = 2) -> CropView:
    """The same view with ``factor`` times fewer pixels along each side, which must divide them."""
    size = view.size_px // factor
    focal, middle = view.intrinsics_px[0] / factor, (size - 1) / 2
    return CropView(view.crop_from_camera, np.array([focal, focal, middle, middle]), size, view.distance_m)


def _places(view: CropView, intrinsics_px: ArrayLike, fine: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where in the whole picture the pixels of the crop lie, and depth in the crop over depth there."""
    size, middle, focal = view.size_px * fine, (view.size_px * fine - 1) / 2, view.intrinsics_px[0] * fine
    step = (np.arange(size) - middle) / focal
    ray = np.stack([*np.meshgrid(step, step), np.ones((size, size))], -1) @ view.crop_from_camera
    fx, fy, cx, cy = np.asarray(intrinsics_px, np.float64)
    ahead = ray[..., 2] > 1e-6
    depth = np.where(ahead, ray[..., 2], 1.0)
    far = -1e6  # beyond any picture
    u = np.where(ahead, ray[..., 0] / depth * fx + cx, far)
    v = np.where(ahead, ray[..., 1] / depth * fy + cy, far)
    return np.stack([u, v], -1).astype(np.float32), (1 / depth).astype(np.float32)
