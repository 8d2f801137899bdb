"""ObjectShape: an object of a scene as plain data: its mesh, its colours, what it may be turned by, how it touches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray

Rgb = tuple[int, int, int]
IntArray = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class ObjectShape:
    """One object, in a frame of its own, metres.

    Attributes:
        name: what it is called.
        vertices_m: float64 [V, 3]; a vertex between two colours stands there once for each of them.
        faces: int64 [F, 3], counter-clockwise from outside; closed surfaces, several where parts reach into each other.
        rgb: uint8 [V, 3]; the three corners of a face have one colour.
        discrete: float64 [S, 4, 4], object-from-object transforms that nobody can see, without the identity.
        axes: float64 [A, 3], unit: about these it may be turned by any angle.
        offsets_m: float64 [A, 3], a point on each of them.
        hulls: convex parts by their corners [H, 3], which together fill the object; with these it touches others.
    """

    name: str
    vertices_m: FloatArray
    faces: IntArray
    rgb: NDArray[np.uint8]
    discrete: FloatArray
    axes: FloatArray
    offsets_m: FloatArray
    hulls: tuple[FloatArray, ...]

    @cached_property
    def volume_m3(self) -> float:
        """By the divergence theorem."""
        return float(self._sixths.sum())

    @cached_property
    def middle_m(self) -> FloatArray:
        """The centre of mass [3] of an even filling."""
        corners = self.vertices_m[self.faces]
        return np.asarray((self._sixths[:, None] * corners.sum(1) / 4.0).sum(0) / self.volume_m3)

    @cached_property
    def _sixths(self) -> FloatArray:
        a, b, c = (self.vertices_m[self.faces[:, k]] for k in range(3))
        return np.asarray((a * np.cross(b, c)).sum(1) / 6.0)


@final
@dataclass(frozen=True, eq=False)
class Solid:
    """A closed mesh with a colour for each face, and the convex parts that fill it; what objects are put together from.

    Attributes:
        vertices_m: float64 [V, 3].
        faces: int64 [F, 3].
        paint: uint8 [F, 3].
        hulls: as in :class:`ObjectShape`.
    """

    vertices_m: FloatArray
    faces: IntArray
    paint: NDArray[np.uint8]
    hulls: tuple[FloatArray, ...]

    def moved(self, a_from_b: FloatArray) -> Solid:
        """The same elsewhere; a rigid transform [4, 4]."""
        turn, shift = a_from_b[:3, :3], a_from_b[:3, 3]
        return Solid(
            self.vertices_m @ turn.T + shift,
            self.faces,
            self.paint,
            tuple(hull @ turn.T + shift for hull in self.hulls),
        )

    def painted(self, of_face: NDArray[np.uint8]) -> Solid:
        """The same with other colours [F, 3]."""
        return Solid(self.vertices_m, self.faces, of_face, self.hulls)


def shape_of(
    name: str,
    solids: tuple[Solid, ...],
    discrete: FloatArray | None = None,
    axis: FloatArray | None = None,
    offset_m: FloatArray | None = None,
) -> ObjectShape:
    """An object out of solids; vertices are split where colours meet.

    Args:
        name: of the object.
        solids: where they are in the object's frame; of parts that touch, one reaches into the other.
        discrete: [S, 4, 4] without the identity; None = none.
        axis: [3] of revolution; None = none.
        offset_m: [3] on it; None = the origin.
    """
    vertices, faces, colours, count = [], [], [], 0
    for solid in solids:
        for rgb in np.unique(solid.paint, axis=0):
            mine = solid.faces[(solid.paint == rgb).all(1)]
            used, renumbered = np.unique(mine, return_inverse=True)
            vertices.append(solid.vertices_m[used])
            faces.append(renumbered.reshape(-1, 3) + count)
            colours.append(np.tile(rgb, (len(used), 1)))
            count += len(used)
    axes = np.zeros((0, 3)) if axis is None else np.asarray(axis, float)[None]
    offset = np.zeros(3) if offset_m is None else np.asarray(offset_m, float)
    return ObjectShape(
        name=name,
        vertices_m=np.concatenate(vertices),
        faces=np.concatenate(faces).astype(np.int64),
        rgb=np.concatenate(colours).astype(np.uint8),
        discrete=np.zeros((0, 4, 4)) if discrete is None else discrete,
        axes=axes,
        offsets_m=np.tile(offset, (len(axes), 1)),
        hulls=tuple(hull for solid in solids for hull in solid.hulls),
    )
