"""A camera's intrinsics from views of a board, with how sure they are and what the views lack.

Method: Z. Zhang, "A Flexible New Technique for Camera Calibration", IEEE TPAMI 22(11), 2000, as in OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.calibration.board import Board
from sensors.calibration.closed_form import skew
from sensors.calibration.lens import COEFFICIENTS, Lens
from sensors.calibration.views import View, picture_size
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix

_CELLS = (8, 6)  # coverage is counted in so many columns and rows of the picture
_OUTLIER = 3.0  # a view is left out if its error is so many times the median ...
_OUTLIER_PX = 0.5  # ... and more than this, which no sharp picture of a flat board reaches
_LEAST_TILT_SPAN_DEG = 20.0
_MOST_CONDITION = 1e12  # of the normal matrix; beyond it numbers cannot be told apart in double precision


@final
@dataclass(frozen=True, eq=False)
class ViewFit:
    """How well one view agrees with the whole.

    Attributes:
        name: of the view.
        rms_px: root mean square distance of its corners from where they should be.
        used: False = left out as an outlier.
    """

    name: str
    rms_px: float
    used: bool


@final
@dataclass(frozen=True, eq=False)
class Intrinsics:
    """The result.

    Attributes:
        lens: the camera.
        rms_px: root mean square distance of all used corners from where they should be.
        intrinsics_std_px: [4], standard deviations of fx fy cx cy.
        distortion_std: [5], standard deviations of the coefficients; 0 = held at zero.
        covariance: [9, 9] of fx fy cx cy k1 k2 p1 p2 k3; they are far from independent.
        fits: of every view, in the order given.
        camera_from_board: [N, 4, 4] of every view; NaN where it was left out.
        residuals_px: per view [K, 2], detected minus expected; empty where it was left out.
        coverage: share of the picture's cells (8 x 6) in which a corner was seen.
        tilt_span_deg: the greatest angle between the board's normals in two views.
        warnings: what is wanting.
    """

    lens: Lens
    rms_px: float
    intrinsics_std_px: FloatArray
    distortion_std: FloatArray
    covariance: FloatArray
    fits: tuple[ViewFit, ...]
    camera_from_board: FloatArray
    residuals_px: tuple[FloatArray, ...]
    coverage: float
    tilt_span_deg: float
    warnings: tuple[str, ...]


def calibrate_intrinsics(
    views: Sequence[View],
    board: Board,
    *,
    coefficients: int = COEFFICIENTS,
    least_views: int = 6,
    least_coverage: float = 0.6,
) -> Intrinsics:
    """Intrinsics and distortion from views of a board.

    Args:
        views: of one camera.
        board: that they show.
        coefficients: how many of k1 k2 p1 p2 k3 are looked for: 0, 2 (k1 k2), 4 or 5. Fewer for few views or a lens
            that hardly bends.
        least_views: with fewer there is no result.
        least_coverage: with less of the picture covered there is a warning.

    Raises:
        SpecError: another number of coefficients.
        DataError: too few views, pictures of different sizes, or views that determine nothing.
    """
    if coefficients not in (0, 2, 4, 5):
        raise SpecError("coefficients", "0, 2, 4 or 5", str(coefficients), "5 fits most cameras.")
    least_views = max(least_views, 3)  # fewer leave unknowns open, whatever the reader is content with
    width, height = picture_size(views)
    used = list(range(len(views)))
    while True:
        if len(used) < least_views:
            names = sorted(view.name for number, view in enumerate(views) if number not in used)
            left = f" ({len(names)} were left out as they do not fit: {', '.join(names[:5])})" if names else ""
            raise DataError(
                "calibrate_intrinsics", f"at least {least_views} views of the board", f"{len(used)}{left}",
                "Take more pictures: near and far, in every corner of the picture, tilted to all sides.",
            )  # fmt: skip
        lens, rms_px, deviations, poses = _solve([views[i] for i in used], board, width, height, coefficients)
        residuals = [_residuals(lens, board, views[i], pose) for i, pose in zip(used, poses, strict=True)]
        errors = np.array([_rms(part) for part in residuals])
        worst = int(np.argmax(errors))
        if errors[worst] <= max(_OUTLIER * float(np.median(errors)), _OUTLIER_PX):
            break
        used.pop(worst)  # one at a time: a bad view makes good ones look worse
    covariance = _covariance(lens, board, [views[i] for i in used], poses, residuals, deviations > 0)
    all_poses = np.full((len(views), 4, 4), np.nan)
    all_poses[used] = poses
    by_view = dict(zip(used, residuals, strict=True))
    fits = []
    for number, view in enumerate(views):
        rms = _rms(by_view[number]) if number in by_view else _rms_alone(lens, board, view)
        fits.append(ViewFit(view.name, rms, number in by_view))
    cells = covered_cells([views[i] for i in used], width, height)
    tilt_span_deg = _tilt_span_deg(all_poses[used])
    return Intrinsics(
        lens, rms_px, deviations[:4], deviations[4:], covariance, tuple(fits), all_poses,
        tuple(by_view.get(i, np.zeros((0, 2))) for i in range(len(views))), float(cells.mean()), tilt_span_deg,
        tuple(_warnings(lens, fits, cells, tilt_span_deg, least_coverage)),
    )  # fmt: skip


def covered_cells(views: Sequence[View], width: int, height: int) -> FloatArray:
    """1 for each cell [6, 8] of the picture in which a corner was seen, else 0."""
    columns, rows = _CELLS
    pixels = np.concatenate([view.corners.pixels for view in views]) + 0.5
    counts, _, _ = np.histogram2d(pixels[:, 1], pixels[:, 0], bins=(rows, columns), range=((0, height), (0, width)))
    return np.asarray(counts > 0, float)


def _solve(
    views: Sequence[View], board: Board, width: int, height: int, coefficients: int
) -> tuple[Lens, float, FloatArray, FloatArray]:
    """Lens, error, standard deviations [9] and poses [N, 4, 4]."""
    import cv2

    flags = 0
    for count, flag in ((5, cv2.CALIB_FIX_K3), (4, cv2.CALIB_ZERO_TANGENT_DIST)):
        flags |= flag if coefficients < count else 0
    if coefficients < 2:
        flags |= cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2
    points = [board.corners_m[view.corners.ids].astype(np.float32) for view in views]
    pixels = [view.corners.pixels.astype(np.float32) for view in views]
    try:
        rms_px, matrix, distortion, turns, shifts, deviations, _, _ = cv2.calibrateCameraExtended(
            points, pixels, (width, height), np.eye(3), np.zeros(COEFFICIENTS), flags=flags,
            criteria=(cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-12),
        )  # fmt: skip
        camera = np.asarray(matrix, float)
        lens = Lens(
            width, height, camera[[0, 1, 0, 1], [0, 1, 2, 2]], np.asarray(distortion, float).ravel()[:COEFFICIENTS]
        )
    except (cv2.error, SpecError) as error:
        raise _undetermined(str(error).splitlines()[0]) from None
    poses = np.tile(np.eye(4), (len(views), 1, 1))
    poses[:, :3, :3] = axis_angle_to_matrix(np.asarray(turns, float).reshape(-1, 3))
    poses[:, :3, 3] = np.asarray(shifts, float).reshape(-1, 3)
    return lens, float(rms_px), np.asarray(deviations, float).ravel()[: 4 + COEFFICIENTS], poses


def _residuals(lens: Lens, board: Board, view: View, camera_from_board: FloatArray) -> FloatArray:
    points = board.corners_m[view.corners.ids] @ camera_from_board[:3, :3].T + camera_from_board[:3, 3]
    return view.corners.pixels - lens.project(points)


def _covariance(
    lens: Lens,
    board: Board,
    views: Sequence[View],
    poses: FloatArray,
    residuals_px: Sequence[FloatArray],
    free: NDArray[np.bool_],
) -> FloatArray:
    """Covariance [9, 9] of the camera's numbers, of those that were free, with every view's pose left free as well.

    OpenCV gives the square roots of its diagonal only.
    """
    normal = np.zeros((free.size, free.size))
    for view, pose in zip(views, poses, strict=True):
        turned = board.corners_m[view.corners.ids] @ pose[:3, :3].T
        seen = turned + pose[:3, 3]
        by_point = lens.project_with_jacobian(seen)[1]
        by_pose = np.concatenate([-by_point @ skew(turned), by_point], axis=-1).reshape(-1, 6)
        by_lens = lens.by_parameters(seen).reshape(-1, free.size)
        # What a change of the pose could explain as well tells nothing about the lens.
        along = np.linalg.qr(by_pose)[0]
        across = by_lens - along @ (along.T @ by_lens)
        normal += across.T @ across
    count = sum(part.size for part in residuals_px)
    spread = sum(float((part**2).sum()) for part in residuals_px) / (count - 6 * len(views) - int(free.sum()))
    out = np.zeros_like(normal)
    part = normal[np.ix_(free, free)]
    size = np.sqrt(np.diag(part))
    scaled = part / size / size[:, None]
    if not np.linalg.cond(scaled) < _MOST_CONDITION:
        raise _undetermined("numbers of the camera that any change of the poses could replace")
    out[np.ix_(free, free)] = spread * np.linalg.inv(scaled) / size / size[:, None]
    return out


def _undetermined(got: str) -> DataError:
    return DataError(
        "calibrate_intrinsics", "views that determine a camera", got,
        "Take pictures with the board tilted by 20 to 45 degrees to different sides.",
    )  # fmt: skip


def _rms(residuals_px: FloatArray) -> float:
    return float(np.sqrt((residuals_px**2).sum(-1).mean()))


def _rms_alone(lens: Lens, board: Board, view: View) -> float:
    """The error of a view that was left out, at the pose that fits it best."""
    from sensors.calibration.pnp import board_poses

    return min(_rms(_residuals(lens, board, view, pose)) for pose in board_poses(lens, board, view))


def _tilt_span_deg(poses: FloatArray) -> float:
    normals = poses[:, :3, 2]
    return float(np.rad2deg(np.arccos(np.clip((normals @ normals.T).min(), -1, 1))))


def _warnings(
    lens: Lens, fits: Sequence[ViewFit], cells: FloatArray, tilt_span_deg: float, least_coverage: float
) -> list[str]:
    said = [f"view '{fit.name}' was left out: {fit.rms_px:.2f} px off" for fit in fits if not fit.used]
    if cells.mean() < least_coverage:
        rows, columns = cells.shape
        sides = {
            "left": cells[:, : columns // 4], "right": cells[:, -columns // 4 :],
            "upper": cells[: rows // 3], "lower": cells[-rows // 3 :],
        }  # fmt: skip
        poorest = [name for name, part in sides.items() if part.mean() < least_coverage]
        said.append(
            f"the corners cover {100 * cells.mean():.0f} % of the picture, less than {100 * least_coverage:.0f} %: "
            f"take pictures with the board at its {', '.join(poorest) or 'edges'}"
        )
    if tilt_span_deg < _LEAST_TILT_SPAN_DEG:
        said.append(
            f"the board's tilt varies by only {tilt_span_deg:.0f} degrees, so focal length and distance are hard to "
            "tell apart: tilt it by 20 to 45 degrees to all sides"
        )
    try:
        edge = np.array([[0.0, 0.0], [lens.width - 1, 0], [0, lens.height - 1], [lens.width - 1, lens.height - 1]])
        lens.rays(edge)
    except SpecError:
        said.append("the distortion does not hold in the picture's corners: take pictures with the board there")
    return said
