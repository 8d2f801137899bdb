"""Cameras and poses in the forms that the simulator speaks: OpenGL matrices column by column, quaternions x y z w."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensors.geometry import FloatArray


def matrix(position: Sequence[float], quaternion: Sequence[float]) -> FloatArray:
    """[4, 4] in plain arithmetic: called several times in each control step."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), position[0]],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), position[1]],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), position[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def view(base_from_camera: FloatArray) -> list[float]:
    """OpenGL's view matrix, column by column: y up and z backwards where OpenCV has y down and z forwards."""
    rotation = np.asarray(base_from_camera, dtype=float)[:3, :3]
    view = np.eye(4)
    view[:3, :3] = rotation.T * np.array([[1.0], [-1.0], [-1.0]])
    view[:3, 3] = -view[:3, :3] @ np.asarray(base_from_camera, dtype=float)[:3, 3]
    flat: list[float] = view.T.ravel().tolist()
    return flat


def projection(
    intrinsics_px: FloatArray, width: int, height: int, near_m: float, far_m: float, centre: float
) -> list[float]:
    """OpenGL's projection matrix, column by column, of a pinhole whose integer pixels are pixel centres.

    ``centre`` is where the renderer samples a pixel: GPUs at +0.5 in both directions; TinyRenderer at the left edge
    and, counted from the top, at the lower edge (measured against exact geometry, see tests/envs/test_render.py).
    """
    fx, fy, cx, cy = (float(value) for value in intrinsics_px)
    out = np.zeros((4, 4))
    out[0, 0] = 2 * fx / width
    out[1, 1] = 2 * fy / height
    out[0, 2] = 1 - 2 * (cx + centre) / width
    out[1, 2] = 2 * (cy + 1 - centre) / height - 1
    out[2, 2] = -(far_m + near_m) / (far_m - near_m)
    out[2, 3] = -2 * far_m * near_m / (far_m - near_m)
    out[3, 2] = -1.0
    flat: list[float] = out.T.ravel().tolist()
    return flat
