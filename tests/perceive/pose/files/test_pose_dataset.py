from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.view import Target, ViewKey
from perceive.pose.model import ObjectModel
from sensors.errors import DataError, SpecError
from sensors.geometry import invert
from tests.perceive.pose.files.made import HEIGHT, INTRINSICS, WIDTH, MadeView, pose_of

FIRST = ViewKey(2, 0)
HALF_STEP_M = 0.5 * 0.1e-3


def change(path: Path, edit: Any) -> None:
    """Edit a JSON file."""
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_everything_that_was_written_is_read(written: Path, views: list[MadeView], models: list[ObjectModel]) -> None:
    data = PoseDataset(written)
    assert data.views == tuple(one.key for one in views)
    assert data.has_truth
    for one in views:
        frame, truth = data.frame(one.key), data.truth(one.key)
        np.testing.assert_array_equal(frame.rgb, one.frame.rgb)
        np.testing.assert_allclose(frame.depth_m, one.frame.depth_m, rtol=0, atol=HALF_STEP_M * 1.001)
        assert frame.depth_m.dtype == np.float32
        np.testing.assert_array_equal(frame.depth_m > 0, one.frame.depth_m > 0)
        np.testing.assert_array_equal(frame.intrinsics_px, one.frame.intrinsics_px)
        np.testing.assert_array_equal(data.intrinsics_px(one.key), one.frame.intrinsics_px)
        np.testing.assert_allclose(frame.base_from_camera, one.frame.base_from_camera, rtol=0, atol=1e-12)
        assert data.size_px(one.key) == (HEIGHT, WIDTH)
        assert [each.number for each in truth] == [each.number for each in one.instances]
        assert [each.index for each in truth] == [0, 1, 2]
        for each, given, visible, whole in zip(truth, one.instances, one.visible, one.whole, strict=True):
            np.testing.assert_allclose(each.camera_from_object, given.camera_from_object, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(data.visible_mask(one.key, each.index), visible)
            np.testing.assert_array_equal(data.whole_mask(one.key, each.index), whole)
            assert each.visible_share == pytest.approx(visible.sum() / whole.sum())
            rows, columns = np.nonzero(visible)
            box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert list(each.box_visible_px) == [int(value) for value in box]
    assert min(each.visible_share for one in views for each in data.truth(one.key)) < 0.9  # something is hidden
    assert sorted(data.models) == [1, 5]
    assert len(data.models) == 2
    for model in models:
        np.testing.assert_allclose(data.models[model.number].vertices_m, model.vertices_m, atol=1e-8)
        assert len(data.models[model.number].symmetries.transforms()) == len(model.symmetries.transforms())
    assert PoseDataset(written, models="models_eval").models[1].diameter_m == pytest.approx(models[0].diameter_m)


def test_no_picture_is_read_for_the_truth(copied: Path, views: list[MadeView]) -> None:
    for scene in (copied / "test").iterdir():
        for name in ("rgb", "depth", "mask", "mask_visib"):
            shutil.rmtree(scene / name)
    data = PoseDataset(copied)
    assert len(data.truth(FIRST)) == 3
    assert len(data.targets()) == 2 * len(views)
    with pytest.raises(DataError, match="a picture in rgb or gray; got neither"):
        data.frame(FIRST)
    with pytest.raises(DataError, match="a picture"):
        data.size_px(FIRST)
    with pytest.raises(DataError, match="no folder 'mask_visib'"):
        data.visible_mask(FIRST, 0)


def test_poses_by_hand_are_row_by_row_and_in_millimetres(copied: Path) -> None:
    """A quarter and a half turn: a transposed or inverted rotation would put the point elsewhere."""
    quarter = {"obj_id": 1, "cam_R_m2c": [0, -1, 0, 1, 0, 0, 0, 0, 1], "cam_t_m2c": [100.0, 20.0, 900.0]}
    half = {"obj_id": 5, "cam_R_m2c": [-1, 0, 0, 0, 1, 0, 0, 0, -1], "cam_t_m2c": [0.0, 0.0, 500.0]}
    scene = copied / "test" / "000002"
    change(scene / "scene_gt.json", lambda data: data.update({"0": [quarter, half]}))
    change(scene / "scene_gt_info.json", lambda data: data.update({"0": data["0"][:2]}))
    first, second = PoseDataset(copied).truth(FIRST)
    np.testing.assert_allclose(first.camera_from_object @ [0.01, 0, 0, 1], [0.1, 0.03, 0.9, 1], atol=1e-15)
    np.testing.assert_allclose(second.camera_from_object @ [0.01, 0.02, 0.03, 1], [-0.01, 0.02, 0.47, 1], atol=1e-15)


def test_the_camera_by_hand(copied: Path) -> None:
    """The camera stands at (1, 2, 3) m in the world and looks along the world's x."""
    turn = [0, -1, 0, 0, 0, -1, 1, 0, 0]  # x_c = -y_w, y_c = -z_w, z_c = x_w
    record = {
        "cam_K": [500, 0, 31, 0, 501, 23, 0, 0, 1],
        "depth_scale": 0.5,
        "cam_R_w2c": turn,
        "cam_t_w2c": [2000, 3000, -1000],
    }
    scene = copied / "test" / "000002"
    change(scene / "scene_camera.json", lambda data: data.update({"0": record}))
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[4, 5], depth[47, 63] = 3000, 65535
    cv2.imwrite(str(scene / "depth" / "000000.png"), depth)
    data = PoseDataset(copied)
    frame = data.frame(FIRST)
    np.testing.assert_array_equal(frame.intrinsics_px, [500, 501, 31, 23])
    np.testing.assert_allclose(frame.base_from_camera[:3, 3], [1, 2, 3], atol=1e-15)
    np.testing.assert_allclose(frame.base_from_camera @ [0, 0, 2, 1], [3, 2, 3, 1], atol=1e-15)
    assert frame.depth_m[4, 5] == np.float32(1.5)
    assert frame.depth_m[47, 63] == pytest.approx(65535 * 0.5e-3)
    assert np.count_nonzero(frame.depth_m) == 2
    change(scene / "scene_camera.json", lambda d: [d["0"].pop(name) for name in ("cam_R_w2c", "cam_t_w2c")])
    data = PoseDataset(copied)
    assert data.world_from_camera(FIRST) is None
    np.testing.assert_array_equal(data.frame(FIRST).base_from_camera, np.eye(4))


def test_what_is_handed_out_cannot_spoil_the_data_set(written: Path) -> None:
    data = PoseDataset(written)
    before = data.truth(FIRST)[0].camera_from_object.copy()
    data.truth(FIRST)[0].camera_from_object[:] = 0
    data.intrinsics_px(FIRST)[:] = 0
    data.frame(FIRST).base_from_camera[:] = 0
    np.testing.assert_array_equal(data.truth(FIRST)[0].camera_from_object, before)
    np.testing.assert_array_equal(data.intrinsics_px(FIRST), INTRINSICS)
    assert np.linalg.det(data.frame(FIRST).base_from_camera) == pytest.approx(1)


def test_a_worker_process_gets_the_same(written: Path) -> None:
    data = PoseDataset(written)
    data.truth(FIRST)
    again = pickle.loads(pickle.dumps(data))  # noqa: S301  (our own)
    assert again.views == data.views
    np.testing.assert_array_equal(again.frame(FIRST).depth_m, data.frame(FIRST).depth_m)
    assert again.models[5].number == 5


def test_targets(copied: Path) -> None:
    data = PoseDataset(copied)
    truth = data.targets("truth")
    counts = {one: sum(t.number == one.number and t.counts for t in data.truth(one.key)) for one in truth}
    assert all(one.count == count for one, count in counts.items())
    assert data.targets("bop19") == data.targets() == truth
    assert truth[0] == Target(FIRST, 1, 2)
    assert truth[1] == Target(FIRST, 5, 1)
    assert data.detection_views() == data.views
    rows = [{"im_id": 3, "inst_count": 7, "obj_id": 5, "scene_id": 7}]
    (copied / "test_targets_bop19.json").write_text(json.dumps(rows))
    (copied / "test_targets_bop24.json").write_text(json.dumps([{"im_id": 0, "scene_id": 2}]))
    assert data.targets() == (Target(ViewKey(7, 3), 5, 7),)
    assert data.detection_views() == (FIRST,)
    assert {one.key for one in data.targets("truth")} == {FIRST}
    (copied / "test_targets_bop19.json").unlink()
    assert {one.key for one in data.targets()} == {FIRST}
    with pytest.raises(DataError, match=r"test_targets_bop19\.json; got none"):
        data.targets("bop19")
    with pytest.raises(SpecError, match="'bop18'"):
        data.targets("bop18")  # type: ignore[arg-type]  # wrong on purpose


def test_hidden_instances_are_no_targets_and_unknown_ones_are(copied: Path) -> None:
    (copied / "test_targets_bop19.json").unlink()
    scene = copied / "test" / "000002"

    def hide(data: Any) -> None:
        data["0"][0]["visib_fract"], data["0"][1]["visib_fract"] = 0.0999, 0.1

    change(scene / "scene_gt_info.json", hide)
    asked = [one for one in PoseDataset(copied).targets() if one.key == FIRST]
    assert asked == [Target(FIRST, 1, 1), Target(FIRST, 5, 1)]
    (scene / "scene_gt_info.json").unlink()
    data = PoseDataset(copied)
    assert [one for one in data.targets() if one.key == FIRST] == [Target(FIRST, 1, 2), Target(FIRST, 5, 1)]
    assert {one.visible_share for one in data.truth(FIRST)} == {-1.0}
    assert {one.box_visible_px for one in data.truth(FIRST)} == {(-1, -1, -1, -1)}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"im_id": 9, "inst_count": 1, "obj_id": 1, "scene_id": 2}], "views of the split 'test'"),
        ([{"im_id": 0, "obj_id": 1, "scene_id": 2}], "an entry with inst_count"),
        ([{"im_id": 0, "inst_count": -1, "obj_id": 1, "scene_id": 2}], "inst_count as a whole number"),
        ([{"im_id": 0, "inst_count": 1, "obj_id": 1, "scene_id": 2}] * 2, "every object of a view once"),
        ({"im_id": 0}, "a JSON list"),
    ],
)
def test_bad_targets_are_named(copied: Path, rows: Any, expected: str) -> None:
    (copied / "test_targets_bop19.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=expected):
        PoseDataset(copied).targets()


def test_truth_that_is_withheld_is_said_to_be(copied: Path) -> None:
    for scene in (copied / "test").iterdir():
        for name in ("scene_gt.json", "scene_gt_info.json"):
            (scene / name).unlink()
    data = PoseDataset(copied)
    assert not data.has_truth
    assert data.frame(FIRST).rgb.any()
    assert data.targets()
    for ask in (lambda: data.truth(FIRST), lambda: data.targets("truth")):
        with pytest.raises(DataError, match="the truth of this split is withheld"):
            ask()


def _read_first(folder: Path) -> None:
    data = PoseDataset(folder)
    data.truth(FIRST)
    data.frame(FIRST)


def _gt(edit: Any) -> Any:
    return lambda folder: change(folder / "scene_gt.json", edit)


def _camera(**values: Any) -> Any:
    return lambda folder: change(folder / "scene_camera.json", lambda data: data["0"].update(values))


def _camera_of_another_kind(folder: Path) -> None:
    change(folder / "scene_camera.json", lambda data: data.update({"0": {"cam_model": {"type": "fisheye"}}}))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_gt(lambda d: d["0"][1].pop("cam_R_m2c")), "obj_id, cam_R_m2c and cam_t_m2c"),
        (_gt(lambda d: d["0"][1].update(cam_R_m2c=[1, 0, 0, 0, 1, 0, 0, 0, -1])), "cam_R_m2c as a rotation"),
        (_gt(lambda d: d["0"][1].update(cam_t_m2c=[0, 0, float("nan")])), "cam_t_m2c as 3 finite numbers"),
        (_gt(lambda d: d["0"][1].update(obj_id="one")), "obj_id as a whole number"),
        (_gt(lambda d: d["0"].pop()), "2 entries in the info file"),
        (_gt(lambda d: d.update({"zero": []})), "numbers as names"),
        (_gt(lambda d: d.update({"0": {}})), "a list of instances"),
        (lambda f: (f / "scene_gt.json").write_text('{"0": ['), "a whole JSON file"),
        (lambda f: (f / "scene_gt_info.json").write_text('{"3": []}'), "3 entries in the info file"),
        (lambda f: (f / "scene_camera.json").unlink(), "a JSON file; got no such file"),
        (lambda f: (f / "scene_camera.json").write_text("[]"), "a JSON object"),
        (_camera(cam_K=[500, 0, 0, 0, 500, 0, 31, 23, 1]), "cam_K row by row"),  # transposed
        (_camera(cam_K=[500, 9, 31, 0, 500, 23, 0, 0, 1]), "cam_K row by row"),  # skew
        (_camera(cam_K=[500, 500, 31, 23]), "cam_K as 9 finite numbers"),
        (_camera(depth_scale=0), "depth_scale > 0"),
        (_camera(depth_scale=None), "depth_scale in the camera file"),
        (_camera(cam_R_w2c=[2, 0, 0, 0, 2, 0, 0, 0, 2]), "cam_R_w2c as a rotation"),
        (_camera_of_another_kind, "a pinhole camera"),
    ],
)
def test_damaged_descriptions_are_named(copied: Path, spoil: Any, expected: str) -> None:
    spoil(copied / "test" / "000002")
    with pytest.raises(DataError, match=expected) as caught:
        _read_first(copied)
    assert "000002" in caught.value.where or "scene 2" in caught.value.where


