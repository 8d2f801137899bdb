"""Exact pictures of a board through a lens, to try and to test calibration without a camera.

Every pixel is the mean of the board over a grid of rays in it; nothing is resampled, so the corners in the picture are
where the lens model puts them.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import ArrayLike

from sensors.calibration.board import Board, Grey
from sensors.calibration.lens import Lens
from sensors.geometry import FloatArray, axis_angle_to_matrix, transform_points

_TEXTURE_PX = 120  # a square of the board; its edges are exact whatever this is, only marker edges are rounded to it
_BLACK, _WHITE, _WALL = 35.0, 215.0, 120.0  # grey values under an ordinary lamp
_PAPER_MARGIN = 0.5  # white margin around the squares, in squares; markers at the edge need it to be found


@final
class BoardRenderer:
    """Renders one board through one lens.

    Args:
        board: what is seen.
        lens: what it is seen through.
        samples: rays a pixel in each direction.
        blur_px: standard deviation of the optics' blur; real pictures are never sharper than about 0.5.
    """

    def __init__(self, board: Board, lens: Lens, samples: int = 4, blur_px: float = 0.5) -> None:
        self._board, self._lens, self._samples, self._blur_px = board, lens, samples, blur_px
        margin = round(_PAPER_MARGIN * _TEXTURE_PX)
        paper = np.pad(board.picture(_TEXTURE_PX), margin, constant_values=255)
        self._texture = np.where(paper > 127, _WHITE, _BLACK).astype(np.float32)
        v, u = np.mgrid[0 : lens.height, 0 : lens.width].astype(float)
        # The lens is inverted at pixel centres; within a pixel its first derivative is exact to 1e-4 px.
        self._rays = lens.rays(np.stack([u, v], axis=-1))
        self._ray_du, self._ray_dv = np.gradient(self._rays, axis=1), np.gradient(self._rays, axis=0)

    def render(self, camera_from_board: ArrayLike, rng: np.random.Generator | None = None, noise: float = 0.0) -> Grey:
        """The picture uint8 [H, W].

        Args:
            camera_from_board: [4, 4].
            rng: source of the noise; may be left out without noise.
            noise: standard deviation of each pixel, grey values.
        """
        import cv2

        matrix = np.asarray(camera_from_board, float)
        top, bottom, left, right = self._extent(matrix)
        # Plane of the board -> plane z = 1, and back.
        plane_from_ray = np.linalg.inv(np.column_stack([matrix[:3, 0], matrix[:3, 1], matrix[:3, 3]]))
        part = np.s_[top:bottom, left:right]
        light = np.zeros((bottom - top, right - left), np.float32)
        for dv in _offsets(self._samples):
            for du in _offsets(self._samples):
                light += self._sample(
                    self._rays[part] + du * self._ray_du[part] + dv * self._ray_dv[part], plane_from_ray
                )
        out = np.full((self._lens.height, self._lens.width), _WALL, np.float32)
        out[part] = light / self._samples**2
        if self._blur_px > 0:
            out = np.asarray(cv2.GaussianBlur(out, (0, 0), self._blur_px), np.float32)
        if rng is not None and noise > 0:
            out += rng.normal(0.0, noise, out.shape).astype(np.float32)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)

    def _extent(self, camera_from_board: FloatArray) -> tuple[int, int, int, int]:
        """Rows and columns outside of which the paper is not; the whole picture if it reaches behind the camera."""
        width_m, height_m = self._board.size_m
        border_m = _PAPER_MARGIN * self._board.square_m
        share = np.linspace(0, 1, 21)
        x = -border_m + share * (width_m + 2 * border_m)
        y = -border_m + share * (height_m + 2 * border_m)
        edge = [np.stack([x, np.full(21, side), np.zeros(21)], -1) for side in (y[0], y[-1])]
        edge += [np.stack([np.full(21, side), y, np.zeros(21)], -1) for side in (x[0], x[-1])]
        pixels = self._lens.project(transform_points(camera_from_board, np.concatenate(edge)))
        if not np.isfinite(pixels).all():
            return 0, self._lens.height, 0, self._lens.width
        low, high = np.floor(pixels.min(0)) - 3, np.ceil(pixels.max(0)) + 4
        left, right = np.clip([low[0], high[0]], 0, self._lens.width).astype(int)
        top, bottom = np.clip([low[1], high[1]], 0, self._lens.height).astype(int)
        return int(top), int(bottom), int(left), int(right)

    def _sample(self, rays: FloatArray, plane_from_ray: FloatArray) -> FloatArray:
        """What rays [h, w, 2] through the plane z = 1 see."""
        x, y, w = (rays[..., 0] * row[0] + rays[..., 1] * row[1] + row[2] for row in plane_from_ray)
        per_m = _TEXTURE_PX / self._board.square_m
        margin = round(_PAPER_MARGIN * _TEXTURE_PX)
        ahead = w > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            column = np.where(ahead, np.floor(x / w * per_m) + margin, -1)
            row = np.where(ahead, np.floor(y / w * per_m) + margin, -1)
        height, width = self._texture.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        out = np.full(rays.shape[:2], _WALL, np.float32)
        out[inside] = self._texture[row[inside].astype(int), column[inside].astype(int)]
        return out


def _offsets(samples: int) -> FloatArray:
    return (np.arange(samples) + 0.5) / samples - 0.5


def random_views(
    board: Board, lens: Lens, count: int, rng: np.random.Generator, max_tilt_deg: float = 40.0
) -> list[FloatArray]:
    """``camera_from_board`` [4, 4] of views such as a person would take: whole board in the picture, near and far,
    in its middle and its corners, tilted to all sides and turned.
    """
    middle_m = np.array([*board.size_m, 0.0]) / 2
    outline = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * board.size_m
    outline_m = np.c_[outline, np.zeros(4)] - middle_m
    focal = float(lens.intrinsics_px[:2].min())
    near_m = 1.1 * focal * float(np.hypot(*board.size_m)) / float(np.hypot(lens.width, lens.height))
    views: list[FloatArray] = []
    while len(views) < count:
        towards = rng.uniform(0, 2 * np.pi)
        tilt = np.deg2rad(rng.uniform(0.2, 1.0) * max_tilt_deg)
        turn = rng.uniform(-np.pi / 4, np.pi / 4)
        rotation = axis_angle_to_matrix([tilt * np.cos(towards), tilt * np.sin(towards), 0.0]) @ axis_angle_to_matrix(
            [0, 0, turn]
        )
        depth_m = near_m * rng.uniform(1.0, 1.8)
        aim = lens.rays(rng.uniform([0, 0], [lens.width - 1, lens.height - 1]))
        matrix = np.eye(4)
        matrix[:3, :3] = rotation
        middle_camera_m = np.array([*aim, 1.0]) * depth_m
        matrix[:3, 3] = middle_camera_m - rotation @ middle_m
        corners = lens.project(outline_m @ rotation.T + middle_camera_m)
        margin_px = 0.02 * lens.width
        if np.all((corners > margin_px) & (corners < np.array([lens.width, lens.height]) - 1 - margin_px)):
            views.append(matrix)
    return views
