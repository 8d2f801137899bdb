"""Where the object will be: constant velocity, damped, by the clock of the frames."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_axis_angle

_SMOOTH_S = 0.05  # velocities of two frames at 30 Hz are mostly noise
_FASTEST_M_S, _FASTEST_RAD_S = 3.0, 12.0  # beyond, two poses were not of one motion


@final
class DampedMotion:
    """Velocity of one object in the robot's base frame.

    Args:
        damping_s: after how long a velocity is forgotten: a prediction never goes farther than velocity times this.
            0 = no prediction at all (the ablation).
    """

    def __init__(self, damping_s: float) -> None:
        self._damping_s = damping_s
        self._pose: FloatArray | None = None
        self._stamp_s = 0.0
        self._linear_m_s = np.zeros(3)
        self._angular_rad_s = np.zeros(3)
        self._known = False

    @property
    def known(self) -> bool:
        """Whether a velocity has been seen."""
        return self._known

    def start(self, base_from_object: FloatArray, stamp_s: float) -> None:
        """Forget everything; the object stands here."""
        self._pose, self._stamp_s, self._known = base_from_object, stamp_s, False
        self._linear_m_s, self._angular_rad_s = np.zeros(3), np.zeros(3)

    def moved(self, base_from_object: FloatArray, stamp_s: float) -> None:
        """A pose measured later than the last one."""
        passed_s = stamp_s - self._stamp_s
        if self._pose is None or passed_s <= 0:
            self.start(base_from_object, stamp_s)
            return
        linear = (base_from_object[:3, 3] - self._pose[:3, 3]) / passed_s
        angular = matrix_to_axis_angle(base_from_object[:3, :3] @ self._pose[:3, :3].T) / passed_s
        if np.linalg.norm(linear) > _FASTEST_M_S or np.linalg.norm(angular) > _FASTEST_RAD_S:
            self.start(base_from_object, stamp_s)
            return
        new = 1.0 - math.exp(-passed_s / _SMOOTH_S) if self._known else 1.0
        self._linear_m_s = self._linear_m_s + new * (linear - self._linear_m_s)
        self._angular_rad_s = self._angular_rad_s + new * (angular - self._angular_rad_s)
        self._pose, self._stamp_s, self._known = base_from_object, stamp_s, True

    def predict(self, stamp_s: float) -> FloatArray:
        """base_from_object [4, 4] at a later time; the last pose itself where nothing is known of its velocity."""
        assert self._pose is not None, "start() comes first"
        passed_s = max(stamp_s - self._stamp_s, 0.0)
        if self._damping_s <= 0:
            return self._pose
        reach_s = self._damping_s * (1.0 - math.exp(-passed_s / self._damping_s))
        pose = self._pose.copy()
        pose[:3, 3] += reach_s * self._linear_m_s
        pose[:3, :3] = axis_angle_to_matrix(reach_s * self._angular_rad_s) @ pose[:3, :3]
        return pose
