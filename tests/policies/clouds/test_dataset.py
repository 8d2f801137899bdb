"""CloudDataset: streams and labels out of files of any layout; bad clouds are named; the same whatever is cached."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perceive.loading import build_model
from perceive.points.files.cloud import Boxes, LabelledCloud, cloud_of
from perceive.points.files.store import write_cloud
from policies.clouds.dataset import CloudDataset
from sensors.errors import DataError, SpecError, WiringError
from sensors.spec import check_array

CLASSES, BOX_CLASSES = ("floor", "mug", "bowl"), ("mug", "bowl", "cart")
SIZES = (50, 20, 80, 33, 5)


def boxes(rng: np.random.Generator, count: int) -> Boxes:
    return Boxes(
        rng.normal(size=(count, 3)),
        rng.uniform(0.1, 1, (count, 3)),
        rng.uniform(-3, 3, count),
        np.arange(count, dtype=np.int64) % 4 - 1,
        np.where(np.arange(count)[:, None] == 0, np.nan, rng.normal(size=(count, 3))),
        np.arange(count, dtype=np.int64),
        np.arange(count, dtype=np.int64) * 3 - 1,
    )


def cloud(number: int, size: int, **other: Any) -> LabelledCloud:
    rng = np.random.default_rng(number)
    known: dict[str, Any] = {
        "rgb": rng.integers(0, 256, (size, 3)),
        "intensity": rng.random(size),
        "time_s": -rng.random(size),
        "normal": rng.normal(size=(size, 3)),
        "semantic": rng.integers(-1, 3, size),
        "instance": rng.integers(-1, 100_000, size),
        "part": rng.integers(-1, 300, size),
        "boxes": boxes(rng, number + 1),
        "label": number % 3,
        "classes": CLASSES,
        "parts": tuple(f"part {k}" for k in range(300)),
        "box_classes": BOX_CLASSES,
        "name": f"cloud {number}",
    }
    return cloud_of(rng.normal(size=(size, 3)), "base", **{k: v for k, v in (known | other).items() if v is not None})


def folder_of(path: Path, clouds: list[LabelledCloud]) -> Path:
    for number, each in enumerate(clouds):
        write_cloud(path / f"{number}.npz", each)
    return path


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("five"), [cloud(n, size) for n, size in enumerate(SIZES)])


def test_a_batch_is_what_the_files_say(five: Path) -> None:
    data = CloudDataset(five, points=80)
    assert (len(data), data.classes, data.box_classes, data.cached) == (5, CLASSES, BOX_CLASSES, 5)
    order = [3, 0, 2]
    batch, target = data.batch(order)
    stream = batch.stream("cloud")
    assert set(stream.data) == {"xyz_m", "rgb", "count"}
    assert stream.valid.all()
    assert stream.age_s.abs().sum() == 0
    for row, number in enumerate(order):
        one, size = cloud(number, SIZES[number]), SIZES[number]
        assert int(stream.data["count"][row, 0, 0]) == size
        assert torch.equal(target.valid[row], torch.arange(80) < size)
        for value, expected, empty in (
            (stream.data["xyz_m"][row, 0], one.xyz_m, 0),
            (stream.data["rgb"][row, 0], one.rgb, 0),
            (target.xyz_m[row], one.xyz_m, 0),
            (target.normal, one.normal, 0),
            (target.semantic, one.semantic, -1),
            (target.instance, one.instance, -1),
            (target.part, one.part, -1),
        ):
            assert isinstance(value, Tensor)
            got = value if len(value) == 80 else value[row]
            assert expected is not None
            np.testing.assert_array_equal(got[:size].numpy(), expected)
            assert (got[size:] == empty).all()
        assert target.label is not None
        assert target.label[row] == number % 3
        assert one.boxes is not None
        count = len(one.boxes)
        assert target.boxes is not None
        assert target.box_valid is not None
        assert target.box_label is not None
        assert target.box_points is not None
        assert torch.equal(target.box_valid[row], torch.arange(4) < count)
        expected = np.concatenate(
            [one.boxes.centre_m, one.boxes.size_m, one.boxes.yaw_rad[:, None], one.boxes.velocity_m_s[:, :2]], 1
        )
        np.testing.assert_array_equal(target.boxes[row, :count].numpy(), expected.astype(np.float32))
        np.testing.assert_array_equal(target.box_label[row, :count].numpy(), one.boxes.label)
        np.testing.assert_array_equal(target.box_points[row, :count].numpy(), one.boxes.points)
        assert target.boxes[row, count:].abs().sum() == 0
        assert (target.box_label[row, count:] == -1).all()


@pytest.mark.parametrize("kind", ["points", "lidar"])
def test_frames_lie_in_the_space(five: Path, kind: Any) -> None:
    data = CloudDataset(five, points=16, kind=kind, sensor="it")
    batch, target = data.batch(np.arange(5))
    space, stream = data.sensor_spaces["it"], batch.stream("it")
    assert data.history == {"it": 1}
    assert set(space.spaces) == set(stream.data)
    for row in range(5):
        for name, value in stream.data.items():
            part: Any = space.spaces[name]
            check_array(name, value[row, 0].numpy(), part)
            assert part.contains(value[row, 0].numpy()), name
    if kind == "lidar":
        assert set(stream.data) == {"xyz_m", "intensity", "offset_s", "count", "base_from_lidar"}
        assert torch.equal(stream.data["base_from_lidar"], torch.eye(4).expand(5, 1, 4, 4))
    stream.data["xyz_m"].zero_()  # the target's points are its own
    assert target.xyz_m.abs().sum() > 0


def test_of_large_clouds_the_same_points_are_chosen_everywhere(five: Path) -> None:
    data = CloudDataset(five, points=16)
    batch, target = data.batch([2, 4])
    again, _ = data.batch([1, 2])
    xyz, one = batch.stream("cloud").data["xyz_m"][0, 0], cloud(2, SIZES[2])
    assert torch.equal(xyz, again.stream("cloud").data["xyz_m"][1, 0])
    rows = [int(np.flatnonzero((one.xyz_m == point).all(1))[0]) for point in xyz.numpy()]
    assert rows == sorted(set(rows))
    assert max(rows) > 40  # not only the first
    assert one.part is not None
    assert target.part is not None
    assert target.part[0].tolist() == one.part[rows].tolist()
    other = CloudDataset(five, points=16, seed=1).batch([2])[0].stream("cloud").data["xyz_m"][0, 0]
    assert not torch.equal(xyz, other)


@pytest.mark.parametrize(("cache_gb", "verify", "cached"), [(0.0, "full", 0), (0.0, "quick", 0), (6e-6, "quick", 2)])
def test_what_is_in_memory_changes_nothing(five: Path, cache_gb: float, verify: Any, cached: int) -> None:
    whole, part = CloudDataset(five, points=40), CloudDataset(five, points=40, cache_gb=cache_gb, verify=verify)
    assert part.cached == cached
    part = pickle.loads(pickle.dumps(part))  # noqa: S301  (made here)
    one, other = whole.batch(np.arange(5)), part.batch(np.arange(5))
    for name, value in one[0].stream("cloud").data.items():
        assert torch.equal(value, other[0].stream("cloud").data[name]), name
    for name, value in vars(one[1]).items():
        assert torch.equal(value.nan_to_num(9e9), vars(other[1])[name].nan_to_num(9e9)), name


def test_numbers_follow_the_names_that_are_asked_for(five: Path) -> None:
    plain = CloudDataset(five, points=80)
    data = CloudDataset(five, points=80, classes=["bowl", "floor"], box_classes=["cart", "mug"])
    assert (data.classes, data.box_classes) == (("bowl", "floor"), ("cart", "mug"))
    old, new = (each.batch([0, 2, 4])[1] for each in (plain, data))
    for value, changed in ((old.semantic, new.semantic), (old.label, new.label)):
        assert value is not None
        assert changed is not None
        for number, becomes in ((-1, -1), (0, 1), (1, -1), (2, 0)):
            assert (changed[value == number] == becomes).all()
        assert (changed == 0).any()
    # Cloud 4 has boxes of -1, mug, bowl, cart, -1: bowls are left out, unknown ones are not.
    assert new.box_label is not None
    assert new.box_valid is not None
    assert new.box_label[2].tolist() == [-1, 1, 0, -1]
    assert new.box_valid[2].all()
    assert new.boxes is not None
    assert old.boxes is not None
    assert torch.equal(new.boxes[2, :, :7], old.boxes[2, [0, 1, 3, 4], :7])
    with pytest.raises(DataError, match="Did you mean 'bowl'"):
        CloudDataset(five, classes=["bowll"])
    with pytest.raises(SpecError, match="different names"):
        CloudDataset(five, classes=["mug", "mug"])


def test_boxes_on_which_little_was_measured_are_left_out(five: Path) -> None:
    target = CloudDataset(five, least_points=6).batch([4])[1]
    assert target.box_points is not None
    assert target.box_points.tolist() == [[-1, 8, 11]]  # of -1, 2, 5, 8, 11


def test_names_must_be_alike(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [cloud(0, 9), cloud(1, 9, classes=("floor", "bowl", "mug"))])
    with pytest.raises(DataError, match=r"1\.npz.*classes as in the other clouds"):
        CloudDataset(folder)
    semantic = CloudDataset(folder, classes=CLASSES).batch([1])[1].semantic
    assert semantic is not None
    swapped = np.array([0, 2, 1, -1])[np.asarray(cloud(1, 9).semantic)]
    np.testing.assert_array_equal(semantic[0, :9].numpy(), swapped)


def bad_folder(path: Path) -> Path:
    folder_of(
        path, [cloud(0, 9), cloud(1, 0, boxes=Boxes.none()), cloud(2, 9, semantic=None), cloud(3, 9), cloud(4, 9)]
    )
    (path / "3.npz").write_bytes((path / "3.npz").read_bytes()[:-200])
    write_cloud(path / "5.npz", cloud(5, 9, semantic=np.full(9, -1)))
    return path


def test_bad_clouds_are_named_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = bad_folder(tmp_path)
    with pytest.raises(DataError, match=r"'1\.npz'.*an empty cloud"):
        CloudDataset(folder)
    with caplog.at_level(logging.WARNING):
        data = CloudDataset(folder, needs=["semantic", "boxes"], on_bad="skip", points=16)
    assert len(data) == 2
    assert [next(n for n in "12345" if f"{n}.npz" in line) for line in data.skipped] == ["1", "2", "3", "5"]
    assert caplog.text.count("skipped a cloud") == 4
    xyz = data.batch([1])[0].stream("cloud").data["xyz_m"][0, 0]
    np.testing.assert_array_equal(xyz[:9].numpy(), cloud(4, 9).xyz_m)  # the second that is whole
    with pytest.raises(DataError, match="none of them usable"):
        CloudDataset(folder, needs=["semantic"], on_bad="skip", limit=0 + 3, classes=["lamp"])
    # What cannot be found out beforehand is an error when it is read.
    late = CloudDataset(folder, on_bad="skip", verify="quick", cache_gb=0.0)
    with pytest.raises(DataError, match=r"3\.npz"):
        late.batch([3])


def test_fields_that_some_lack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = folder_of(tmp_path, [cloud(0, 9), cloud(1, 9, semantic=None, rgb=None, label=None, boxes=None)])
    with caplog.at_level(logging.WARNING):
        batch, target = CloudDataset(folder, points=10).batch([0, 1])
    assert "rgb" not in batch.stream("cloud").data
    assert "'rgb' is left out: 1 of 2" in caplog.text
    assert "'boxes' is left out: 1 of 2" in caplog.text
    assert target.boxes is None
    assert target.semantic is not None
    assert target.label is not None
    assert (target.semantic[0] >= 0).any()
    assert (target.semantic[1] == -1).all()
    assert target.label.tolist() == [0, -1]


def test_some_clouds_are_held_back(five: Path) -> None:
    data = CloudDataset(five)
    for fraction, held in ((0.0, 0), (0.1, 1), (0.4, 2), (1.0, 4)):
        mine, back = data.split(fraction, 3)
        assert sorted([*mine, *back]) == list(range(5))
        assert len(back) == held
    assert np.array_equal(data.split(0.4, 3)[1], data.split(0.4, 3)[1])
    assert len({tuple(data.split(0.2, seed)[1]) for seed in range(20)}) > 2


def test_of_a_drive_neighbours_are_held_back(tmp_path: Path) -> None:
    sequence = tmp_path / "sequences" / "00" / "velodyne"
    sequence.mkdir(parents=True)
    for number in range(10):
        np.random.default_rng(number).random((7, 4)).astype(np.float32).tofile(sequence / f"{number:06d}.bin")
    data = CloudDataset(tmp_path, kind="lidar", points=8)
    assert set(data.batch([0])[0].stream("cloud").data) == {"xyz_m", "intensity", "count", "base_from_lidar"}
    for seed in range(5):
        back = data.split(0.3, seed)[1]
        assert len(back) == 3
        assert set(np.diff(back)) <= {1, 8, 7}  # a run, which may go over the end


def test_arguments_out_of_range(five: Path, tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"points": 0}, {"kind": "radar"}, {"limit": 0}, {"needs": ["colour"]}, {"seed": -1}, {"on_bad": "ask"},
        {"verify": "no"}, {"cache_gb": -1.0}, {"least_points": -1},
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(SpecError, match=next(iter(arguments))):
            CloudDataset(five, **arguments)
    with pytest.raises(DataError, match="no such folder"):
        CloudDataset(tmp_path / "nowhere")
    data = CloudDataset(five, limit=2)
    assert len(data) == 2
    for indices in ([2], [-1], []):
        with pytest.raises(SpecError, match="indices from 0 to 1"):
            data.batch(indices)


def test_heads_with_other_classes_are_refused(five: Path) -> None:
    data = CloudDataset(five, points=16)

    def head(*names: str) -> dict[str, Any]:
        return {"_target_": "perceive.heads.classification.ClassHead", "classes": list(names), "hidden": 8}

    encoder = {"_target_": "perceive.encoders.point_voxels.PointVoxelEncoder", "tokens": 8, "hidden": 8}
    heads = {"right": head(*CLASSES), "swapped": head("mug", "floor", "bowl"), "boxes": head(*BOX_CLASSES)}
    trunk = {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 1, "mlp_ratio": 1.0}
    plan = {"width": 16, "origin": None, "encoders": {"cloud": encoder}, "trunk": trunk, "heads": heads}
    model = build_model(plan, data.sensor_spaces, data.history, None)
    data.check_classes(model, ["right", "boxes"])
    with pytest.raises(WiringError, match=r"head 'swapped'.*'floor', 'mug', 'bowl'"):
        data.check_classes(model, ["right", "swapped"])
