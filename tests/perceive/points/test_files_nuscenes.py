"""Folders in nuScenes' layout: a small drive written here by hand, where every answer is known."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perceive.points.files.folder import CloudFolder
from perceive.points.files.nuscenes import NuScenesFolder
from sensors.errors import DataError

Row = dict[str, Any]
Tables = dict[str, list[Row]]

START_US = 1_532_402_927_647_951
STEP_US = 500_000
LIDAR_HEIGHT_M, LIDAR_AHEAD_M = 1.84, 0.94
YAW, SPEED_M_S = 0.3, 6.0  # the car's, straight on
PLACE = np.array([400.0, 1100.0, 0.0])
ANCHOR = np.array([415.0, 1110.0, 2.0])  # a point in the world that stands still
BOX_START, BOX_SPEED = np.array([420.0, 1105.0, 1.0]), np.array([2.0, -1.0, 0.0])


def about_z(yaw: float) -> NDArray[np.float64]:
    return np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])


def wxyz(yaw: float) -> list[float]:
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def car_at(step: float) -> NDArray[np.float64]:
    return PLACE + about_z(YAW) @ (SPEED_M_S * step * STEP_US * 1e-6, 0.0, 0.0)


def to_base(world: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    return np.asarray((world - car_at(step)) @ about_z(YAW))


def to_lidar(world: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Its x looks to the car's right and its y ahead, as in the data."""
    return np.asarray((to_base(world, step) - (LIDAR_AHEAD_M, 0.0, LIDAR_HEIGHT_M)) @ about_z(-math.pi / 2))


def drive(root: Path, with_classes: bool = False) -> Tables:
    """Three samples half a second apart, a sweep between two of them, a car that moves and a cone that is seen once."""
    tables: Tables = {
        "category": [
            {"token": "cat_cone", "name": "movable_object.trafficcone"},
            {"token": "cat_car", "name": "vehicle.car"},
        ],
        "instance": [{"token": "i1", "category_token": "cat_car"}, {"token": "i0", "category_token": "cat_cone"}],
        "sensor": [{"token": "s_cam", "channel": "CAM_FRONT"}, {"token": "s_lidar", "channel": "LIDAR_TOP"}],
        "calibrated_sensor": [
            {"token": "c_cam", "sensor_token": "s_cam", "translation": [1, 0, 2], "rotation": [0.5, -0.5, 0.5, -0.5]},
            {
                "token": "c_lidar",
                "sensor_token": "s_lidar",
                "translation": [LIDAR_AHEAD_M, 0.0, LIDAR_HEIGHT_M],
                "rotation": wxyz(-math.pi / 2),
            },
        ],
        "sample": [], "sample_data": [], "ego_pose": [], "sample_annotation": [],
    }  # fmt: skip
    shots = [("a", 0.0, True, 0), ("ab", 0.5, False, 1), ("b", 1.0, True, 1), ("c", 2.0, True, 2)]
    for index, (token, step, key, sample) in enumerate(shots):
        stamp = START_US + int(step * STEP_US)
        name = f"{'samples' if key else 'sweeps'}/LIDAR_TOP/{token}.pcd.bin"
        tables["ego_pose"].append({"token": f"e_{token}", "translation": car_at(step).tolist(), "rotation": wxyz(YAW)})
        tables["sample_data"].append(
            {
                "token": f"d_{token}", "sample_token": f"sample_{sample}", "ego_pose_token": f"e_{token}",
                "calibrated_sensor_token": "c_lidar", "timestamp": stamp, "filename": name, "is_key_frame": key,
                "prev": f"d_{shots[index - 1][0]}" if index else "", "next": "",
            }
        )  # fmt: skip
        # Two points: one that stands still, one an arm's length before the LiDAR; intensity and ring behind.
        rows = [[*to_lidar(ANCHOR, step), 51.0, 3.0], [0.0, 1.0, 0.0, 255.0, float(index)]]
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(struct.pack("<5f", *row) for row in rows))
    for number in range(3):
        stamp = START_US + number * STEP_US
        tables["sample"].append({"token": f"sample_{number}", "timestamp": stamp})
        tables["sample_data"].append(
            {
                "token": f"cam_{number}", "sample_token": f"sample_{number}", "is_key_frame": True,
                "ego_pose_token": "e_a", "calibrated_sensor_token": "c_cam", "timestamp": stamp, "filename": "x.jpg",
                "prev": "", "next": "",
            }
        )  # fmt: skip
        tables["sample_annotation"].append(
            {
                "token": f"box_{number}", "sample_token": f"sample_{number}", "instance_token": "i1",
                "translation": (BOX_START + BOX_SPEED * number * 0.5).tolist(), "size": [1.9, 4.6, 1.7],
                "rotation": wxyz(1.2), "num_lidar_pts": number + 4,
                "prev": f"box_{number - 1}" if number else "", "next": f"box_{number + 1}" if number < 2 else "",
            }
        )  # fmt: skip
    tables["sample"].reverse()  # tables are in no order
    tables["sample_annotation"].append(
        {
            "token": "cone", "sample_token": "sample_1", "instance_token": "i0", "translation": [1, 2, 3],
            "size": [1, 1, 1], "rotation": [1, 0, 0, 0], "num_lidar_pts": 0, "prev": "", "next": "",
        }
    )  # fmt: skip
    if with_classes:
        tables["category"] = [{**row, "index": index} for index, row in enumerate(reversed(tables["category"]))]
        tables["lidarseg"] = []
        for token in ("a", "b", "c"):
            name = f"lidarseg/v1.0-mini/d_{token}_lidarseg.bin"
            tables["lidarseg"].append({"token": f"l_{token}", "sample_data_token": f"d_{token}", "filename": name})
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes([1, 0]))
    write(root, tables)
    return tables


