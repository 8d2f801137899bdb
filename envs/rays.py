"""Rays against the solids of a scene, by closed forms and for all rays at once.

A physics engine casts rays one by one, tests them against bodies that a mask then throws away, and rounds edges by its
collision margin. Scenes here consist of a few convex solids, for which the exact answer costs less.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray

CHUNK = 64  # rays at a time against the faces of a polyhedron, so that the table of rays and faces stays in the cache
TINY = 1e-300  # instead of a division by zero: the quotient is beyond every ray
SLACK_M = 1e-6  # bounding spheres are this much larger, far above rounding

Meeting = tuple[FloatArray, FloatArray]


class Solid(ABC):
    """A convex body in a frame of its own.

    Attributes:
        middle_m: middle [3] of its bounding sphere.
        radius_m: radius of that sphere.
    """

    middle_m: FloatArray
    radius_m: float

    @abstractmethod
    def meet(self, start_m: FloatArray, along_m: FloatArray) -> Meeting:
        """Where rays come in from outside.

        Args:
            start_m: float [3, N], columns are points.
            along_m: float [3, N], from start to end.

        Returns:
            The share [N] of ``along_m`` up to the surface, outside [0, 1] = they do not meet, as for a ray that starts
            inside; and the length [N] of ``along_m`` across the surface, metres (meaningless without a meeting).
        """


@final
class Box(Solid):
    """A box around the origin, by slabs (Kay and Kajiya, SIGGRAPH 1986).

    Args:
        half_m: half edges [3].
    """

    def __init__(self, half_m: Sequence[float]) -> None:
        self._half_m = np.asarray(half_m, dtype=float)[:, None]
        self.middle_m = np.zeros(3)
        self.radius_m = float(np.linalg.norm(self._half_m))

    def meet(self, start_m: FloatArray, along_m: FloatArray) -> Meeting:
        enters, leaves = _slabs(self._half_m, start_m, along_m)
        enter, leave = enters.max(axis=0), leaves.min(axis=0)
        across = np.abs(np.take_along_axis(along_m, enters.argmax(axis=0)[None], axis=0)[0])
        return np.where(enter <= leave, enter, np.inf), across


@final
class Cylinder(Solid):
    """A cylinder around the z axis, its middle in the origin.

    Args:
        radius_m: of the round.
        height_m: along z.
    """

    def __init__(self, radius_m: float, height_m: float) -> None:
        self._round_m = radius_m
        self._half_m = np.array([[height_m / 2]])
        self.middle_m = np.zeros(3)
        self.radius_m = float(np.hypot(radius_m, height_m / 2))

    def meet(self, start_m: FloatArray, along_m: FloatArray) -> Meeting:
        side, out_of_side, root = _round(self._round_m, start_m[:2], along_m[:2])
        cap, out_of_cap = (value[0] for value in _slabs(self._half_m, start_m[2:], along_m[2:]))
        enter, leave = np.maximum(side, cap), np.minimum(out_of_side, out_of_cap)
        across = np.where(side > cap, root / self._round_m, np.abs(along_m[2]))
        return np.where(enter <= leave, enter, np.inf), across


@final
class Ball(Solid):
    """A ball around the origin.

    Args:
        radius_m: its radius.
    """

    def __init__(self, radius_m: float) -> None:
        self.middle_m = np.zeros(3)
        self.radius_m = radius_m

    def meet(self, start_m: FloatArray, along_m: FloatArray) -> Meeting:
        enter, leave, root = _round(self.radius_m, start_m, along_m)
        return np.where(enter <= leave, enter, np.inf), root / self.radius_m


@final
class Polyhedron(Solid):
    """The convex hull of points, by the planes of its faces (Cyrus and Beck, Computers & Graphics 1978).

    Args:
        points_m: float [V, 3].
    """

    def __init__(self, points_m: FloatArray) -> None:
        from scipy.spatial import ConvexHull  # slow to import; only robots have such parts

        planes = ConvexHull(points_m).equations
        self._normals, self._offsets_m = np.ascontiguousarray(planes[:, :3]), planes[:, 3:]
        low, high = points_m.min(axis=0), points_m.max(axis=0)
        self._box, self._box_middle_m = Box((high - low) / 2), ((low + high) / 2)[:, None]
        self.middle_m = (low + high) / 2
        self.radius_m = float(np.linalg.norm(points_m - self.middle_m, axis=1).max())

    def meet(self, start_m: FloatArray, along_m: FloatArray) -> Meeting:
        share, across = np.full(start_m.shape[1], np.inf), np.zeros(start_m.shape[1])
        # Most rays pass its bounding box, at a hundredth of the cost.
        near = np.flatnonzero(self._box.meet(start_m - self._box_middle_m, along_m)[0] <= 1.0)
        for first in range(0, len(near), CHUNK):
            rays = near[first : first + CHUNK]
            share[rays], across[rays] = self._meet_faces(start_m[:, rays], along_m[:, rays])
        return share, across

    def _meet_faces(self, start_m: FloatArray, along_m: FloatArray) -> Meeting:
        outside = self._normals @ start_m + self._offsets_m  # [F, n] distance of the start in front of each face
        toward = -(self._normals @ along_m)
        toward[toward == 0] = -TINY  # it runs beside the face, and leaves behind it at once or never
        crossed, inwards = outside / toward, toward > 0
        enters = np.where(inwards, crossed, -np.inf)
        enter, leave = enters.max(axis=0), np.where(inwards, np.inf, crossed).min(axis=0)
        across = np.take_along_axis(toward, enters.argmax(axis=0)[None], axis=0)[0]
        return np.where(enter <= leave, enter, np.inf), across


@dataclass(frozen=True, eq=False)
class Placed:
    """A solid in the base frame: the solid and ``base_from_solid`` [4, 4]."""

    solid: Solid
    base_from_solid: FloatArray


def cast(solids: Sequence[Placed], start_m: FloatArray, end_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where rays first meet one of the solids from outside.

    Args:
        solids: what there is.
        start_m: float [N, 3], base frame.
        end_m: float [N, 3], base frame.

    Returns:
        Metres [N] along each ray, infinity = it meets nothing; and the cosine [N] of the angle of incidence, 1 =
        perpendicular to the surface, 0 = it meets nothing.
    """
    start = np.ascontiguousarray(start_m.T)
    along = np.ascontiguousarray(end_m.T) - start
    length = np.sqrt(np.einsum("in,in->n", along, along))
    share, across = np.full(len(length), np.inf), np.zeros(len(length))
    for placed, rays in zip(solids, _near(solids, start, along, length), strict=True):
        if not len(rays):
            continue
        solid_from_base = placed.base_from_solid[:3, :3].T
        local = solid_from_base @ (start[:, rays] - placed.base_from_solid[:3, 3:])
        found, slope = placed.solid.meet(local, solid_from_base @ along[:, rays])
        first = (found >= 0.0) & (found <= 1.0) & (found < share[rays])
        chosen = rays[first]
        share[chosen], across[chosen] = found[first], slope[first]
    met = np.isfinite(share)
    distance = np.where(met, np.where(met, share, 0.0) * length, np.inf)
    return distance, np.minimum(across / np.maximum(length, TINY), 1.0)


