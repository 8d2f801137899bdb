"""Segments: what stands on a table cut into patches that each belong to one thing, where things touch.

Things in a heap touch, so that no gap in space tells them apart. What does: steps of depth, dents (surfaces of one
thing are mostly convex: Stein et al., CVPR 2014) and changes of colour. All three also cut things into parts; which
parts are one thing is for those to say who know what they look for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sensors.errors import SpecError
from sensors.geometry import FloatArray

_CHROMA_DARK = 0.15  # added to the brightness: dark colours have a noisy hue


@final
@dataclass(frozen=True, eq=False)
class Segments:
    """Patches of a picture.

    Attributes:
        label: int32 [H, W], the patch of each pixel; -1 = none.
        count: S, of patches.
        touching: int64 [E, 2], pairs of patches side by side, the smaller number first.
        border: float64 [E], how many pixels long their common border is.
    """

    label: NDArray[np.int32]
    count: int
    touching: NDArray[np.int64]
    border: FloatArray


def chroma(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Hue and saturation [..., 2] of colours, which the strength of the light leaves as they are."""
    red, green, blue = (rgb[..., k].astype(np.float32) / np.float32(255) for k in range(3))
    total = red + green + blue + np.float32(_CHROMA_DARK)
    return np.stack([(red - green) / total, (red + green - 2 * blue) / (2 * total)], -1)


def segments(
    rgb: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    standing: NDArray[np.bool_],
    intrinsics_px: FloatArray,
    colour_step: float = 0.035,
    dent: float = 0.25,
    step_m: float = 0.006,
    reach_px: int = 3,
    least_pixels: int = 24,
) -> Segments:
    """Cut what stands into patches.

    Args:
        rgb: [H, W, 3].
        depth_m: [H, W], 0 or not finite = unknown.
        standing: bool [H, W], what is cut.
        intrinsics_px: fx fy cx cy.
        colour_step: of the chroma, that is a border.
        dent: sine of the angle of a concave crease that is a border; above 1 = no crease is.
        step_m: of the depth between neighbours, that is a border.
        reach_px: the surface to either side of a pixel is compared at this distance.
        least_pixels: a smaller patch is given to its neighbours.

    Raises:
        SpecError: a number out of its range.
    """
    if not (colour_step > 0 and dent > 0 and step_m > 0 and reach_px >= 1 and least_pixels >= 1):
        raise SpecError(
            "segments", "steps above 0, reach_px and least_pixels at least 1",
            f"{colour_step}, {dent}, {step_m}, {reach_px}, {least_pixels}", "Correct it.",
        )  # fmt: skip
    import cv2  # heavy

    row, column = np.nonzero(standing)
    none = Segments(np.full(standing.shape, -1, np.int32), 0, np.zeros((0, 2), np.int64), np.zeros(0))
    if not len(row):
        return none
    pad = 4 * reach_px
    part = (
        slice(max(row.min() - pad, 0), row.max() + pad + 1),
        slice(max(column.min() - pad, 0), column.max() + pad + 1),
    )
    inside = standing[part]
    depth = np.nan_to_num(depth_m[part], posinf=0.0, neginf=0.0).astype(np.float32)
    middle = cv2.medianBlur(depth, 3)
    depth = np.where(depth > 0, depth, middle)
    known = depth > 0
    camera = np.asarray(intrinsics_px, np.float64) - np.array([0, 0, part[1].start, part[0].start])
    tone = chroma(np.asarray(cv2.medianBlur(np.ascontiguousarray(rgb[part]), 5), np.uint8))
    cut = ~inside | ~known
    for axis in (0, 1):
        cut |= _across(tone, axis, max(reach_px - 1, 1)) > colour_step
        ahead, known_ahead = np.roll(depth, -1, axis), np.roll(known, -1, axis)
        far = step_m * np.maximum(1.0, np.where(known, depth, 1.0) / 0.7)
        jump = known & known_ahead & (np.abs(ahead - depth) > far)
        cut |= jump | np.roll(jump, 1, axis)
    if dent <= 1:
        cut |= _dents(depth, known, camera, reach_px) > dent
    core = ~cut
    total, label = cv2.connectedComponents(core.astype(np.uint8), connectivity=4)
    size = np.bincount(label.reshape(-1), minlength=total)
    firm = size >= least_pixels
    firm[0] = False
    if not firm.any():
        return none
    number = np.where(firm, np.cumsum(firm) - 1, -1).astype(np.int32)
    core_label = number[label]
    # Border pixels go to the nearest patch, unless they are specks far from any.
    far, nearest = ndimage.distance_transform_edt(core_label < 0, return_indices=True)
    whole = np.where(inside & (far <= 2 * reach_px), core_label[tuple(nearest)], -1).astype(np.int32)
    out = none.label.copy()
    out[part] = whole
    touching, border = _touching(whole, int(firm.sum()))
    return Segments(out, int(firm.sum()), touching, border)


