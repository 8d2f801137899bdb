"""How much upright boxes overlap: exact areas of turned rectangles, for many pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.errors import SpecError

FloatArray = NDArray[np.float64]

# centre 3, size 3, yaw
COLUMNS = 7


def checked_boxes(where: str, boxes: NDArray[np.floating[Any]]) -> FloatArray:
    """The first seven columns of boxes [N, 7 or more] as float64.

    Raises:
        SpecError: another shape, a number that is not finite, or an edge length below 0.
    """
    rows = np.asarray(boxes, np.float64)
    if rows.ndim != 2 or rows.shape[1] < COLUMNS:
        raise SpecError(where, "boxes [N, 7 or more]", f"{list(rows.shape)}", "Give centre, size and yaw.")
    rows = rows[:, :COLUMNS]
    if not np.isfinite(rows).all() or (rows[:, 3:6] < 0).any():
        bad = int((~np.isfinite(rows).all(axis=1) | (rows[:, 3:6] < 0).any(axis=1)).sum())
        raise SpecError(where, "finite boxes with edges >= 0", f"{bad} of {len(rows)} others", "Leave those out.")
    return rows


def overlap_m2(one: FloatArray, other: FloatArray) -> FloatArray:
    """Areas [P] that pairs of rectangles share.

    One is clipped by the four sides of the other, which are parallel to the axes in the other's own frame (Sutherland
    and Hodgman, 1974). Rounding can move a corner by about 1e-16 of the size of things, never turn an area inside out.

    Args:
        one: [P, 7], of which centre (x, y), size (x, y) and yaw are read.
        other: [P, 7].
    """
    area = np.zeros(len(one))
    reach = (np.hypot(one[:, 3], one[:, 4]) + np.hypot(other[:, 3], other[:, 4])) / 2
    apart = one[:, :2] - other[:, :2]
    near = np.flatnonzero(np.hypot(apart[:, 0], apart[:, 1]) <= reach)
    if len(near) == 0:
        return area
    one, other, apart = one[near], other[near], apart[near]
    # Everything in the other's frame, about its middle: small numbers, so that far from the origin nothing is lost.
    middle = _turned(apart[:, None], -other[:, 6])
    polygon = middle + _turned(_corners(one), one[:, 6] - other[:, 6])
    count = np.full(len(near), 4)
    for axis in (0, 1):
        for side in (1.0, -1.0):
            polygon, count = _clipped(polygon, count, axis, side, other[:, 3 + axis] / 2)
    x, y = polygon[..., 0], polygon[..., 1]
    ahead = _next(count, polygon.shape[1])
    cross = x * np.take_along_axis(y, ahead, 1) - y * np.take_along_axis(x, ahead, 1)
    there = np.arange(polygon.shape[1]) < count[:, None]
    area[near] = np.maximum(np.where(there, cross, 0.0).sum(axis=1) / 2, 0.0)
    return area


def iou_bev(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> FloatArray:
    """Intersection over union [N, M] as seen from above; 0 where both have no area.

    Args:
        a: boxes [N, 7 or more]: centre, size, yaw.
        b: boxes [M, 7 or more].

    Raises:
        SpecError: another shape, numbers that are not finite, edges below 0.
    """
    one, other = checked_boxes("iou_bev, a", a), checked_boxes("iou_bev, b", b)
    shared = _shared_m2(one, other)
    return _over_union(shared, one[:, 3:5].prod(axis=1), other[:, 3:5].prod(axis=1))


def iou_3d(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> FloatArray:
    """Intersection over union [N, M] of volumes; arguments, errors and 0 as of :func:`iou_bev`."""
    one, other = checked_boxes("iou_3d, a", a), checked_boxes("iou_3d, b", b)
    half_one, half_other = one[:, None, 5] / 2, other[None, :, 5] / 2
    top = np.minimum(one[:, None, 2] + half_one, other[None, :, 2] + half_other)
    foot = np.maximum(one[:, None, 2] - half_one, other[None, :, 2] - half_other)
    shared = _shared_m2(one, other) * np.maximum(top - foot, 0.0)
    return _over_union(shared, one[:, 3:6].prod(axis=1), other[:, 3:6].prod(axis=1))


def _shared_m2(one: FloatArray, other: FloatArray) -> FloatArray:
    """[N, M]."""
    rows, columns = len(one), len(other)
    pairs = overlap_m2(one.repeat(columns, axis=0), np.tile(other, (rows, 1)))
    return pairs.reshape(rows, columns)


def _over_union(shared: FloatArray, of_one: FloatArray, of_other: FloatArray) -> FloatArray:
    union = of_one[:, None] + of_other[None] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).clip(0.0, 1.0))


def _corners(boxes: FloatArray) -> FloatArray:
    """Corners [P, 4, 2] about the middle, unturned, against the clock."""
    signs = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    return np.asarray(boxes[:, None, 3:5] / 2 * signs)


def _turned(points: FloatArray, angle_rad: FloatArray) -> FloatArray:
    """Points [P, V, 2], each row turned by its angle [P]."""
    cos, sin = np.cos(angle_rad)[:, None], np.sin(angle_rad)[:, None]
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _next(count: NDArray[np.intp], wide: int) -> NDArray[np.intp]:
    """The corner that follows each, [P, V]; the first follows the last of ``count`` [P]."""
    ahead = np.arange(1, wide + 1) % np.maximum(count, 1)[:, None]
    return np.asarray(np.minimum(ahead, wide - 1))


def _clipped(
    polygon: FloatArray, count: NDArray[np.intp], axis: int, side: float, half_m: FloatArray
) -> tuple[FloatArray, NDArray[np.intp]]:
    """What of convex polygons [P, V, 2] with ``count`` [P] corners lies where ``side * coordinate <= half_m``."""
    wide = polygon.shape[1]
    ahead = _next(count, wide)
    there = np.arange(wide) < count[:, None]
    depth = half_m[:, None] - side * polygon[..., axis]  # >= 0 inside
    following, depth_ahead = np.take_along_axis(polygon, ahead[..., None], 1), np.take_along_axis(depth, ahead, 1)
    inside, inside_ahead = depth >= 0, depth_ahead >= 0
    crossing = there & (inside != inside_ahead)
    share = np.divide(depth, depth - depth_ahead, out=np.zeros_like(depth), where=crossing)
    cut = polygon + share[..., None] * (following - polygon)
    # Each corner is followed by where the edge from it crosses the line; what is left is moved to the front.
    made = np.stack([polygon, cut], axis=2).reshape(len(polygon), 2 * wide, 2)
    kept = np.stack([there & inside, crossing], axis=2).reshape(len(polygon), 2 * wide)
    order = np.argsort(~kept, axis=1, kind="stable")[:, : wide + 1]
    return np.take_along_axis(made, order[..., None], 1), kept.sum(axis=1)
