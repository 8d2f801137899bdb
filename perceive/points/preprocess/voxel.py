"""VoxelFilter: one point for each cube of a grid."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.step import Step, Trace, require, require_finite

_KEYS = 2.0**62  # cubes that int64 can number


@final
class VoxelFilter(Step):
    """Merge the points of each cube of a regular grid through the origin into their mean.

    Colours, intensities and times are means too; a normal is the mean made to unit length, or that of the nearest
    point where normals cancel; a cluster is that of the nearest point. "Nearest" is the point nearest to the mean,
    which also stands for the cube in the trace. Cubes come in the order of x, y, z, so the order of the points does
    not matter (but for the last digit of a mean).

    Args:
        edge_m: edge of a cube.

    Raises:
        SpecError: ``edge_m`` is not a number above 0.
    """

    def __init__(self, edge_m: float) -> None:
        require(0 < edge_m < np.inf, "VoxelFilter.edge_m", "an edge above 0", edge_m)
        self._edge_m = edge_m

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "VoxelFilter")
        order, start = _runs(cloud.xyz_m, self._edge_m)
        inverse = np.empty(len(cloud), dtype=np.int64)
        size = np.diff(np.append(start, len(cloud)))
        inverse[order] = np.repeat(np.arange(len(start)), size)

        def mean(values: NDArray[Any]) -> NDArray[Any]:
            total = np.add.reduceat(values[order], start, axis=0, dtype=np.float64) if len(start) else values[:0]
            average: NDArray[Any] = total / size.reshape(-1, *[1] * (values.ndim - 1))
            return average

        # Relative to the cube's first point, so that nothing is lost far from the origin.
        first = cloud.xyz_m[order[start]].astype(np.float64)
        middle = first + mean(cloud.xyz_m - first[inverse])
        apart = cloud.xyz_m[order] - np.repeat(middle, size, axis=0)
        index = order[_least((apart * apart) @ np.ones(3), start, size)]
        merged: dict[str, NDArray[Any]] = {}
        for name, values in cloud.arrays().items():
            if name == "xyz_m":
                new = middle
            elif name == "cluster":
                new = values[index]
            elif name == "normal":
                new = mean(values)
                length = np.linalg.norm(new, axis=1, keepdims=True)
                new = np.where(length > 1e-6, new / np.maximum(length, 1e-6), values[index])
            else:
                new = mean(values)
            merged[name] = new.astype(values.dtype)
        return PointCloud(**merged), Trace("voxels", inverse, index)


def _runs(xyz_m: NDArray[Any], edge_m: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points in the order of their cubes [N], and where in it each cube begins [M]."""
    cell = np.floor(xyz_m.astype(np.float64) / edge_m)  # whole numbers, exact to 2^53
    if not len(cell):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low = cell.min(axis=0)
    extent = cell.max(axis=0) - low + 1
    if extent.prod() < _KEYS:
        x, y, z = (cell - low).astype(np.int64).T
        key = (x * int(extent[1]) + y) * int(extent[2]) + z
        order = np.argsort(key, kind="stable")
        new = key[order][1:] != key[order][:-1]
    else:  # cubes too many to number: compare all three
        order = np.lexsort(cell.T[::-1])
        new = (cell[order][1:] != cell[order][:-1]).any(axis=1)
    return order, np.concatenate([[0], np.flatnonzero(new) + 1])


def _least(values: NDArray[Any], start: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of values is smallest (the first of equals) [M]."""
    if not len(start):
        return start
    at = np.flatnonzero(values == np.repeat(np.minimum.reduceat(values, start), size))
    return at[np.searchsorted(at, start)]
