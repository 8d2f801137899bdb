"""PLY, PCD and LAS: files written here byte by byte, read back through the libraries."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from perceive.points.files.folder import CloudFolder
from perceive.points.files.standard import read_file
from sensors.errors import DataError

POINTS = [(0.5, -1.25, 3.0), (1e3, 2.0, -0.125), (0.0, 0.0, 0.0), (7.0, 8.0, 9.0)]
COLOURS = [(255, 0, 1), (2, 3, 4), (5, 6, 7), (128, 129, 130)]
LABELS = [3, 0, -1, 2]


def ply(path: Path, kind: str, rest: str = "", count: int = 4, missing: int = 0) -> None:
    """x y z, colours, an intensity and a label for each vertex, then one face."""
    head = f"ply\nformat {kind} 1.0\ncomment by hand\nelement vertex {count}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    head += "property float intensity\nproperty int label\n"
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    if kind == "ascii":
        rows = [
            " ".join(map(str, (*point, *colour, 0.25, label)))
            for point, colour, label in zip(POINTS, COLOURS, LABELS, strict=True)
        ]
        body = ("\n".join([*rows, "3 0 1 2"]) + "\n").encode()
    else:
        order = "<" if "little" in kind else ">"
        body = b"".join(
            struct.pack(f"{order}3f3Bfi", *point, *colour, 0.25, label)
            for point, colour, label in zip(POINTS, COLOURS, LABELS, strict=True)
        )
        body += struct.pack(f"{order}B3i", 3, 0, 1, 2)
    path.write_bytes(head.encode() + (body[:-missing] if missing else body))


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_files(tmp_path: Path, kind: str) -> None:
    ply(tmp_path / "a.ply", kind)
    cloud = read_file(tmp_path / "a.ply")
    assert cloud.frame == "file"
    assert np.allclose(cloud.xyz_m, POINTS)
    assert cloud.rgb is not None
    assert cloud.rgb.tolist() == [list(colour) for colour in COLOURS]
    assert cloud.semantic is not None
    assert cloud.semantic.tolist() == LABELS
    assert cloud.intensity == pytest.approx([0.25] * 4)
    assert cloud.normal is None


def test_a_ply_of_places_and_normals_alone(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 2\n"
    head += "".join(f"property double {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz")) + "end_header\n"
    (tmp_path / "a.ply").write_text(head + "1 2 3 0 0 1\nnan 2 3 0 1 0\n")
    cloud = read_file(tmp_path / "a.ply")
    assert cloud.normal is not None
    assert cloud.xyz_m.tolist() == [[1.0, 2.0, 3.0]]
    assert cloud.normal.tolist() == [[0.0, 0.0, 1.0]]
    assert cloud.dropped == 1
    assert cloud.rgb is None
    assert cloud.semantic is None


@pytest.mark.parametrize(("kind", "missing"), [("ascii", 30), ("binary_little_endian", 20), ("binary_big_endian", 14)])
def test_a_ply_that_is_cut_off_is_refused(tmp_path: Path, kind: str, missing: int) -> None:
    """Open3D alone gives such files' full number of points, the last ones out of nowhere."""
    ply(tmp_path / "a.ply", kind, missing=missing)
    with pytest.raises(DataError, match=r"a\.ply"):
        read_file(tmp_path / "a.ply")


PCD_HEAD = (
    "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity label\nSIZE 4 4 4 4 4\n"
    "TYPE F F F F U\nCOUNT 1 1 1 1 1\nWIDTH 4\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 4\nDATA "
)


def pcd(path: Path, kind: str, missing: int = 0) -> None:
    rows = [(*point, 100.0 * number, number) for number, point in enumerate(POINTS)]
    if kind == "ascii":
        body = ("\n".join(" ".join(map(str, row)) for row in rows) + "\n").encode()
    else:
        body = b"".join(struct.pack("<4fI", *row) for row in rows)
    path.write_bytes(f"{PCD_HEAD}{kind}\n".encode() + (body[:-missing] if missing else body))


@pytest.mark.parametrize("kind", ["ascii", "binary"])
def test_pcd_files(tmp_path: Path, kind: str) -> None:
    pcd(tmp_path / "a.pcd", kind)
    cloud = read_file(tmp_path / "a.pcd")
    assert np.allclose(cloud.xyz_m, POINTS)
    assert cloud.semantic is not None
    assert cloud.semantic.tolist() == [0, 1, 2, 3]
    assert cloud.intensity == pytest.approx(np.array([0, 100, 200, 255]) / 255)  # counts of 255, and cut there


