"""Verifier: which of several poses explain a depth picture, by drawing the object and comparing."""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.pose.raster import MeshRenderer
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray


@final
class Verifier:
    """Scores poses of one object in 0 to 1, comparable between pictures of the same camera.

    Every pixel of the drawn object and of the mask has a say:

    - the model's depth is that of the picture within the tolerance: for the pose, the more the nearer;
    - the model is in front of what was seen: against it, twice, since a camera does not look through things;
    - the model is behind what was seen: hidden by something, which is neutral beyond the mask; within the mask, and
      where no mask is known, against the pose;
    - the mask has a pixel that the model does not reach, or the model shows at a pixel beyond the mask: against it;
    - the picture has no depth there: compared by the mask alone, as a quarter of a pixel.

    Without any depth the score is the overlap of mask and outline (intersection over union).

    Args:
        renderer: of the object.
        tolerance_m: of the depth; None = a fiftieth of the diameter, but 3 mm at least.
        pixels: about how many pixels of the drawn object are compared; larger ones are looked at on a coarser grid.
    """

    def __init__(self, renderer: MeshRenderer, tolerance_m: float | None = None, pixels: int = 1500) -> None:
        tolerance = max(0.003, renderer.model.diameter_m / 50) if tolerance_m is None else tolerance_m
        if not tolerance > 0 or pixels < 16:
            raise SpecError("Verifier", "tolerance_m > 0, pixels >= 16", f"{tolerance}, {pixels}", "Correct it.")
        self.renderer, self.tolerance_m, self.pixels = renderer, tolerance, pixels

    def score(
        self,
        depth_m: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        camera_from_object: ArrayLike,
        intrinsics_px: ArrayLike,
    ) -> FloatArray:
        """Scores float64 [N], higher is better; 0 for a pose that is out of view.

        Args:
            depth_m: [H, W], z; 0 or not finite = no measurement.
            mask: bool [H, W], the visible pixels of the object; None = unknown.
            camera_from_object: [4, 4] or [N, 4, 4].
            intrinsics_px: fx fy cx cy of this picture.

        Raises:
            DataError: there is neither depth nor mask, the mask is empty or of another size, or a pose is not finite.
            SpecError: shapes that do not fit.
        """
        depth, camera = np.asarray(depth_m, np.float64), np.asarray(intrinsics_px, np.float64)
        poses = np.asarray(camera_from_object, np.float64)
        _check(depth, mask, poses, camera)
        poses = poses.reshape(-1, 4, 4)
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)
        if mask is None and not depth.any():
            raise DataError("Verifier", "depth or a mask", "no depth at all, and no mask", "Pass the object's mask.")
        stride = self._stride(poses, camera, depth.shape, mask)
        first = stride // 2
        depth = depth[first::stride, first::stride]
        seen = None if mask is None else np.asarray(mask[first::stride, first::stride])
        # Pixel k of the coarse grid is pixel first + k * stride of the picture.
        scaled = np.array([camera[0], camera[1], camera[2] - first, camera[3] - first]) / stride
        return np.array([self._one(depth, seen, pose, scaled) for pose in poses])

    def _stride(
        self, poses: FloatArray, camera: FloatArray, size: tuple[int, ...], mask: NDArray[np.bool_] | None
    ) -> int:
        """One grid for all poses, so that their scores compare."""
        boxes = [self.renderer.box(pose, camera, size[0], size[1]) for pose in poses]
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes if b is not None]
        area = float(np.median(areas)) if areas else 0.0
        if mask is not None:
            area = max(area, float(mask.sum()))
        return max(1, math.floor(math.sqrt(area / self.pixels)))

    def _one(self, depth: FloatArray, mask: NDArray[np.bool_] | None, pose: FloatArray, camera: FloatArray) -> float:
        box = self.renderer.box(pose, camera, *depth.shape)
        if box is None:
            return 0.0
        drawn = self.renderer.depth(pose, camera, box)[0].astype(np.float64)
        there = drawn > 0
        left, top, right, bottom = box
        measured = depth[top:bottom, left:right]
        known = measured > 0
        off = np.where(there & known, drawn - measured, 0.0)
        agree = there & known & (np.abs(off) <= self.tolerance_m)
        front = there & known & (off < -self.tolerance_m)
        behind = there & known & (off > self.tolerance_m)
        quality = np.where(agree, 1.0 - (off / self.tolerance_m) ** 2, 0.0)
        if mask is None:
            return _share(float(quality.sum()), float(agree.sum() + 2 * front.sum() + behind.sum()))
        inside = mask[top:bottom, left:right]
        good, blind = float((quality * inside).sum()), there & ~known
        # Pixels of the mask: all count, whether the model reaches them or not.
        with_depth = depth > 0
        of_mask = float((mask & with_depth).sum()) + 0.25 * float((mask & ~with_depth).sum())
        beyond = float((agree & ~inside).sum()) + 2 * float((front & ~inside).sum())
        beyond += float((front & inside).sum()) + 0.25 * float((blind & ~inside).sum())
        good += 0.25 * float((blind & inside).sum())
        return _share(good, of_mask + beyond)


def _share(good: float, of: float) -> float:
    return good / of if of > 0 else 0.0


def _check(depth: FloatArray, mask: NDArray[np.bool_] | None, poses: FloatArray, camera: FloatArray) -> None:
    if depth.ndim != 2 or camera.shape != (4,) or poses.shape[-2:] != (4, 4) or poses.ndim not in (2, 3):
        raise SpecError(
            "Verifier",
            "depth [H, W], poses [N, 4, 4], intrinsics fx fy cx cy",
            f"{depth.shape}, {poses.shape}, {camera.shape}",
            "Pass four numbers, not the 3 x 3 matrix K.",
        )
    if not np.isfinite(poses).all():
        raise DataError("Verifier", "finite poses", "NaN or infinity", "Leave failed hypotheses out.")
    if mask is not None and (mask.shape != depth.shape or not mask.any()):
        raise DataError(
            "Verifier", f"a mask {depth.shape} with pixels", f"{mask.shape}, {int(mask.sum())} pixels",
            "The object is not in view: skip it.",
        )  # fmt: skip
