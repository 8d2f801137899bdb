"""How far one pose of an object is from the true one: the errors of the benchmarks, straight from their definitions.

Poses are ``camera_from_object`` [4, 4] in metres, OpenCV camera. These functions are for one pair of poses and any
points; :class:`perceive.metrics.pose_fast.PoseErrors` gives the same values for many pairs in a fraction of the time.

Example:
    >>> import numpy as np
    >>> from perceive.metrics.pose_errors import add, mssd
    >>> truth = np.eye(4)
    >>> estimate = np.eye(4)
    >>> estimate[:3, 3] = (0.003, 0.0, 0.004)
    >>> corners = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    >>> round(mssd(estimate, truth, corners), 6), round(add(estimate, truth, corners), 6)
    (0.005, 0.005)

Papers: T. Hodan, J. Matas, S. Obdrzalek, "On Evaluation of 6D Object Pose Estimation", ECCV workshops 2016; T. Hodan,
F. Michel et al., "BOP: Benchmark for 6D Object Pose Estimation", ECCV 2018; T. Hodan et al., "BOP Challenge 2020 on 6D
Object Localization", ECCV workshops 2020 (MSSD, MSPD); S. Hinterstoisser et al., "Model Based Training, Detection and
Pose Estimation of Texture-Less 3D Objects in Heavily Cluttered Scenes", ACCV 2012 (ADD, ADI); E. Brachmann et al.,
"Uncertainty-Driven 6D Pose Estimation of Objects and Scenes from a Single RGB Image", CVPR 2016 (projections).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from sensors.errors import SpecError
from sensors.geometry import FloatArray, transform_points


def mssd(estimate: ArrayLike, truth: ArrayLike, vertices_m: ArrayLike, symmetries: ArrayLike | None = None) -> float:
    """Maximum symmetry-aware surface distance, metres: over all symmetries the least of the greatest vertex distances.

    Args:
        estimate: [4, 4].
        truth: [4, 4]; symmetries are applied to it, from the right.
        vertices_m: [V, 3] in the object's frame.
        symmetries: [S, 4, 4] with the identity, as ``Symmetries.transforms()`` gives; None = the identity only.

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """
    found, true, vertices = checked_pose("estimate", estimate), checked_pose("truth", truth), checked_points(vertices_m)
    placed = transform_points(found, vertices)
    return min(
        float(np.linalg.norm(placed - transform_points(true @ one, vertices), axis=1).max())
        for one in checked_symmetries(symmetries)
    )


def mspd(
    estimate: ArrayLike,
    truth: ArrayLike,
    vertices_m: ArrayLike,
    intrinsics_px: ArrayLike,
    symmetries: ArrayLike | None = None,
) -> float:
    """Maximum symmetry-aware projection distance, pixels: as :func:`mssd`, between projections.

    A vertex in the plane of the camera has no projection: the distance is infinite then. A vertex behind the camera is
    projected through it, as the benchmark does.

    Args:
        estimate: [4, 4].
        truth: [4, 4].
        vertices_m: [V, 3].
        intrinsics_px: fx fy cx cy.
        symmetries: [S, 4, 4] or None.

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """
    found, true, vertices = checked_pose("estimate", estimate), checked_pose("truth", truth), checked_points(vertices_m)
    lens = checked_intrinsics(intrinsics_px)
    seen = _pixels(found, vertices, lens)
    greatest = [
        float(np.linalg.norm(seen - _pixels(true @ one, vertices, lens), axis=1).max())
        for one in checked_symmetries(symmetries)
    ]
    return min(value if value == value else float("inf") for value in greatest)  # NaN: a vertex without a projection


def add(estimate: ArrayLike, truth: ArrayLike, vertices_m: ArrayLike) -> float:
    """Average distance of the vertices [V, 3] between two poses, metres: for objects without symmetries.

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """
    found, true, vertices = checked_pose("estimate", estimate), checked_pose("truth", truth), checked_points(vertices_m)
    return float(np.linalg.norm(transform_points(found, vertices) - transform_points(true, vertices), axis=1).mean())


def adi(estimate: ArrayLike, truth: ArrayLike, vertices_m: ArrayLike) -> float:
    """Average distance from each vertex [V, 3] in the true pose to the nearest one in the estimated pose, metres.

    Also known as ADD-S.

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """
    found, true, vertices = checked_pose("estimate", estimate), checked_pose("truth", truth), checked_points(vertices_m)
    nearest, _ = cKDTree(transform_points(found, vertices)).query(transform_points(true, vertices))
    return float(nearest.mean())


def proj(estimate: ArrayLike, truth: ArrayLike, vertices_m: ArrayLike, intrinsics_px: ArrayLike) -> float:
    """Average distance of the projected vertices [V, 3], pixels; infinite if a vertex has no projection.

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """
    found, true, vertices = checked_pose("estimate", estimate), checked_pose("truth", truth), checked_points(vertices_m)
    lens = checked_intrinsics(intrinsics_px)
    mean = float(np.linalg.norm(_pixels(found, vertices, lens) - _pixels(true, vertices, lens), axis=1).mean())
    return mean if mean == mean else float("inf")


def rotation_error_rad(estimate: ArrayLike, truth: ArrayLike) -> float:
    """The angle between two rotations, 0 to pi; without meaning for objects with symmetries (use :func:`mssd`).

    Through ``atan2`` of sine and cosine, so that it is exact near 0 and near pi, where ``acos`` alone is not.

    Raises:
        SpecError: not two poses [4, 4] of finite numbers.
    """
    turn = checked_pose("estimate", estimate)[:3, :3] @ checked_pose("truth", truth)[:3, :3].T
    sine = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return float(np.arctan2(np.linalg.norm(sine), np.trace(turn) - 1.0))


def translation_error_m(estimate: ArrayLike, truth: ArrayLike) -> float:
    """The distance between the object's origins, metres (the BOP files state it in millimetres).

    Raises:
        SpecError: not two poses [4, 4] of finite numbers.
    """
    return float(np.linalg.norm(checked_pose("estimate", estimate)[:3, 3] - checked_pose("truth", truth)[:3, 3]))


def checked_pose(name: str, pose: ArrayLike) -> FloatArray:
    """One pose as float64 [4, 4].

    Raises:
        SpecError: another shape, numbers that are not finite, or a last row that is not 0 0 0 1.
    """
    out = np.asarray(pose, np.float64)
    if out.shape != (4, 4) or not np.isfinite(out).all() or not np.array_equal(out[3], (0.0, 0.0, 0.0, 1.0)):
        raise SpecError(
            f"pose '{name}'", "camera_from_object [4, 4], finite, last row 0 0 0 1", repr(pose), "Correct the pose."
        )
    return out


def checked_points(vertices_m: ArrayLike) -> FloatArray:
    """Vertices as float64 [V, 3].

    Raises:
        SpecError: another shape, none, or numbers that are not finite.
    """
    out = np.asarray(vertices_m, np.float64)
    if out.ndim != 2 or out.shape[1] != 3 or not len(out) or not np.isfinite(out).all():
        raise SpecError("vertices_m", "finite points [V, 3], V > 0", f"{out.shape}", "Give the model's vertices.")
    return out


def checked_intrinsics(intrinsics_px: ArrayLike) -> FloatArray:
    """Intrinsics as float64 [4].

    Raises:
        SpecError: another shape (a matrix K, for instance), or focal lengths that are not positive.
    """
    out = np.asarray(intrinsics_px, np.float64)
    if out.shape != (4,) or not np.isfinite(out).all() or (out[:2] <= 0.0).any():
        raise SpecError(
            "intrinsics_px",
            "fx fy cx cy with positive focal lengths",
            f"{out.shape}: {out.tolist()}",
            "From a matrix K pass (K[0, 0], K[1, 1], K[0, 2], K[1, 2]).",
        )
    return out


def checked_symmetries(symmetries: ArrayLike | None) -> FloatArray:
    """Symmetries as float64 [S, 4, 4]; None = the identity.

    Raises:
        SpecError: another shape, or none.
    """
    out = np.eye(4)[None] if symmetries is None else np.asarray(symmetries, np.float64)
    if out.ndim != 3 or out.shape[1:] != (4, 4) or not len(out):
        raise SpecError(
            "symmetries", "transforms [S, 4, 4] with the identity", f"{out.shape}", "Pass Symmetries.transforms()."
        )
    return out


def _pixels(pose: FloatArray, vertices: FloatArray, intrinsics: FloatArray) -> FloatArray:
    """Projections [V, 2]."""
    points = transform_points(pose, vertices)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(points[:, :2] / points[:, 2:] * intrinsics[:2] + intrinsics[2:])
