"""KITTI and SemanticKITTI: files written here by hand, read back against their published meaning."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceive.points.files.folder import CloudFolder
from perceive.points.files.kitti import CLASSES, KittiFolder
from perceive.points.files.semantic_kitti import SemanticKittiFolder, read_learning_map
from sensors.errors import DataError

# Rectified camera from Velodyne as in the data, but for the last digits: x forwards becomes z, y left becomes -x.
TR = np.array([[0.0, -1.0, 0.0, -0.004], [0.0, 0.0, -1.0, -0.0763], [1.0, 0.0, 0.0, -0.2718]])
R0 = np.eye(3)


def corners_of_label(label: tuple[float, ...], tr: NDArray[np.float64], r0: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eight corners in the Velodyne's frame as the development kit computes them: in the camera's, and back."""
    height, width, length, x, y, z, turn = label
    own = np.array(
        [
            [a * length / 2, b * height, c * width / 2]
            for a in (-1, 1)
            for b in (-1, 0)  # a label's place is the foot, and y looks down
            for c in (-1, 1)
        ]
    )
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    camera = (own @ about_y.T + (x, y, z)) @ np.linalg.inv(r0).T
    return (camera - tr[:, 3]) @ np.linalg.inv(tr[:, :3]).T


def corners_of_box(centre: NDArray[np.float64], size: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    own = np.array([[a, b, c] for a in (-0.5, 0.5) for b in (-0.5, 0.5) for c in (-0.5, 0.5)]) * size
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return own @ turn.T + centre


def farthest(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How far a corner of the one is from the nearest of the other, at most."""
    return float(np.linalg.norm(one[:, None] - other[None], axis=-1).min(axis=1).max())


def write_kitti(root: Path, name: str, points: NDArray[np.float32], labels: list[str] | None) -> None:
    for folder in ("velodyne", "label_2", "calib"):
        (root / "training" / folder).mkdir(parents=True, exist_ok=True)
    (root / "training/velodyne" / f"{name}.bin").write_bytes(
        b"".join(struct.pack("<4f", *row) for row in points.tolist())
    )
    lines = [f"P{number}: " + " ".join(["1.0"] * 12) for number in range(4)]
    lines.append("R0_rect: " + " ".join(f"{value:.12e}" for value in R0.ravel()))
    lines.append("Tr_velo_to_cam: " + " ".join(f"{value:.12e}" for value in TR.ravel()))
    lines.append("Tr_imu_to_velo: " + " ".join(["0.0"] * 12) + "\n")
    (root / "training/calib" / f"{name}.txt").write_text("\n".join(lines))
    if labels is not None:
        (root / "training/label_2" / f"{name}.txt").write_text("\n".join(labels) + "\n")


def line_of(kind: str, label: tuple[float, ...]) -> str:
    return f"{kind} 0.00 0 -1.57 100.0 120.0 200.0 220.0 " + " ".join(f"{value:.6f}" for value in label)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_boxes_have_the_corners_of_their_labels(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("kitti")
    labels = [
        tuple(
            np.round([*rng.uniform(0.5, 4.0, 3), *rng.uniform((-20, -2, 2), (20, 2, 60)), rng.uniform(-3.14, 3.14)], 6)
        )
        for _ in range(4)
    ]
    kinds = [CLASSES[int(number)] for number in rng.integers(0, len(CLASSES), 4)]
    lines = [line_of(kind, label) for kind, label in zip(kinds, labels, strict=True)]
    lines.insert(1, line_of("DontCare", (-1, -1, -1, -1000, -1000, -1000, -10)))
    lines[2] += " 0.93"  # a result's score
    points = rng.normal(size=(30, 4)).astype(np.float32)
    write_kitti(root, "000007", points, lines)
    folder = KittiFolder(root)
    assert folder.names == ("000007",)
    cloud = folder.read(0)
    assert cloud.frame == "velodyne"
    assert np.array_equal(cloud.xyz_m, points[:, :3])
    assert cloud.intensity is not None
    assert np.array_equal(cloud.intensity, points[:, 3])
    assert cloud.boxes is not None
    assert [cloud.box_classes[number] for number in cloud.boxes.label] == kinds
    for row, label in enumerate(labels):
        box = corners_of_box(cloud.boxes.centre_m[row], cloud.boxes.size_m[row], float(cloud.boxes.yaw_rad[row]))
        assert farthest(corners_of_label(label, TR, R0), box) < 1e-5
        # ... and it looks where the label does: turn 0 is the camera's x, which is the Velodyne's -y.
        ahead = (np.cos(cloud.boxes.yaw_rad[row]), np.sin(cloud.boxes.yaw_rad[row]))
        assert ahead == pytest.approx((-np.sin(label[6]), -np.cos(label[6])), abs=1e-6)


def test_a_scene_without_labels_has_no_boxes_and_one_without_things_has_none(tmp_path: Path) -> None:
    points = np.ones((3, 4), np.float32)
    write_kitti(tmp_path, "000000", points, None)
    write_kitti(tmp_path, "000001", points, [line_of("DontCare", (-1, -1, -1, -1000, -1000, -1000, -10))])
    folder = CloudFolder(tmp_path)
    assert folder.layout == "kitti"
    assert folder[0].boxes is None
    empty = folder[1].boxes
    assert empty is not None
    assert len(empty) == 0


def test_points_that_are_nowhere_are_counted(tmp_path: Path) -> None:
    points = np.ones((5, 4), np.float32)
    points[2, 1] = np.nan
    write_kitti(tmp_path, "000000", points, None)
    cloud = CloudFolder(tmp_path)[0]
    assert len(cloud) == 4
    assert cloud.dropped == 1


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("velodyne/000000.bin", b"\0" * 33, "33 bytes"),
        ("velodyne/000000.bin", b"", "0 bytes"),
        ("label_2/000000.txt", b"Car 0 0 0 1 2 3 4 1 1 1 1\n", "fields"),
        ("label_2/000000.txt", b"Boat" + line_of("", (1, 1, 1, 1, 1, 1, 1)).encode(), "Boat"),
        ("label_2/000000.txt", line_of("Car", (1, 1, 1, 1, 1, 1, 1)).encode()[:-8] + b"x", "numbers in line 1"),
        ("label_2/000000.txt", b"\xff\xfe\x00", "text"),
        ("calib/000000.txt", b"R0_rect: 1 0 0 0 1 0 0 0 1\n", "Tr_velo_to_cam"),
        ("calib/000000.txt", b"R0_rect: 1 0 0\nTr_velo_to_cam: 1 2\n", "R0_rect"),
        ("calib/000000.txt", b"R0_rect: 1 0 0 0 one 0 0 0 1\n", "R0_rect"),
    ],
)
def test_damaged_kitti_files_are_named(tmp_path: Path, file: str, content: bytes, complaint: str) -> None:
    write_kitti(tmp_path, "000000", np.ones((3, 4), np.float32), [line_of("Car", (1, 1, 1, 1, 1, 1, 1))])
    KittiFolder(tmp_path).read(0)
    (tmp_path / "training" / file).write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        KittiFolder(tmp_path).read(0)
    assert Path(file).name in str(caught.value)


def test_a_missing_calibration_is_named(tmp_path: Path) -> None:
    write_kitti(tmp_path, "000000", np.ones((3, 4), np.float32), [line_of("Car", (1, 1, 1, 1, 1, 1, 1))])
    (tmp_path / "training/calib/000000.txt").unlink()
    with pytest.raises(DataError, match="calib"):
        KittiFolder(tmp_path).read(0)
    with pytest.raises(DataError, match="testing"):
        KittiFolder(tmp_path, "testing")


# ------------------------------------------------------------------------------------------------------- SemanticKITTI

MAP = {
    "labels": {0: "unlabeled", 10: "car", 40: "road", 252: "moving-car"},
    "learning_map": {0: 0, 10: 1, 252: 1, 40: 2},
    "learning_map_inv": {0: 0, 1: 10, 2: 40},
    "learning_ignore": {0: True, 1: False, 2: False},
}


def write_semantic(
    root: Path, sequence: str, name: str, classes: list[int], instances: list[int]
) -> NDArray[np.float32]:
    points = np.random.default_rng(len(classes)).normal(size=(len(classes), 4)).astype(np.float32)
    for folder in ("velodyne", "labels"):
        (root / "sequences" / sequence / folder).mkdir(parents=True, exist_ok=True)
    (root / "sequences" / sequence / "velodyne" / f"{name}.bin").write_bytes(points.tobytes())
    raw = b"".join(struct.pack("<HH", kind, number) for kind, number in zip(classes, instances, strict=True))
    (root / "sequences" / sequence / "labels" / f"{name}.label").write_bytes(raw)
    return points


def test_classes_and_instances_of_points(tmp_path: Path) -> None:
    points = write_semantic(tmp_path, "00", "000001", [10, 252, 40, 0], [3, 3, 0, 0])
    write_semantic(tmp_path, "00", "000000", [40, 40], [0, 0])
    write_semantic(tmp_path, "08", "000000", [10], [7])
    (tmp_path / "sequences/00/times.txt").write_text("0.000000e+00\n1.037000e-01\n")
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAP))
    folder = SemanticKittiFolder(tmp_path, learning_map=tmp_path / "map.yaml")
    assert list(folder.names) == ["00/000000", "00/000001", "08/000000"]
    cloud = folder.read(1)
    assert cloud.classes == ("car", "road")
    assert cloud.semantic is not None
    assert cloud.instance is not None
    assert cloud.semantic.tolist() == [0, 0, 1, -1]
    assert cloud.instance[2:].tolist() == [-1, -1]
    assert len(set(cloud.instance[:2].tolist())) == 2  # number 3 of one class is not number 3 of another
    assert cloud.stamp_s == pytest.approx(0.1037)
    assert np.array_equal(cloud.xyz_m, points[:, :3])
    raw = CloudFolder(tmp_path, split="00")
    assert (raw.layout, len(raw)) == ("semantic_kitti", 2)
    semantic = raw[1].semantic
    assert semantic is not None
    assert semantic.tolist() == [10, 252, 40, -1]
    mapped = CloudFolder(tmp_path, split="08, 00", learning_map=tmp_path / "map.yaml")
    assert len(mapped) == 3
    assert mapped[0].classes == ("car", "road")


def test_a_sweep_without_labels_has_none(tmp_path: Path) -> None:
    write_semantic(tmp_path, "11", "000000", [10, 10], [0, 0])
    (tmp_path / "sequences/11/labels/000000.label").unlink()
    cloud = CloudFolder(tmp_path)[0]
    assert cloud.semantic is None
    assert cloud.instance is None


def test_damaged_semantic_files_are_named(tmp_path: Path) -> None:
    write_semantic(tmp_path, "00", "000000", [10, 40, 99], [0, 0, 0])
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(MAP))
    with pytest.raises(DataError, match=r"000000\.label.*99"):
        SemanticKittiFolder(tmp_path, learning_map=tmp_path / "map.yaml").read(0)
    label = tmp_path / "sequences/00/labels/000000.label"
    label.write_bytes(label.read_bytes()[:8])
    with pytest.raises(DataError, match=r"000000\.label.*3 labels.*got 2"):
        CloudFolder(tmp_path)[0]
    label.write_bytes(b"\0\0\0")
    with pytest.raises(DataError, match=r"000000\.label"):
        CloudFolder(tmp_path)[0]
    (tmp_path / "sequences/00/times.txt").write_text("zero\n")
    with pytest.raises(DataError, match=r"times\.txt"):
        CloudFolder(tmp_path)
    with pytest.raises(DataError, match="07"):
        SemanticKittiFolder(tmp_path, ["07"])


@pytest.mark.parametrize("missing", [*MAP, "all", "list", "wide"])
def test_a_map_that_is_none_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "map.yaml"
    content: object = {name: value for name, value in MAP.items() if name != missing}
    if missing == "all":
        content = [1, 2]
    elif missing == "list":
        content = {**MAP, "learning_map": [1, 2]}
    elif missing == "wide":
        content = {**MAP, "learning_map": {70000: 1}}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=r"map\.yaml"):
        read_learning_map(path)
    path.write_text("a: [1,")
    with pytest.raises(DataError, match=r"map\.yaml"):
        read_learning_map(path)
