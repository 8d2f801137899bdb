"""The joint refinement of hand-eye calibration: camera mount and board pose by least reprojection error.

A corner ``p`` of view ``i`` is at ``inv(X) G_i W p`` in the camera: X takes the camera to its carrier, W the board to
its own, G_i the one carrier to the other. For a camera in the hand X = hand_from_camera, W = base_from_board and
G_i = hand_from_base; for a camera beside the robot X = base_from_camera, W = hand_from_board, G_i = base_from_hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from sensors.calibration.closed_form import skew
from sensors.calibration.lens import Lens, distort
from sensors.geometry import FloatArray, axis_angle_to_matrix, invert

_NORMAL_BY_MEDIAN = 1.4826  # standard deviation of normal errors over the median of their sizes
UNKNOWNS = 12  # rotation and position of X, rotation and position of W
_LOSS_SCALE_PX = 1.0  # residuals above count less than their square: a wrong corner or a bumped robot ...
_LOSS_SPREADS = 2.0  # ... but what most corners show, of a robot that is less exact than pixels, is no outlier
_LEAST_VIEWS_FOR_SPREAD = 6  # with fewer, leaving one out leaves too little


@final
@dataclass(frozen=True, eq=False)
class Solution:
    """Where the least is.

    Attributes:
        x: [4, 4].
        w: [4, 4].
        scale: factor on the board's size; 1 unless it was free.
        residuals_px: per view [K, 2], detected minus expected.
        covariance: [12, 12] or, with the scale, [13, 13]: turns about the camera's own axes (rad), position of X (m),
            turns about the board's own axes, position of W, scale.
    """

    x: FloatArray
    w: FloatArray
    scale: float
    residuals_px: tuple[FloatArray, ...]
    covariance: FloatArray

    @property
    def rms_px(self) -> float:
        """Root mean square distance of the corners from where they should be."""
        return rms(self.residuals_px)


def rms(residuals_px: Sequence[FloatArray]) -> float:
    """Root mean square length of residuals [K, 2] of several views."""
    return float(np.sqrt((np.concatenate(list(residuals_px)) ** 2).sum(-1).mean()))


@final
class Reprojection:
    """The reprojection errors of a set of views and their derivative.

    Args:
        lens: of the camera.
        carriers: G [N, 4, 4].
        points_m: per view [K, 3], corners in the board's frame.
        pixels: per view [K, 2], where they were detected.
    """

    def __init__(
        self, lens: Lens, carriers: FloatArray, points_m: Sequence[FloatArray], pixels: Sequence[FloatArray]
    ) -> None:
        self._lens = lens
        self._counts = [len(part) for part in points_m]
        self._carriers = np.repeat(carriers, self._counts, axis=0)  # [K, 4, 4], one a corner
        self._points_m = np.concatenate(list(points_m))
        self._pixels = np.concatenate(list(pixels))

    def errors_px(self, x: FloatArray, w: FloatArray) -> list[FloatArray]:
        """Per view [K, 2], detected minus expected; NaN for corners behind the camera."""
        _, _, seen = self._camera_points(x, w, 1.0)
        flat = self._pixels - self._lens.project(seen)
        return np.split(flat, np.cumsum(self._counts)[:-1])

    def errors_and_jacobian(self, x: FloatArray, w: FloatArray, scale: float) -> tuple[FloatArray, FloatArray]:
        """Errors [K, 2] and their derivative [K, 2, 13] by small turns and shifts at this place, and by the scale."""
        board, turned, seen = self._camera_points(x, w, scale)
        pixels, by_point = self._lens.project_with_jacobian(seen)
        back = x[:3, :3].T
        forward = back @ self._carriers[:, :3, :3]  # W's carrier to the camera
        out = np.empty((len(seen), 3, UNKNOWNS + 1))
        out[:, :, 0:3] = skew(seen)  # turning X by d turns what it sees by -d
        out[:, :, 3:6] = -back
        out[:, :, 6:9] = -(forward @ w[:3, :3]) @ skew(board)
        out[:, :, 9:12] = forward
        out[:, :, 12] = (forward @ turned[..., None])[..., 0] / scale
        return self._pixels - pixels, -(by_point @ out)

    def solve(self, x: FloatArray, w: FloatArray, free_scale: bool = False) -> Solution:
        """The place of least error near a start, with a loss (soft L1) that forgives outliers.

        Done twice: how large errors usually are is only known at the end of the first time.

        Args:
            x: start [4, 4].
            w: start [4, 4].
            free_scale: also look for the board's size.
        """
        first = self._solve(x, w, 1.0, free_scale, _LOSS_SCALE_PX)
        errors = np.abs(np.concatenate(first.residuals_px))
        usual_px = _NORMAL_BY_MEDIAN * float(np.median(errors))
        if _LOSS_SPREADS * usual_px <= _LOSS_SCALE_PX:
            return first
        return self._solve(first.x, first.w, first.scale, free_scale, _LOSS_SPREADS * usual_px)

    def _solve(self, x: FloatArray, w: FloatArray, size: float, free_scale: bool, loss_px: float) -> Solution:
        from scipy.optimize import least_squares

        unknowns = UNKNOWNS + free_scale

        def place(step: FloatArray) -> tuple[FloatArray, FloatArray, float]:
            return _moved(x, step[:6]), _moved(w, step[6:12]), size + float(step[12]) if free_scale else 1.0

        def value(step: FloatArray) -> FloatArray:
            return self._errors(*place(step)).ravel()

        def slope(step: FloatArray) -> FloatArray:
            jacobian = self.errors_and_jacobian(*place(step))[1][..., :unknowns].reshape(-1, unknowns)
            for first in (0, 6):  # a step of the vector is a turn at its end, not at the start
                turn = slice(first, first + 3)
                jacobian[:, turn] = jacobian[:, turn] @ _right_jacobian(step[turn])
            return jacobian

        found = least_squares(
            value, np.zeros(unknowns), slope, method="trf", x_scale="jac", loss="soft_l1", f_scale=loss_px,
            xtol=1e-11, ftol=1e-11, gtol=1e-11, max_nfev=50,
        )  # fmt: skip
        x_end, w_end, scale = place(found.x)
        errors, jacobian = self.errors_and_jacobian(x_end, w_end, scale)
        parts = np.cumsum(self._counts)[:-1]
        covariance = _covariance(np.split(errors, parts), np.split(jacobian[..., :unknowns], parts), loss_px)
        return Solution(x_end, w_end, scale, tuple(np.split(errors, parts)), covariance)

    def by_lens(self, solution: Solution) -> FloatArray:
        """How the solution's turns and positions [12, 9] move with the lens' numbers (:meth:`Lens.by_parameters`)."""
        jacobian = self.errors_and_jacobian(solution.x, solution.w, 1.0)[1][..., :UNKNOWNS].reshape(-1, UNKNOWNS)
        seen = self._camera_points(solution.x, solution.w, 1.0)[2]
        pulls = self._lens.by_parameters(seen).reshape(len(jacobian), -1)
        size = np.linalg.norm(jacobian, axis=0)
        out: FloatArray = np.linalg.lstsq(jacobian / size, pulls, rcond=None)[0] / size[:, None]
        return out

    def _errors(self, x: FloatArray, w: FloatArray, scale: float) -> FloatArray:
        """Errors [K, 2], finite for corners behind the camera as well, through which a search may pass."""
        seen = self._camera_points(x, w, scale)[2]
        bent = distort(seen[:, :2] / seen[:, 2:], self._lens.distortion)
        out: FloatArray = self._pixels - bent * self._lens.intrinsics_px[:2] - self._lens.intrinsics_px[2:]
        return out

    def _camera_points(self, x: FloatArray, w: FloatArray, scale: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Corners [K, 3]: in the board's frame, turned as W turns them, and in the camera's frame."""
        board = scale * self._points_m
        turned = board @ w[:3, :3].T
        carried = (self._carriers[:, :3, :3] @ (turned + w[:3, 3])[..., None])[..., 0] + self._carriers[:, :3, 3]
        seen = carried @ invert(x)[:3, :3].T + invert(x)[:3, 3]
        return board, turned, seen


