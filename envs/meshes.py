"""Light copies of heavy visual meshes, made once and kept on disk.

A software renderer spends its time per triangle, and the meshes that ship with robot models have ten times more
triangles than a camera of a few hundred pixels can show. Quadric decimation (Garland and Heckbert, SIGGRAPH 1997) keeps
the outline with a twentieth of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError, SpecError

MIN_TRIANGLES = 100  # below this, a part loses its outline whatever the fraction says
CREASE_COSINE = 0.7  # faces that lean more than 45 degrees apart are two surfaces


@dataclass(frozen=True, eq=False)
class ColourPart:
    """The triangles of one colour of a mesh.

    Attributes:
        rgba: colour, each in [0, 1].
        vertices_m: float [V, 3].
        triangles: int [F, 3], indices into ``vertices_m``.
    """

    rgba: tuple[float, float, float, float]
    vertices_m: NDArray[np.float64]
    triangles: NDArray[np.int64]


def decimate(source: Path, fraction: float) -> list[ColourPart]:
    """The mesh of an OBJ file with about ``fraction`` of its triangles, one part for each material colour.

    The whole mesh is decimated at once, so that no cracks open between colours; each triangle that is left takes the
    colour of the nearest original surface.

    Raises:
        SpecError: ``fraction`` is not in (0, 1].
        DataError: the file holds no triangles.
    """
    if not 0 < fraction <= 1:
        raise SpecError("decimate", "a fraction in (0, 1]", repr(fraction), "Use 0.05.")
    import open3d  # heavy: half a second; needed only when the cache is empty

    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        reader: Any = open3d.io.read_triangle_model  # its stub names the wrong overload
        model = reader(str(source))
        whole, colours, owner = _joined(model)
        if not len(owner):
            raise DataError(str(source), "a triangle mesh", "no triangles", "Reinstall the package that ships it.")
        scene = open3d.t.geometry.RaycastingScene()
        scene.add_triangles(open3d.t.geometry.TriangleMesh.from_legacy(whole))
        light = whole.simplify_quadric_decimation(max(int(len(owner) * fraction), min(MIN_TRIANGLES, len(owner))))
    vertices, triangles = np.asarray(light.vertices), np.asarray(light.triangles).astype(np.int64)
    centres = vertices[triangles].mean(axis=1).astype(np.float32)
    nearest = scene.compute_closest_points(open3d.core.Tensor.from_numpy(centres))["primitive_ids"].numpy()
    colour_of = owner[nearest]
    parts = []
    for index, rgba in enumerate(colours):
        chosen = triangles[colour_of == index]
        if len(chosen):
            used, renumbered = np.unique(chosen, return_inverse=True)
            parts.append(ColourPart(rgba, vertices[used], renumbered.reshape(-1, 3).astype(np.int64)))
    return parts


def _joined(model: Any) -> tuple[Any, list[tuple[float, float, float, float]], NDArray[np.int64]]:
    """One mesh of all parts, the distinct material colours, and the index of the colour of each triangle."""
    import open3d

    vertices, triangles, owner, count = [], [], [], 0
    colours: list[tuple[float, float, float, float]] = []
    for part in model.meshes:
        rgba = model.materials[part.material_idx].base_color
        # CAD exports name the same grey with differing last digits; two decimals tell real colours apart.
        red, green, blue = (round(float(value), 2) for value in rgba[:3])
        colour = (red, green, blue, 1.0)
        if colour not in colours:
            colours.append(colour)
        own = np.asarray(part.mesh.triangles)
        vertices.append(np.asarray(part.mesh.vertices))
        triangles.append(own + count)
        owner.append(np.full(len(own), colours.index(colour), np.int64))
        count += len(vertices[-1])
    whole = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(np.concatenate(vertices) if vertices else np.zeros((0, 3))),
        open3d.utility.Vector3iVector(np.concatenate(triangles) if triangles else np.zeros((0, 3), np.int32)),
    )
    # Files repeat a vertex for every normal or texture coordinate; decimation needs them joined.
    whole.remove_duplicated_vertices()
    return whole, colours, np.concatenate(owner) if owner else np.zeros(0, np.int64)


def write_obj(path: Path, part: ColourPart) -> None:
    """Write one part as an OBJ file; normals are smooth over a surface and break at creases."""
    normals = _corner_normals(part)
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in part.vertices_m]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.reshape(-1, 3)]
    corner = np.arange(1, 3 * len(part.triangles) + 1).reshape(-1, 3)
    for (a, b, c), (i, j, k) in zip(part.triangles + 1, corner, strict=True):
        lines.append(f"f {a}//{i} {b}//{j} {c}//{k}")
    path.write_text("\n".join(lines) + "\n")


def _corner_normals(part: ColourPart) -> NDArray[np.float64]:
    """Unit normal [F, 3, 3] of each corner: the mean of the faces around it that lean less than a crease."""
    points = part.vertices_m[part.triangles]
    face = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    unit = face / np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-15)
    around: list[list[int]] = [[] for _ in part.vertices_m]
    for number, triangle in enumerate(part.triangles.tolist()):
        for vertex in triangle:
            around[vertex].append(number)
    out = np.empty((len(face), 3, 3))
    for number, triangle in enumerate(part.triangles.tolist()):
        for corner, vertex in enumerate(triangle):
            others = around[vertex]
            alike = unit[others] @ unit[number] > CREASE_COSINE
            # The face itself is always alike, unless it has no area and so no direction.
            mean = face[others][alike].sum(axis=0) if alike.any() else np.array([0.0, 0.0, 1.0])
            out[number, corner] = mean / max(float(np.linalg.norm(mean)), 1e-15)
    return out


def cache_root() -> Path:
    """Where generated files are kept: ``$XDG_CACHE_HOME/perceive`` or ``~/.cache/perceive``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "perceive"


def fingerprint(sources: Iterable[Path], settings: str) -> str:
    """A hash of file contents and settings, to name a cache entry with."""
    digest = hashlib.sha256(settings.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:20]


def cached_folder(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder ``name-key`` of the cache; ``build`` fills it the first time.

    It is filled beside its final place and renamed, so a process that was killed leaves nothing half-written behind,
    and of two processes that build at once the later one takes what the earlier one made.

    Raises:
        DataError: the cache cannot be written.
    """
    final = cache_root() / "meshes" / f"{name}-{key}"
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
    except OSError as error:
        raise DataError(
            str(final), "a writable cache", str(error), "Set XDG_CACHE_HOME to a writable folder."
        ) from error
    try:
        build(beside)
        beside.rename(final)
    except OSError as error:
        if not final.is_dir():
            raise DataError(
                str(final), "a writable cache", str(error), "Free disk space or set XDG_CACHE_HOME."
            ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return final
