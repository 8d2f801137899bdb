"""ModelNet's meshes and ScanObjectNN's scans: files written here by hand, read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from perceive.points.files.folder import CloudFolder
from perceive.points.files.modelnet import ModelNetFolder, on_surface, read_off
from perceive.points.files.scanobjectnn import CLASSES, ScanObjectNNFile
from sensors.errors import DataError, SpecError

# A box of 2 x 1 x 1 out of rectangles, far from its origin.
CORNERS = [(5 + x, y - 7, z) for z in (0, 1) for y in (0, 1) for x in (0, 2)]
SIDES = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
TRIANGLES = [(a, b, c) for a, b, c, _ in SIDES] + [(a, c, d) for a, _, c, d in SIDES]


def off_text(faces: Sequence[tuple[int, ...]], head: str = "OFF\n", colours: bool = False) -> str:
    lines = [f"{x} {y:.3f} {z}" for x, y, z in CORNERS]
    lines += [" ".join(map(str, (len(face), *face))) + (" 255 0 0" if colours else "") for face in faces]
    return f"{head}{len(CORNERS)} {len(faces)} 0\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        off_text(TRIANGLES),
        off_text(SIDES),
        off_text(SIDES, "OFF"),  # as in half of ModelNet40: the counts behind the word
        off_text(SIDES, colours=True),
        off_text(SIDES, "# made by hand\n\nOFF # so\n"),
    ],
)
def test_meshes_read_alike_however_they_are_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.off"
    path.write_text(text)
    vertices, triangles = read_off(path)
    assert vertices.tolist() == [list(map(float, corner)) for corner in CORNERS]
    corner = vertices[triangles]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2
    assert len(triangles) == 12
    assert area.sum() == pytest.approx(10.0)
    # The flow of the place through the surface is three times the volume: all corners run the same way round.
    flow = np.einsum("ni,ni->n", np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), corner[:, 0]) / 2
    assert flow.sum() == pytest.approx(3 * 2.0)


def model_net(root: Path) -> None:
    for name, split, number in (("chair", "train", 1), ("bed", "train", 1), ("bed", "test", 2), ("bed", "train", 2)):
        (root / name / split).mkdir(parents=True, exist_ok=True)
        (root / name / split / f"{name}_{number:04d}.off").write_text(off_text(SIDES))


def test_clouds_of_meshes_lie_on_them_by_area(tmp_path: Path) -> None:
    model_net(tmp_path)
    folder = ModelNetFolder(tmp_path, "train", points=6000)
    assert list(folder.names) == ["bed_0001", "bed_0002", "chair_0001"]
    cloud = folder.read(2)
    assert (cloud.label, cloud.classes) == (1, ("bed", "chair"))
    assert cloud.frame == "object"
    assert cloud.normal is not None
    farthest = float(np.linalg.norm(cloud.xyz_m, axis=1).max())
    assert farthest == pytest.approx(1.0, abs=1e-5)
    # 2 x 1 x 1, scaled: two faces of five are squares, four are twice as large.
    size = np.abs(cloud.xyz_m).max(axis=0)
    assert size / size[1] == pytest.approx([2.0, 1.0, 1.0], abs=1e-3)
    on_side = np.isclose(np.abs(cloud.xyz_m), size, atol=1e-4)
    assert on_side.any(axis=1).all()
    along = np.abs(cloud.normal).argmax(axis=1)
    assert (along == 0).mean() == pytest.approx(0.2, abs=0.03)
    assert (np.sign(np.take_along_axis(cloud.normal, along[:, None], 1)) == np.sign(
        np.take_along_axis(cloud.xyz_m, along[:, None], 1)
    )).all()  # fmt: skip


def test_points_are_uniform_in_a_triangle() -> None:
    corners = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    points, normals = on_surface(Path("a.off"), corners, np.array([[0, 1, 2]]), 20_000, np.random.default_rng(0))
    assert points.mean(axis=0) == pytest.approx([1 / 3, 1 / 3, 1.0], abs=0.01)
    assert (points**2).mean(axis=0) == pytest.approx([1 / 6, 1 / 6, 1.0], abs=0.01)
    assert (points[:, 0] * points[:, 1]).mean() == pytest.approx(1 / 12, abs=0.005)
    assert np.allclose(normals, (0, 0, 1))


def test_the_same_mesh_gives_the_same_cloud(tmp_path: Path) -> None:
    model_net(tmp_path)
    one, again = CloudFolder(tmp_path, points=50), CloudFolder(tmp_path, "modelnet", "train", points=50)
    assert one.layout == "modelnet"
    assert np.array_equal(one[1].xyz_m, again[1].xyz_m)
    assert not np.array_equal(one[0].xyz_m, one[1].xyz_m)  # other points of an equal mesh
    assert not np.array_equal(one[1].xyz_m, ModelNetFolder(tmp_path, points=50, seed=1).read(1).xyz_m)
    assert len(CloudFolder(tmp_path, split="test")) == 1
    with pytest.raises(DataError, match="val"):
        CloudFolder(tmp_path, split="val")
    with pytest.raises(SpecError):
        ModelNetFolder(tmp_path, points=0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("PLY\n1 1 0\n", "PLY"),
        ("OFF\n", "counts"),
        ("OFF\n8 six 0\n", "six"),
        (off_text(SIDES)[:60], "counts"),
        ("OFF\n8 6 0\n" + "5 -7 0\n" * 7, "8 vertices"),
        (off_text(SIDES).rsplit("\n", 3)[0], "6 faces"),
        (off_text(SIDES).replace("4 0 4", "4 0 44"), "44"),
        (off_text(SIDES).replace("7 -7.000", "nan -7.000", 1), "finite"),
        ("OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n", "area"),
        ("OFF\n0 0 0\n", "area"),
    ],
)
def test_damaged_meshes_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    model_net(tmp_path)
    (tmp_path / "bed/train/bed_0001.off").write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        CloudFolder(tmp_path, "modelnet")[0]
    assert "bed_0001.off" in str(caught.value)


# -------------------------------------------------------------------------------------------------------- ScanObjectNN


def scans(path: Path, **change: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "data": rng.normal(size=(3, 64, 3)).astype(np.float32),
        "label": np.array([0, 14, 4], np.uint8),
        "mask": rng.integers(-1, 3, (3, 64)).astype(np.int32),
        **change,
    }
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file.create_dataset(name, data=value)
    return content


def test_scans_with_their_surroundings(tmp_path: Path) -> None:
    path = tmp_path / "training_objectdataset.h5"
    content = scans(path)
    folder = CloudFolder(path)
    assert (folder.layout, len(folder)) == ("scanobjectnn", 3)
    for number, name in enumerate(("bag", "toilet", "chair")):
        cloud = folder[number]
        assert cloud.label is not None
        assert cloud.classes[cloud.label] == name
        assert np.array_equal(cloud.xyz_m, content["data"][number])
        assert cloud.instance is not None
        assert np.array_equal(cloud.instance == -1, content["mask"][number] == -1)
    assert len(CLASSES) == 15
    scans(path, mask=None)
    assert CloudFolder(path)[0].instance is None


@pytest.mark.parametrize(
    "change",
    [
        {"data": None}, {"label": None}, {"data": np.zeros((3, 64, 2))}, {"label": np.zeros(2)},
        {"label": np.full(3, 15)}, {"mask": np.zeros((3, 63))}, {"data": "text"},
        {"data": np.zeros((0, 64, 3)), "label": np.zeros(0), "mask": None},
    ],
)  # fmt: skip
def test_other_h5_files_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    scans(tmp_path / "a.h5", **change)
    with pytest.raises(DataError, match=r"a\.h5"):
        ScanObjectNNFile(tmp_path / "a.h5")


def test_an_h5_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    scans(tmp_path / "a.h5")
    data = (tmp_path / "a.h5").read_bytes()
    for share in (0.0, 0.3, 0.9):
        (tmp_path / "a.h5").write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match=r"a\.h5"):
            ScanObjectNNFile(tmp_path / "a.h5")
    with pytest.raises(DataError, match="no such file"):
        ScanObjectNNFile(tmp_path / "b.h5")
