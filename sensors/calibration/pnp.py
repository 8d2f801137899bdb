"""Where a board is, seen in one view through a known lens.

Method: T. Collins and A. Bartoli, "Infinitesimal Plane-Based Pose Estimation", IJCV 109(3), 2014, as in OpenCV.
"""

from __future__ import annotations

import numpy as np

from sensors.calibration.board import Board
from sensors.calibration.lens import Lens
from sensors.calibration.views import View
from sensors.errors import DataError
from sensors.geometry import FloatArray, axis_angle_to_matrix

_SAME = 1e-2  # rotation entries; two poses that are nearer than this are one


def board_poses(lens: Lens, board: Board, view: View) -> FloatArray:
    """``camera_from_board`` [1 or 2, 4, 4], best first: a plane far away or hardly tilted has two poses that fit.

    Raises:
        DataError: the corners are of no plane in front of the camera.
    """
    import cv2

    rays = lens.rays(view.corners.pixels)
    points = board.corners_m[view.corners.ids]
    try:
        found, turns, shifts, _ = cv2.solvePnPGeneric(
            points, np.ascontiguousarray(rays), np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
        )
    except cv2.error:
        found, turns, shifts = 0, (), ()
    poses = []
    for turn, shift in zip(turns[:found], shifts[:found], strict=True):
        # Rays are of the plane z = 1, so this refines by pixels but for the lens' bend, which is nearly constant.
        turn, shift = cv2.solvePnPRefineLM(points, rays, np.eye(3), None, turn, shift)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = axis_angle_to_matrix(np.ravel(turn)), np.ravel(shift)
        flat = points @ pose[:3, :3].T + pose[:3, 3]
        if (flat[:, 2] > 0).all():
            poses.append((float(np.linalg.norm(flat[:, :2] / flat[:, 2:] - rays)), pose))
    if not poses:
        raise DataError(
            f"picture '{view.name}'", "a board in front of the camera", "corners that no such board has",
            "Is the lens file that of this camera?",
        )  # fmt: skip
    best, *others = (pose for _, pose in sorted(poses, key=lambda pair: pair[0]))
    # Refined, both may be the same.
    return np.stack([best, *(pose for pose in others if np.abs(pose - best).max() > _SAME)])
