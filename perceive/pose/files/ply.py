"""PLY files of meshes: read with every property, cut-off files named; written as BOP's tools read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.geometry import FloatArray

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_FIX = "Copy the file again."


@final
@dataclass(frozen=True, eq=False)
class Ply:
    """What a PLY file holds of a mesh.

    Attributes:
        vertex: property -> float64 [V].
        faces: int64 [F, 3]; polygons are cut into fans.
        corner_uv: float64 [F, 3, 2], texture coordinates of the corners of faces; None = there are none.
        texture: the name of the picture that the header gives; None = it gives none.
    """

    vertex: Mapping[str, FloatArray]
    faces: NDArray[np.int64]
    corner_uv: FloatArray | None
    texture: str | None


@dataclass
class _Element:
    name: str
    count: int
    # name, type, and the type of the count before a list; None = it is no list.
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)


def read_ply(path: Path) -> Ply:
    """A mesh.

    Raises:
        DataError: the file is missing, no PLY file, cut off, or has no vertices or faces.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), "a mesh", str(error), "Check the path.") from None
    head, mark, body = data.partition(b"end_header")
    if not data.startswith(b"ply") or not mark:
        raise DataError(str(path), "a PLY file", "no header of one", _FIX)
    body = body[body.find(b"\n") + 1 :]
    order, elements, texture = _header(path, head.decode("latin-1"))
    tables: dict[str, dict[str, Any]] = {}
    rest: Any = body if order else _words(path, body)
    for element in elements:
        table, rest = _table(path, element, order, rest)
        tables[element.name] = table
    vertex = {name: np.asarray(column, np.float64) for name, column in tables.get("vertex", {}).items()}
    if not {"x", "y", "z"} <= vertex.keys():
        raise DataError(str(path), "vertices with x, y and z", f"{sorted(vertex)}", "Export the mesh again.")
    face = tables.get("face", {})
    corners = next((face[name] for name in ("vertex_indices", "vertex_index") if name in face), None)
    if corners is None:
        raise DataError(str(path), "faces", "none; it is a cloud of points", "Export the mesh with its faces.")
    faces, uv = _triangles(corners, face.get("texcoord"))
    return Ply(vertex, faces, uv, texture)


def write_ply(vertices: FloatArray, normals: FloatArray, rgb: NDArray[np.uint8], faces: Any) -> bytes:
    """The bytes of a binary file with places, normals and colours of vertices [V, 3], and triangles [F, 3]."""
    names = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    colours = [(name, "u1") for name in ("red", "green", "blue")]
    table = np.empty(len(vertices), [*names, *colours])
    for column, (name, _) in enumerate(names):
        table[name] = (vertices if column < 3 else normals)[:, column % 3]
    for column, (name, _) in enumerate(colours):
        table[name] = rgb[:, column]
    triangles = np.empty(len(faces), [("n", "u1"), ("v", "<i4", (3,))])
    triangles["n"], triangles["v"] = 3, faces
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {name}" for name, _ in names] + [f"property uchar {name}" for name, _ in colours]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(lines).encode() + table.tobytes() + triangles.tobytes()


def _header(path: Path, text: str) -> tuple[str, list[_Element], str | None]:
    kind, elements, texture = "", list[_Element](), None
    for line in text.splitlines():
        match line.split():
            case ["format", found, *_]:
                kind = found
            case ["comment", "TextureFile", *rest] if rest:
                texture = " ".join(rest)
            case ["element", name, count] if count.isdigit():
                elements.append(_Element(name, int(count)))
            case ["property", "list", count_type, item_type, name] if (
                elements and count_type in _TYPES and item_type in _TYPES
            ):
                elements[-1].properties.append((name, _TYPES[item_type], _TYPES[count_type]))
            case ["property", item_type, name] if elements and item_type in _TYPES:
                elements[-1].properties.append((name, _TYPES[item_type], None))
            case ["element" | "property", *_]:
                raise DataError(str(path), "a PLY header", repr(line), _FIX)
    if kind not in _ORDER:
        raise DataError(str(path), f"a format of {list(_ORDER)}", repr(kind), _FIX)
    return _ORDER[kind], elements, texture


