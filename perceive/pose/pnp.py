"""solve_pnp: the pose of an object from points of it and the pixels that show them, some of them wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from perceive.pose.covariance import about_origin, pose_covariance
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, project, transform_points

LEAST_POINTS = 4
_LINE = 1e-6  # spread across a set of points over that along it, below which it is a line
_FLAT = 1e-3  # third spread over the first, below which the points are treated as a plane as well
_FREE = 1e-10  # far away objects say little about their depth, but something
_FEW = 12
_ROUNDS = 5  # of fitting to the inliers and looking for inliers again


@final
@dataclass(frozen=True, eq=False)
class PnpResult:
    """What the matches agree on.

    Attributes:
        camera_from_object: float64 [4, 4]; the identity if nothing was found.
        inliers: bool [P]; none = nothing was found.
        covariance: float64 [6, 6], as :class:`~perceive.pose.estimate.PoseEstimate` defines it.
        rmse_px: of the inliers.
    """

    camera_from_object: FloatArray
    inliers: NDArray[np.bool_]
    covariance: FloatArray
    rmse_px: float

    @property
    def found(self) -> bool:
        """Whether there is a pose."""
        return bool(self.inliers.any())


def solve_pnp(
    points_object_m: ArrayLike,
    pixels: ArrayLike,
    intrinsics_px: ArrayLike,
    *,
    reach_px: float = 3.0,
    iterations: int = 1000,
    seed: int = 0,
) -> PnpResult:
    """Perspective-n-point with wrong matches among the right ones.

    RANSAC (Fischler and Bolles, CACM 1981) over AP3P (Ke and Roumeliotis, CVPR 2017), then SQPnP (Terzakis and
    Lourakis, ECCV 2020), and for flat sets both solutions of IPPE (Collins and Bartoli, IJCV 2014), on the inliers,
    each polished by Levenberg-Marquardt on the pixels; the best fit wins. All of them are OpenCV's.

    Args:
        points_object_m: [P, 3]. Matches with a coordinate that is not finite are left out.
        pixels: [P, 2], u and v; integer pixels are pixel centres.
        intrinsics_px: fx fy cx cy. There is no lens distortion.
        reach_px: an inlier is off by at most this.
        iterations: of RANSAC, at most.
        seed: of the samples.

    Raises:
        DataError: fewer than 4 finite matches, or points on one line, which no picture can fix.
        SpecError: shapes that do not fit, intrinsics that are not fx fy cx cy, or a number out of its range.
    """
    point, pixel = np.asarray(points_object_m, np.float64), np.asarray(pixels, np.float64)
    camera = np.asarray(intrinsics_px, np.float64)
    _check(point, pixel, camera, reach_px, iterations)
    there = np.isfinite(point).all(1) & np.isfinite(pixel).all(1)
    number = np.flatnonzero(there)
    if len(number) < LEAST_POINTS:
        raise DataError(
            "solve_pnp", f"{LEAST_POINTS} finite matches at least", f"{len(number)} of {len(point)}", "Find more."
        )
    if _spread(point[number])[1] < _LINE:
        raise DataError("solve_pnp", "points that are not on one line", "a line", "Choose other points of the object.")
    number = np.random.default_rng(seed).permutation(number)
    # Around their middle, so that objects far from their own origin cost no digits.
    middle = point[number].mean(0)
    local = point - middle
    # Samples of few points often fail where all points together do not.
    everyone = np.ones(len(number), np.bool_)
    best = _fit(local[number], pixel[number], camera, everyone, reach_px) if len(number) <= _FEW else None
    if best is None or not best[1].all():
        inliers = _consensus(local[number], pixel[number], camera, reach_px, iterations)
        sampled = _fit(local[number], pixel[number], camera, inliers, reach_px)
        if best is None or (sampled is not None and sampled[1].sum() > best[1].sum()):
            best = sampled
    if best is None:
        nothing = np.zeros(len(point), np.bool_)
        return PnpResult(np.eye(4), nothing, np.diag([math.pi**2] * 3 + [math.inf] * 3), math.nan)
    pose, inliers = best
    chosen = np.zeros(len(point), np.bool_)
    chosen[number[inliers]] = True
    covariance, rmse = _judge(pose, local[chosen], pixel[chosen], camera)
    found = pose.copy()
    found[:3, 3] -= pose[:3, :3] @ middle
    moved = about_origin(torch.from_numpy(covariance)[None], torch.from_numpy(middle))[0].numpy()
    return PnpResult(found, chosen, moved, rmse)


def _consensus(
    point: FloatArray, pixel: FloatArray, camera: FloatArray, reach_px: float, iterations: int
) -> NDArray[np.bool_]:
    """Who agrees with the best sample; everyone where there are too few to tell."""
    import cv2

    everyone = np.ones(len(point), np.bool_)
    if len(point) == LEAST_POINTS:
        return everyone
    ok, turn, shift, _ = cv2.solvePnPRansac(
        point, pixel, _matrix(camera), None, iterationsCount=iterations, reprojectionError=reach_px,
        confidence=0.9999, flags=cv2.SOLVEPNP_AP3P,
    )  # fmt: skip
    return _within(_pose(turn, shift), point, pixel, camera, reach_px) if ok else ~everyone


def _fit(
    point: FloatArray, pixel: FloatArray, camera: FloatArray, inliers: NDArray[np.bool_], reach_px: float
) -> tuple[FloatArray, NDArray[np.bool_]] | None:
    """The pose and its inliers when fitting and choosing have come to agree; None = there is none."""
    best: tuple[FloatArray, NDArray[np.bool_]] | None = None
    for _ in range(_ROUNDS):
        if inliers.sum() < LEAST_POINTS or _spread(point[inliers])[1] < _LINE:
            break
        candidates = list(_candidates(point[inliers], pixel[inliers], camera))
        if not candidates:
            break
        pose = min(candidates, key=lambda one: _squares(one, point[inliers], pixel[inliers], camera))
        again = _within(pose, point, pixel, camera, reach_px)
        if best is not None and again.sum() < best[1].sum():
            break
        same = np.array_equal(again, inliers)
        if again.sum() >= LEAST_POINTS:
            best = pose, again
        if same:
            break
        inliers = again
    return best


def _candidates(point: FloatArray, pixel: FloatArray, camera: FloatArray) -> Iterable[FloatArray]:
    """Polished poses with all points in front of the camera."""
    import cv2

    matrix = _matrix(camera)
    solvers = [cv2.SOLVEPNP_SQPNP]
    if _spread(point)[2] < _FLAT:
        solvers.append(cv2.SOLVEPNP_IPPE)
    if len(point) > LEAST_POINTS:
        solvers.append(cv2.SOLVEPNP_EPNP)
    else:
        solvers.append(cv2.SOLVEPNP_AP3P)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-14)
    for solver in solvers:
        try:
            _, turns, shifts, _ = cv2.solvePnPGeneric(point, pixel, matrix, None, flags=solver)
        except cv2.error:  # a solver gives up on a degenerate set; the others may not
            continue
        for turn, shift in zip(turns, shifts, strict=True):
            if not (np.isfinite(turn).all() and np.isfinite(shift).all()):
                continue
            turn, shift = cv2.solvePnPRefineLM(point, pixel, matrix, None, turn.copy(), shift.copy(), stop)
            pose = _pose(turn, shift)
            if np.isfinite(pose).all() and (transform_points(pose, point)[:, 2] > 0).all():
                yield pose


def _judge(pose: FloatArray, point: FloatArray, pixel: FloatArray, camera: FloatArray) -> tuple[FloatArray, float]:
    """Covariance [6, 6] of the motion about the points' middle, and the root mean square of the pixels."""
    fx, fy = camera[:2]
    x, y, z = transform_points(pose, point).T
    residual = _residuals(pose, point, pixel, camera)
    nothing = np.zeros_like(z)
    # Pixels by camera coordinates, those by coordinates in the object's axes, those by a motion (turn, shift) there.
    by_camera = np.stack(
        [np.stack([fx / z, nothing, -fx * x / z**2], -1), np.stack([nothing, fy / z, -fy * y / z**2], -1)], 1
    )
    by_object = by_camera @ pose[:3, :3]
    size = float(np.sqrt((point**2).sum(1).mean()))
    by_turn = -np.cross(by_object, point[:, None]) / size
    rows = np.concatenate([by_turn, by_object], -1).reshape(-1, 6)
    # In units of the object's size seen at its distance, in which what is observed and what is not can be told apart.
    unit = float(np.sqrt((rows[:, 3:] ** 2).sum(1).mean() / 3))
    scaled, off = torch.from_numpy(rows / unit)[None], torch.from_numpy(residual.reshape(-1) / unit)[None]
    covariance = pose_covariance(scaled, off, torch.ones_like(off), size, None, free=_FREE)[0]
    return covariance.numpy(), float(np.sqrt((residual**2).sum(1).mean()))


