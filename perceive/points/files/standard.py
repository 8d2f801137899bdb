"""Clouds in files of common formats: PLY and PCD through Open3D, LAS and LAZ through laspy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.files.cloud import LabelledCloud, cloud_of
from perceive.points.files.source import CloudSource, found
from perceive.points.files.store import read_cloud
from sensors.errors import DataError

# A name that files give to the class of a point, or to the object that it belongs to.
_SEMANTIC = ("semantic", "label", "class", "classification", "scalar_label", "scalar_classification")
_INSTANCE = ("instance", "object", "scalar_instance")
_TYPES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "int": 4, "uint": 4,
    "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8,
}  # fmt: skip
_FIX = "Copy the file again."
_FULL = 65535.0  # of intensities and colours in LAS files


@final
class CloudFiles(CloudSource):
    """All clouds of a folder, whatever their format, in the order of their names; or one single file.

    Args:
        path: the folder, or the file.

    Raises:
        DataError: there is none.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self._paths = [path] if path.is_file() else sorted(each for each in path.glob("*") if each.suffix in READERS)
        found(path, f"clouds ({', '.join(READERS)})", [each.name for each in self._paths])

    @property
    def names(self) -> Sequence[str]:
        return [path.name for path in self._paths]

    def read(self, number: int) -> LabelledCloud:
        return read_file(self._paths[number])


