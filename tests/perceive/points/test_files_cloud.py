"""LabelledCloud, its own file format, and the folder that reads any layout."""

from __future__ import annotations

import os
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from perceive.points.files.cloud import Boxes, LabelledCloud, cloud_of, from_arrays
from perceive.points.files.collate import collate
from perceive.points.files.folder import LAYOUTS, CloudFolder, layout_of
from perceive.points.files.store import read_cloud, write_cloud
from sensors.errors import DataError, SpecError

NAN, INF = float("nan"), float("inf")


def boxes_of(rng: np.random.Generator, count: int) -> Boxes:
    velocity = rng.normal(size=(count, 3))
    velocity[::2] = NAN
    return Boxes(
        centre_m=rng.normal(size=(count, 3)),
        size_m=rng.uniform(0.1, 2.0, (count, 3)),
        yaw_rad=rng.uniform(-3, 3, count),
        label=rng.integers(-1, 2, count),
        velocity_m_s=velocity,
        instance=np.arange(count),
        points=rng.integers(0, 50, count),
    )


def full_cloud(seed: int, count: int = 40) -> LabelledCloud:
    """A cloud with every field set."""
    rng = np.random.default_rng(seed)
    return LabelledCloud(
        xyz_m=rng.normal(size=(count, 3)).astype(np.float32),
        frame="base",
        rgb=rng.integers(0, 256, (count, 3), np.uint8),
        intensity=rng.random(count, np.float32),
        time_s=-rng.random(count, np.float32),
        normal=rng.normal(size=(count, 3)).astype(np.float32),
        semantic=rng.integers(-1, 3, count),
        instance=rng.integers(-1, 9, count),
        part=rng.integers(-1, 2, count),
        boxes=boxes_of(rng, 4),
        label=1,
        classes=("a", "bé", "c d"),
        parts=("p", "q"),
        box_classes=("car", "cart"),
        name="scene/1",
        stamp_s=12.5,
        origin_m=np.array([4e5, 5e6, 10.0]),
        dropped=3,
    )


def same(one: LabelledCloud, other: LabelledCloud) -> bool:
    ours, theirs = one.arrays(), other.arrays()
    return set(ours) == set(theirs) and all(
        ours[name].dtype == theirs[name].dtype
        and np.array_equal(ours[name], theirs[name], ours[name].dtype.kind == "f")
        for name in ours
    )


# -------------------------------------------------------------------------------------------------------------- clouds


def test_every_field_is_kept_by_its_arrays() -> None:
    cloud = full_cloud(0)
    assert {item.name for item in fields(LabelledCloud)} - {"boxes"} <= set(cloud.arrays())
    assert same(from_arrays(cloud.arrays()), cloud)
    bare = LabelledCloud(np.zeros((0, 3), np.float32), "base")
    assert same(from_arrays(bare.arrays()), bare)
    assert from_arrays(bare.arrays()).semantic is None
    assert from_arrays(bare.arrays()).boxes is None
    none = LabelledCloud(np.zeros((1, 3), np.float32), "base", boxes=Boxes.none())
    read = from_arrays(none.arrays())
    assert read.boxes is not None
    assert len(read.boxes) == 0


def test_points_that_are_nowhere_are_dropped_with_all_that_is_theirs_and_counted() -> None:
    xyz = np.arange(18.0).reshape(6, 3)
    xyz[1, 2], xyz[3, 0], xyz[4] = NAN, -INF, 1e39  # the last is beyond 32 bits
    cloud = cloud_of(xyz, "base", semantic=np.arange(6), intensity=np.linspace(0, 1, 6), rgb=np.full((6, 3), 7.0))
    assert cloud.dropped == 3
    assert cloud.xyz_m.tolist() == [[0, 1, 2], [6, 7, 8], [15, 16, 17]]
    assert cloud.semantic is not None
    assert cloud.intensity is not None
    assert cloud.rgb is not None
    assert cloud.semantic.tolist() == [0, 2, 5]
    assert cloud.intensity == pytest.approx([0.0, 0.4, 1.0])
    assert cloud.rgb.dtype == np.uint8
    nothing = cloud_of(np.full((4, 3), NAN), "base", semantic=np.zeros(4))
    assert len(nothing) == 0
    assert nothing.dropped == 4


