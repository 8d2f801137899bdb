"""Proposals: what stands on a table, from one picture with depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError, cKDTree

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.plane import PlaneRemoval
from perceive.pose.estimate import check_view
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_PLANE_POINTS = 8192  # that the table is looked for among
_NOISES = 3.0  # of the table's depth, above which something stands on it


def propose(
    frame: RgbdFrame,
    distance_m: float = 0.006,
    gap_m: float = 0.02,
    edge_m: float = 0.004,
    highest_m: float = 0.5,
    farthest_m: float = 3.0,
    least_pixels: int = 80,
    largest_m: float | None = None,
    most: int = 32,
    seed: int = 0,
) -> list[NDArray[np.bool_]]:
    """Masks bool [H, W] of the things that stand on the largest plane, those with most pixels first.

    The plane is found by RANSAC and taken away with what is behind it or beside its seen part; what is left is cut
    into clusters with a gap between them in space. Things that touch, or stand nearer to each other than the gap, come
    out as one; a thing is cut in two where something nearer, itself too, hides its middle and the gap is wider than
    ``gap_m``.

    Args:
        frame: what is seen.
        distance_m: a point within this of the plane belongs to it.
        gap_m: between two things.
        edge_m: of the voxels that clusters are made of.
        highest_m: above the plane.
        farthest_m: from the camera.
        least_pixels: a cluster with fewer is none.
        largest_m: a cluster that is longer is none; None = any length.
        most: masks.
        seed: of RANSAC.

    Raises:
        DataError: the picture and its camera do not fit together.
        SpecError: there is no depth, or a number is out of its range.
    """
    if not (0 < edge_m <= gap_m and distance_m > 0 and most >= 1):
        raise SpecError(
            "propose", "0 < edge_m <= gap_m, distance_m > 0, most >= 1", f"{edge_m}, {gap_m}, {distance_m}, {most}",
            "Correct it.",
        )  # fmt: skip
    above = _above("propose", frame, distance_m, highest_m, farthest_m, seed)
    if not len(above.row):
        return []
    masks = []
    for part in _clusters(above.xyz_m, gap_m, edge_m):
        if len(part) < least_pixels:
            continue
        if above.table is not None and not above.table.carries(above.xyz_m[part]):
            continue  # a wall, or something that stands behind the table
        if largest_m is not None and _length(above.xyz_m[part]) > largest_m:
            continue
        mask = np.zeros(frame.depth_m.shape, np.bool_)
        mask[above.row[part], above.column[part]] = True
        masks.append(mask)
        if len(masks) == most:
            break
    return masks


def standing(
    frame: RgbdFrame, distance_m: float = 0.005, highest_m: float = 0.5, farthest_m: float = 3.0, seed: int = 0
) -> NDArray[np.bool_]:
    """Where something stands on the largest plane, bool [H, W]: above its seen part, whatever touches whatever.

    Args:
        frame: what is seen.
        distance_m: a point within this of the plane belongs to it.
        highest_m: above the plane.
        farthest_m: from the camera.
        seed: of RANSAC.

    Raises:
        DataError: the picture and its camera do not fit together.
        SpecError: there is no depth, or a number is out of its range.
    """
    if not distance_m > 0:
        raise SpecError("standing.distance_m", "above 0", f"{distance_m}", "Correct it.")
    above = _above("standing", frame, distance_m, highest_m, farthest_m, seed)
    over = np.ones(len(above.row), np.bool_)
    if above.table is not None:
        # The noise of depth grows with the square of the distance: far off, the table must not stand on itself.
        noise_m = above.noise * above.xyz_m[:, 2] ** 2
        over = (above.height_m > _NOISES * noise_m) & above.table.under(above.xyz_m)
    mask = np.zeros(frame.depth_m.shape, np.bool_)
    mask[above.row[over], above.column[over]] = True
    return mask


@final
@dataclass(frozen=True, eq=False)
class _Above:
    """Pixels [P] above the plane, their points [P, 3], and the plane's seen part; None = there is no plane."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    xyz_m: FloatArray
    table: _Table | None
    height_m: FloatArray
    noise: float  # deviation of the table's depth from the plane at one metre


