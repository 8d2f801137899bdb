"""Folders as public data sets have them, which our writer does not make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.view import ViewKey
from sensors.errors import DataError
from tests.perceive.pose.files.made import HEIGHT, WIDTH, MadeView

FIRST = ViewKey(2, 0)


def picture_of(path: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray[Any, Any]:
    picture = cv2.imread(str(path), flags)
    assert picture is not None
    return picture


def grey_of(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_grey_pictures_instead_of_colours(copied: Path, views: list[MadeView], ending: str) -> None:
    for scene in (copied / "test").iterdir():
        (scene / "gray").mkdir()
        for path in (scene / "rgb").iterdir():
            cv2.imwrite(str(scene / "gray" / f"{path.stem}.{ending}"), picture_of(path, cv2.IMREAD_GRAYSCALE))
        shutil.rmtree(scene / "rgb")
    data = PoseDataset(copied)
    assert data.size_px(FIRST) == (HEIGHT, WIDTH)
    rgb = data.frame(FIRST).rgb.astype(int)
    assert np.ptp(rgb, axis=2).max() == 0
    assert np.abs(rgb[..., 0] - grey_of(views[0].frame.rgb)).mean() < (4 if ending == "jpg" else 1)


def test_training_pictures_in_jpeg_with_depth_in_png(copied: Path, views: list[MadeView]) -> None:
    shutil.move(copied / "test", copied / "train_pbr")
    for scene in (copied / "train_pbr").iterdir():
        for path in (scene / "rgb").iterdir():
            cv2.imwrite(str(path.with_suffix(".jpg")), picture_of(path), [cv2.IMWRITE_JPEG_QUALITY, 100])
            path.unlink()
    (copied / "test_targets_bop19.json").write_text("[]")
    data = PoseDataset(copied, "train_pbr")
    frame = data.frame(FIRST)
    assert np.abs(frame.rgb.astype(int) - views[0].frame.rgb).mean() < 6
    np.testing.assert_allclose(frame.depth_m, views[0].frame.depth_m, atol=1e-4)
    assert data.size_px(FIRST) == (HEIGHT, WIDTH)
    assert len(data.targets()) == 2 * len(views)  # the targets of the test split are none of this one's


def test_half_a_jpeg_is_no_picture(copied: Path) -> None:
    """Decoders fill up what is missing with grey."""
    path = copied / "test" / "000002" / "rgb" / "000000.png"
    whole = cv2.imencode(".jpg", picture_of(path))[1].tobytes()
    path.unlink()
    path.with_suffix(".jpg").write_bytes(whole[: 3 * len(whole) // 4])
    with pytest.raises(DataError, match="cut off after"):
        PoseDataset(copied).frame(FIRST)


def test_a_picture_that_a_camera_marked_as_turned_stays_as_its_pixels_are(copied: Path) -> None:
    """Its annotations are not turned."""
    path = copied / "test" / "000002" / "rgb" / "000000.png"
    picture = picture_of(path)
    path.unlink()
    plain = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6: a quarter turn
    exif = b"Exif\0\0" + tiff
    path.with_suffix(".jpg").write_bytes(
        plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    )
    turned = picture_of(path.with_suffix(".jpg"))
    assert turned.shape[:2] == (WIDTH, HEIGHT)  # the mark is one that OpenCV heeds
    data = PoseDataset(copied)
    assert data.size_px(FIRST) == data.frame(FIRST).rgb.shape[:2] == (HEIGHT, WIDTH)


def test_without_depth_it_is_zero_everywhere(copied: Path) -> None:
    for scene in (copied / "test").iterdir():
        shutil.rmtree(scene / "depth")
    data = PoseDataset(copied)
    assert data.depth_m(FIRST).shape == (HEIGHT, WIDTH)
    assert not data.frame(FIRST).depth_m.any()


def test_a_scene_without_colours_has_its_size_from_depth(copied: Path) -> None:
    for scene in (copied / "test").iterdir():
        shutil.rmtree(scene / "rgb")
    data = PoseDataset(copied)
    assert data.size_px(FIRST) == (HEIGHT, WIDTH)
    assert data.depth_m(FIRST).any()


def test_several_sensors_of_one_scene(copied: Path, views: list[MadeView]) -> None:
    for scene in (copied / "test").iterdir():
        for path in list(scene.iterdir()):
            path.rename(path.with_name(f"{path.stem}_photoneo{path.suffix}"))
    with pytest.raises(DataError, match=r"those of the sensors \['photoneo'\]"):
        PoseDataset(copied)
    data = PoseDataset(copied, sensor="photoneo")
    np.testing.assert_array_equal(data.frame(FIRST).rgb, views[0].frame.rgb)
    np.testing.assert_array_equal(data.visible_mask(FIRST, 0), views[0].visible[0])
    assert len(data.truth(FIRST)) == 3


def test_targets_of_all_sensors_serve_the_split_of_one(copied: Path, views: list[MadeView]) -> None:
    shutil.move(copied / "test", copied / "test_primesense")
    rows = [{"im_id": 0, "inst_count": 2, "obj_id": 1, "scene_id": 2}]
    (copied / "test_targets_bop19.json").write_text(json.dumps(rows))
    assert [one.key for one in PoseDataset(copied, "test_primesense").targets()] == [FIRST]


def test_images_that_the_truth_does_not_mention_are_empty_and_said_to_be(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("scene_gt.json", "scene_gt_info.json"):
        path = copied / "test" / "000002" / name
        records = json.loads(path.read_text())
        records.pop("3")
        path.write_text(json.dumps(records))
    data = PoseDataset(copied)
    assert data.truth(ViewKey(2, 3)) == ()
    assert len(data.truth(FIRST)) == 3
    assert "1 images without an entry count as empty, e.g. 3" in caplog.text


def runs_of(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    """COCO's uncompressed runs, one pixel at a time."""
    counts, value = [0], False
    for pixel in mask.T.reshape(-1):
        if bool(pixel) != value:
            counts.append(0)
            value = not value
        counts[-1] += 1
    return {"counts": counts, "size": list(mask.shape)}