def write(root: Path, tables: Tables) -> None:
    (root / "v1.0-mini").mkdir(exist_ok=True)
    for name, rows in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows, indent=0))


def test_points_are_in_the_cars_frame(tmp_path: Path) -> None:
    drive(tmp_path)
    folder = CloudFolder(tmp_path)
    assert (folder.layout, len(folder)) == ("nuscenes", 3)
    assert list(folder.source.names) == ["sample_0", "sample_1", "sample_2"]
    for number in range(3):
        cloud = folder[number]
        assert cloud.frame == "base"
        assert cloud.xyz_m[0] == pytest.approx(to_base(ANCHOR, number), abs=1e-4)
        assert cloud.xyz_m[1] == pytest.approx([LIDAR_AHEAD_M + 1.0, 0.0, LIDAR_HEIGHT_M], abs=1e-6)
        assert cloud.intensity == pytest.approx([0.2, 1.0])
        assert cloud.stamp_s == pytest.approx((START_US + number * STEP_US) * 1e-6)
        assert cloud.semantic is None


def test_boxes_are_in_the_cars_frame_and_move_over_the_ground(tmp_path: Path) -> None:
    drive(tmp_path)
    folder = NuScenesFolder(tmp_path, "v1.0-mini")
    for number in range(3):
        cloud = folder.read(number)
        boxes = cloud.boxes
        assert boxes is not None
        assert boxes.centre_m[0] == pytest.approx(to_base(BOX_START + BOX_SPEED * number * 0.5, number))
        assert boxes.size_m[0].tolist() == [4.6, 1.9, 1.7]  # the files say width, length, height
        assert boxes.yaw_rad[0] == pytest.approx(1.2 - YAW)
        # One-sided at the ends, between both neighbours in the middle; steady motion gives the same.
        assert boxes.velocity_m_s[0] == pytest.approx(BOX_SPEED @ about_z(YAW))
        assert cloud.box_classes[boxes.label[0]] == "vehicle.car"
        assert boxes.points[0] == number + 4
        assert boxes.instance[0] == 1
    cone = folder.read(1).boxes
    assert cone is not None
    assert folder.read(1).box_classes[cone.label[1]] == "movable_object.trafficcone"
    assert np.isnan(cone.velocity_m_s[1]).all()
    assert cone.instance[1] == 0


def test_a_velocity_over_a_gap_is_not_known(tmp_path: Path) -> None:
    tables = drive(tmp_path)
    for row in tables["sample"]:
        if row["token"] == "sample_2":
            row["timestamp"] += 2_000_000
    write(tmp_path, tables)
    folder = NuScenesFolder(tmp_path)
    boxes = [folder.read(number).boxes for number in range(3)]
    assert all(each is not None for each in boxes)
    known = [bool(np.isfinite(each.velocity_m_s[0]).all()) for each in boxes if each is not None]
    assert known == [True, True, False]  # 0.5 s; 3 s, over two steps; 2.5 s, over one


