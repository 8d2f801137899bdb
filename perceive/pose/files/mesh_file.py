"""Meshes of objects: PLY, OBJ and STL to ObjectModel, with colours and in metres; and back to PLY as BOP has it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.pictures import read_rgb
from perceive.pose.files.ply import Ply, read_ply, write_ply
from perceive.pose.files.units import Unit, metres_per_unit
from perceive.pose.model import GREY, ObjectModel
from perceive.pose.symmetry import Symmetries
from sensors.calibration.files import write_beside
from sensors.errors import DataError
from sensors.geometry import FloatArray

_LOG = logging.getLogger(__name__)
ENDINGS = (".ply", ".obj", ".stl")
_UV = (("texture_u", "texture_v"), ("s", "t"), ("u", "v"))
_STL_HEAD, _STL_ROW = 84, 50
_Mesh = tuple[FloatArray, NDArray[np.int64], NDArray[np.uint8] | None]


def load_model(
    path: str | Path,
    number: int,
    name: str | None = None,
    symmetries: Symmetries | None = None,
    unit: Unit = "auto",
    diameter_m: float | None = None,
) -> ObjectModel:
    """A model from a mesh file.

    Colours are those of the vertices, or where there is a texture, those of its pixels at the vertices; else grey.

    Args:
        path: PLY, OBJ or STL.
        number: the object's number.
        name: what it is called; None = as the file.
        symmetries: None = it has none.
        unit: of the file, "m" or "mm"; "auto" decides by the diameter, or by the size if that leaves no doubt.
        diameter_m: as models_info.json states it, kept as it is; None computes it.

    Raises:
        DataError: the file is missing, damaged or of another kind, has no triangles, or its size is absurd in the unit
            (the likely one is named).
        SpecError: an unknown unit.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(str(path), f"a mesh ({', '.join(ENDINGS)})", repr(path.suffix), "Convert it.")
    if not path.is_file():
        raise DataError(str(path), "a mesh", "no such file", "Check the path.")
    vertices, faces, rgb = _from_ply(path) if path.suffix.lower() == ".ply" else _from_open3d(path)
    if not len(vertices) or not len(faces):
        raise DataError(
            str(path), "a triangle mesh", f"{len(vertices)} vertices, {len(faces)} triangles", "Export it with faces."
        )
    if not np.isfinite(vertices).all():
        raise DataError(str(path), "finite vertices", "NaN or infinite ones", "Repair the mesh.")
    scale = metres_per_unit(path, vertices, unit, diameter_m)
    model = ObjectModel.make(
        number, path.stem if name is None else name, vertices * scale, faces, rgb, symmetries, diameter_m
    )
    if not model.watertight:
        _LOG.warning(
            "%s: the mesh is not closed. Poses, errors and depth pictures are as good as ever; but inside and outside "
            "are not defined, so its volume and mass are not, and seen through a gap its far side shows",
            path,
        )
    return model


def save_model(path: str | Path, model: ObjectModel) -> None:
    """Write a model as BOP does: PLY, millimetres, with normals (by area) and colours; whole or not at all.

    Coordinates are of single precision, about 1e-8 of the object's size.
    """
    path = Path(path)
    normals = np.zeros_like(model.vertices_m)
    a, b, c = (model.vertices_m[model.faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    for k in range(3):
        np.add.at(normals, model.faces[:, k], area)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    write_beside(path, write_ply(1000.0 * model.vertices_m, normals, model.rgb, model.faces))


def _from_ply(path: Path) -> _Mesh:
    ply = read_ply(path)
    vertices = np.stack([ply.vertex[axis] for axis in "xyz"], -1)
    if {"red", "green", "blue"} <= ply.vertex.keys():
        colour = np.stack([ply.vertex[name] for name in ("red", "green", "blue")], -1)
        return vertices, ply.faces, np.clip(np.rint(colour), 0, 255).astype(np.uint8)
    return vertices, ply.faces, _from_texture(path, ply, len(vertices))


def _from_texture(path: Path, ply: Ply, count: int) -> NDArray[np.uint8] | None:
    named = next((pair for pair in _UV if set(pair) <= ply.vertex.keys()), None)
    if ply.texture is None or (named is None and ply.corner_uv is None):
        return None
    picture = path.parent / ply.texture
    if not picture.is_file():
        _LOG.warning("%s: its texture %s is not there, so the object is grey", path, picture.name)
        return None
    if named is not None:
        return _sampled(read_rgb(picture), np.stack([ply.vertex[name] for name in named], -1))
    assert ply.corner_uv is not None
    return _by_corner(count, ply.faces, ply.corner_uv, read_rgb(picture))


def _from_open3d(path: Path) -> _Mesh:
    import open3d  # heavy; needed for OBJ and STL only

    if path.suffix.lower() == ".stl":
        _check_stl(path)
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        mesh: Any = open3d.io.read_triangle_mesh(path)
    if path.suffix.lower() == ".stl":
        mesh = mesh.remove_duplicated_vertices()  # the format has three vertices of its own for every triangle
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.triangles, np.int64)
    if mesh.has_vertex_colors():
        return vertices, faces, np.rint(255.0 * np.clip(np.asarray(mesh.vertex_colors), 0, 1)).astype(np.uint8)
    textures = [np.asarray(each) for each in mesh.textures if not each.is_empty()]
    uv = np.asarray(mesh.triangle_uvs, np.float64)
    if len(textures) == 1 and len(uv) == 3 * len(faces) and textures[0].ndim == 3:
        # Open3D turns pictures upside down, so that v counts from their first row.
        rgb = np.ascontiguousarray(textures[0][::-1, :, :3], np.uint8)
        return vertices, faces, _by_corner(len(vertices), faces, uv.reshape(-1, 3, 2), rgb)
    if textures:
        _LOG.warning("%s: several textures, or corners without a place in one, so the object is grey", path)
    return vertices, faces, None


def _by_corner(
    count: int, faces: NDArray[np.int64], corner_uv: FloatArray, picture: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colours of vertices from those of the corners of triangles; at a seam, where they differ, that of the last."""
    out = np.full((count, 3), GREY, np.uint8)
    out[faces.reshape(-1)] = _sampled(picture, corner_uv.reshape(-1, 2))
    return out


def _sampled(picture: NDArray[np.uint8], uv: FloatArray) -> NDArray[np.uint8]:
    """The pixels at texture coordinates [N, 2], which count from the lower left corner; they repeat beyond 0 to 1."""
    height, width = picture.shape[:2]
    inside = np.where((uv >= 0) & (uv <= 1), uv, uv - np.floor(uv))
    column = np.minimum((inside[:, 0] * width).astype(np.int64), width - 1)
    row = np.minimum(((1.0 - inside[:, 1]) * height).astype(np.int64), height - 1)
    return np.asarray(picture[row, column])


def _check_stl(path: Path) -> None:
    """A reader that meets the end of the file early is content with what it has."""
    data = path.read_bytes()
    if data[:5].lower() == b"solid" and b"facet" in data[:4096]:
        if b"endsolid" not in data[-4096:]:
            raise DataError(str(path), "a whole STL file", "no end", "Copy the file again.")
        return
    expected = _STL_HEAD + _STL_ROW * int.from_bytes(data[80:84], "little") if len(data) >= _STL_HEAD else _STL_HEAD
    if len(data) < expected:
        raise DataError(str(path), f"{expected} bytes, as its header says", str(len(data)), "Copy the file again.")
