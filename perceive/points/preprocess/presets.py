"""Pipelines that suit a table seen by RGB-D cameras, and a LiDAR that stands on the ground."""

from __future__ import annotations

from collections.abc import Sequence

from perceive.points.preprocess.cluster import Clusters
from perceive.points.preprocess.crop import Crop
from perceive.points.preprocess.normals import Normals
from perceive.points.preprocess.outliers import RadiusOutliers, StatisticalOutliers
from perceive.points.preprocess.pipeline import Pipeline
from perceive.points.preprocess.plane import PlaneRemoval
from perceive.points.preprocess.voxel import VoxelFilter


def tabletop(
    low_m: Sequence[float] = (0.0, -0.6, -0.05), high_m: Sequence[float] = (0.9, 0.6, 0.6), edge_m: float = 0.005
) -> Pipeline:
    """The things that stand on a table, each a cluster, with normals.

    Args:
        low_m: lower corner [3] of the workspace, base frame.
        high_m: upper corner [3].
        edge_m: of the voxels; every other distance is a multiple of it.
    """
    return Pipeline(
        [
            Crop(low_m, high_m),
            VoxelFilter(edge_m),
            StatisticalOutliers(20, 2.5),
            Normals(4 * edge_m, 30),
            PlaneRemoval(1.2 * edge_m, up=(0.0, 0.0, 1.0)),
            RadiusOutliers(3 * edge_m, 4),
            Clusters(3 * edge_m, 8),
        ]
    )


def lidar(range_m: float = 50.0, edge_m: float = 0.1) -> Pipeline:
    """What stands on the ground around a LiDAR, each thing a cluster.

    Args:
        range_m: half edge of the box that is kept around the origin.
        edge_m: of the voxels.
    """
    return Pipeline(
        [
            Crop((-range_m, -range_m, -3.0), (range_m, range_m, 5.0)),
            VoxelFilter(edge_m),
            PlaneRemoval(1.5 * edge_m, least_share=0.05, up=(0.0, 0.0, 1.0)),
            RadiusOutliers(6 * edge_m, 2),
            Clusters(6 * edge_m, 5),
        ]
    )