@pytest.fixture(params=["one folder", "a folder for every scene"])
def imagewise(copied: Path, views: list[MadeView], request: pytest.FixtureRequest) -> Path:
    """The same data set with one set of files for every picture."""
    for scene in sorted((copied / "test").iterdir()):
        parts = {name: json.loads((scene / f"scene_{name}.json").read_text()) for name in ("camera", "gt", "gt_info")}
        out = copied / "new" / (scene.name if request.param == "a folder for every scene" else "")
        out.mkdir(parents=True, exist_ok=True)
        for image in parts["camera"]:
            stem = f"{int(image):06d}" if request.param != "one folder" else f"{scene.name}_{int(image):06d}"
            for name, records in parts.items():
                (out / f"{stem}.{name}.json").write_text(json.dumps(records[image]))
            for kind in ("rgb", "depth"):
                shutil.copy(scene / kind / f"{int(image):06d}.png", out / f"{stem}.{kind}.png")
            one = next(each for each in views if each.key == ViewKey(int(scene.name), int(image)))
            for kind, masks in (("mask", one.whole), ("mask_visib", one.visible)):
                runs = {str(index): runs_of(mask) for index, mask in enumerate(masks)}
                (out / f"{stem}.{kind}.json").write_text(json.dumps(runs))
    shutil.rmtree(copied / "test")
    (copied / "new").rename(copied / "test")
    return copied


def test_one_set_of_files_for_every_picture(imagewise: Path, written: Path, views: list[MadeView]) -> None:
    data, usual = PoseDataset(imagewise), PoseDataset(written)
    assert data.views == usual.views
    assert data.has_truth
    assert data.targets() == usual.targets()
    for one in views:
        key = one.key
        np.testing.assert_array_equal(data.frame(key).rgb, usual.frame(key).rgb)
        np.testing.assert_array_equal(data.frame(key).depth_m, usual.frame(key).depth_m)
        np.testing.assert_array_equal(data.intrinsics_px(key), usual.intrinsics_px(key))
        for each, other in zip(data.truth(key), usual.truth(key), strict=True):
            np.testing.assert_array_equal(each.camera_from_object, other.camera_from_object)
            assert (each.number, each.visible_share, each.index) == (other.number, other.visible_share, other.index)
            np.testing.assert_array_equal(data.visible_mask(key, each.index), one.visible[each.index])
            np.testing.assert_array_equal(data.whole_mask(key, each.index), one.whole[each.index])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"counts": "PPYo0", "size": [HEIGHT, WIDTH]}, "uncompressed runs"),
        ({"counts": [5, 6], "size": [HEIGHT, WIDTH]}, "runs that fill the picture"),
        ({"counts": [5, -5], "size": [0, 0]}, "a run as a whole number"),
        (None, "uncompressed runs"),
    ],
)
def test_bad_runs_are_named(imagewise: Path, record: Any, expected: str) -> None:
    path = min((imagewise / "test").rglob("*.mask.json"))  # the first picture of the first scene
    path.write_text(json.dumps({"0": record}))
    with pytest.raises(DataError, match=expected):
        PoseDataset(imagewise).whole_mask(FIRST, 0)


def test_folders_that_are_no_data_set(copied: Path) -> None:
    with pytest.raises(DataError, match="There are: models, models_eval, test"):
        PoseDataset(copied, "train")
    with pytest.raises(DataError, match="the folder of a split"):
        PoseDataset(copied / "nothing")
    with pytest.raises(DataError, match="Is it the folder of a split"):
        PoseDataset(copied, "models")
    (copied / "shards").mkdir()
    (copied / "shards" / "000000.tar").touch()
    with pytest.raises(DataError, match="tar files"):
        PoseDataset(copied, "shards")
    (copied / "odd").mkdir()
    (copied / "odd" / "first.camera.json").touch()
    with pytest.raises(DataError, match="Rename the files as BOP does"):
        PoseDataset(copied, "odd")
    (copied / "test" / "000002" / "scene_camera.json").write_text("{}")
    shutil.rmtree(copied / "test" / "000007")
    with pytest.raises(DataError, match="at least one view"):
        PoseDataset(copied)
