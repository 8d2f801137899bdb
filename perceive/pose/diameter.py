"""The greatest distance between two points of a set."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist

from sensors.geometry import FloatArray

_BLOCK = 2048


def diameter(points_m: FloatArray) -> float:
    """The greatest distance between two of the points [P, 3]: exact, since its ends are corners of the convex hull."""
    corners = np.asarray(points_m, np.float64)
    if len(corners) > 16:
        try:
            corners = corners[ConvexHull(corners).vertices]
        except QhullError:  # flat or thin: all points it is
            corners = np.unique(corners, axis=0)
    longest = 0.0
    for start in range(0, len(corners), _BLOCK):
        longest = max(longest, float(cdist(corners[start : start + _BLOCK], corners[start:]).max()))
    return longest
