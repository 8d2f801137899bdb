from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from perceive.pose.files.mesh_file import load_model, save_model
from perceive.pose.files.ply import write_ply
from perceive.pose.model import GREY, ObjectModel
from perceive.pose.symmetry import Symmetries
from sensors.errors import DataError, SpecError
from tests.perceive.pose.files.made import box_model

_CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
_FACES = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]


def ascii_ply(path: Path, size: float, faces: str = "", head: str = "", extra: tuple[str, ...] = ("",) * 4) -> Path:
    """A tetrahedron whose longest edge of the bounding box is ``size``."""
    rows = [f"{' '.join(str(size * x) for x in corner)} {more}" for corner, more in zip(_CORNERS, extra, strict=True)]
    count = faces.count("\n") if faces else 4
    faces = faces or "".join(f"3 {' '.join(map(str, face))}\n" for face in _FACES)
    path.write_text(
        f"ply\nformat ascii 1.0\n{head.partition('|')[0]}element vertex 4\nproperty float x\nproperty float y\n"
        f"property float z\n{head.partition('|')[2]}element face {count}\n"
        f"property list uchar int vertex_indices\nend_header\n" + "\n".join(rows) + "\n" + faces
    )
    return path


def test_a_model_that_is_saved_in_millimetres_is_loaded_again(tmp_path: Path, models: list[ObjectModel]) -> None:
    for model in models:
        save_model(tmp_path / "m.ply", model)
        found = load_model(tmp_path / "m.ply", model.number, "again", model.symmetries)
        np.testing.assert_allclose(found.vertices_m, model.vertices_m, rtol=0, atol=1e-8)
        np.testing.assert_array_equal(found.faces, model.faces)
        np.testing.assert_array_equal(found.rgb, model.rgb)
        assert found.diameter_m == pytest.approx(model.diameter_m, abs=1e-8)
        assert (found.number, found.name, found.watertight) == (model.number, "again", True)
        assert len(found.symmetries.transforms()) == len(model.symmetries.transforms())


def test_others_read_the_saved_file_with_its_normals(tmp_path: Path) -> None:
    import open3d

    model = box_model()
    save_model(tmp_path / "m.ply", model)
    mesh = open3d.io.read_triangle_mesh(tmp_path / "m.ply")
    np.testing.assert_allclose(np.asarray(mesh.vertices), 1000 * model.vertices_m, atol=1e-5)  # millimetres
    np.testing.assert_array_equal(np.rint(255 * np.asarray(mesh.vertex_colors)), model.rgb)
    normals = np.asarray(mesh.vertex_normals)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-6)
    assert (np.einsum("vi,vi->v", normals, model.vertices_m) > 0).all()  # outwards, from the middle of the box


@pytest.mark.parametrize(
    ("size", "unit", "metres"),
    [
        (80.0, "mm", 0.08),
        (0.08, "m", 0.08),
        (80.0, "auto", 0.08),
        (0.08, "auto", 0.08),
        (5.0, "mm", 0.005),
        (5.0, "m", 5.0),
        (1500.0, "auto", 1.5),
    ],
)
def test_units(tmp_path: Path, size: float, unit: str, metres: float) -> None:
    found = load_model(ascii_ply(tmp_path / "m.ply", size), 3, unit=unit)  # type: ignore[arg-type]  # a plain string
    assert found.high_m.max() == pytest.approx(metres, rel=1e-12)
    assert found.diameter_m == pytest.approx(metres * np.sqrt(2))


