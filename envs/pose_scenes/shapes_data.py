"""Objects whose meshes ship with pybullet_data, scaled to the size of a hand: no symmetry."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.pose_scenes.shape import IntArray, ObjectShape, Rgb, Solid, shape_of
from envs.pose_scenes.shapes_known import BROWN, CREAM, DARK, ORANGE, PINK, YELLOW
from sensors.errors import DataError
from sensors.geometry import FloatArray


def duck() -> ObjectShape:
    """A bath duck, its beak of another colour."""
    vertices, faces, _ = read_obj(_file("duck.obj"))
    _, _, parts = read_obj(_file("duck_vhacd.obj"))
    middle = vertices[faces].mean(1)
    # y is up; the head is on the side of low x, and the beak is what stands out of it.
    paint = _colours(YELLOW, [(ORANGE, (middle[:, 0] < -0.62) & (middle[:, 1] > 0.85))], len(faces))
    return _scaled("duck", vertices, faces, paint, parts, 0.11)


def bunny() -> ObjectShape:
    """The Stanford bunny, decimated, with pink ears."""
    vertices, faces, _ = read_obj(_file("bunny.obj"))
    middle = vertices[faces].mean(1)
    high = vertices.max(0)[1]
    paint = _colours(CREAM, [(PINK, middle[:, 1] > high - 0.42)], len(faces))
    low_half = vertices[vertices[:, 1] < high - 0.4]
    return _scaled("bunny", vertices, faces, paint, [low_half, vertices[vertices[:, 1] >= high - 0.5]], 0.12)


def teddy() -> ObjectShape:
    """A teddy bear of convex parts that overlap."""
    vertices, faces, parts = read_obj(_file("teddy2_VHACD_CHs.obj"))
    middle = vertices[faces].mean(1)
    paint = _colours(BROWN, [(DARK, middle[:, 1] < 0.3)], len(faces))
    return _scaled("teddy", vertices, faces, paint, parts, 0.13)


def read_obj(path: Path) -> tuple[FloatArray, IntArray, list[FloatArray]]:
    """Vertices [V, 3], triangles [F, 3] and the vertices of each object or group of an OBJ file; no colours.

    Raises:
        DataError: the file is missing or holds no triangles.
    """
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    starts = [0]
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append([float(word) for word in words[1:4]])
            elif words[:1] == ["f"]:
                corner = [int(word.split("/")[0]) - 1 for word in words[1:]]
                faces += [[corner[0], corner[k], corner[k + 1]] for k in range(1, len(corner) - 1)]
            elif words[:1] in (["o"], ["g"]) and len(faces) > starts[-1]:
                starts.append(len(faces))
    except (OSError, ValueError, IndexError) as error:
        raise DataError(str(path), "an OBJ file", str(error), "pip install pybullet.") from error
    places, triangles = np.array(vertices, float).reshape(-1, 3), np.array(faces, np.int64).reshape(-1, 3)
    if not len(triangles) or triangles.min() < 0 or triangles.max() >= len(places):
        raise DataError(str(path), "triangles of its vertices", f"{len(triangles)} triangles", "pip install pybullet.")
    parts = [places[np.unique(part)] for part in np.split(triangles, starts[1:])]
    return places, triangles, parts


def _file(name: str) -> Path:
    found = find_spec("pybullet_data")
    path = Path(str(found.origin)).parent / name if found is not None else Path(name)
    if not path.is_file():
        raise DataError("object meshes", f"pybullet_data with {name}", str(path), "pip install pybullet.")
    return path


def _colours(base: Rgb, others: list[tuple[Rgb, NDArray[np.bool_]]], count: int) -> NDArray[np.uint8]:
    out = np.tile(np.array(base, np.uint8), (count, 1))
    for rgb, chosen in others:
        out[chosen] = rgb
    return out


def _scaled(
    name: str,
    vertices: FloatArray,
    faces: IntArray,
    paint: NDArray[np.uint8],
    parts: list[FloatArray],
    longest_m: float,
) -> ObjectShape:
    """About the middle of its box, whose longest edge becomes ``longest_m``."""
    low, high = vertices.min(0), vertices.max(0)
    scale, middle = longest_m / float((high - low).max()), (low + high) / 2
    places = (vertices - middle) * scale
    hulls = tuple((part - middle) * scale for part in parts)
    return shape_of(name, (Solid(places, faces, paint, hulls),))
