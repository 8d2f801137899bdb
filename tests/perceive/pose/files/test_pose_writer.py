from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.view import ViewKey
from perceive.pose.files.writer import PoseWriter, WrittenInstance
from sensors.errors import DataError, SpecError
from tests.perceive.pose.files.made import HEIGHT, WIDTH, MadeView, write_all


def put(writer: PoseWriter, one: MadeView, key: ViewKey | None = None, **change: Any) -> None:
    """Write a view, changed."""
    frame = dataclasses.replace(one.frame, **change)
    writer.view(key or one.key, frame, one.instances, one.visible, one.whole)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, by its place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_files_are_where_the_format_has_them(written: Path, views: list[MadeView]) -> None:
    names = set(contents(written))
    scene = "test/000007"
    assert {f"{scene}/scene_{name}.json" for name in ("camera", "gt", "gt_info")} <= names
    assert {f"{scene}/rgb/000003.png", f"{scene}/depth/000003.png"} <= names
    assert {f"{scene}/{kind}/000003_000002.png" for kind in ("mask", "mask_visib")} <= names
    assert {"camera.json", "test_targets_bop19.json", "test_targets_bop24.json"} <= names
    assert {
        f"{kind}/{file}" for kind in ("models", "models_eval") for file in ("obj_000005.ply", "models_info.json")
    } <= names
    assert not [name for name in names if "part" in name or "tmp" in name]
    gt = json.loads((written / scene / "scene_gt.json").read_text())
    first, given = gt["3"][0], views[3].instances[0]
    assert first["obj_id"] == 1
    assert list(gt) == ["0", "3"]
    np.testing.assert_allclose(first["cam_t_m2c"], 1000 * given.camera_from_object[:3, 3], rtol=1e-15)
    np.testing.assert_array_equal(first["cam_R_m2c"], given.camera_from_object[:3, :3].reshape(-1))
    info = json.loads((written / scene / "scene_gt_info.json").read_text())["3"][0]
    visible, whole = views[3].visible[0], views[3].whole[0]
    assert info["px_count_all"] == whole.sum()
    assert info["px_count_visib"] == visible.sum()
    assert info["px_count_valid"] == (whole & (views[3].frame.depth_m > 0)).sum()
    camera = json.loads((written / scene / "scene_camera.json").read_text())["3"]
    assert camera["depth_scale"] == 0.1
    assert camera["cam_K"][8] == 1
    about = json.loads((written / "camera.json").read_text())
    assert (about["height"], about["width"]) == (HEIGHT, WIDTH)


def test_a_job_that_was_killed_goes_on(tmp_path: Path, views: list[MadeView], models: Any, written: Path) -> None:
    """Killed in the middle of its second scene: the first stays, the second begins again, and the end is the same."""
    folder = tmp_path / "set"
    killed = PoseWriter(folder)
    killed.models(models)
    for one in views[:3]:
        put(killed, one)
    put(killed, views[3], ViewKey(7, 11))  # what another run would not write
    del killed
    assert [each.name for each in sorted((folder / "test").iterdir())] == [".000007.part", "000002"]
    stamp = (folder / "test/000002/scene_gt.json").stat().st_mtime_ns
    half = PoseDataset(folder)
    assert half.views == (views[0].key, views[1].key)
    again = PoseWriter(folder)
    assert again.done(2)
    assert not again.done(7)
    for one in views:
        if not again.done(one.key.scene):
            put(again, one)
    assert not again.done(7)
    again.finish()
    assert again.done(7)
    assert contents(folder) == contents(written)
    assert (folder / "test/000002/scene_gt.json").stat().st_mtime_ns == stamp


def test_a_scene_that_is_there_is_not_written_over(tmp_path: Path, views: list[MadeView]) -> None:
    writer = PoseWriter(tmp_path)
    put(writer, views[0])
    with pytest.raises(SpecError, match="every view once"):
        put(writer, views[0])
    put(writer, views[2])  # completes the first scene
    assert writer.done(2)
    with pytest.raises(SpecError, match="a scene that is not there; got a complete one"):
        put(writer, views[1])
    writer.finish(targets=False)
    assert not (tmp_path / "test_targets_bop19.json").exists()
    assert PoseDataset(tmp_path).views == (views[0].key, views[2].key)


def test_two_writers_may_share_a_split_but_not_a_scene(tmp_path: Path, views: list[MadeView]) -> None:
    first, second = PoseWriter(tmp_path), PoseWriter(tmp_path)
    put(first, views[0])
    put(second, views[2])
    put(second, views[3])
    second.finish()
    put(first, views[1])
    first.finish()
    assert {one.key for one in PoseDataset(tmp_path).targets()} == {one.key for one in views}
    shutil.copytree(tmp_path / "test/000002", tmp_path / "test/000009")
    put(first, views[0], ViewKey(8, 0))
    shutil.copytree(tmp_path / "test/000002", tmp_path / "test/000008")
    with pytest.raises(DataError, match="Did two writers write it"):
        first.finish()


def test_splits_have_targets_of_their_own(tmp_path: Path, views: list[MadeView], models: Any) -> None:
    write_all(tmp_path, views[:1], models, "train")
    write_all(tmp_path, views[2:], models, "test")
    assert {one.key for one in PoseDataset(tmp_path, "train").targets()} == {views[0].key}
    assert {one.key for one in PoseDataset(tmp_path).targets()} == {one.key for one in views[2:]}


