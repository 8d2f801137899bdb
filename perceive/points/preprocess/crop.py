"""Crop: the points inside of a box, or outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import numpy as np

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.step import Step, Trace, keep, require, require_finite
from sensors.geometry import invert, pose, transform_points


@final
class Crop(Step):
    """Keep what is inside of a box, its faces included, or what is not.

    Args:
        low_m: lower corner [3] in the box's frame.
        high_m: upper corner [3].
        position_m: origin [3] of the box's frame in the cloud's.
        quaternion_xyzw: its orientation [4].
        side: ``"inside"`` or ``"outside"``.

    Raises:
        SpecError: an empty box, or an unknown side.
    """

    def __init__(
        self,
        low_m: Sequence[float],
        high_m: Sequence[float],
        position_m: Sequence[float] = (0.0, 0.0, 0.0),
        quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        side: Literal["inside", "outside"] = "inside",
    ) -> None:
        low, high = np.asarray(low_m, dtype=float), np.asarray(high_m, dtype=float)
        require(
            low.shape == high.shape == (3,) and bool((low <= high).all()),
            "Crop", "three lows, none above its high", (list(low_m), list(high_m)),
        )  # fmt: skip
        require(side in ("inside", "outside"), "Crop.side", "'inside' or 'outside'", side)
        self._low_m, self._high_m = low, high
        self._box_from_cloud = invert(pose(position_m, quaternion_xyzw))
        self._inside = side == "inside"

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "Crop")
        local = transform_points(self._box_from_cloud, cloud.xyz_m)
        inside = np.asarray(((local >= self._low_m) & (local <= self._high_m)).all(axis=1))
        return keep(cloud, inside if self._inside else ~inside, "crop")
