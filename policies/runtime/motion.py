"""Bounded motion in plain floats: a point in a box, a step of limited length, a turn of limited angle.

Plain floats, since numpy's overhead on vectors of three is larger than the work, and this runs in front of a robot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_axis_angle

Vector = tuple[float, float, float]
Columns = tuple[float, float, float, float, float, float]  # first two columns of a rotation matrix


def clipped(values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[float]:
    """The nearest point of a box."""
    return [min(max(v, lowest), highest) for v, lowest, highest in zip(values, low, high, strict=True)]


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Euclidean distance."""
    return math.dist(first, second)


def towards(start: Sequence[float], end: Sequence[float], most: float) -> list[float]:
    """``end``, or the point on the way to it that is ``most`` away from ``start``."""
    length = math.dist(start, end)
    if length <= most:
        return list(end)
    share = most / length
    return [s + (e - s) * share for s, e in zip(start, end, strict=True)]


def orthonormal(columns: Sequence[float]) -> Columns | None:
    """Two columns made orthonormal by Gram-Schmidt (Zhou et al., CVPR 2019); None if they define no rotation."""
    a, b, c, d, e, f = columns
    first = math.sqrt(a * a + b * b + c * c)
    if not 1e-6 < first < math.inf:
        return None
    a, b, c = a / first, b / first, c / first
    along = a * d + b * e + c * f
    d, e, f = d - along * a, e - along * b, f - along * c
    second = math.sqrt(d * d + e * e + f * f)
    if not 1e-6 < second < math.inf:
        return None
    return a, b, c, d / second, e / second, f / second


def turn_angle(first: Columns, second: Columns) -> float:
    """Angle in radians, in [0, pi], between two rotations."""
    x, y, z, cosine = _relative(first, second)
    return math.atan2(math.sqrt(x * x + y * y + z * z), cosine)


def turned_towards(first: Columns, second: Columns, most_rad: float) -> Columns:
    """``second``, or the rotation on the shortest way to it that is ``most_rad`` away from ``first``."""
    x, y, z, cosine = _relative(first, second)
    sine = math.sqrt(x * x + y * y + z * z)
    if math.atan2(sine, cosine) <= most_rad:
        return second
    if sine < 1e-3:
        # Near half a turn the skew part vanishes and with it the axis; the slow way through quaternions is exact.
        start = _matrix(first)
        vector = matrix_to_axis_angle(_matrix(second) @ start.T)
        out = axis_angle_to_matrix(vector * (most_rad / float(np.linalg.norm(vector)))) @ start
        return _columns(out)
    x, y, z = x / sine, y / sine, z / sine
    s, c = math.sin(most_rad), math.cos(most_rad)
    column_x = _rotated(first[:3], x, y, z, s, c)
    column_y = _rotated(first[3:], x, y, z, s, c)
    return (*column_x, *column_y)


def _rotated(v: tuple[float, ...], x: float, y: float, z: float, s: float, c: float) -> Vector:
    """Rodrigues' formula about the unit axis (x, y, z)."""
    a, b, d = v
    along = (x * a + y * b + z * d) * (1 - c)
    return (
        a * c + (y * d - z * b) * s + x * along,
        b * c + (z * a - x * d) * s + y * along,
        d * c + (x * b - y * a) * s + z * along,
    )


def _relative(first: Columns, second: Columns) -> tuple[float, float, float, float]:
    """Axis times sine, and cosine, of the rotation in the base frame that takes ``first`` to ``second``."""
    a, b, c, d, e, f = first
    g, h, i = b * f - c * e, c * d - a * f, a * e - b * d
    p, q, r, s, t, u = second
    v, w, x = q * u - r * t, r * s - p * u, p * t - q * s
    # The sum over the three columns of (first column) x (second column) is twice axis times sine; of the scalar
    # products, the trace.
    sine_x = (b * r - c * q) + (e * u - f * t) + (h * x - i * w)
    sine_y = (c * p - a * r) + (f * s - d * u) + (i * v - g * x)
    sine_z = (a * q - b * p) + (d * t - e * s) + (g * w - h * v)
    trace = (a * p + b * q + c * r) + (d * s + e * t + f * u) + (g * v + h * w + i * x)
    return sine_x / 2, sine_y / 2, sine_z / 2, (trace - 1) / 2


def _columns(rotation: FloatArray) -> Columns:
    (a, d, _), (b, e, _), (c, f, _) = rotation.tolist()
    return a, b, c, d, e, f


def _matrix(columns: Columns) -> FloatArray:
    a, b, c, d, e, f = columns
    return np.array([[a, d, b * f - c * e], [b, e, c * d - a * f], [c, f, a * e - b * d]])