def _residuals(pose: FloatArray, point: FloatArray, pixel: FloatArray, camera: FloatArray) -> FloatArray:
    return np.asarray(project(transform_points(pose, point), camera)[0] - pixel)


def _squares(pose: FloatArray, point: FloatArray, pixel: FloatArray, camera: FloatArray) -> float:
    return float((_residuals(pose, point, pixel, camera) ** 2).sum())


def _within(
    pose: FloatArray, point: FloatArray, pixel: FloatArray, camera: FloatArray, reach_px: float
) -> NDArray[np.bool_]:
    off = np.linalg.norm(_residuals(pose, point, pixel, camera), axis=1)
    return np.asarray(np.nan_to_num(off, nan=math.inf) <= reach_px)


def _pose(turn: ArrayLike, shift: ArrayLike) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3] = axis_angle_to_matrix(np.asarray(turn, np.float64).reshape(3))
    pose[:3, 3] = np.asarray(shift, np.float64).reshape(3)
    return pose


def _matrix(camera: FloatArray) -> FloatArray:
    fx, fy, cx, cy = camera
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _spread(point: FloatArray) -> tuple[float, float, float]:
    """Singular values of the centred points over the largest."""
    value = np.linalg.svd(point - point.mean(0), compute_uv=False)
    first, second, third = (*(float(v) for v in value), 0.0, 0.0)[:3]
    return (1.0, second / first, third / first) if first > 0 else (0.0, 0.0, 0.0)


def _check(point: FloatArray, pixel: FloatArray, camera: FloatArray, reach_px: float, iterations: int) -> None:
    if point.ndim != 2 or point.shape[1] != 3 or pixel.shape != (len(point), 2):
        raise SpecError(
            "solve_pnp", "points [P, 3] and pixels [P, 2]", f"{point.shape} and {pixel.shape}", "Correct it."
        )
    if camera.shape != (4,) or not np.isfinite(camera).all() or (camera[:2] <= 0).any():
        raise SpecError(
            "solve_pnp", "intrinsics fx fy cx cy", f"{camera!r}", "Pass four numbers, not the 3 x 3 matrix K."
        )
    if not reach_px > 0 or iterations < 1:
        raise SpecError("solve_pnp", "reach_px > 0, iterations >= 1", f"{reach_px}, {iterations}", "Correct it.")