def _near(solids: Sequence[Placed], start: FloatArray, along: FloatArray, length: FloatArray) -> list[NDArray[np.intp]]:
    """For each solid, the indices of the rays that come into its bounding sphere."""
    if not solids:
        return []
    middle = np.stack([p.base_from_solid[:3, :3] @ p.solid.middle_m + p.base_from_solid[:3, 3] for p in solids])
    reach = np.array([[p.solid.radius_m + SLACK_M] for p in solids])
    # |start + s along - middle|^2 at the s in [0, 1] where it is smallest, expanded so that the sums over x, y, z are
    # products of matrices [M, 3] @ [3, N].
    square = np.maximum(length * length, TINY)
    ahead = middle @ along - np.einsum("in,in->n", start, along)
    apart = (middle * middle).sum(axis=1)[:, None] - 2.0 * (middle @ start) + np.einsum("in,in->n", start, start)
    s = np.clip(ahead / square, 0.0, 1.0)
    return [np.flatnonzero(row) for row in apart - s * (2.0 * ahead - s * square) <= reach * reach]


def _slabs(half_m: FloatArray, start_m: FloatArray, along_m: FloatArray) -> Meeting:
    """Shares at which rays come into the slabs |x_k| <= half_k, and leave them; arrays [K, N], ``half_m`` [K, 1]."""
    # The sign of a zero says at which infinity a ray along the slab meets its faces; one that runs in a face is 0 / 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.copysign(half_m, along_m)
        enter, leave = (-ahead - start_m) / along_m, (ahead - start_m) / along_m
    return enter, leave


def _round(radius_m: float, start_m: FloatArray, along_m: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Shares at which rays [K, N] come into a circle or ball around the origin, and leave it.

    The third value is the length of the ray towards the middle where it comes in, times the radius. A ray that misses
    leaves at minus infinity.
    """
    square = np.einsum("in,in->n", along_m, along_m)
    ahead = np.einsum("in,in->n", start_m, along_m)
    outside = np.einsum("in,in->n", start_m, start_m) - radius_m * radius_m
    under = ahead * ahead - square * outside
    root = np.sqrt(np.maximum(under, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        enter, leave = (-ahead - root) / square, (-ahead + root) / square
    # A ray along the axis is inside of the circle for ever, or never.
    still = square <= TINY
    enter = np.where(still, -np.inf, enter)
    leave = np.where(still, np.where(outside <= 0, np.inf, -np.inf), leave)
    return enter, np.where(under < 0, -np.inf, leave), root
