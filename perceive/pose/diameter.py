"""The greatest distance between two points of a set."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.distance import cdist

from sensors.errors import SpecError
from sensors.geometry import FloatArray

_FEW = 512  # below it all pairs are the fastest
_BLOCK = 2048
_MOST_PAIRS = 1 << 20  # pairs of points looked at one by one


def diameter(points_m: ArrayLike) -> float:
    """The greatest distance between two of the points [P, 3], metres; exact, also for flat and thin sets.

    Its ends are corners of the convex hull. Of the points p and q about a centre only those can lie farther apart than
    a length L for which q is within ``sqrt(2 (r_p^2 + r_q^2) - L^2)`` of the mirror image of p in the centre, since
    ``|p - q|^2 + |p + q|^2 = 2 (r_p^2 + r_q^2)``. L and the centre are taken from a good pair.

    Raises:
        SpecError: the points are not [P, 3], not finite, or there are none.
    """
    points: FloatArray = np.asarray(points_m, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise SpecError(
            "diameter", "finite points [P, 3], P > 0", f"{points.shape}", "Give the vertices of a mesh, without NaN."
        )
    if len(points) <= _FEW:
        return float(cdist(points, points).max())
    longest, centre = _sweep(points)
    points = _beyond(points - centre, longest)
    if len(points) > _FEW:
        with contextlib.suppress(QhullError):  # flat or thin: all points it is
            points = _beyond(points[ConvexHull(points).vertices], longest)
    if len(points) > _FEW:
        reach = np.sqrt(np.maximum(_slack(points, longest), 0.0))
        tree = cKDTree(points)
        near = tree.query_ball_point(-points, reach, return_length=True)
        if int(near.sum()) <= min(_MOST_PAIRS, len(points) ** 2 // 16):
            other = np.concatenate(tree.query_ball_point(-points, reach)).astype(np.intp)
            far = points[np.repeat(np.arange(len(points)), near)] - points[other]
            return max(longest, float(np.sqrt(np.einsum("pi,pi->p", far, far).max(initial=0.0))))
    for start in range(0, len(points), _BLOCK):
        longest = max(longest, float(cdist(points[start : start + _BLOCK], points[start:]).max()))
    return longest


def _slack(points: FloatArray, longest: float) -> FloatArray:
    """How far, squared, a partner may be from each point's mirror image."""
    square = np.einsum("pi,pi->p", points, points)
    return np.asarray(2.0 * (square + square.max()) - longest**2 * (1.0 - 1e-12))


def _beyond(points: FloatArray, longest: float) -> FloatArray:
    """Those that may be the end of a longer pair: with the point farthest from the centre they reach that far."""
    radius = np.linalg.norm(points, axis=1)
    return np.asarray(points[radius + radius.max() > longest * (1.0 - 1e-12)])


def _sweep(points: FloatArray) -> tuple[float, FloatArray]:
    """A lower bound and the middle of that pair: from a point to the farthest, and on, until it grows no more."""
    longest, middle = 0.0, points[0]
    here = points[np.argmax(np.linalg.norm(points - points.mean(0), axis=1))]
    while True:
        far = np.linalg.norm(points - here, axis=1)
        best = int(np.argmax(far))
        if far[best] <= longest:
            return longest, middle
        longest, middle, here = float(far[best]), (here + points[best]) / 2.0, points[best]