def test_taking_points_takes_all_that_is_theirs() -> None:
    cloud = full_cloud(1)
    index = np.array([5, 3, 3])
    some = cloud.take(index)
    assert cloud.semantic is not None
    assert some.semantic is not None
    assert np.array_equal(some.xyz_m, cloud.xyz_m[index])
    assert np.array_equal(some.semantic, cloud.semantic[index])
    assert some.boxes is cloud.boxes
    assert some.classes == cloud.classes
    assert len(cloud.take(np.zeros(len(cloud), bool))) == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"xyz_m": np.zeros((4, 3))}, "xyz_m"),
        ({"xyz_m": np.full((4, 3), NAN, np.float32)}, "finite"),
        ({"semantic": np.zeros(3, np.int64)}, "semantic"),
        ({"semantic": np.zeros(4, np.int32)}, "semantic"),
        ({"semantic": np.full(4, 2), "classes": ("a", "b")}, "semantic"),
        ({"semantic": np.full(4, -2)}, "semantic"),
        ({"part": np.full(4, 1), "parts": ("a",)}, "part"),
        ({"label": 2, "classes": ("a",)}, "label"),
        ({"rgb": np.zeros((4, 4), np.uint8)}, "rgb"),
        ({"boxes": boxes_of(np.random.default_rng(0), 9), "box_classes": ("a",)}, "boxes.label"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], complaint: str) -> None:
    good: dict[str, Any] = {"xyz_m": np.zeros((4, 3), np.float32), "frame": "base"}
    LabelledCloud(**good)
    with pytest.raises(SpecError, match=complaint):
        LabelledCloud(**{**good, **change})


@pytest.mark.parametrize("name", ["centre_m", "size_m", "yaw_rad"])
def test_boxes_are_finite_and_have_a_size(name: str) -> None:
    good = {item.name: getattr(boxes_of(np.random.default_rng(0), 3), item.name) for item in fields(Boxes)}
    for value in (NAN, INF):
        bad = good[name].copy()
        bad[-1] = value
        with pytest.raises(SpecError, match=name):
            Boxes(**{**good, name: bad})
    with pytest.raises(SpecError, match="size_m"):
        Boxes(**{**good, "size_m": -good["size_m"]})
    with pytest.raises(SpecError, match="label"):
        Boxes(**{**good, "label": good["label"][:2]})


def test_arrays_of_other_names_are_refused() -> None:
    arrays = full_cloud(0).arrays()
    for wrong in ({**arrays, "colour": np.zeros(3)}, {k: v for k, v in arrays.items() if k != "frame"}):
        with pytest.raises(SpecError, match="from_arrays"):
            from_arrays(wrong)
    with pytest.raises(SpecError, match="yaw_rad"):
        from_arrays({k: v for k, v in arrays.items() if k != "boxes/yaw_rad"})
    with pytest.raises(SpecError):
        cloud_of(np.zeros((3, 2)), "base")
    with pytest.raises(SpecError, match="rgb"):
        cloud_of(np.zeros((3, 3)), "base", rgb=np.zeros((2, 3)))


# --------------------------------------------------------------------------------------------------------------- files


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 60))
def test_a_file_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    cloud = full_cloud(seed, count)
    path = tmp_path_factory.mktemp("clouds") / "deep" / "a.npz"
    assert write_cloud(path, cloud) == path
    assert same(read_cloud(path), cloud)
    assert [each.name for each in path.parent.iterdir()] == ["a.npz"]  # nothing is left beside it


