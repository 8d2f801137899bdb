"""Rigid transforms, rotations and pinhole cameras in numpy.

Conventions, used everywhere in the project:

- ``a_from_b`` is the 4x4 matrix that takes coordinates in frame ``b`` to coordinates in frame ``a``;
- quaternions are ``(x, y, z, w)`` and of unit length;
- a camera looks along its +z, with +x to the right of the image and +y down (OpenCV);
- intrinsics are ``(fx, fy, cx, cy)`` in pixels; integer pixel coordinates are pixel *centres*, so the middle of an
  image of width W is ``(W - 1) / 2``;
- depth is the z coordinate in the camera frame, in metres; 0 means "no measurement".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sensors.errors import SpecError

FloatArray = NDArray[np.floating[Any]]


def pose(position_m: ArrayLike = (0.0, 0.0, 0.0), quaternion_xyzw: ArrayLike = (0.0, 0.0, 0.0, 1.0)) -> FloatArray:
    """Rigid transform [4, 4] from a position [3] in metres and a unit quaternion [4] (x y z w)."""
    out = np.eye(4)
    out[:3, :3] = quaternion_to_matrix(quaternion_xyzw)
    out[:3, 3] = np.asarray(position_m, dtype=float)
    return out


def invert(a_from_b: ArrayLike) -> FloatArray:
    """Inverse of rigid transforms [..., 4, 4]: ``b_from_a``."""
    matrix = np.asarray(a_from_b, dtype=float)
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    out = np.zeros_like(matrix)
    out[..., :3, :3] = rotation
    out[..., :3, 3] = -(rotation @ matrix[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1.0
    return out


def transform_points(a_from_b: ArrayLike, points_b_m: ArrayLike) -> FloatArray:
    """Points [..., N, 3] in frame ``b`` to frame ``a`` by transforms [..., 4, 4]."""
    matrix = np.asarray(a_from_b, dtype=float)
    points = np.asarray(points_b_m, dtype=float)
    result: FloatArray = points @ np.swapaxes(matrix[..., :3, :3], -1, -2) + matrix[..., None, :3, 3]
    return result


def quaternion_to_matrix(quaternion_xyzw: ArrayLike) -> FloatArray:
    """Rotation matrices [..., 3, 3] from quaternions [..., 4] (x y z w), normalised first.

    Raises:
        SpecError: a quaternion has zero length.
    """
    quaternion = np.asarray(quaternion_xyzw, dtype=float)
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not np.all(length > 1e-12):
        raise SpecError("quaternion", "non-zero length (x y z w)", repr(quaternion_xyzw), "Pass a unit quaternion.")
    x, y, z, w = np.moveaxis(quaternion / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotation: ArrayLike) -> FloatArray:
    """Unit quaternions [..., 4] (x y z w, w >= 0) from rotation matrices [..., 3, 3], stable for every angle."""
    m = np.asarray(rotation, dtype=float)
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # The four candidate solutions, one per largest component; each row is scaled by 4 * that component.
    candidates = np.stack(
        [
            np.stack(
                [
                    1 + m00 - m11 - m22,
                    m[..., 0, 1] + m[..., 1, 0],
                    m[..., 0, 2] + m[..., 2, 0],
                    m[..., 2, 1] - m[..., 1, 2],
                ],
                -1,
            ),
            np.stack(
                [
                    m[..., 0, 1] + m[..., 1, 0],
                    1 - m00 + m11 - m22,
                    m[..., 1, 2] + m[..., 2, 1],
                    m[..., 0, 2] - m[..., 2, 0],
                ],
                -1,
            ),
            np.stack(
                [
                    m[..., 0, 2] + m[..., 2, 0],
                    m[..., 1, 2] + m[..., 2, 1],
                    1 - m00 - m11 + m22,
                    m[..., 1, 0] - m[..., 0, 1],
                ],
                -1,
            ),
            np.stack(
                [
                    m[..., 2, 1] - m[..., 1, 2],
                    m[..., 0, 2] - m[..., 2, 0],
                    m[..., 1, 0] - m[..., 0, 1],
                    1 + m00 + m11 + m22,
                ],
                -1,
            ),
        ],
        -2,
    )
    best = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), axis=-1)
    chosen = np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    result: FloatArray = np.where(chosen[..., 3:] < 0, -chosen, chosen)
    return result


def axis_angle_to_matrix(rotation_vector_rad: ArrayLike) -> FloatArray:
    """Rotation matrices [..., 3, 3] from rotation vectors [..., 3] (axis times angle in radians)."""
    vector = np.asarray(rotation_vector_rad, dtype=float)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sinc keeps the half-angle quaternion exact through zero.
    xyz = vector * (np.sinc(angle / (2 * np.pi)) / 2)
    return quaternion_to_matrix(np.concatenate([xyz, np.cos(angle / 2)], axis=-1))


def matrix_to_axis_angle(rotation: ArrayLike) -> FloatArray:
    """Rotation vectors [..., 3] in radians, length in [0, pi], from rotation matrices [..., 3, 3]."""
    quaternion = matrix_to_quaternion(rotation)
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., 3:])
    scale = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)
    result: FloatArray = quaternion[..., :3] * scale
    return result


def matrix_to_rotation_6d(rotation: ArrayLike) -> FloatArray:
    """The first two *columns* [..., 6] of rotation matrices [..., 3, 3] (Zhou et al., CVPR 2019)."""
    m = np.asarray(rotation, dtype=float)
    return np.concatenate([m[..., :, 0], m[..., :, 1]], axis=-1)


def rotation_6d_to_matrix(rotation_6d: ArrayLike) -> FloatArray:
    """Rotation matrices [..., 3, 3] by Gram-Schmidt from two columns [..., 6] (Zhou et al., CVPR 2019).

    Raises:
        SpecError: the two columns are zero or parallel, so that no rotation is defined.
    """
    value = np.asarray(rotation_6d, dtype=float)
    first, second = value[..., :3], value[..., 3:]
    first_length = np.linalg.norm(first, axis=-1, keepdims=True)
    if not np.all(first_length > 1e-9):
        raise SpecError("rotation_6d", "a non-zero first column", repr(value), "Check the action's rotation part.")
    x = first / first_length
    y = second - np.sum(x * second, axis=-1, keepdims=True) * x
    y_length = np.linalg.norm(y, axis=-1, keepdims=True)
    if not np.all(y_length > 1e-9):
        raise SpecError(
            "rotation_6d", "two columns that are not parallel", repr(value), "Check the action's rotation part."
        )
    y = y / y_length
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def rotation_angle_rad(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Geodesic angle [...] in radians between rotation matrices [..., 3, 3]."""
    relative = np.swapaxes(np.asarray(first, dtype=float), -1, -2) @ np.asarray(second, dtype=float)
    return np.asarray(np.linalg.norm(matrix_to_axis_angle(relative), axis=-1))