@pytest.mark.parametrize("kind", ["rgb", "depth", "mask", "mask_visib"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, None])
def test_damaged_pictures_are_named(copied: Path, kind: str, share: float | None) -> None:
    """Cut off anywhere, or not there at all."""
    folder = copied / "test" / "000002" / kind
    path = folder / ("000000.png" if kind in ("rgb", "depth") else "000000_000001.png")
    content = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(content[: int(share * len(content))])
    data = PoseDataset(copied)
    with pytest.raises(DataError, match=kind):
        {"mask": data.whole_mask, "mask_visib": data.visible_mask}.get(kind, lambda key, _: data.frame(key))(FIRST, 1)
    assert data.frame(ViewKey(2, 3)).rgb.any()


def test_pictures_that_do_not_fit_are_named(copied: Path) -> None:
    scene = copied / "test" / "000002"
    cv2.imwrite(str(scene / "depth" / "000000.png"), np.ones((HEIGHT // 2, WIDTH // 2), np.uint16))
    with pytest.raises(DataError, match=r"depth \[48, 64\] like the colours"):
        PoseDataset(copied).frame(FIRST)
    shutil.copy(scene / "rgb" / "000000.png", scene / "depth" / "000000.png")
    with pytest.raises(DataError, match="one channel of depth"):
        PoseDataset(copied).frame(FIRST)


def test_views_that_are_not_there(written: Path) -> None:
    data = PoseDataset(written)
    for ask in (data.truth, data.frame, data.size_px, data.intrinsics_px, data.depth_m, data.world_from_camera):
        with pytest.raises(SpecError, match="scene 2, image 1"):
            ask(ViewKey(2, 1))
    with pytest.raises(DataError, match="the mask of instance 3; got no such file"):
        data.whole_mask(FIRST, 3)
    with pytest.raises(KeyError):
        data.models[2]


def test_models_in_another_unit_or_without_description(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    info = copied / "models" / "models_info.json"
    change(info, lambda data: data["1"].update(diameter=data["1"]["diameter"] / 1000.0))
    with pytest.raises(DataError, match="a factor of about 1000"):
        PoseDataset(copied).models[1]
    change(info, lambda data: data.pop("5"))
    with pytest.raises(DataError, match=r"an entry for every mesh; got none for \[5\]"):
        assert PoseDataset(copied).models
    info.unlink()
    assert not PoseDataset(copied).models[1].symmetries
    assert "no object counts as symmetric" in caplog.text
    shutil.move(copied / "models", copied / "models_cad")
    with pytest.raises(DataError, match="models_cad, models_eval"):
        assert PoseDataset(copied).models


def test_the_half_turn_of_a_pose_survives(written: Path, views: list[MadeView]) -> None:
    turned = PoseDataset(written).truth(FIRST)[2].camera_from_object
    np.testing.assert_allclose(turned[:3, :3], np.diag([-1.0, 1.0, -1.0]), atol=1e-12)
    np.testing.assert_allclose(turned @ invert(views[0].instances[2].camera_from_object), np.eye(4), atol=1e-9)
    assert pose_of((0, np.pi, 0), (0, 0, 0))[2, 2] == pytest.approx(-1)
