"""ModelNet: meshes of single objects in OFF files, made into clouds by sampling their surface.

Paper: Z. Wu et al., "3D ShapeNets: A Deep Representation for Volumetric Shapes", CVPR 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.points.files.cloud import LabelledCloud, cloud_of
from perceive.points.files.source import CloudSource, found, read_text
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_FIX = "Copy the file again."


@final
class ModelNetFolder(CloudSource):
    """``<root>/<class>/<split>/*.off``; the classes are the folders' names in alphabetical order.

    The files state no unit and stand anyhow far from their origin, so clouds are centred and scaled: the farthest point
    lies ``radius_m`` from the middle of the bounding box. Their frame is "object", z up. Points are uniform over the
    surface and always the same ones; normals follow the order of a triangle's corners, which the files do not always
    keep.

    Args:
        root: the folder that holds one folder per class.
        split: "train" or "test".
        points: how many points make a cloud.
        radius_m: see above.
        seed: of the points on the surface.

    Raises:
        DataError: there is no mesh.
        SpecError: a number out of its range.
    """

    def __init__(
        self, root: str | Path, split: str = "train", points: int = 1024, radius_m: float = 1.0, seed: int = 0
    ) -> None:
        if points < 1 or not 0 < radius_m < np.inf or seed < 0:
            got = f"points={points}, radius_m={radius_m}, seed={seed}"
            raise SpecError("ModelNetFolder", "points >= 1, radius_m > 0, seed >= 0", got, "Correct them.")
        root = Path(root)
        self._paths = sorted(root.glob(f"*/{split}/*.off"))
        found(root, f"meshes (<class>/{split}/*.off)", [path.name for path in self._paths])
        self._classes = tuple(sorted({path.parent.parent.name for path in root.glob("*/*/*.off")}))
        self._points, self._radius_m, self._seed = points, radius_m, seed

    @property
    def names(self) -> Sequence[str]:
        return [path.stem for path in self._paths]

    def read(self, number: int) -> LabelledCloud:
        path = self._paths[number]
        vertices, triangles = read_off(path)
        xyz, normal = on_surface(path, vertices, triangles, self._points, np.random.default_rng([self._seed, number]))
        xyz = xyz - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        reach = np.sqrt(np.einsum("ni,ni->n", xyz, xyz).max())
        return cloud_of(
            xyz * (self._radius_m / max(float(reach), 1e-300)),
            "object",
            normal=normal,
            label=self._classes.index(path.parent.parent.name),
            classes=self._classes,
            name=str(path),
        )


def read_off(path: Path) -> tuple[FloatArray, NDArray[np.int64]]:
    """Vertices [V, 3] and triangles [F, 3] of an OFF file; polygons are cut into fans. Colours are passed over.

    Raises:
        DataError: it is no OFF file, is cut off, or names vertices that are not there.
    """
    lines = [line.split("#")[0] for line in read_text(path).splitlines()]
    lines = [line for line in lines if line.strip()]
    # In about half of ModelNet40's files the counts stand behind "OFF" without a space.
    if not lines or not lines[0].strip().startswith("OFF"):
        raise DataError(str(path), "an OFF file", repr(lines[0][:20]) if lines else "an empty file", _FIX)
    head = lines[0].strip()[3:].split()
    body = lines[1:] if head else lines[2:]
    try:
        counts = [int(word) for word in (head or lines[1].split())[:2]]
        vertices = np.array([line.split()[:3] for line in body[: counts[0]]], dtype=float).reshape(-1, 3)
        faces = [[int(word) for word in line.split()] for line in _rows(body, counts)]
        triangles = [[face[1], face[k], face[k + 1]] for face in faces for k in range(2, face[0])]
    except (ValueError, IndexError) as error:
        raise DataError(str(path), "counts, then vertices, then faces", f"{error}", _FIX) from error
    if len(vertices) != counts[0] or len(faces) != counts[1]:
        got = f"{len(vertices)} and {len(faces)}"
        raise DataError(str(path), f"{counts[0]} vertices and {counts[1]} faces", got, _FIX)
    corners = np.array(triangles, np.int64).reshape(-1, 3)
    if corners.size and (corners.min() < 0 or corners.max() >= len(vertices)):
        raise DataError(str(path), f"vertices up to {len(vertices) - 1}", f"{corners.min()} to {corners.max()}", _FIX)
    if not np.isfinite(vertices).all():
        raise DataError(str(path), "finite coordinates", "NaN or infinity", _FIX)
    return vertices, corners


def on_surface(
    path: Path, vertices: FloatArray, triangles: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Points [N, 3], uniform over the area of a mesh, and unit normals [N, 3].

    Raises:
        DataError: the mesh has no area.
    """
    corner = vertices[triangles]
    across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    twice = np.sqrt(np.einsum("ni,ni->n", across, across))
    ends = np.cumsum(twice)
    if not len(ends) or not ends[-1] > 0:
        raise DataError(str(path), "a mesh with an area", f"{len(ends)} triangles without", "Leave the file out.")
    chosen = np.minimum(np.searchsorted(ends, rng.random(count) * ends[-1], side="right"), len(ends) - 1)
    # The square root makes areas equal (Osada et al., "Shape Distributions", ACM TOG 2002).
    root, along = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    a, b, c = corner[chosen].swapaxes(0, 1)
    points = (1 - root) * a + root * (1 - along) * b + root * along * c
    return points, across[chosen] / np.maximum(twice[chosen], 1e-300)[:, None]


def _rows(body: list[str], counts: list[int]) -> list[str]:
    return body[counts[0] : counts[0] + counts[1]]
