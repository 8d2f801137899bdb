"""Judging poses by what they would look like: depth, mask and colours of a rendering against the picture."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.pose.raster import MeshRenderer
from perceive.pose.templates.features import colour_features
from sensors.geometry import FloatArray

_COLOUR_SHARE = 0.4  # how much of a pixel's agreement is its colour
_UNSEEN = 0.3  # how much a hidden pixel, or one without depth, counts against a pose
_SAME_TOLERANCES = 4.0  # within so many tolerances, what is seen may be the object


@final
class Judge:
    """Compares renderings with one picture, both reduced so that the object is about ``pixels`` wide.

    Args:
        renderer: of the object.
        tolerance: depth difference, as a share of the diameter, that counts half.
        floor_m: the same at least, whatever the object's size: the noise of the camera.
        pixels: how wide.
    """

    def __init__(self, renderer: MeshRenderer, tolerance: float, floor_m: float, pixels: int) -> None:
        self._renderer = renderer
        self._tolerance_m = max(tolerance * renderer.model.diameter_m, floor_m)
        self._pixels = pixels

    def score(
        self,
        rgb: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        mask: NDArray[np.bool_],
        camera_from_object: FloatArray,
        intrinsics_px: FloatArray,
    ) -> FloatArray:
        """Float64 [N] in 0 to 1: agreement, as a share of what is seen or should be.

        A pixel of the mask agrees by its depth and its colour; one that the rendering leaves out does not. A rendered
        pixel outside of the mask is a fault, unless something nearer hides it there. Without depth the mask and the
        colours are all.

        Args:
            rgb: [H, W, 3].
            depth_m: [H, W], 0 = unknown.
            mask: [H, W].
            camera_from_object: [N, 4, 4].
            intrinsics_px: fx fy cx cy.
        """
        height, width = mask.shape
        poses = np.asarray(camera_from_object, np.float64).reshape(-1, 4, 4)
        row, column = np.nonzero(mask)
        around = (int(column.min()), int(row.min()), int(column.max()) + 1, int(row.max()) + 1)
        wide = max(
            around[2] - around[0],
            around[3] - around[1],
            float(intrinsics_px[0]) * self._renderer.model.diameter_m / max(float(np.median(poses[:, 2, 3])), 1e-3),
        )
        step = max(1, round(wide / self._pixels))
        fx, fy, cx, cy = (float(x) for x in intrinsics_px)
        first = (step - 1) // 2
        rows, columns = np.arange(first, height, step), np.arange(first, width, step)
        camera = np.array([fx / step, fy / step, (cx - first) / step, (cy - first) / step])
        # All of the mask, and the object at every pose that is not absurd.
        reach = max(2, round(0.6 * wide / step))
        left, top = max(around[0] // step - reach, 0), max(around[1] // step - reach, 0)
        right, bottom = min(around[2] // step + reach, len(columns)), min(around[3] // step + reach, len(rows))
        box = (left, top, max(right, left + 1), max(bottom, top + 1))
        grid = np.ix_(rows[top : box[3]], columns[left : box[2]])
        seen, inside = np.nan_to_num(depth_m[grid], posinf=0.0, neginf=0.0), mask[grid]
        drawn = self._renderer.render(poses, camera, box)
        there = drawn.depth_m > 0
        known = there & (seen > 0)
        apart = np.where(known, drawn.depth_m - seen, 0.0)
        near = 1.0 / (1.0 + (apart / self._tolerance_m) ** 2)
        blind = not bool((seen[inside] > 0).any())
        depth_agrees = np.where(known, near, 1.0 if blind else 0.3)
        colour_agrees = self._colours(rgb[grid], inside, drawn.rgb, there & inside)
        agrees = depth_agrees * (1 - _COLOUR_SHARE + _COLOUR_SHARE * colour_agrees)
        hidden = known & (apart > 2 * self._tolerance_m)
        fault = there & ~inside & ~hidden
        total = inside.sum() + fault.sum((1, 2))
        return np.asarray((agrees * (there & inside)).sum((1, 2)) / np.maximum(total, 1), np.float64)

    def score_alone(
        self,
        rgb: NDArray[np.uint8],
        depth_m: NDArray[np.float32],
        standing: NDArray[np.bool_],
        camera_from_object: FloatArray,
        intrinsics_px: FloatArray,
    ) -> FloatArray:
        """Float64 [N] in 0 to 1 without any mask, so that poses from different places of a picture compare.

        Every pixel of a rendering has a say. It agrees by its depth and its colour. One through which something behind
        it was seen counts twice against the pose. One hidden by something nearer, and one without a measured depth,
        count a little: a pose of which hardly anything is seen has little to show for itself. What was seen of the
        table is not the object, though the two are near each other where it stands.

        Args:
            rgb: [H, W, 3].
            depth_m: [H, W], 0 = unknown.
            standing: bool [H, W], what is not the table.
            camera_from_object: [N, 4, 4], near each other in the picture.
            intrinsics_px: fx fy cx cy.
        """
        height, width = standing.shape
        poses = np.asarray(camera_from_object, np.float64).reshape(-1, 4, 4)
        far = max(float(np.median(poses[:, 2, 3])), 1e-3)
        step = max(1, round(float(intrinsics_px[0]) * self._renderer.model.diameter_m / far / self._pixels))
        first = (step - 1) // 2
        fx, fy, cx, cy = (float(x) for x in intrinsics_px)
        camera = np.array([fx / step, fy / step, (cx - first) / step, (cy - first) / step])
        rows, columns = np.arange(first, height, step), np.arange(first, width, step)
        box = self._renderer.box(poses, camera, len(rows), len(columns))
        if box is None:
            return np.zeros(len(poses))
        grid = np.ix_(rows[box[1] : box[3]], columns[box[0] : box[2]])
        seen, stands = np.nan_to_num(depth_m[grid], posinf=0.0, neginf=0.0), standing[grid]
        drawn = self._renderer.render(poses, camera, box)
        there = drawn.depth_m > 0
        known = there & (seen > 0)
        apart = np.where(known, drawn.depth_m - seen, 0.0)
        near = 1.0 / (1.0 + (apart / self._tolerance_m) ** 2)
        hidden = known & (apart > 2 * self._tolerance_m)
        front = known & (apart < -2 * self._tolerance_m)
        shown = known & ~hidden
        colour = self._colours(rgb[grid], stands, drawn.rgb, shown & stands)
        agrees = near * (1 - _COLOUR_SHARE + _COLOUR_SHARE * colour) * np.where(stands, 1.0, 0.3)
        weight = np.where(front, 2.0, np.where(shown, np.where(stands, 1.0, 0.6), np.where(there, _UNSEEN, 0.0)))
        good = (np.where(front, 0.0, weight) * agrees * shown).sum((1, 2))
        return np.asarray(good / np.maximum(weight.sum((1, 2)), 1e-6), np.float64)

    def shown(
        self,
        depth_m: NDArray[np.float32],
        standing: NDArray[np.bool_],
        camera_from_object: FloatArray,
        intrinsics_px: FloatArray,
    ) -> NDArray[np.bool_]:
        """Bool [H, W], where a pose [4, 4] and the depth agree roughly: the mask that the hypothesis itself says."""
        out = np.zeros(standing.shape, np.bool_)
        box = self._renderer.box(camera_from_object, intrinsics_px, *standing.shape)
        if box is None:
            return out
        part = (slice(box[1], box[3]), slice(box[0], box[2]))
        drawn = self._renderer.depth(camera_from_object, intrinsics_px, box)[0]
        seen = np.nan_to_num(depth_m[part], posinf=0.0, neginf=0.0)
        apart = np.abs(drawn - seen)
        out[part] = (drawn > 0) & (seen > 0) & (apart < _SAME_TOLERANCES * self._tolerance_m) & standing[part]
        return out

    def _colours(
        self,
        rgb: NDArray[np.uint8],
        inside: NDArray[np.bool_],
        drawn: NDArray[np.uint8],
        both: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """Likeness [N, h, w] in 0 to 1; brightness relative to that of the pixels that both show."""

        def described(colours: NDArray[np.uint8], there: NDArray[np.bool_]) -> torch.Tensor:
            values = torch.from_numpy(colours.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)
            return colour_features(values, torch.from_numpy(there)[:, None])

        mine = described(np.broadcast_to(rgb, (len(drawn), *rgb.shape)), both)
        like: NDArray[np.float32] = (0.5 + 0.5 * (mine * described(drawn, both)).sum(1)).numpy()
        return like