@pytest.mark.parametrize(("kind", "missing"), [("ascii", 25), ("binary", 1), ("binary", 30)])
def test_a_pcd_that_is_cut_off_is_refused(tmp_path: Path, kind: str, missing: int) -> None:
    pcd(tmp_path / "a.pcd", kind, missing)
    with pytest.raises(DataError, match=r"a\.pcd"):
        read_file(tmp_path / "a.pcd")


@pytest.mark.parametrize("name", ["a.ply", "a.pcd"])
@pytest.mark.parametrize("content", [b"", b"hello", b"ply\nformat ascii 1.0\nend_header\n", PCD_HEAD.encode()[:60]])
def test_what_is_no_cloud_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_file(tmp_path / name)


def test_unknown_and_missing_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.xyz", "a.ply", "a.pcd"):
        with pytest.raises(DataError, match=name):
            read_file(tmp_path / name)


def test_a_folder_of_mixed_files(tmp_path: Path) -> None:
    ply(tmp_path / "b.ply", "ascii")
    pcd(tmp_path / "a.pcd", "binary")
    folder = CloudFolder(tmp_path)
    assert folder.source.names == ["a.pcd", "b.ply"]
    assert [len(cloud) for cloud in (folder[0], folder[1])] == [4, 4]


# ----------------------------------------------------------------------------------------------------------------- LAS

MAP_M = [(634_000.25, 4_834_500.5, 101.0), (634_001.25, 4_834_500.75, 99.5), (634_000.5, 4_834_502.0, 100.0)]


def las(path: Path) -> None:
    """LAS 1.2, point format 2 (ASPRS specification, revision of 2008): centimetres, intensity, class, colour."""
    scale, offset = (0.01, 0.01, 0.01), (600_000.0, 4_800_000.0, 0.0)
    points = b""
    for number, place in enumerate(MAP_M):
        raw = [round((value - shift) / step) for value, shift, step in zip(place, offset, scale, strict=True)]
        points += struct.pack("<3iHBBbBH3H", *raw, 65535 if number else 0, 0b001001, (0, 2, 6)[number], 0, 0, 0,
                              256 * 10, 256 * 20, 256 * number)  # fmt: skip
    high, low = np.max(MAP_M, axis=0), np.min(MAP_M, axis=0)
    head = struct.pack("<4sHH16sBB32s32sHHHIIBHI5I", b"LASF", 0, 0, b"", 1, 2, b"by hand", b"by hand", 1, 2026, 227,
                       227, 0, 2, 26, len(MAP_M), len(MAP_M), 0, 0, 0, 0)  # fmt: skip
    head += struct.pack("<12d", *scale, *offset, high[0], low[0], high[1], low[1], high[2], low[2])
    assert len(head) == 227
    path.write_bytes(head + points)


def test_las_files_are_moved_to_their_corner(tmp_path: Path) -> None:
    las(tmp_path / "a.las")
    cloud = read_file(tmp_path / "a.las")
    assert cloud.origin_m == pytest.approx([634_000.25, 4_834_500.5, 99.5])
    assert cloud.xyz_m == pytest.approx(np.array(MAP_M) - cloud.origin_m, abs=1e-5)  # 32 bits hold 0.5 m at that place
    assert cloud.semantic is not None
    assert cloud.semantic.tolist() == [-1, 2, 6]
    assert cloud.intensity == pytest.approx([0.0, 1.0, 1.0])
    assert cloud.rgb is not None
    assert cloud.rgb.tolist() == [[10, 20, 0], [10, 20, 1], [10, 20, 2]]
    data = (tmp_path / "a.las").read_bytes()
    for share in (0.1, 0.5, 0.95):
        (tmp_path / "a.las").write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match=r"a\.las"):
            read_file(tmp_path / "a.las")


def test_without_laspy_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    las(tmp_path / "a.las")
    monkeypatch.setitem(sys.modules, "laspy", None)  # an import of it fails, installed or not
    with pytest.raises(DataError, match=r"pip install 'laspy\[lazrs\]'"):
        read_file(tmp_path / "a.las")
