"""Random solids: bodies of revolution, prisms and boxes, alone or grown together, painted at random."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.geometry import FloatArray, axis_angle_to_matrix

_SEGMENTS = 32  # around a body of revolution
_STEPS = 6  # cells of paint along an edge
Body = tuple[FloatArray, NDArray[np.uint8]]  # triangles [T, 3, 3] and their colours [T, 3]


def made_shape(number: int, seed: int) -> ObjectModel:
    """A random solid with its symmetries; the same one for the same number and seed.

    A third are bodies of revolution, a sixth are boxes, the others two to four parts without any symmetry.

    Args:
        number: of the object.
        seed: of all objects.
    """
    rng = np.random.default_rng((seed, number))
    kind = rng.random()
    symmetries = Symmetries.none()
    if kind < 0.33:
        parts = [_lathe(rng, round_paint=True)]
        symmetries = Symmetries.make([], [ContinuousSymmetry.make((0, 0, 1))])
    elif kind < 0.5:
        parts = [_prism(rng, _rectangle(rng), plain=True)]
        symmetries = Symmetries.make([np.diag([-1.0, -1.0, 1.0, 1.0])])
    else:
        parts = _grown(rng)
    triangles, colours = (np.concatenate(each) for each in zip(*parts, strict=True))
    low, high = triangles.reshape(-1, 3).min(0), triangles.reshape(-1, 3).max(0)
    size = rng.uniform(0.07, 0.18) / float(np.linalg.norm(high - low))
    middle = np.array([0.0, 0.0, (low[2] + high[2]) / 2])  # axes of symmetry go through the origin
    vertices = ((triangles - middle) * size).reshape(-1, 3)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return ObjectModel.make(
        number, f"made {number}", vertices, faces, np.repeat(colours, 3, 0), symmetries,
    )  # fmt: skip


def _grown(rng: np.random.Generator) -> list[Body]:
    """Two to four parts, each begun on the surface of an earlier one."""
    parts = [_part(rng)]
    for _ in range(rng.integers(1, 4)):
        triangles, colours = _part(rng)
        turn = axis_angle_to_matrix(rng.normal(size=3))
        if rng.random() < 0.5:
            turn = axis_angle_to_matrix(np.eye(3)[rng.integers(3)] * math.pi / 2)
        host = parts[rng.integers(len(parts))][0]
        start = host[rng.integers(len(host))].mean(0)
        scale = rng.uniform(0.35, 0.9)
        parts.append((triangles @ turn.T * scale + start, colours))
    return parts


def _part(rng: np.random.Generator) -> Body:
    kind = rng.integers(4)
    if kind == 0:
        return _lathe(rng, round_paint=bool(rng.random() < 0.5))
    if kind == 1:
        triangles, colours = _lathe(rng, round_paint=False)
        return triangles * rng.uniform(0.5, 1.0, 3), colours
    if kind == 2:
        return _prism(rng, _rectangle(rng), plain=bool(rng.random() < 0.5))
    corners = int(rng.integers(3, 9))
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * math.pi / corners
    radius = rng.uniform(0.4, 1.0, corners)
    return _prism(rng, radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1), plain=bool(rng.random() < 0.5))


def _lathe(rng: np.random.Generator, round_paint: bool) -> Body:
    """About z: cones, cylinders, vases, balls, and vessels that are open above."""
    kind, height = rng.integers(4), rng.uniform(0.5, 2.5)
    if kind == 0:  # a ball or an egg
        angle = np.linspace(0, math.pi, 13)
        profile = np.stack([np.sin(angle), -height / 2 * np.cos(angle)], -1)
    elif kind == 1:  # a vessel
        thick = rng.uniform(0.05, 0.2)
        foot, rim = rng.uniform(0.5, 1.0, 2)
        profile = np.array([(0, 0), (foot, 0), (rim, height), (rim - thick, height), (foot - thick, thick), (0, thick)])
    else:  # a turned body of up to five pieces
        count = int(rng.integers(2, 7))
        along = np.sort(rng.uniform(0, height, count))
        along[0], along[-1] = 0.0, height
        profile = np.concatenate(
            [[(0, 0)], np.stack([rng.uniform(0.2, 1.0, count), along], -1), [(rng.choice([0.0, 0.1]), height)]]
        )
    angle = np.arange(_SEGMENTS + 1) * 2 * math.pi / _SEGMENTS
    profile = _subdivided(profile)
    height_of = np.broadcast_to(profile[:, 1:], (len(profile), len(angle)))
    grid = np.stack([profile[:, :1] * np.cos(angle), profile[:, :1] * np.sin(angle), height_of], -1)
    return _sheet(grid, _paint(rng, len(profile) - 1, _SEGMENTS, across=not round_paint))


def _prism(rng: np.random.Generator, outline: FloatArray, plain: bool) -> Body:
    """Along z, its ends in colours of their own; star-shaped about the origin."""
    height = rng.uniform(0.2, 2.0)
    ring = _subdivided(np.concatenate([outline, outline[:1]]))
    level = np.linspace(-height / 2, height / 2, _STEPS + 1)
    grid = np.stack([np.concatenate([ring, np.full((len(ring), 1), z)], 1) for z in level])
    paint = _paint(rng, _STEPS, len(ring) - 1, across=not plain)
    if plain:
        paint[:] = paint[0, 0]
    parts = [_sheet(grid, paint)]
    for z in (level[0], level[-1]):
        cap = np.stack([np.zeros_like(ring), ring])
        cap = np.concatenate([cap, np.full((*cap.shape[:2], 1), z)], -1)
        parts.append(_sheet(cap, np.broadcast_to(_colour(rng), (1, len(ring) - 1, 3))))
    triangles, colours = (np.concatenate(each) for each in zip(*parts, strict=True))
    return triangles, colours


def _rectangle(rng: np.random.Generator) -> FloatArray:
    x, y = rng.uniform(0.3, 1.0), rng.uniform(0.3, 1.0)
    return np.array([(x, y), (-x, y), (-x, -y), (x, -y)])


def _subdivided(path: FloatArray) -> FloatArray:
    """A path [K, 2] with its longer pieces cut, so that paint can change along them."""
    share = np.linspace(0, 1, 3)[:-1]
    cut = path[:-1, None] + share[:, None] * (path[1:] - path[:-1])[:, None]
    return np.concatenate([cut.reshape(-1, 2), path[-1:]])


def _sheet(grid: FloatArray, paint: NDArray[np.uint8]) -> Body:
    """Two triangles for each cell of a grid of points [I, J, 3], painted [I - 1, J - 1, 3]."""
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    triangles = np.stack([np.stack([a, b, c], 2), np.stack([a, c, d], 2)], 2).reshape(-1, 3, 3)
    colours = np.repeat(paint.reshape(-1, 3), 2, 0)
    wide = (
        np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1) > 1e-9
    )
    return triangles[wide], colours[wide]


def _paint(rng: np.random.Generator, rows: int, columns: int, across: bool) -> NDArray[np.uint8]:
    """Colours of cells: one, bands, and where they may change ``across`` columns, halves and checks too."""
    first, second, third = _colour(rng), _colour(rng), _colour(rng)
    out = np.broadcast_to(first, (rows, columns, 3)).copy()
    kind = rng.integers(5)
    row, column = np.mgrid[0:rows, 0:columns]
    if kind in (1, 2):
        out[row >= rng.integers(0, rows + 1)] = second
    if kind == 2:
        out[rng.integers(0, rows)] = third
    if across and kind >= 3:
        out[column < rng.integers(1, columns)] = second
    if across and kind == 4:
        out[(row + column // max(1, columns // 4)) % 2 == 0] = third
    return out


def _colour(rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < 0.2:  # black, white and grey things are many
        return np.full(3, rng.integers(20, 240), np.uint8)
    return rng.integers(15, 245, 3).astype(np.uint8)
