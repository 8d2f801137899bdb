"""Groups of turns: what regular bodies may be turned by without anybody seeing it."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np

from sensors.geometry import FloatArray, axis_angle_to_matrix


def turn(axis: tuple[float, float, float], angle_rad: float) -> FloatArray:
    """A turn [4, 4] about an axis through the origin."""
    out = np.eye(4)
    direction = np.asarray(axis, float)
    out[:3, :3] = axis_angle_to_matrix(direction / np.linalg.norm(direction) * angle_rad)
    return out


def cyclic(fold: int) -> FloatArray:
    """Turns [fold - 1, 4, 4] about z by parts of a whole turn; without the identity."""
    return np.stack([turn((0.0, 0.0, 1.0), 2 * math.pi * k / fold) for k in range(1, fold)])


def dihedral(fold: int) -> FloatArray:
    """Those of :func:`cyclic` and half turns about x and the axes that follow from it; [2 fold - 1, 4, 4]."""
    about = [turn((0.0, 0.0, 1.0), 2 * math.pi * k / fold) for k in range(fold)]
    return np.stack([*about[1:], *(each @ turn((1.0, 0.0, 0.0), math.pi) for each in about)])


def octahedral() -> FloatArray:
    """The turns of a cube but the identity [23, 4, 4]: signed permutations of the axes with determinant 1."""
    out = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        each = np.eye(4)
        each[:3, :3] = np.eye(3)[list(order)] * np.asarray(signs)[:, None]
        if np.linalg.det(each[:3, :3]) > 0 and not np.array_equal(each, np.eye(4)):
            out.append(each)
    return np.stack(out)


def about(centre_m: FloatArray, turns: FloatArray) -> FloatArray:
    """The same turns [S, 4, 4] about axes through another point: ``c - R c`` is added."""
    out = np.array(turns)
    out[:, :3, 3] += centre_m - turns[:, :3, :3] @ centre_m
    return out