def _across(tone: NDArray[np.float32], axis: int, reach: int) -> NDArray[np.float32]:
    """Change of the colour from one side of each pixel to the other."""
    change = np.linalg.norm(np.roll(tone, -reach, axis) - np.roll(tone, reach, axis), axis=-1)
    return np.asarray(change, np.float32)


def _dents(depth: NDArray[np.float32], known: NDArray[np.bool_], camera: FloatArray, reach: int) -> NDArray[np.float32]:
    """Sine of the angle by which the surface bends towards the camera at each pixel; convex bends give 0."""
    import cv2

    fx, fy, cx, cy = camera
    height, width = depth.shape
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    weight = known.astype(np.float64)
    near = np.where(known, 1.0 / np.where(known, depth, 1.0), 0.0)  # of a plane, it is linear in the pixels
    size = (2 * reach + 1, 2 * reach + 1)

    def summed(value: FloatArray) -> FloatArray:
        return np.asarray(cv2.boxFilter(value, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT))

    w = np.maximum(summed(weight), 1e-9)
    mu, mv, mi = (summed(weight * x) / w for x in (u, v, near))
    uu, vv, uv = (
        summed(weight * u * u) / w - mu * mu,
        summed(weight * v * v) / w - mv * mv,
        summed(weight * u * v) / w - mu * mv,
    )
    ui, vi = summed(weight * u * near) / w - mu * mi, summed(weight * v * near) / w - mv * mi
    det = np.maximum(uu * vv - uv * uv, 1e-6)
    a, b = (vv * ui - uv * vi) / det, (uu * vi - uv * ui) / det
    c = mi - a * mu - b * mv
    normal = np.stack([a * fx, b * fy, c + a * cx + b * cy], -1)
    normal = -normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)  # towards the camera
    place = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) * depth[..., None]
    worst = np.zeros(depth.shape, np.float32)
    for axis in (0, 1):
        # The windows of both sides must not overlap much, or the crease is smeared.
        way = np.roll(place, -reach, axis) - np.roll(place, reach, axis)
        long = np.maximum(np.linalg.norm(way, axis=-1), 1e-9)
        bend = ((np.roll(normal, -reach, axis) - np.roll(normal, reach, axis)) * way).sum(-1) / long
        both = np.roll(known, -reach, axis) & np.roll(known, reach, axis) & (long < 0.03)
        worst = np.maximum(worst, np.where(both, -bend, 0.0)).astype(np.float32)
    return worst


def _touching(label: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Pairs of patches that are side by side, and the lengths of their borders."""
    pairs = []
    for one, two in ((label[:, :-1], label[:, 1:]), (label[:-1], label[1:])):
        edge = (one != two) & (one >= 0) & (two >= 0)
        pairs.append(np.stack([np.minimum(one[edge], two[edge]), np.maximum(one[edge], two[edge])], -1))
    every = np.concatenate(pairs).astype(np.int64)
    code, length = np.unique(every[:, 0] * max(count, 1) + every[:, 1], return_counts=True)
    return np.stack(np.divmod(code, max(count, 1)), -1), length.astype(np.float64)