def test_a_file_is_plain_arrays_by_name(tmp_path: Path) -> None:
    write_cloud(tmp_path / "a.npz", full_cloud(0))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["boxes/size_m"].shape == (4, 3)
        assert file["classes"].tolist() == ["a", "bé", "c d"]
        assert file["xyz_m"].dtype == np.float32


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = write_cloud(tmp_path / "a.npz", full_cloud(0))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"a\.npz"):
        read_cloud(path)


def test_a_flipped_byte_in_the_numbers_is_found(tmp_path: Path) -> None:
    path = write_cloud(tmp_path / "a.npz", full_cloud(0, 500))
    data = bytearray(path.read_bytes())
    data[data.find(b"xyz_m") + 1000] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.npz"):
        read_cloud(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    np.savez(tmp_path / "later.npz", format=np.array(99), xyz_m=np.zeros((1, 3), np.float32), frame=np.array("a"))
    np.savez(tmp_path / "shape.npz", format=np.array(1), xyz_m=np.float32(3), frame=np.array("a"))
    np.savez(tmp_path / "pickle.npz", format=np.array(1), xyz_m=np.array([object()]), frame=np.array("a"))
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("other", "later", "shape", "pickle", "text", "one", "missing"):
        with pytest.raises(DataError, match=rf"{name}\.npz"):
            read_cloud(tmp_path / f"{name}.npz")
    with pytest.raises(SpecError, match="npz"):
        write_cloud(tmp_path / "a.bin", full_cloud(0))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        write_cloud(tmp_path / "file" / "a.npz", full_cloud(0))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_cloud(tmp_path / "a.npz", full_cloud(0))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space"):
        write_cloud(path, full_cloud(1))
    assert same(read_cloud(path), full_cloud(0))
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]


# -------------------------------------------------------------------------------------------------------------- folder


def first(items: list[LabelledCloud]) -> LabelledCloud:
    return items[0]


def test_a_folder_is_a_data_set_in_the_order_of_names(tmp_path: Path) -> None:
    clouds = [full_cloud(seed) for seed in range(5)]
    for number in (3, 0, 4, 1, 2):
        write_cloud(tmp_path / f"scene_{number:03d}.npz", clouds[number])
    (tmp_path / ".scene_009.npz.123.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("")
    folder = CloudFolder(tmp_path)
    assert folder.layout == "files"
    assert len(folder) == 5
    assert all(same(read, cloud) for read, cloud in zip(folder, clouds, strict=True))  # type: ignore[call-overload]
    assert same(folder[-1], clouds[-1])
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            folder[beyond]
    assert same(pickle.loads(pickle.dumps(folder))[2], clouds[2])  # noqa: S301  # as torch's workers do
    loaded = list(DataLoader(folder, batch_size=1, shuffle=False, collate_fn=first))
    assert same(loaded[3], clouds[3])


def test_one_file_is_a_folder_of_one(tmp_path: Path) -> None:
    path = write_cloud(tmp_path / "a.npz", full_cloud(0))
    assert len(CloudFolder(path)) == 1
    assert same(CloudFolder(path)[0], full_cloud(0))


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("training/velodyne/000000.bin", "kitti"),
        ("testing/velodyne/000000.bin", "kitti"),
        ("sequences/00/velodyne/000000.bin", "semantic_kitti"),
        ("v1.0-mini/sample_data.json", "nuscenes"),
        ("chair/train/chair_0001.off", "modelnet"),
        ("a.pcd", "files"),
        ("a.laz", "files"),
    ],
)
def test_layouts_are_known_by_their_files(tmp_path: Path, file: str, layout: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    assert layout in LAYOUTS
    assert layout_of(tmp_path) == layout


def test_no_layout_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="root"):
            CloudFolder(path)
    for layout in LAYOUTS:
        with pytest.raises(DataError):
            CloudFolder(tmp_path, layout)
    with pytest.raises(SpecError, match="kitti"):
        CloudFolder(tmp_path, "kity")


def test_h5_files_are_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"x")
    assert layout_of(path) == "scanobjectnn"