def look_at(eye_m: ArrayLike, target_m: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> FloatArray:
    """``base_from_camera`` [4, 4] of a camera at ``eye_m`` that looks at ``target_m`` (both in the base frame).

    Raises:
        SpecError: eye and target coincide, or the view direction is parallel to ``up``.
    """
    eye = np.asarray(eye_m, dtype=float)
    forward = np.asarray(target_m, dtype=float) - eye
    right = np.cross(forward, np.asarray(up, dtype=float))
    if np.linalg.norm(right) < 1e-9:
        raise SpecError(
            "look_at", "a view direction not parallel to 'up'", f"{eye_m!r} -> {target_m!r}", "Change 'up'."
        )
    forward = forward / np.linalg.norm(forward)
    right = right / np.linalg.norm(right)
    out = np.eye(4)
    out[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=-1)
    out[:3, 3] = eye
    return out


def intrinsics_from_fov(width: int, height: int, fov_y_deg: float) -> FloatArray:
    """Intrinsics (fx, fy, cx, cy) [4] in pixels of an ideal pinhole with square pixels and vertical field of view."""
    focal = height / (2.0 * np.tan(np.deg2rad(fov_y_deg) / 2.0))
    return np.array([focal, focal, (width - 1) / 2.0, (height - 1) / 2.0])


def unproject(depth_m: ArrayLike, intrinsics_px: ArrayLike) -> FloatArray:
    """Camera-frame points [H, W, 3] in metres of a depth image [H, W]; a pixel with depth 0 gives (0, 0, 0)."""
    depth = np.asarray(depth_m, dtype=float)
    fx, fy, cx, cy = np.asarray(intrinsics_px, dtype=float)
    v, u = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
    return np.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], axis=-1)


def project(points_camera_m: ArrayLike, intrinsics_px: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Pixels [..., 2] (u, v) and depth [...] in metres of camera-frame points [..., 3].

    Points at or behind the camera (z <= 0) give NaN pixels.
    """
    points = np.asarray(points_camera_m, dtype=float)
    fx, fy, cx, cy = np.asarray(intrinsics_px, dtype=float)
    z = points[..., 2]
    safe = np.where(z > 0, z, np.nan)
    pixels = np.stack([points[..., 0] / safe * fx + cx, points[..., 1] / safe * fy + cy], axis=-1)
    return pixels, z


def interpolate_pose(first: ArrayLike, second: ArrayLike, share: float) -> FloatArray:
    """The pose [4, 4] at ``share`` (0 to 1) of the way: positions linear, rotations along the shortest turn."""
    start, end = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    out = np.eye(4)
    turn = matrix_to_axis_angle(start[:3, :3].T @ end[:3, :3])
    out[:3, :3] = start[:3, :3] @ axis_angle_to_matrix(share * turn)
    out[:3, 3] = (1 - share) * start[:3, 3] + share * end[:3, 3]
    return out
