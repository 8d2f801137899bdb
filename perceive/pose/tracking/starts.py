"""Where to look for an object of which the last pose says too little."""

from __future__ import annotations

import math

import numpy as np

from sensors.geometry import FloatArray, axis_angle_to_matrix

_FAST_M_S, _FAST_RAD_S = 0.3, 1.2  # what an object that somebody moves may do without warning
_LEAST_M, _MOST_M = 0.01, 0.05
_LEAST_RAD, _MOST_RAD = 0.15, 0.5


def shifted(camera_from_object: FloatArray, middle_m: FloatArray, passed_s: float) -> FloatArray:
    """Poses [P, 4, 4] around one [4, 4] that an object of unknown velocity may have reached.

    One step along each direction of the camera's axes and of the picture's diagonals, as far as the time allows; it
    is for the fit to do the rest.

    Args:
        camera_from_object: where it was.
        middle_m: [3], its middle in its own frame.
        passed_s: since then.
    """
    step_m = float(np.clip(_FAST_M_S * passed_s, _LEAST_M, _MOST_M))
    away = np.array([*(np.eye(3)), *(-np.eye(3)), [0.7, 0.7, 0], [0.7, -0.7, 0], [-0.7, 0.7, 0], [-0.7, -0.7, 0]])
    poses = np.tile(camera_from_object, (len(away), 1, 1))
    poses[:, :3, 3] += step_m * away
    return np.concatenate([poses, _turned(camera_from_object, middle_m, passed_s)])


def _turned(camera_from_object: FloatArray, middle_m: FloatArray, passed_s: float) -> FloatArray:
    angle = float(np.clip(_FAST_RAD_S * passed_s, _LEAST_RAD, _MOST_RAD))
    return np.stack([turned_about(camera_from_object, middle_m, a * angle) for a in (*np.eye(3), *(-np.eye(3)))])


def turned_about(camera_from_object: FloatArray, middle_m: FloatArray, turn_rad: FloatArray) -> FloatArray:
    """The pose after a turn [3] about the middle of the object, in its own frame."""
    pose = np.array(camera_from_object, np.float64)
    turn = axis_angle_to_matrix(turn_rad)
    pose[:3, 3] += pose[:3, :3] @ (middle_m - turn @ middle_m)
    pose[:3, :3] = pose[:3, :3] @ turn
    return pose


def round_axis(camera_from_object: FloatArray, middle_m: FloatArray, axis: FloatArray, step_rad: float) -> FloatArray:
    """Poses [P, 4, 4] all round an axis [3] of the object, without the pose itself."""
    count = max(round(2.0 * math.pi / step_rad), 2)
    return np.stack(
        [turned_about(camera_from_object, middle_m, 2.0 * math.pi * k / count * axis) for k in range(1, count)]
    )