@pytest.mark.parametrize(
    ("size", "unit", "diameter_m", "got", "fix"),
    [
        (0.08, "mm", None, "0.08 mm", "likely in metres: pass unit='m'"),
        (80.0, "m", None, "80 m", "likely in millimetres: pass unit='mm'"),
        (2e4, "mm", None, "20000 mm", "neither"),
        (1e-5, "m", None, "1e-05 m", "neither"),
        (1e-5, "auto", None, "1e-05 m", "neither"),
        (5.0, "auto", None, "could be mm, could be m", "unit='mm' or unit='m'"),
        (5.0, "m", 0.005 * 2**0.5, "a factor of about 1000", "mesh is likely in millimetres: pass unit='mm'"),
        (5.0, "mm", 5 * 2**0.5, "a factor of about 1000", "mesh is likely in metres: pass unit='m'"),
        (80.0, "mm", 80 * 2**0.5, "a factor of about 1000", "likely in metres"),
        (80.0, "mm", 0.00008 * 2**0.5, "a factor of about 1000", "stated diameter is likely in another unit"),
        (80.0, "auto", 0.3, "neither m nor mm", "inches"),
    ],
)
def test_the_wrong_unit_is_named(
    tmp_path: Path, size: float, unit: str, diameter_m: float | None, got: str, fix: str
) -> None:
    path = ascii_ply(tmp_path / "m.ply", size)
    with pytest.raises(DataError) as caught:
        load_model(path, 3, unit=unit, diameter_m=diameter_m)  # type: ignore[arg-type]  # wrong on purpose
    assert got in caught.value.got
    assert fix in caught.value.fix


def test_the_diameter_decides_where_the_size_cannot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = ascii_ply(tmp_path / "m.ply", 5.0)
    for diameter_m, size_m in ((0.00707, 0.005), (7.07, 5.0)):
        found = load_model(path, 3, diameter_m=diameter_m)
        assert found.high_m.max() == pytest.approx(size_m)
        assert found.diameter_m == diameter_m  # as stated
    assert "is it the same object" not in caplog.text
    load_model(path, 3, unit="mm", diameter_m=0.012)
    assert "0.00707107 m, 0.012 m are stated" in caplog.text
    with pytest.raises(SpecError, match="'inch'"):
        load_model(path, 3, unit="inch")  # type: ignore[arg-type]  # wrong on purpose


def test_an_open_mesh_loads_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        closed = load_model(ascii_ply(tmp_path / "closed.ply", 80.0), 1)
        assert closed.watertight
        assert not caplog.records
        found = load_model(ascii_ply(tmp_path / "open.ply", 80.0, "3 0 2 1\n3 0 1 3\n"), 1)
    assert not found.watertight
    assert len(found.faces) == 2
    assert "open.ply: the mesh is not closed" in caplog.text
    assert "volume" in caplog.text


def test_polygons_are_cut_into_triangles(tmp_path: Path) -> None:
    path = ascii_ply(tmp_path / "m.ply", 80.0, "4 0 1 2 3\n3 0 1 3\n")
    np.testing.assert_array_equal(load_model(path, 1).faces, [[0, 1, 2], [0, 2, 3], [0, 1, 3]])
    head, _, _ = path.read_bytes().partition(b"ascii 1.0")
    body = (80 * _CORNERS).astype(">f4").tobytes()
    for corners in ([0, 1, 2, 3], [0, 1, 3]):
        body += bytes([len(corners)]) + np.array(corners, ">i4").tobytes()
    rest = path.read_text().partition("ascii 1.0")[2].partition("end_header\n")
    path.write_bytes(head + b"binary_big_endian 1.0" + (rest[0] + rest[1]).encode() + body)
    found = load_model(path, 1)
    np.testing.assert_array_equal(found.faces, [[0, 1, 2], [0, 2, 3], [0, 1, 3]])
    np.testing.assert_allclose(found.vertices_m, 0.08 * _CORNERS, atol=1e-8)


def test_colours_of_a_texture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:5, :10], picture[:5, 10:], picture[5:, :10] = (250, 0, 0), (0, 240, 0), (0, 0, 230)  # rgb
    cv2.imwrite(str(tmp_path / "skin.png"), picture[..., ::-1])
    head = "comment TextureFile skin.png\n|property float texture_u\nproperty float texture_v\n"
    uv = ("0.25 0.75", "0.75 0.75", "0.25 0.25", "0.75 0.25")  # v counts upwards
    path = ascii_ply(tmp_path / "m.ply", 80.0, head=head, extra=uv)
    expected = [[250, 0, 0], [0, 240, 0], [0, 0, 230], [0, 0, 0]]
    np.testing.assert_array_equal(load_model(path, 1).rgb, expected)
    (tmp_path / "skin.png").unlink()
    assert (load_model(path, 1).rgb == GREY).all()
    assert "its texture skin.png is not there" in caplog.text


