"""ObjectModel: the mesh of an object with what pose estimation asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.pose.diameter import diameter
from perceive.pose.symmetry import Symmetries
from sensors.errors import DataError
from sensors.geometry import FloatArray

GREY = 180  # colour of a mesh without colours


@final
@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points on a mesh.

    Attributes:
        xyz_m: float64 [P, 3] in the object's frame.
        normal: float64 [P, 3], unit, outwards by the mesh's winding.
        rgb: uint8 [P, 3].
    """

    xyz_m: FloatArray
    normal: FloatArray
    rgb: NDArray[np.uint8]


@final
@dataclass(frozen=True, eq=False)
class ObjectModel:
    """A known object. Lengths are metres, in the object's own frame.

    Attributes:
        number: its number in a dataset (BOP's ``obj_id``).
        name: what it is called.
        vertices_m: float64 [V, 3].
        faces: int64 [F, 3], counter-clockwise from outside.
        rgb: uint8 [V, 3], colours of the vertices.
        diameter_m: the greatest distance between two vertices.
        symmetries: motions that nobody can see.
    """

    number: int
    name: str
    vertices_m: FloatArray
    faces: NDArray[np.int64]
    rgb: NDArray[np.uint8]
    diameter_m: float
    symmetries: Symmetries

    @staticmethod
    def make(
        number: int,
        name: str,
        vertices_m: ArrayLike,
        faces: ArrayLike,
        rgb: ArrayLike | None = None,
        symmetries: Symmetries | None = None,
        diameter_m: float | None = None,
    ) -> ObjectModel:
        """A checked model.

        Args:
            number: as the attribute.
            name: as the attribute.
            vertices_m: [V, 3].
            faces: [F, 3].
            rgb: [V, 3] or one colour [3]; None = grey.
            symmetries: None = it has none.
            diameter_m: None computes it.

        Raises:
            DataError: no triangle, a place that is not finite, a face that names a vertex which is not there.
        """
        where = f"model {number} ({name})"
        vertices, triangles = np.asarray(vertices_m, np.float64), np.asarray(faces, np.int64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
            raise DataError(
                where,
                "vertices [V, 3] and faces [F, 3]",
                f"{vertices.shape}, {triangles.shape}",
                "Load a triangle mesh.",
            )
        if not len(triangles):
            raise DataError(where, "a triangle mesh", "no triangles", "Export the mesh with its faces.")
        if not np.isfinite(vertices).all():
            raise DataError(where, "finite vertices", "NaN or infinite ones", "Repair the mesh.")
        if triangles.min() < 0 or triangles.max() >= len(vertices):
            raise DataError(
                where,
                f"faces of vertices 0 to {len(vertices) - 1}",
                f"{triangles.min()} to {triangles.max()}",
                "Repair the mesh.",
            )
        colour = np.full(3, GREY, np.uint8) if rgb is None else np.asarray(rgb, np.uint8)
        return ObjectModel(
            number,
            name,
            vertices,
            triangles,
            np.ascontiguousarray(np.broadcast_to(colour, vertices.shape)),
            diameter(vertices) if diameter_m is None else float(diameter_m),
            Symmetries.none() if symmetries is None else symmetries,
        )

    @cached_property
    def face_normals(self) -> FloatArray:
        """float64 [F, 3], unit; zero for a triangle without area."""
        length = np.linalg.norm(self._crosses, axis=1, keepdims=True)
        return np.asarray(self._crosses / np.maximum(length, 1e-300))

    @cached_property
    def low_m(self) -> FloatArray:
        """float64 [3], the lower corner of the bounding box."""
        return np.asarray(self.vertices_m.min(0))

    @cached_property
    def high_m(self) -> FloatArray:
        """float64 [3], the upper corner of the bounding box."""
        return np.asarray(self.vertices_m.max(0))

    @cached_property
    def watertight(self) -> bool:
        """Whether every edge belongs to two triangles, once in each direction (vertices at one place are one)."""
        _, place = np.unique(self.vertices_m, axis=0, return_inverse=True)
        corner = place.reshape(-1)[self.faces]
        edges = np.concatenate([corner[:, [0, 1]], corner[:, [1, 2]], corner[:, [2, 0]]])
        edges = edges[edges[:, 0] != edges[:, 1]]
        there, back = (np.unique(e, axis=0, return_counts=True) for e in (edges, edges[:, ::-1]))
        return bool(np.array_equal(there[0], back[0]) and (there[1] == 1).all())

    def surface(self, count: int, seed: int = 0) -> SurfacePoints:
        """``count`` points drawn evenly over the surface (by area), the same ones for the same seed."""
        rng = np.random.default_rng(seed)
        area = np.linalg.norm(self._crosses, axis=1)
        face = rng.choice(len(self.faces), count, p=area / area.sum())
        first, second = np.sqrt(rng.random(count)), rng.random(count)
        weight = np.stack([1 - first, first * (1 - second), first * second], -1)
        corner = self.faces[face]
        colour = (weight[..., None] * self.rgb[corner]).sum(1)
        return SurfacePoints(
            (weight[..., None] * self.vertices_m[corner]).sum(1),
            self.face_normals[face],
            np.rint(colour).astype(np.uint8),
        )

    @cached_property
    def _crosses(self) -> FloatArray:
        a, b, c = (self.vertices_m[self.faces[:, k]] for k in range(3))
        return np.asarray(np.cross(b - a, c - a))