def _words(path: Path, body: bytes) -> FloatArray:
    try:
        return np.array(body.split(), np.float64)
    except ValueError as error:
        raise DataError(str(path), "numbers after the header", str(error), _FIX) from None


def _table(path: Path, element: _Element, order: str, rest: Any) -> tuple[dict[str, Any], Any]:
    """The columns of an element, and what follows; at once, where all lists are as long as those of the first row."""
    if not element.count or not element.properties:
        return {name: np.zeros(0) for name, _, _ in element.properties}, rest
    sizes = _sizes_of_first(path, element, order, rest)
    if order:
        columns: list[Any] = []
        for (name, kind, count_kind), size in zip(element.properties, sizes, strict=True):
            if count_kind is None:
                columns.append((name, order + kind))
            else:
                columns += [(f"count of {name}", order + count_kind), (name, order + kind, (size,))]
        dtype = np.dtype(columns)
        if len(rest) >= dtype.itemsize * element.count:
            rows: Any = np.frombuffer(rest, dtype, element.count)
            lists = [(n, s) for (n, _, c), s in zip(element.properties, sizes, strict=True) if c is not None]
            if all((rows[f"count of {name}"] == size).all() for name, size in lists):
                return {name: rows[name] for name, _, _ in element.properties}, rest[dtype.itemsize * element.count :]
    else:
        width = sum(1 if c is None else 1 + s for (_, _, c), s in zip(element.properties, sizes, strict=True))
        if len(rest) >= width * element.count:
            grid = rest[: width * element.count].reshape(element.count, width)
            out: dict[str, Any] = {}
            fine, at = True, 0
            for (name, _, count_kind), size in zip(element.properties, sizes, strict=True):
                if count_kind is None:
                    out[name], at = grid[:, at], at + 1
                else:
                    fine = fine and bool((grid[:, at] == size).all())
                    out[name], at = grid[:, at + 1 : at + 1 + size], at + 1 + size
            if fine:
                return out, rest[width * element.count :]
    return _row_by_row(path, element, order, rest)


def _sizes_of_first(path: Path, element: _Element, order: str, rest: Any) -> list[int]:
    one = _Element(element.name, 1, element.properties)
    table, _ = _row_by_row(path, one, order, rest)
    return [1 if count is None else len(table[name][0]) for name, _, count in element.properties]


def _row_by_row(path: Path, element: _Element, order: str, rest: Any) -> tuple[dict[str, Any], Any]:
    """Where lists differ in length (triangles among quads), rows must be read in turn."""
    out: dict[str, Any] = {name: [] for name, _, _ in element.properties}
    at = 0

    def take(kind: str, count: int) -> NDArray[Any]:
        nonlocal at
        dtype = np.dtype(order + kind)
        step = count * (dtype.itemsize if order else 1)
        if count < 0 or at + step > len(rest):
            got = f"only {min(map(len, out.values()))} whole ones"
            raise DataError(str(path), f"{element.count} of '{element.name}'", got, _FIX)
        found = np.frombuffer(rest, dtype, count, at) if order else rest[at : at + count]
        at += step
        return np.asarray(found)

    for _ in range(element.count):
        for name, kind, count_kind in element.properties:
            size = 1 if count_kind is None else int(take(count_kind, 1)[0])
            found = take(kind, size)
            out[name].append(found[0] if count_kind is None else found)
    return out, rest[at:]


def _triangles(corners: Any, uv: Any) -> tuple[NDArray[np.int64], FloatArray | None]:
    if isinstance(corners, np.ndarray) and corners.ndim == 2 and corners.shape[1] == 3:
        faces = corners.astype(np.int64)
        given = isinstance(uv, np.ndarray) and uv.shape == (len(faces), 6)
        return faces, np.asarray(uv, np.float64).reshape(-1, 3, 2) if given else None
    fans = [np.stack([np.full(len(each) - 2, each[0]), each[1:-1], each[2:]], -1) for each in corners if len(each) >= 3]
    return (np.concatenate(fans).astype(np.int64) if fans else np.zeros((0, 3), np.int64)), None