def _above(where: str, frame: RgbdFrame, distance_m: float, highest_m: float, farthest_m: float, seed: int) -> _Above:
    check_view(where, frame, None)
    depth = frame.depth_m
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise SpecError(where, "a picture with depth", "depth 0 everywhere", "Pass a mask to the estimator.")
    row, column = np.nonzero(known & (depth < farthest_m))
    fx, fy, cx, cy = (float(x) for x in frame.intrinsics_px)
    z = depth[row, column].astype(np.float64)
    xyz = np.stack([(column - cx) / fx * z, (row - cy) / fy * z, z], -1)
    plane = _plane(xyz, distance_m, seed)
    if plane is None:
        return _Above(row, column, xyz, None, np.zeros(len(row)), 0.0)
    height = xyz @ plane[:3] + plane[3]
    above = (height > distance_m) & (height < highest_m)
    near = np.abs(height) < 2 * distance_m
    noise = 1.4826 * float(np.median(np.abs(height[near]) / z[near] ** 2)) if near.any() else 0.0
    return _Above(row[above], column[above], xyz[above], _Table(plane, xyz, distance_m), height[above], noise)


@final
class _Table:
    """The part of a plane [4] that is seen, as the convex hull of its points."""

    def __init__(self, plane: FloatArray, xyz_m: FloatArray, distance_m: float) -> None:
        least = np.eye(3)[int(np.abs(plane[:3]).argmin())]
        first = np.cross(plane[:3], least)
        first /= np.linalg.norm(first)
        self._axes = np.stack([first, np.cross(plane[:3], first)], 1)  # [3, 2], along the plane
        on = xyz_m[np.abs(xyz_m @ plane[:3] + plane[3]) <= distance_m]
        flat = on[:: max(1, len(on) // _PLANE_POINTS)] @ self._axes
        try:
            self._hull: Delaunay | None = Delaunay(flat)
        except QhullError:  # seen edge on: a line
            self._hull = None

    def carries(self, xyz_m: FloatArray) -> bool:
        """Whether the middle of a thing is above it."""
        if self._hull is None:
            return True
        return bool(self._hull.find_simplex(np.median(xyz_m, 0) @ self._axes) >= 0)

    def under(self, xyz_m: FloatArray) -> NDArray[np.bool_]:
        """Which points [P, 3] are above it."""
        if self._hull is None:
            return np.ones(len(xyz_m), np.bool_)
        return np.asarray(self._hull.find_simplex(xyz_m @ self._axes) >= 0)


def _plane(xyz_m: FloatArray, distance_m: float, seed: int) -> FloatArray | None:
    """The largest plane [4], ``n . x + d`` above 0 on the camera's side; None = there is none."""
    rng = np.random.default_rng(seed)
    some = xyz_m if len(xyz_m) <= _PLANE_POINTS else xyz_m[rng.choice(len(xyz_m), _PLANE_POINTS, replace=False)]
    if len(some) < 3:
        return None
    cloud = PointCloud(xyz_m=some.astype(np.float32))
    _, trace = PlaneRemoval(distance_m, least_share=0.15, seed=seed)(cloud)
    found = np.asarray(trace.found["plane"])
    if not len(found):
        return None
    plane: FloatArray = found[0] if found[0, 3] > 0 else -found[0]  # the camera is at the origin
    return plane


def _clusters(xyz_m: FloatArray, gap_m: float, edge_m: float) -> list[NDArray[np.int64]]:
    """Numbers of the points of each cluster, the largest first; a voxel with one point carries nothing on."""
    cell = np.floor((xyz_m - xyz_m.min(0)) / edge_m).astype(np.int64)
    _, voxel, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    voxel = voxel.reshape(-1)
    middle = np.stack([np.bincount(voxel, xyz_m[:, k]) for k in range(3)], -1) / count[:, None]
    firm = np.flatnonzero(count >= 2)
    if not len(firm):
        return []
    pairs = cKDTree(middle[firm]).query_pairs(gap_m, output_type="ndarray")
    size = len(firm)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    total, label = connected_components(graph, directed=False)
    of_voxel = np.full(len(count), -1, np.int64)
    of_voxel[firm] = label
    of_point = of_voxel[voxel]
    order = np.argsort(of_point, kind="stable")
    bounds = np.searchsorted(of_point[order], np.arange(total + 1))
    parts = [order[bounds[k] : bounds[k + 1]] for k in range(total)]
    return sorted(parts, key=lambda part: (-len(part), int(part[0])))


def _length(xyz_m: FloatArray) -> float:
    """Of the longest side of the cluster along its own axes, without the farthest hundredth at either end."""
    local = xyz_m - xyz_m.mean(0)
    axis = np.linalg.svd(local[:: max(1, len(local) // 500)], full_matrices=False)[2][0]
    low, high = np.percentile(local @ axis, (1, 99))
    return float(high - low)