# ------------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_filled_up_and_says_so() -> None:
    clouds = [full_cloud(0, 30), full_cloud(1, 7), full_cloud(2, 0)]
    batch = collate(clouds, features=("rgb", "intensity", "time_s", "normal"))
    assert batch.valid.sum(1).tolist() == [30, 7, 0]
    assert batch.xyz_m.shape == (3, 30, 3)
    assert batch.features.shape == (3, 30, 8)
    for row, cloud in enumerate(clouds):
        count = len(cloud)
        assert np.array_equal(batch.xyz_m[row, :count].numpy(), cloud.xyz_m)
        assert not batch.xyz_m[row, count:].any()
        assert cloud.rgb is not None
        assert cloud.normal is not None
        assert np.allclose(batch.features[row, :count, :3].numpy(), cloud.rgb / 255.0)
        assert np.array_equal(batch.features[row, :count, 5:].numpy(), cloud.normal)
        for name in ("semantic", "instance", "part"):
            value = getattr(batch, name)
            assert np.array_equal(value[row, :count].numpy(), getattr(cloud, name))
            assert (value[row, count:] == -1).all()
        assert batch.boxes is not None
        assert cloud.boxes is not None
        assert np.allclose(batch.boxes[row, :, :3].numpy(), cloud.boxes.centre_m)
        assert np.allclose(batch.boxes[row, :, 6].numpy(), cloud.boxes.yaw_rad)
        assert np.allclose(batch.boxes[row, :, 7:].numpy(), cloud.boxes.velocity_m_s[:, :2], equal_nan=True)
    assert batch.label is not None
    assert batch.label.tolist() == [1, 1, 1]
    assert batch.to("cpu").xyz_m is not None
    assert collate(clouds[2:]).xyz_m.shape == (1, 1, 3)


def test_large_clouds_are_thinned_evenly_or_at_random() -> None:
    cloud = full_cloud(0, 1000)
    evenly, again = collate([cloud], 100), collate([cloud], 100)
    assert np.array_equal(evenly.xyz_m, again.xyz_m)
    assert np.array_equal(evenly.xyz_m[0].numpy(), cloud.xyz_m[5::10])
    random = collate([cloud], 100, rng=np.random.default_rng(0))
    rows = {row.tobytes() for row in cloud.xyz_m}
    assert len({row.tobytes() for row in random.xyz_m[0].numpy()} & rows) == 100
    assert not np.array_equal(evenly.xyz_m, random.xyz_m)


def test_boxes_are_filled_up() -> None:
    clouds = [replace(full_cloud(0), boxes=boxes_of(np.random.default_rng(3), count)) for count in (2, 0, 5)]
    batch = collate(clouds)
    assert batch.box_valid is not None
    assert batch.box_label is not None
    assert batch.box_points is not None
    assert batch.box_valid.sum(1).tolist() == [2, 0, 5]
    assert (batch.box_label[~batch.box_valid] == -1).all()
    assert (batch.box_points[~batch.box_valid] == -1).all()


def test_what_only_some_clouds_have_is_refused() -> None:
    full, bare = full_cloud(0), LabelledCloud(np.zeros((3, 3), np.float32), "base")
    assert collate([bare]).semantic is None
    assert collate([bare]).boxes is None
    with pytest.raises(SpecError, match="collate"):
        collate([full, bare])
    with pytest.raises(SpecError, match="intensity"):
        collate([bare], features=("intensity",))
    for wrong in (lambda: collate([]), lambda: collate([bare], 0), lambda: collate([full], features=("colour",))):
        with pytest.raises(SpecError):
            wrong()


def test_two_million_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xyz = rng.random((2_000_000, 3), np.float32)
    xyz[12_345] = NAN
    cloud = cloud_of(xyz, "base", semantic=rng.integers(0, 9, len(xyz)))
    assert (len(cloud), cloud.dropped) == (1_999_999, 1)
    read = read_cloud(write_cloud(tmp_path / "a.npz", cloud))
    assert np.array_equal(read.xyz_m, cloud.xyz_m)
    assert collate([read], 8192).xyz_m.shape == (1, 8192, 3)
