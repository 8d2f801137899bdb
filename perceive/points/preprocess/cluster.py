"""Clusters: which points belong together."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.engine import open3d, points_of
from perceive.points.preprocess.step import Step, Trace, keep, require, require_finite, unchanged
from sensors.geometry import FloatArray


@final
class Clusters(Step):
    """Number the groups of points that hang together (DBSCAN: Ester et al., KDD 1996) in ``cluster``.

    0 is the cluster with most points, and so on; of equally large ones the one whose middle has the smaller x (then y,
    z) comes first. -1 = in none. A border point that two clusters reach goes to one of them; which, the order of the
    points decides.

    The trace has ``size`` [K], the number of points in each cluster, and ``middle_m`` [K, 3].

    Args:
        radius_m: two points this near hang together.
        neighbours: a point carries a cluster on if it has so many points within the radius, itself among them.
        remove_rest: remove the points of no cluster.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(self, radius_m: float, neighbours: int = 10, remove_rest: bool = False) -> None:
        require(0 < radius_m < np.inf, "Clusters.radius_m", "a radius above 0", radius_m)
        require(neighbours >= 1, "Clusters.neighbours", "at least 1", neighbours)
        self._radius_m, self._neighbours, self._remove_rest = radius_m, neighbours, remove_rest

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "Clusters")
        label = np.full(len(cloud), -1, dtype=np.int64)
        if len(cloud):
            with open3d() as module:
                points = points_of(module, cloud.xyz_m)
                label = np.array(points.cluster_dbscan(self._radius_m, self._neighbours), dtype=np.int64)
        label, size, middle_m = _renumbered(label, cloud.xyz_m.astype(np.float64))
        named = replace(cloud, cluster=label)
        if self._remove_rest:
            return keep(named, label >= 0, "clusters", size=size, middle_m=middle_m)
        return named, unchanged(named, "clusters", size=size, middle_m=middle_m)


def _renumbered(label: NDArray[np.int64], xyz_m: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Labels by falling size, the sizes, and the middles."""
    inside = label >= 0
    count = int(label.max(initial=-1)) + 1
    size = np.bincount(label[inside], minlength=count)
    total = np.stack([np.bincount(label[inside], values, minlength=count) for values in xyz_m[inside].T], axis=-1)
    middle = total / np.maximum(size, 1)[:, None]
    order = np.lexsort((middle[:, 2], middle[:, 1], middle[:, 0], -size))
    rank = np.empty(count + 1, dtype=np.int64)
    rank[order] = np.arange(count)
    rank[-1] = -1  # where label -1 points
    return rank[label], size[order], middle[order]