def _covariance(errors: Sequence[FloatArray], jacobians: Sequence[FloatArray], loss_px: float) -> FloatArray:
    """How far the solution would scatter.

    Two answers, and the larger of each variance holds. The usual one (inverse normal matrix times the variance of the
    residuals) takes every corner as independent; but what the robot gets wrong in one pose moves all corners of that
    view together. So the second leaves out one view at a time (the jackknife; M. H. Quenouille 1956, J. W. Tukey 1958),
    each by one Gauss-Newton step.
    """
    # Slope and curvature of soft L1: what an error pulls, and how stiffly the sum holds against it.
    pulls = [part / np.sqrt(1 + (part / loss_px) ** 2) for part in errors]
    stiff = [(1 + (part / loss_px) ** 2) ** -1.5 for part in errors]
    normal = [np.einsum("kci,kc,kcj->ij", j, s, j) for j, s in zip(jacobians, stiff, strict=True)]
    slopes = [np.einsum("kci,kc->i", j, p) for j, p in zip(jacobians, pulls, strict=True)]
    whole = np.sum(normal, axis=0)
    size = np.sqrt(np.maximum(np.diag(whole), 1e-300))  # turns and metres differ by orders of magnitude
    count = sum(part.size for part in errors)
    spread = sum(float((p**2).sum()) for p in pulls) / max(count - len(whole), 1)
    stiffness = sum(float(s.sum()) for s in stiff) / count
    first = spread / stiffness * _inverse(whole, size)
    views = len(errors)
    if views < _LEAST_VIEWS_FOR_SPREAD:
        return first
    shifts = np.stack([_inverse(whole - n, size) @ g for n, g in zip(normal, slopes, strict=True)])
    shifts -= shifts.mean(0)
    second = (views - 1) / views * shifts.T @ shifts
    # One matrix that has the larger variances: the second, widened where the first is larger.
    wider = np.sqrt(np.maximum(np.diag(first), np.diag(second)) / np.maximum(np.diag(second), 1e-300))
    return second * wider * wider[:, None] if (np.diag(second) > 0).all() else first


def _inverse(matrix: FloatArray, size: FloatArray) -> FloatArray:
    out: FloatArray = np.linalg.pinv(matrix / size / size[:, None], rcond=1e-14, hermitian=True) / size / size[:, None]
    return out


def _moved(start: FloatArray, step: FloatArray) -> FloatArray:
    """A pose turned about its own axes by step[:3] and shifted by step[3:]."""
    out = start.copy()
    out[:3, :3] = start[:3, :3] @ axis_angle_to_matrix(step[:3])
    out[:3, 3] = start[:3, 3] + step[3:]
    return out


def _right_jacobian(turn: FloatArray) -> FloatArray:
    """How a change of a rotation vector turns its rotation, about the axes at its end [3, 3]."""
    angle = float(np.linalg.norm(turn))
    cross: FloatArray = skew(turn)
    if angle < 1e-5:
        return np.eye(3) - cross / 2 + cross @ cross / 6
    first, second = (1 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    out: FloatArray = np.eye(3) - first * cross + second * cross @ cross
    return out