def test_obj_and_stl(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4], picture[4:] = (255, 0, 0), (0, 0, 255)
    cv2.imwrite(str(tmp_path / "t.png"), picture[..., ::-1])
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd t.png\n")
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in 50 * _CORNERS)
    (tmp_path / "m.obj").write_text(
        f"mtllib m.mtl\n{corners}vt 0.5 0.9\nvt 0.5 0.1\nusemtl a\n"
        "f 1/1 3/1 2/1\nf 1/1 2/1 4/2\nf 1/1 4/2 3/1\nf 2/1 3/1 4/2\n"
    )
    found = load_model(tmp_path / "m.obj", 1)
    # Open3D orders vertices by the faces that use them.
    order = [int(np.abs(found.vertices_m - corner).sum(1).argmin()) for corner in 0.05 * _CORNERS]
    np.testing.assert_allclose(found.vertices_m[order], 0.05 * _CORNERS, atol=1e-9)
    np.testing.assert_array_equal(found.rgb[order], [[255, 0, 0]] * 3 + [[0, 0, 255]])
    stl = bytearray(80) + (4).to_bytes(4, "little")
    for face in _FACES:
        stl += np.concatenate([np.zeros((1, 3)), 50 * _CORNERS[face]]).astype("<f4").tobytes() + b"\0\0"
    (tmp_path / "m.stl").write_bytes(stl)
    found = load_model(tmp_path / "m.stl", 1)
    assert found.vertices_m.shape == (4, 3)
    assert found.watertight
    assert found.diameter_m == pytest.approx(0.05 * np.sqrt(2))
    (tmp_path / "cut.stl").write_bytes(stl[:-60])
    with pytest.raises(DataError, match="284 bytes, as its header says; got 224"):
        load_model(tmp_path / "cut.stl", 1)


@pytest.mark.parametrize("ending", [".ply", ".obj", ".stl", ".glb"])
def test_what_is_no_mesh(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    with pytest.raises(DataError):
        load_model(path, 1)
    for content in (b"", b"hello", bytes(200)):
        path.write_bytes(content)
        with pytest.raises(DataError):
            load_model(path, 1)


def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "whole.ply", box_model())
    data = (tmp_path / "whole.ply").read_bytes()
    path = tmp_path / "m.ply"
    for share in (0.01, 0.2, 0.5, 0.8, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match=r"m\.ply"):
            load_model(path, 1)
    text = ascii_ply(tmp_path / "a.ply", 80.0).read_text()
    path.write_text(text[:-9])
    with pytest.raises(DataError, match="expected 4 of 'face'; got only 3 whole ones"):
        load_model(path, 1)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("3 0 2 1", "3 0 2 9", "faces of vertices 0 to 3"),
        ("80.0", "nan", "finite vertices"),
        ("80.0", "x", "numbers after the header"),
        ("80.0", "0", "a mesh with an extent"),
        ("ascii", "zipped", "a format of"),
        ("property float x", "property float32x x", "a PLY header"),
        ("property float x", "property float w", "vertices with x, y and z"),
        ("vertex_indices", "others", "faces"),
    ],
)
def test_bad_meshes_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = ascii_ply(tmp_path / "m.ply", 80.0)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError) as caught:
        load_model(path, 1)
    assert expected in caught.value.expected


def test_a_cloud_of_points_is_no_mesh(tmp_path: Path) -> None:
    none = np.zeros((0, 3), np.int64)
    path = tmp_path / "m.ply"
    path.write_bytes(write_ply(80 * _CORNERS, _CORNERS, np.zeros((4, 3), np.uint8), none))
    with pytest.raises(DataError, match="4 vertices, 0 triangles"):
        load_model(path, 1, symmetries=Symmetries.none())
