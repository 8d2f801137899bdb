"""Normals: which way the surface faces at each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import numpy as np

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.engine import open3d, points_of
from perceive.points.preprocess.step import Step, Trace, require, require_finite, unchanged
from sensors.geometry import FloatArray

_THIN = 1e-6  # second largest spread over the largest below which neighbours lie on a line


@final
class Normals(Step):
    """The direction in which the neighbours of a point spread least (Hoppe et al., SIGGRAPH 1992).

    A normal looks towards the sensor that saw the point where the cloud knows it, else towards ``towards_m``, else its
    largest component is positive. Where fewer than three neighbours (the point itself counts) or neighbours on one
    line leave it open, it is zero.

    The trace has ``variation`` [N], the share of the spread along the normal: 0 on a plane, up to 1/3 in a corner or
    in noise; NaN where there is no normal.

    Args:
        radius_m: neighbours are within this.
        neighbours: and at most so many of them, the nearest.
        towards_m: a point [3] on the side that normals look to.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(self, radius_m: float, neighbours: int = 30, towards_m: Sequence[float] | None = None) -> None:
        require(0 < radius_m < np.inf, "Normals.radius_m", "a radius above 0", radius_m)
        require(neighbours >= 3, "Normals.neighbours", "at least 3", neighbours)
        require(towards_m is None or len(towards_m) == 3, "Normals.towards_m", "three coordinates", towards_m)
        self._radius_m, self._neighbours, self._towards_m = radius_m, neighbours, towards_m

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "Normals")
        if not len(cloud):
            return replace(cloud, normal=np.zeros((0, 3))), unchanged(cloud, "normals", variation=np.zeros(0))
        xyz = cloud.xyz_m.astype(np.float64)
        with open3d() as module:
            near = module.geometry.KDTreeSearchParamHybrid(radius=self._radius_m, max_nn=self._neighbours)
            # Around the middle: Open3D takes covariances as differences of squares.
            points = points_of(module, xyz - xyz.mean(axis=0))
            covariance = np.array(module.geometry.PointCloud.estimate_point_covariances(points, near))
        spread, axes = np.linalg.eigh(covariance)
        normal = axes[:, :, 0]
        # Open3D gives the identity, in square metres, where there are fewer than three neighbours.
        alone = (covariance == np.eye(3)).all(axis=(1, 2))
        open_ = alone | (spread[:, 1] <= _THIN * spread[:, 2])
        view = self._view(cloud, xyz)
        if view is None:
            largest = np.abs(normal).argmax(axis=1)
            away = np.take_along_axis(normal, largest[:, None], axis=1)[:, 0] < 0
        else:
            away = (normal * view).sum(axis=1) < 0
        normal = np.where(open_[:, None], 0.0, np.where(away[:, None], -normal, normal))
        total = np.where(open_, np.nan, spread.sum(axis=1))
        variation = np.maximum(spread[:, 0], 0.0) / total
        return replace(cloud, normal=normal), unchanged(cloud, "normals", variation=variation)

    def _view(self, cloud: PointCloud, xyz: FloatArray) -> FloatArray | None:
        """From each point to where it was seen from [N, 3]."""
        if cloud.origin_m is not None:
            return cloud.origin_m - xyz
        return None if self._towards_m is None else np.asarray(self._towards_m, dtype=np.float64) - xyz