def test_earlier_sweeps_are_brought_to_the_key_frame(tmp_path: Path) -> None:
    drive(tmp_path)
    cloud = CloudFolder(tmp_path, sweeps=3)[1]
    assert len(cloud) == 6
    # What stands is in one place however the car drove; what is fixed to the car is behind it by its way.
    assert cloud.xyz_m[::2] == pytest.approx(np.tile(to_base(ANCHOR, 1), (3, 1)), abs=1e-4)
    assert cloud.xyz_m[1::2, 0] == pytest.approx(LIDAR_AHEAD_M + 1.0 - SPEED_M_S * np.array([0.0, 0.25, 0.5]), abs=1e-4)
    assert cloud.time_s == pytest.approx([0.0, 0.0, -0.25, -0.25, -0.5, -0.5])
    assert len(CloudFolder(tmp_path, sweeps=3)[0]) == 2  # there was nothing before


def test_classes_of_points_where_the_data_has_them(tmp_path: Path) -> None:
    drive(tmp_path, with_classes=True)
    cloud = CloudFolder(tmp_path, sweeps=2)[1]
    assert cloud.semantic is not None
    assert cloud.semantic.tolist() == [1, 0, -1, -1]
    assert cloud.classes == ("vehicle.car", "movable_object.trafficcone")
    assert cloud.boxes is not None
    assert cloud.box_classes[cloud.boxes.label[0]] == "vehicle.car"


def _cut(root: Path, tables: Tables) -> None:
    path = root / "samples/LIDAR_TOP/b.pcd.bin"
    path.write_bytes(path.read_bytes()[:-3])


def _few_classes(root: Path, tables: Tables) -> None:
    (root / "lidarseg/v1.0-mini/d_b_lidarseg.bin").write_bytes(bytes([1]))


def _high_class(root: Path, tables: Tables) -> None:
    (root / "lidarseg/v1.0-mini/d_b_lidarseg.bin").write_bytes(bytes([1, 9]))


def _half_a_table(root: Path, tables: Tables) -> None:
    path = root / "v1.0-mini/ego_pose.json"
    path.write_text(path.read_text()[:-20])


def _no_table(root: Path, tables: Tables) -> None:
    (root / "v1.0-mini/instance.json").unlink()


def _change(table: str, name: str, value: object) -> Callable[[Path, Tables], None]:
    def change(root: Path, tables: Tables) -> None:
        for row in tables[table]:
            row.pop(name, None) if value is None else row.update({name: value})
        write(root, tables)

    return change


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_cut, r"b\.pcd\.bin.*37 bytes"),
        (_few_classes, r"d_b_lidarseg\.bin.*got 1"),
        (_high_class, r"d_b_lidarseg\.bin.*9"),
        (_half_a_table, r"ego_pose\.json"),
        (_no_table, r"instance\.json"),
        (_change("sample_data", "ego_pose_token", "nowhere"), "nowhere"),
        (_change("sample_data", "filename", None), "filename"),
        (_change("sample_annotation", "sample_token", None), "sample_token"),
        (_change("sample_annotation", "size", [1, 2]), r"v1\.0-mini"),
        (_change("sample_annotation", "rotation", [1, 0, 0]), "rotation"),
        (_change("sensor", "channel", "RADAR"), "LIDAR_TOP"),
        (_change("category", "index", 4), "category"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, damage: Callable[[Path, Tables], None], complaint: str) -> None:
    tables = drive(tmp_path, with_classes=True)
    NuScenesFolder(tmp_path).read(1)
    damage(tmp_path, tables)
    with pytest.raises(DataError, match=complaint):
        NuScenesFolder(tmp_path).read(1)


def test_the_version_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"v1\.0-mini"):
        NuScenesFolder(tmp_path)
    drive(tmp_path)
    (tmp_path / "v1.0-other").mkdir()
    (tmp_path / "v1.0-other/sample.json").write_text("[]")
    with pytest.raises(DataError, match="Name the version"):
        NuScenesFolder(tmp_path)
    assert len(CloudFolder(tmp_path, split="v1.0-mini")) == 3
    with pytest.raises(DataError, match="v2"):
        NuScenesFolder(tmp_path, "v2")