def read_file(path: str | Path) -> LabelledCloud:
    """A cloud by the ending of its name.

    Raises:
        DataError: an unknown ending, or the file is missing or damaged.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise DataError(str(path), f"one of {', '.join(READERS)}", repr(path.suffix), "Convert it.")
    if not path.is_file():
        raise DataError(str(path), "a readable file", "no such file", "Check the path.")
    return READERS[path.suffix](path)


def read_ply(path: Path) -> LabelledCloud:
    """The vertices of a PLY file, in the frame "file", with colours, normals, intensity and labels where it has them.

    Raises:
        DataError: it is no PLY file, or cut off.
    """
    _check_ply(path)
    return _through_open3d(path)


def read_pcd(path: Path) -> LabelledCloud:
    """The points of a PCD file; as :func:`read_ply`.

    Raises:
        DataError: it is no PCD file, or cut off.
    """
    _check_pcd(path)
    return _through_open3d(path)


def read_las(path: Path) -> LabelledCloud:
    """The points of a LAS or LAZ file in the frame "file", moved to their lowest corner, which ``origin_m`` keeps.

    Metres are taken for granted: what unit a map is in says its coordinate system, which is not read. ``semantic`` is
    the file's classification, with 0 ("never classified") as -1.

    Raises:
        DataError: laspy is not installed, or the file is damaged.
    """
    try:
        laspy: Any = importlib.import_module("laspy")
    except ImportError as error:
        raise DataError(str(path), "laspy, which reads LAS files", "none", "pip install 'laspy[lazrs]'") from error
    try:
        las = laspy.read(path)
        places = np.stack([np.asarray(getattr(las, axis), np.float64) for axis in "xyz"], axis=-1)
        names = set(las.point_format.dimension_names)
        intensity = np.asarray(las.intensity, np.float64) / _FULL
        kind = np.asarray(las.classification, np.int64)
        rgb = None
        if {"red", "green", "blue"} <= names:
            colour = np.stack([np.asarray(getattr(las, name)) for name in ("red", "green", "blue")], axis=-1)
            # Some writers put 8 bits where the format has 16.
            rgb = colour if colour.max(initial=0) <= 255 else colour >> 8
        declared = int(las.header.point_count)
    except Exception as error:  # laspy's own errors, and those of the packages that unpack LAZ for it
        raise DataError(str(path), "a whole LAS or LAZ file", f"{type(error).__name__}: {error}", _FIX) from error
    if len(places) != declared:
        raise DataError(str(path), f"{declared} points", str(len(places)), _FIX)
    finite = places[np.isfinite(places).all(axis=1)]
    origin = finite.min(axis=0) if len(finite) else np.zeros(3)
    semantic = np.where(kind == 0, -1, kind)
    return cloud_of(
        places - origin, "file", rgb=rgb, intensity=intensity, semantic=semantic, origin_m=origin, name=str(path)
    )


READERS: dict[str, Callable[[Path], LabelledCloud]] = {
    ".npz": read_cloud,
    ".ply": read_ply,
    ".pcd": read_pcd,
    ".las": read_las,
    ".laz": read_las,
}


def _through_open3d(path: Path) -> LabelledCloud:
    import open3d  # half a second; needed only here

    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        reader: Any = open3d.t.io.read_point_cloud  # its stub names the wrong type of path
        cloud = reader(str(path))
    # Names of attributes are the file's own, but for places, colours and normals.
    fields: dict[str, NDArray[Any]] = {str(name): cloud.point[name].numpy() for name in cloud.point}
    if "positions" not in fields:
        raise DataError(str(path), "points", "none that could be read", _FIX)
    places = np.asarray(fields["positions"], np.float64)
    known: dict[str, Any] = {"name": str(path)}
    for name, wanted in (("semantic", _SEMANTIC), ("instance", _INSTANCE)):
        for each in wanted:
            if each in fields and fields[each].size == len(places):
                known[name] = np.rint(fields[each].reshape(-1)).astype(np.int64).clip(-1)
                break
    if "colors" in fields:
        colour = fields["colors"]
        known["rgb"] = colour if colour.dtype == np.uint8 else np.rint(255.0 * np.clip(colour, 0.0, 1.0))
    if "normals" in fields:
        known["normal"] = fields["normals"]
    if "intensity" in fields:
        shine = fields["intensity"].reshape(-1).astype(np.float64)
        most = 1.0 if fields["intensity"].dtype.kind == "f" and shine.max(initial=0.0) <= 1.0 else 255.0
        known["intensity"] = np.clip(shine / most, 0.0, 1.0)
    return cloud_of(places, "file", **known)


def _check_ply(path: Path) -> None:
    """Open3D fills up what is cut off with whatever is in memory, so that is found out here."""
    data = path.read_bytes()
    head, mark, body = data.partition(b"end_header")
    words = [line.split() for line in head.decode("latin-1").splitlines()]
    if not data.startswith(b"ply") or not mark:
        raise DataError(str(path), "a PLY file", "no header", _FIX)
    body = body[body.find(b"\n") + 1 :]
    kind = next((line[1] for line in words if len(line) > 1 and line[0] == "format"), "")
    elements = [(line[1], line[2]) for line in words if len(line) == 3 and line[0] == "element"]
    if not elements or not all(count.isdigit() for _, count in elements):
        raise DataError(str(path), "a PLY header with elements", f"{elements}", _FIX)
    if kind == "ascii":
        _check_count(path, "lines", sum(int(count) for _, count in elements), len(body.split(b"\n")) - 1, body)
    elif elements[0][0] == "vertex":
        first = next(index for index, line in enumerate(words) if line[:2] == ["element", "vertex"])
        row = 0
        for line in words[first + 1 :]:
            if line[:1] != ["property"] or line[1] == "list":
                break
            row += _TYPES.get(line[1], 0)
        _check_count(path, "bytes of vertices", int(elements[0][1]) * row, len(body), b"\n")


def _check_pcd(path: Path) -> None:
    data = path.read_bytes()
    head, mark, body = data.partition(b"\nDATA ")
    words = {line.split()[0]: line.split()[1:] for line in head.decode("latin-1").splitlines() if line.split()}
    points = words.get("POINTS", ["x"])[0]
    if not mark or not points.isdigit() or "FIELDS" not in words:
        raise DataError(str(path), "a PCD file", "no header", _FIX)
    kind, _, body = body.partition(b"\n")
    if kind.strip() == b"ascii":
        _check_count(path, "lines", int(points), len(body.split(b"\n")) - 1, body)
    elif kind.strip() == b"binary":
        sizes, counts = words.get("SIZE", []), words.get("COUNT", ["1"] * len(words.get("SIZE", [])))
        row = sum(int(size) * int(count) for size, count in zip(sizes, counts, strict=False))
        _check_count(path, "bytes", int(points) * row, len(body), b"\n")


def _check_count(path: Path, what: str, expected: int, got: int, body: bytes) -> None:
    # The last line need not end.
    got += not body.endswith(b"\n") and len(body) > 0
    if got < expected:
        raise DataError(str(path), f"{expected} {what}", str(got), _FIX)
