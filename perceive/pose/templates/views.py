"""From where the templates of an object are looked at."""

from __future__ import annotations

import numpy as np

from sensors.errors import SpecError
from sensors.geometry import FloatArray

_GOLDEN_RAD = np.pi * (3.0 - np.sqrt(5.0))


def view_rotations(count: int) -> FloatArray:
    """Rotations [count, 3, 3] ``camera_from_object`` of cameras spread evenly over a sphere (Fibonacci lattice).

    The camera looks at the object's middle; how it is turned about its line of sight is chosen, the same way for the
    same direction.

    Raises:
        SpecError: no view.
    """
    if count < 1:
        raise SpecError("view_rotations.count", "at least 1", str(count), "Ask for e.g. 162.")
    index = np.arange(count)
    height = 1.0 - (2.0 * index + 1.0) / count
    ring = np.sqrt(1.0 - height**2)
    place = np.stack([ring * np.cos(index * _GOLDEN_RAD), ring * np.sin(index * _GOLDEN_RAD), height], -1)
    sight = -place  # the camera's z, in the object's frame
    up = np.where(np.abs(sight[:, 2:]) < 0.99, np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))
    right = np.cross(sight, up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(sight, right), sight], 1)


def turn_rotations(count: int) -> FloatArray:
    """Rotations [count, 3, 3] about the line of sight in equal steps, the identity first.

    Raises:
        SpecError: no turn.
    """
    if count < 1:
        raise SpecError("turn_rotations.count", "at least 1", str(count), "Ask for e.g. 24.")
    angle = 2.0 * np.pi * np.arange(count) / count
    out = np.zeros((count, 3, 3))
    out[:, 0, 0], out[:, 0, 1] = np.cos(angle), -np.sin(angle)
    out[:, 1, 0], out[:, 1, 1] = np.sin(angle), np.cos(angle)
    out[:, 2, 2] = 1.0
    return out
