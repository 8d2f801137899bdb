"""Hand-eye calibration in closed form: A X = X B over pairs of poses, for the start of the refinement.

OpenCV's bindings have no hand-eye calibration from version 5 on, so both methods stand here.

- F. C. Park and B. J. Martin, "Robot Sensor Calibration: Solving AX = XB on the Euclidean Group", IEEE Trans. Robotics
  and Automation 10(5), 1994: the rotation first, then the translation.
- K. Daniilidis, "Hand-Eye Calibration Using Dual Quaternions", Int. J. Robotics Research 18(3), 1999: both at once.
"""

from __future__ import annotations

import numpy as np

from sensors.geometry import (
    FloatArray,
    axis_angle_to_matrix,
    invert,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
)

_LEAST_TURN_RAD = 0.05  # smaller turns tell their axis badly
_MOST_TURN_RAD = 3.0  # near pi the sign of the axis is chance


def relative_poses(poses: FloatArray) -> FloatArray:
    """``P_j P_i^-1`` [M, 4, 4] for all pairs i < j of poses [N, 4, 4]."""
    first, second = np.triu_indices(len(poses), 1)
    out: FloatArray = poses[second] @ invert(poses[first])
    return out


def useful_pairs(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Those of the relative poses [M, 4, 4] whose turn is neither too small nor too near to half a turn."""
    angle = np.maximum(*(np.linalg.norm(matrix_to_axis_angle(part[:, :3, :3]), axis=-1) for part in (a, b)))
    good = (angle > _LEAST_TURN_RAD) & (angle < _MOST_TURN_RAD)
    return a[good], b[good]


def park_martin(a: FloatArray, b: FloatArray) -> FloatArray:
    """X [4, 4] with A X = X B from relative poses [M, 4, 4] of both sides."""
    turns_a, turns_b = matrix_to_axis_angle(a[:, :3, :3]), matrix_to_axis_angle(b[:, :3, :3])
    out = np.eye(4)
    out[:3, :3] = nearest_rotation(turns_a.T @ turns_b)
    out[:3, 3] = translation(a, b, out[:3, :3])[0]
    return out


def translation(
    a: FloatArray, b: FloatArray, rotation: FloatArray, free_scale: bool = False
) -> tuple[FloatArray, float]:
    """X's translation [3] for its rotation; with ``free_scale`` also the factor on B's translations that fits best."""
    left = (a[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    turned = (b[:, :3, 3] @ rotation.T).reshape(-1)
    right = -a[:, :3, 3].reshape(-1)
    if not free_scale:
        return np.linalg.lstsq(left, right + turned, rcond=None)[0], 1.0
    solved = np.linalg.lstsq(np.column_stack([left, -turned]), right, rcond=None)[0]
    return solved[:3], float(solved[3])


def daniilidis(a: FloatArray, b: FloatArray) -> FloatArray:
    """X [4, 4] with A X = X B from relative poses [M, 4, 4] of both sides, by dual quaternions."""
    (qa, da), (qb, db) = _dual_quaternion(a), _dual_quaternion(b)
    # Equal screws have equal scalar parts; the sign of a quaternion is free, so it is chosen to agree.
    flip = np.where(qa[:, 3] * qb[:, 3] < 0, -1.0, 1.0)[:, None]
    qb, db = qb * flip, db * flip
    top = np.concatenate([qa[:, :3] - qb[:, :3], np.zeros((len(a), 3))], axis=1)
    rows = np.zeros((len(a), 6, 8))
    rows[:, :3, 0] = rows[:, 3:, 4] = top[:, :3]
    rows[:, :3, 1:4] = rows[:, 3:, 5:] = skew(qa[:, :3] + qb[:, :3])
    rows[:, 3:, 0] = da[:, :3] - db[:, :3]
    rows[:, 3:, 1:4] = skew(da[:, :3] + db[:, :3])
    # The unknown, real part first (w x y z), then its dual, lies in the space of the two smallest singular values.
    _, _, right = np.linalg.svd(rows.reshape(-1, 8), full_matrices=False)
    (u1, v1), (u2, v2) = (right[6, :4], right[6, 4:]), (right[7, :4], right[7, 4:])
    square, linear, constant = u1 @ v1, u1 @ v2 + u2 @ v1, u2 @ v2
    # Real part of unit length, dual part at right angles to it: a quadratic equation for the mixture.
    root = np.sqrt(max(linear * linear - 4 * square * constant, 0.0))
    if abs(square) < 1e-15:
        shares = [-constant / linear] if abs(linear) > 1e-15 else [0.0]
    else:
        shares = [(-linear + root) / (2 * square), (-linear - root) / (2 * square)]
    lengths = [s * s * (u1 @ u1) + 2 * s * (u1 @ u2) + u2 @ u2 for s in shares]
    best = int(np.argmax(lengths))
    weight = 1 / np.sqrt(lengths[best])
    real = weight * (shares[best] * u1 + u2)
    dual = weight * (shares[best] * v1 + v2)
    out = np.eye(4)
    out[:3, :3] = quaternion_to_matrix(np.roll(real, -1))
    conjugate = real * np.array([1.0, -1.0, -1.0, -1.0])
    out[:3, 3] = 2 * _product(dual, conjugate)[1:]
    return out


def nearest_rotation(matrix: FloatArray) -> FloatArray:
    """The rotation [3, 3] that turns best in the sense of least squares: of ``sum a b^T`` for ``a = R b``."""
    left, _, right = np.linalg.svd(matrix)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    out: FloatArray = left @ sign @ right
    return out


def mean_pose(poses: FloatArray) -> FloatArray:
    """The mean [4, 4] of poses [N, 4, 4], by the median of places, so that a wrong one does little."""
    out = np.eye(4)
    out[:3, 3] = np.median(poses[:, :3, 3], axis=0)
    rotations = poses[:, :3, :3]
    centre = nearest_rotation(rotations.sum(0))
    for _ in range(3):
        away = matrix_to_axis_angle(centre.T @ rotations)
        centre = centre @ axis_angle_to_matrix(np.median(away, axis=0))
    out[:3, :3] = centre
    return out


def _dual_quaternion(poses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Real and dual part [M, 4], each x y z w."""
    real = matrix_to_quaternion(poses[:, :3, :3])
    t, v, w = poses[:, :3, 3], real[:, :3], real[:, 3:]
    dual = 0.5 * np.concatenate([w * t + np.cross(t, v), -np.sum(t * v, axis=1, keepdims=True)], axis=1)
    return real, dual


def _product(first: FloatArray, second: FloatArray) -> FloatArray:
    """Product of quaternions w x y z."""
    w1, v1, w2, v2 = first[0], first[1:], second[0], second[1:]
    return np.concatenate([[w1 * w2 - v1 @ v2], w1 * v2 + w2 * v1 + np.cross(v1, v2)])


def skew(vectors: FloatArray) -> FloatArray:
    """Cross product matrices [..., 3, 3]."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
