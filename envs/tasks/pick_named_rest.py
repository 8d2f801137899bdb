"""How an object comes to lie on a table: on which side, and how high it is then."""

from __future__ import annotations

import math
from typing import final

import numpy as np
from scipy.spatial import ConvexHull

from envs.pose_scenes.shape import ObjectShape
from sensors.geometry import FloatArray

_ROLLS = 10_000  # over edges, at most; each one lowers the middle
_OUT_M = 1e-9  # a middle this far beyond an edge makes the object roll over it


@final
class Resting:
    """Rolls one object onto a side on which it rests.

    It stands on a face of its convex hull if its middle is above that face; otherwise it rolls over the edge beyond
    which its middle is. Set down in a random turn it ends on each side as often as an object that falls slowly does.

    Args:
        shape: the object.
    """

    def __init__(self, shape: ObjectShape) -> None:
        hull = ConvexHull(shape.vertices_m)
        self._corners = shape.vertices_m[hull.simplices]
        self._normals, self._neighbours = hull.equations[:, :3], hull.neighbors
        self._middle = shape.middle_m
        self._points = shape.vertices_m[hull.vertices]

    def draw(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """A random resting turn.

        Returns:
            rotation: ``base_from_object`` [3, 3].
            middle_m: [3] of the object's middle from the point below it on the table: x and y are 0.
        """
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        yaw = float(rng.uniform(-math.pi, math.pi))
        normal = self._normals[self._rolled(self._struck(direction))]
        # The face's outward normal goes to -z.
        x = np.cross(normal, np.eye(3)[int(np.argmin(np.abs(normal)))])
        x /= np.linalg.norm(x)
        level = np.stack([x, np.cross(-normal, x), -normal])
        c, s = math.cos(yaw), math.sin(yaw)
        rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ level
        height = -float(((self._points - self._middle) @ rotation[2]).min())
        return rotation, np.array([0.0, 0.0, height])

    def radius_m(self) -> float:
        """Of the ball around its middle."""
        return float(np.linalg.norm(self._points - self._middle, axis=1).max())

    def _struck(self, direction: FloatArray) -> int:
        """The face that a ray from the middle leaves the hull through."""
        along = self._normals @ direction
        gap = ((self._corners[:, 0] - self._middle) * self._normals).sum(1)
        return int(np.argmin(np.where(along > 1e-12, gap / np.maximum(along, 1e-12), np.inf)))

    def _rolled(self, face: int) -> int:
        """The face on which it comes to rest from this one."""
        for _ in range(_ROLLS):
            corner, normal = self._corners[face], self._normals[face]
            out = np.empty(3)
            for k in range(3):  # the neighbour with number k is across the edge without corner k
                first, second = corner[(k + 1) % 3], corner[(k + 2) % 3]
                side = np.cross(second - first, normal)
                side *= np.sign(side @ (first - corner[k])) / np.linalg.norm(side)
                out[k] = side @ (self._middle - first)
            over = int(np.argmax(out))
            if out[over] <= _OUT_M:
                break
            face = int(self._neighbours[face, over])
        return face
