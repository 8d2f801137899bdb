"""Motion compensation: a sweep that a moving sensor measured point by point, as if measured at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sensors.errors import SpecError
from sensors.geometry import FloatArray, matrix_to_axis_angle


def deskew(
    xyz_m: ArrayLike,
    offset_s: ArrayLike,
    base_from_sensor_before: ArrayLike,
    base_from_sensor_now: ArrayLike,
    period_s: float,
) -> FloatArray:
    """Points that were measured one after another, in the sensor's frame at the end of the sweep.

    Between two poses the sensor is taken to have moved steadily: its origin straight on at one speed, its rotation
    about one axis at one rate, by the shorter way. Points from before the first pose are taken to be of the same
    motion. What moves by itself stays drawn out: its motion is not the sensor's.

    Args:
        xyz_m: float [N, 3], each in the sensor's frame at its own time.
        offset_s: float [N], time of each relative to now; in a sweep that ends now not above 0.
        base_from_sensor_before: the pose [4, 4] at ``-period_s``.
        base_from_sensor_now: the pose [4, 4] at 0.
        period_s: from the one to the other, above 0.

    Returns:
        float64 [N, 3]; NaN where a place or a time is not finite.

    Raises:
        SpecError: shapes that do not fit, a pose that is not finite, or a period that is no time.
    """
    xyz, offset = np.asarray(xyz_m, dtype=float), np.asarray(offset_s, dtype=float)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or offset.shape != xyz.shape[:1]:
        raise SpecError("deskew", "xyz_m [N, 3] and offset_s [N]", f"{xyz.shape} and {offset.shape}", "Reshape them.")
    before, now = (np.asarray(pose, dtype=float) for pose in (base_from_sensor_before, base_from_sensor_now))
    for name, matrix in (("before", before), ("now", now)):
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise SpecError(
                f"deskew.base_from_sensor_{name}", "a finite [4, 4]", repr(matrix), "Leave the sweep as it is."
            )
    if not 0 < period_s < float("inf"):
        raise SpecError("deskew.period_s", "a time above 0", repr(period_s), "Give poses of two moments.")
    usable = np.isfinite(offset) & np.isfinite(xyz).all(axis=1)
    xyz = np.where(usable[:, None], xyz, np.nan)
    ago = np.where(usable, -offset, 0.0)[:, None] / period_s  # in periods
    turn_rad = matrix_to_axis_angle(before[:3, :3].T @ now[:3, :3])
    behind_m = now[:3, :3].T @ (before[:3, 3] - now[:3, 3])  # a period ago, seen from where the sensor is now
    angle_rad = float(np.linalg.norm(turn_rad))
    axis = turn_rad / angle_rad if angle_rad else turn_rad
    half = -0.5 * angle_rad * ago
    # Rodrigues' formula, written as what is added: nothing is lost where the angle is small.
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    across = xyz @ cross.T
    bent = np.sin(2 * half) * across + 2 * np.sin(half) ** 2 * (across @ cross.T)
    return np.asarray(xyz + bent + ago * behind_m)