@pytest.mark.parametrize("scale_mm", [1.0, 0.1, 0.025])
def test_depth_is_kept_to_half_a_step(tmp_path: Path, views: list[MadeView], scale_mm: float) -> None:
    depth = np.random.default_rng(3).uniform(0.2, 1.6, (HEIGHT, WIDTH)).astype(np.float32)
    depth[:5], depth[5, 0], depth[5, 1] = 0.0, scale_mm * 65535e-3, scale_mm * 0.6e-3
    writer = PoseWriter(tmp_path, depth_scale_mm=scale_mm)
    put(writer, views[0], depth_m=depth)
    writer.finish()
    found = PoseDataset(tmp_path).depth_m(views[0].key)
    worst = np.abs(found.astype(float) - depth).max()
    assert 0.3 * scale_mm * 1e-3 < worst <= (0.5 * scale_mm + 1e-4) * 1e-3  # 1e-4 mm: single precision
    assert not found[:5].any()
    assert found[5, 1] == pytest.approx(scale_mm * 1e-3)


def test_what_lies_beyond_the_edge_counts_as_hidden(tmp_path: Path, views: list[MadeView]) -> None:
    one = views[0]
    inside = [int(mask.sum()) for mask in one.whole]
    instances = [dataclasses.replace(each, whole_px=4 * n) for each, n in zip(one.instances, inside, strict=True)]
    instances[2] = dataclasses.replace(instances[2], whole_px=1)  # fewer than can be seen: no share above 1
    writer = PoseWriter(tmp_path)
    visible = [*one.whole[:2], np.zeros((HEIGHT, WIDTH), bool)]
    writer.view(one.key, one.frame, instances, visible, one.whole)
    writer.view(ViewKey(2, 1), one.frame, instances[2:], one.whole[2:], one.whole[2:])
    writer.view(ViewKey(2, 2), one.frame, [], [], [])
    writer.finish()
    data = PoseDataset(tmp_path)
    assert [each.visible_share for each in data.truth(one.key)] == [0.25, 0.25, 0.0]
    assert data.truth(one.key)[2].box_visible_px == (-1, -1, -1, -1)
    assert [each.visible_share for each in data.truth(ViewKey(2, 1))] == [1.0]
    assert data.truth(ViewKey(2, 2)) == ()
    assert ViewKey(2, 2) in data.detection_views()
    assert [(each.key.image, each.number, each.count) for each in data.targets()] == [(0, 1, 1), (0, 5, 1), (1, 1, 1)]


def test_jpeg_is_near_and_small(tmp_path: Path, views: list[MadeView]) -> None:
    writer = PoseWriter(tmp_path, picture="jpg")
    smooth = np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :, None], (HEIGHT, WIDTH, 3)).copy()
    smooth[..., 2] = 9  # red is not blue
    put(writer, views[0], rgb=smooth)
    writer.finish()
    data = PoseDataset(tmp_path)
    assert data.size_px(views[0].key) == (HEIGHT, WIDTH)
    assert np.abs(data.frame(views[0].key).rgb.astype(int) - smooth).max() <= 12


def _pose(scale: float, rows: int = 4) -> list[WrittenInstance]:
    return [WrittenInstance(1, (np.eye(4) * scale)[:rows])]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"depth_m": np.full((HEIGHT, WIDTH), 7.0, np.float32)}, "depth up to 6.5535 m"),
        ({"depth_m": np.full((HEIGHT, WIDTH), np.nan, np.float32)}, "finite depth"),
        ({"depth_m": np.full((HEIGHT, WIDTH), -1, np.float32)}, "finite depth"),
        ({"rgb": np.zeros((HEIGHT, WIDTH), np.uint8)}, "like the depth"),
        ({"rgb": np.zeros((HEIGHT, WIDTH, 3))}, "like the depth"),
        ({"intrinsics_px": np.eye(3)}, r"intrinsics \[4\]"),
        ({"base_from_camera": np.eye(4) * 2}, "rigid transforms"),
        ({"instances": _pose(1000.0)}, "rigid transforms"),
        ({"instances": _pose(1.0, 3)}, "rigid transforms"),
        ({"instances": _pose(float("nan"))}, "rigid transforms"),
        ({"visible": []}, "a visible and a whole mask"),
        ({"visible": [np.zeros((WIDTH, HEIGHT), bool)]}, "masks of bool"),
        ({"whole": [np.zeros((HEIGHT, WIDTH), np.uint8)]}, "masks of bool"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, views: list[MadeView], change: dict[str, Any], expected: str
) -> None:
    one = views[0]
    parts: dict[str, Any] = {"instances": one.instances[:1], "visible": one.visible[:1], "whole": one.whole[:1]}
    parts.update({name: change[name] for name in change if name in parts})
    frame = dataclasses.replace(one.frame, **{name: change[name] for name in change if name not in parts})
    writer = PoseWriter(tmp_path)
    with pytest.raises(SpecError, match=expected):
        writer.view(one.key, frame, parts["instances"], parts["visible"], parts["whole"])
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("arguments", [{"split": "a/b"}, {"split": ""}, {"depth_scale_mm": 0.0}, {"picture": "gif"}])
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="PoseWriter"):
        PoseWriter(tmp_path, **arguments)
