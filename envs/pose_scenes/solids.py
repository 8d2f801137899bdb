"""Closed meshes out of formulas: bodies of revolution, prisms, boxes, tubes and superquadrics, outward and painted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.pose_scenes.shape import IntArray, Rgb, Solid
from sensors.geometry import FloatArray

SEGMENTS = 96  # around a body of revolution: at 5 cm from the axis a chord is 0.03 mm inside of the circle
BOARDS = 12  # convex parts around a hollow one


def lathe(profile: ArrayLike, paint: Sequence[Rgb], closed: bool = False, segments: int = SEGMENTS) -> Solid:
    """A body of revolution about z; its hulls are those of its slices, so the profile may go in and out along z.

    Args:
        profile: (radius, z) [K, 2] from the lowest point on the axis over the outside to the highest one on the axis;
            or, with ``closed``, once around counter-clockwise (outwards at its foot) without meeting the axis.
        paint: of each piece between two points of the profile, K - 1 or, closed, K of them.
        closed: whether the last point is joined to the first; such a ring gets hulls of boards around it.
        segments: around the axis.
    """
    points = np.asarray(profile, float)
    angle = 2 * math.pi * np.arange(segments) / segments
    radius, height = points[:, :1], np.broadcast_to(points[:, 1:], (len(points), segments))
    grid = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)
    vertices, faces, strip = _grid(grid, closed)
    return Solid(vertices, faces, np.asarray(paint, np.uint8)[strip], _boards(points) if closed else _slices(points))


def hollow(profile: ArrayLike, paint: Sequence[Rgb], floor_m: float, segments: int = SEGMENTS) -> Solid:
    """A vessel: as :func:`lathe`, but from the axis over the outside and the rim down to the axis on the inside.

    Its hulls are a floor below ``floor_m`` and boards around it.
    """
    points = np.asarray(profile, float)
    solid = lathe(points, paint, segments=segments)
    middle = len(points) // 2  # outside and inside have the same number of points, in the same order along the wall
    wall = [np.concatenate([points[k : k + 2], points[-2 - k : len(points) - k]]) for k in range(1, middle - 1)]
    boards = [board for quad in wall for board in _boards(quad)]
    return Solid(solid.vertices_m, solid.faces, solid.paint, (*_slices(points[points[:, 1] <= floor_m]), *boards))


def prism(outline: ArrayLike, height_m: float, sides: Sequence[Rgb] | Rgb, lids: tuple[Rgb, Rgb]) -> Solid:
    """An extruded polygon between ``-height_m / 2`` and ``height_m / 2``.

    Args:
        outline: [K, 2] counter-clockwise, without crossings.
        height_m: along z.
        sides: one colour, or one for each side (side k is between corners k and k + 1).
        lids: colours of the lower and the upper end.
    """
    points = np.asarray(outline, float)
    count = len(points)
    triangles = triangulate(points)
    k = np.arange(count)
    after = (k + 1) % count
    walls = np.concatenate([np.stack([k, after, after + count], -1), np.stack([k, after + count, k + count], -1)])
    vertices = np.concatenate([np.c_[points, np.full(count, z)] for z in (-height_m / 2, height_m / 2)])
    side = np.broadcast_to(np.asarray(sides, np.uint8), (count, 3))
    paint = np.concatenate([side, side, *(np.tile(np.array(lid, np.uint8), (len(triangles), 1)) for lid in lids)])
    faces = np.concatenate([walls, triangles[:, ::-1], triangles + count])
    hulls = tuple(vertices[np.r_[triangle, triangle + count]] for triangle in triangles)
    return Solid(vertices, faces, paint, hulls)


def box(size_m: ArrayLike, paint: tuple[Rgb, Rgb, Rgb], inset: float = 0.0, inner: Rgb | None = None) -> Solid:
    """A box about the origin.

    Args:
        size_m: edge lengths [3].
        paint: of the two faces across x, of those across y, of those across z.
        inset: > 0: each face has a rectangle of another colour that begins this share of an edge from its rim.
        inner: that colour.
    """
    size = np.asarray(size_m, float)
    cut = np.array([-0.5, -0.5 + inset, 0.5 - inset, 0.5]) if inset > 0 else np.array([-0.5, 0.5])
    cells = len(cut) - 1
    vertices: list[FloatArray] = []
    faces: list[IntArray] = []
    colours: list[NDArray[np.uint8]] = []
    for axis in range(3):
        for side in (-0.5, 0.5):
            u, v = np.meshgrid(cut, cut, indexing="ij")
            places = np.empty((cells + 1, cells + 1, 3))
            first, second = (axis + 1) % 3, (axis + 2) % 3  # their cross product points along the axis
            places[..., axis], places[..., first], places[..., second] = side, u, v
            index = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1) + len(vertices) * (cells + 1) ** 2
            a, b, c, d = (x.ravel() for x in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
            quads = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
            faces.append(quads if side > 0 else quads[:, ::-1])
            colour = np.tile(np.array(paint[axis], np.uint8), (cells * cells, 1))
            if inner is not None and inset > 0:
                colour[cells * cells // 2] = inner
            colours.append(np.tile(colour, (2, 1)))
            vertices.append(places.reshape(-1, 3))
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size
    places, renumbered = np.unique(np.concatenate(vertices), axis=0, return_inverse=True)
    whole = renumbered.reshape(-1)[np.concatenate(faces)]
    return Solid(places * size, whole, np.concatenate(colours), (corners,))


def tube(path_m: ArrayLike, radius_m: float, paint: Rgb, sides: int = 20) -> Solid:
    """A round bar along a path [K, 3] with flat ends; its frame is carried along without twisting."""
    path = np.asarray(path_m, float)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.cross(along[0], np.eye(3)[int(np.argmin(np.abs(along[0])))])
    angle = 2 * math.pi * np.arange(sides) / sides
    rings = []
    for place, direction in zip(path, along, strict=True):
        across = across - direction * (across @ direction)
        across /= np.linalg.norm(across)
        other = np.cross(direction, across)
        rings.append(place + radius_m * (np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other))
    grid = np.stack([np.tile(path[:1], (sides, 1)), *rings, np.tile(path[-1:], (sides, 1))])
    vertices, faces, strip = _grid(grid, closed=False)
    hulls = tuple(np.concatenate(rings[k : k + 2]) for k in range(len(rings) - 1))
    return Solid(vertices, faces, np.tile(np.array(paint, np.uint8), (len(strip), 1)), hulls)


def superquadric(half_m: ArrayLike, upright: float, around: float, paint: Sequence[Rgb]) -> Solid:
    """A rounded body about the origin, convex for exponents up to 2.

    Paper: A. H. Barr, "Superquadrics and Angle-Preserving Transformations", IEEE CG&A 1(1), 1981.

    Args:
        half_m: half of its extent [3].
        upright: exponent of the outline along z; 1 = an ellipse, 0.3 = nearly a box.
        around: exponent of the outline around z.
        paint: of the eight octants in turn around z, four above z = 0 (from x > 0, y > 0 on), then four below.
    """
    latitude = np.linspace(-math.pi / 2, math.pi / 2, 33)
    longitude = 2 * math.pi * np.arange(64) / 64

    def power(value: FloatArray, exponent: float) -> FloatArray:
        return np.asarray(np.sign(value) * np.abs(value) ** exponent)

    flat, up = power(np.cos(latitude), upright)[:, None], power(np.sin(latitude), upright)[:, None]
    flat[[0, -1]] = 0.0
    unit = np.stack(
        [flat * power(np.cos(longitude), around), flat * power(np.sin(longitude), around), up + 0 * longitude], -1
    )
    vertices, faces, _ = _grid(unit * np.asarray(half_m, float), closed=False)
    middle = vertices[faces].mean(1)
    quarter = (np.arctan2(middle[:, 1], middle[:, 0]) % (2 * math.pi) // (math.pi / 2)).astype(int) % 4
    colour = np.asarray(paint, np.uint8)[quarter + 4 * (middle[:, 2] < 0)]
    return Solid(vertices, faces, colour, (vertices[::7],))


def triangulate(outline: FloatArray) -> IntArray:
    """Triangles [K - 2, 3] that fill a polygon [K, 2], counter-clockwise, by cutting off ears."""
    left = list(range(len(outline)))
    out = []
    while len(left) > 3:
        for at in range(len(left)):
            before, here, after = left[at - 1], left[at], left[(at + 1) % len(left)]
            a, b, c = outline[before], outline[here], outline[after]
            if _area(a, b, c) <= 1e-12:
                continue
            others = [outline[k] for k in left if k not in (before, here, after)]
            if not any(min(_area(a, b, p), _area(b, c, p), _area(c, a, p)) >= -1e-12 for p in others):
                out.append((before, here, after))
                del left[at]
                break
        else:
            raise AssertionError("an outline that crosses itself or turns clockwise")
    return np.array([*out, tuple(left)], np.int64)


def _area(a: FloatArray, b: FloatArray, c: FloatArray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _grid(grid: FloatArray, closed: bool) -> tuple[FloatArray, IntArray, NDArray[np.int64]]:
    """Vertices, faces and the row of each face of rings [K, n, 3] around something; one in one place is one vertex."""
    rows, count = grid.shape[:2]
    k, j = np.meshgrid(np.arange(rows if closed else rows - 1), np.arange(count), indexing="ij")
    up, on = (k + 1) % rows, (j + 1) % count
    a, b, c, d = (x.ravel() for x in (k * count + j, k * count + on, up * count + on, up * count + j))
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    strip = np.tile(k.ravel(), 2)
    at_one = np.flatnonzero((np.abs(grid - grid[:, :1]) < 1e-12).all((1, 2)))
    for row in at_one:
        faces[(faces >= row * count) & (faces < (row + 1) * count)] = row * count
    kept = (faces != np.roll(faces, 1, axis=1)).all(1)  # at a pole half of the triangles have no area
    used, renumbered = np.unique(faces[kept], return_inverse=True)
    return grid.reshape(-1, 3)[used], renumbered.reshape(-1, 3).astype(np.int64), strip[kept]


def _slices(points: FloatArray) -> tuple[FloatArray, ...]:
    """Hulls of the slices of a solid of revolution between the points of its profile."""
    angle = 2 * math.pi * np.arange(24) / 24
    rings = [np.c_[r * np.cos(angle), r * np.sin(angle), np.full(24, z)] for r, z in points]
    return tuple(
        np.concatenate([low, high])
        for low, high, (_, below), (_, above) in zip(rings, rings[1:], points, points[1:], strict=False)
        if above - below > 1e-6
    )


def _boards(quad: FloatArray) -> tuple[FloatArray, ...]:
    """Hulls around z of a convex outline [K, 2] of (radius, z)."""
    out = []
    for k in range(BOARDS):
        angle = 2 * math.pi * np.array([k, k + 0.5, k + 1]) / BOARDS
        out.append(np.concatenate([np.c_[r * np.cos(angle), r * np.sin(angle), np.full(3, z)] for r, z in quad]))
    return tuple(out)
