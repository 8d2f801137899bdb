"""Finite: without the points that have no place."""

from __future__ import annotations

from typing import final

import numpy as np

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.step import Step, Trace, keep, require


@final
class Finite(Step):
    """Remove points with a NaN or infinite coordinate, or farther away than any sensor sees.

    Args:
        within_m: a larger coordinate counts as a fault of the sensor.

    Raises:
        SpecError: ``within_m`` is not above 0.
    """

    def __init__(self, within_m: float = 1e5) -> None:
        require(within_m > 0, "Finite.within_m", "a distance above 0", within_m)
        self._within_m = within_m

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        # A comparison with NaN is false, so one test finds all three kinds.
        return keep(cloud, np.asarray((np.abs(cloud.xyz_m) <= self._within_m).all(axis=1)), "finite")
