"""A calibration session without a camera: pictures of a rendered board and the poses of a hand, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from sensors.calibration.board import Board, Corners, Grey
from sensors.calibration.files import write_beside, write_poses
from sensors.calibration.hand_eye import Mounting
from sensors.calibration.lens import Lens
from sensors.calibration.rendering import BoardRenderer, random_views
from sensors.calibration.views import View
from sensors.geometry import FloatArray, axis_angle_to_matrix, invert, look_at, pose, transform_points

SIMULATED_DISTORTION = (-0.12, 0.05, 0.0008, -0.0006, 0.0)  # of an ordinary webcam


@final
@dataclass(frozen=True, eq=False)
class Session:
    """What was simulated.

    Attributes:
        pictures: uint8 [H, W] each.
        base_from_hand: [N, 4, 4], as the robot says, with its error.
        carrier_from_camera: [4, 4], the truth.
        lens: the truth.
    """

    pictures: tuple[Grey, ...]
    base_from_hand: FloatArray
    carrier_from_camera: FloatArray
    lens: Lens


def simulated_lens(width: int, height: int) -> Lens:
    """A webcam: about 56 degrees wide, its middle a little off, visible barrel distortion."""
    focal = 0.94 * width
    off = np.array([0.012 * width, -0.009 * width])
    intrinsics = np.array([focal, 1.004 * focal, (width - 1) / 2 + off[0], (height - 1) / 2 + off[1]])
    return Lens(width, height, intrinsics, np.array(SIMULATED_DISTORTION))


def hand_poses(
    mounting: Mounting, carrier_from_camera: FloatArray, carrier_from_board: FloatArray, views: Sequence[FloatArray]
) -> FloatArray:
    """``base_from_hand`` [N, 4, 4] of a robot whose camera sees ``camera_from_board`` [4, 4] in each of ``views``."""
    carriers = carrier_from_camera @ np.stack(list(views)) @ invert(carrier_from_board)
    return invert(carriers) if mounting is Mounting.EYE_IN_HAND else carriers


def exact_views(
    board: Board, lens: Lens, camera_from_board: Sequence[FloatArray], rng: np.random.Generator, noise_px: float = 0.0
) -> list[View]:
    """Views without pictures: the corners that fall into the picture, with normal errors of ``noise_px`` each way."""
    views = []
    for number, matrix in enumerate(camera_from_board):
        pixels = lens.project(transform_points(matrix, board.corners_m))
        pixels += rng.normal(0.0, noise_px, pixels.shape)
        inside = ((pixels > -0.5) & (pixels < np.array([lens.width, lens.height]) - 0.5)).all(axis=1)
        corners = Corners(np.flatnonzero(inside), pixels[inside])
        views.append(View(f"{number:04d}", lens.width, lens.height, corners))
    return views


def disturbed(poses: FloatArray, rng: np.random.Generator, position_m: float, rotation_rad: float) -> FloatArray:
    """Poses [N, 4, 4] with normal errors of these standard deviations about every axis."""
    out = poses.copy()
    out[:, :3, :3] = poses[:, :3, :3] @ axis_angle_to_matrix(rng.normal(0.0, rotation_rad, (len(poses), 3)))
    out[:, :3, 3] += rng.normal(0.0, position_m, (len(poses), 3))
    return out


def simulate_session(
    board: Board,
    lens: Lens,
    mounting: Mounting,
    count: int,
    seed: int,
    *,
    picture_noise: float = 2.0,
    robot_position_m: float = 1e-4,
    robot_rotation_rad: float = 2e-4,
) -> Session:
    """A camera somewhere about where people put them, a board seen from all sides.

    Args:
        board: that is seen.
        lens: it is seen through.
        mounting: where the camera is.
        count: pictures.
        seed: of the mount, the views and all noise.
        picture_noise: standard deviation of each pixel, grey values.
        robot_position_m: standard deviation of what the robot says of its hand's position.
        robot_rotation_rad: the same of its rotation.
    """
    rng = np.random.default_rng(seed)
    slip = pose(rng.normal(0, 0.02, 3))
    slip[:3, :3] = axis_angle_to_matrix(rng.normal(0, 0.1, 3))
    if mounting is Mounting.EYE_IN_HAND:  # beside the gripper; the board face up on the table
        camera, plate = (
            pose((0.06, 0.0, 0.04), (0.0, 0.0, 0.7071068, 0.7071068)),
            pose((0.5, 0.1, 0.0), (1.0, 0.0, 0.0, 0.0)),
        )
    else:  # on a tripod in front of the table; the board in the gripper
        camera, plate = (
            look_at((1.1, 0.3, 0.6), (0.5, 0.0, 0.3)),
            pose((0.0, 0.0, 0.1), (0.0, 0.7071068, 0.0, 0.7071068)),
        )
    camera = camera @ slip
    views = random_views(board, lens, count, rng)
    renderer = BoardRenderer(board, lens)
    pictures = tuple(renderer.render(view, rng, picture_noise) for view in views)
    poses = disturbed(hand_poses(mounting, camera, plate, views), rng, robot_position_m, robot_rotation_rad)
    return Session(pictures, poses, camera, lens)


def write_session(folder: str | Path, session: Session) -> None:
    """Write the pictures and poses.json, as a person would put them there."""
    import cv2

    folder = Path(folder)
    names = [f"{number:04d}.png" for number in range(len(session.pictures))]
    for name, picture in zip(names, session.pictures, strict=True):
        write_beside(folder / name, bytes(cv2.imencode(".png", picture)[1]))
    write_poses(folder / "poses.json", dict(zip(names, session.base_from_hand, strict=True)))
