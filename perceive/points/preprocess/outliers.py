"""Outliers: without the points that have nobody near."""

from __future__ import annotations

from typing import final

import numpy as np

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.engine import open3d, points_of
from perceive.points.preprocess.step import Step, Trace, keep, require, require_finite


@final
class StatisticalOutliers(Step):
    """Remove points whose mean distance to their neighbours is far above that of the others (Rusu et al., RAS 2008).

    Far = more than ``deviations`` standard deviations above the mean over the cloud.

    Args:
        neighbours: how many, the point itself among them.
        deviations: see above.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(self, neighbours: int = 20, deviations: float = 2.0) -> None:
        require(neighbours >= 2, "StatisticalOutliers.neighbours", "at least 2", neighbours)
        require(deviations > 0, "StatisticalOutliers.deviations", "a number above 0", deviations)
        self._neighbours, self._deviations = neighbours, deviations

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "StatisticalOutliers")
        mask = np.ones(len(cloud), dtype=np.bool_)
        # Of two points none is farther than the other; of equal distances none is an outlier either.
        if len(cloud) > 2:
            with open3d() as module:
                points = points_of(module, cloud.xyz_m)
                index = np.asarray(points.remove_statistical_outlier(self._neighbours, self._deviations)[1])
            mask[:] = False
            mask[index.astype(np.int64)] = True
        return keep(cloud, mask, "statistical outliers")


@final
class RadiusOutliers(Step):
    """Remove points with too few others near.

    Args:
        radius_m: what is near.
        neighbours: keep points with at least so many others.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(self, radius_m: float, neighbours: int = 3) -> None:
        require(0 < radius_m < np.inf, "RadiusOutliers.radius_m", "a radius above 0", radius_m)
        require(neighbours >= 1, "RadiusOutliers.neighbours", "at least 1", neighbours)
        self._radius_m, self._neighbours = radius_m, neighbours

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "RadiusOutliers")
        mask = np.zeros(len(cloud), dtype=np.bool_)
        if len(cloud):
            with open3d() as module:
                points = points_of(module, cloud.xyz_m)
                index = np.asarray(points.remove_radius_outlier(self._neighbours, self._radius_m)[1])
            mask[index.astype(np.int64)] = True
        return keep(cloud, mask, "radius outliers")
