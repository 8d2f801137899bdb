"""perceive scenes scenes=objects: a BOP folder that reads back as what was drawn, however it is made."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.pose_scenes.library import NUMBERS, objects
from perceive.cli import main
from perceive.cli.compose import compose_config
from perceive.cli.scenes import make_scenes
from perceive.cli.scenes_poses import object_model, silhouette
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.view import LEAST_VISIBLE, ViewKey
from perceive.pose.raster import MeshRenderer
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

SMALL = [
    "progress=false", "scenes=objects", "scenes.objects=[brick,can,mug,spool]", "scenes.fewest=2", "scenes.most=4",
    "scenes.views=2", "scenes.width=128", "scenes.height=96", "scenes.depth_noise=null",
]  # fmt: skip


def config(folder: Path, *words: str) -> dict[str, Any]:
    return compose_config("scenes", [*SMALL, f"output={folder}", *words])


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "scenes.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    summary = make_scenes(config(folder, "count=3", "workers=1"))
    assert (summary.scenes, summary.were_there, summary.unit) == (3, 0, "objects in view")
    assert "objects in view each" in str(summary)
    return folder


def test_what_is_read_back_is_what_was_drawn(three: Path) -> None:
    dataset = PoseDataset(three)
    assert dataset.views == tuple(ViewKey(scene, image) for scene in range(3) for image in range(2))
    assert sorted(dataset.models) == sorted(NUMBERS[name] for name in ("brick", "can", "mug", "spool"))
    compared = 0
    for key in dataset.views:
        frame = dataset.frame(key)
        height, width = frame.depth_m.shape
        for one in dataset.truth(key):
            visible, whole = dataset.visible_mask(key, one.index), dataset.whole_mask(key, one.index)
            assert not (visible & ~whole).any()
            assert 0 <= one.visible_share <= 1
            renderer = MeshRenderer(dataset.models[one.number], threads=1)
            depth = renderer.depth(one.camera_from_object, frame.intrinsics_px, (0, 0, width, height))[0]
            if whole.sum() < 60:
                continue
            assert ((depth > 0) & whole).sum() / ((depth > 0) | whole).sum() >= 0.97
            error = np.abs(depth - frame.depth_m)[visible & (depth > 0)]
            assert np.quantile(error, 0.99) < 4e-4 if error.size else one.visible_share == 0  # 0.05 mm of rounding
            assert visible.sum() / whole.sum() >= one.visible_share - 1e-9
            # On the table and seen from above it: the object's place in the world is that of a thing on z = 0.
            assert -0.02 < (frame.base_from_camera @ one.camera_from_object)[2, 3] < 0.25
            compared += 1
    assert compared >= 10
    asked = {(target.key, target.number): target.count for target in dataset.targets()}
    seen = [
        (key, one.number) for key in dataset.views for one in dataset.truth(key) if one.visible_share >= LEAST_VISIBLE
    ]
    assert asked == {pair: seen.count(pair) for pair in seen}


def test_models_on_disk_have_the_symmetries_and_colours_of_the_objects(three: Path) -> None:
    models = PoseDataset(three).models
    for shape in objects(["brick", "can", "mug", "spool"]):
        model, made = models[NUMBERS[shape.name]], object_model(shape, NUMBERS[shape.name])
        assert model.diameter_m == pytest.approx(made.diameter_m, abs=1e-6)
        assert np.allclose(model.symmetries.transforms(0.1), made.symmetries.transforms(0.1), atol=1e-6)
        assert set(map(tuple, model.rgb.tolist())) == set(map(tuple, shape.rgb.tolist()))
        assert model.watertight
    can, spool = models[NUMBERS["can"]].symmetries, models[NUMBERS["spool"]].symmetries
    assert (len(can.discrete), len(can.continuous)) == (1, 1)
    assert np.abs(spool.continuous[0].offset_m).max() > 0.01


def test_several_workers_write_the_same_bytes(three: Path, tmp_path: Path) -> None:
    make_scenes(config(tmp_path, "count=3", "workers=2"))
    assert contents(tmp_path) == contents(three)


def test_it_goes_on_where_it_was_and_makes_damaged_scenes_again(
    three: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_scenes(config(tmp_path, "count=2", "workers=1"))
    kept = tmp_path / "test" / "000000" / "scene_gt.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "test" / "000001" / "mask" / "000001_000000.png").unlink()
    half = tmp_path / "test" / ".000002.part"  # a process was killed
    half.mkdir()
    (half / "rgb").mkdir()
    with caplog.at_level(logging.WARNING):
        summary = make_scenes(config(tmp_path, "count=3", "workers=1"))
    assert (summary.scenes, summary.were_there) == (3, 1)
    assert "000001_000000.png" in caplog.text
    assert kept.stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(three)
    (tmp_path / "test" / "000000" / "scene_gt.json").write_text("{")
    assert make_scenes(config(tmp_path, "count=3", "workers=1")).were_there == 2
    assert contents(tmp_path) == contents(three)


def test_other_settings_and_foreign_folders_are_refused(three: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="seed: 0 -> 1"):
        make_scenes(config(three, "count=3", "scenes.seed=1"))
    (tmp_path / "train_pbr").mkdir()
    with pytest.raises(DataError, match="train_pbr"):
        make_scenes(config(tmp_path, "count=1"))
    with pytest.raises(SpecError, match="a known object"):
        make_scenes(config(tmp_path / "new", "count=1", "scenes.objects=[brick,kan,mug,spool]"))


def test_held_out_objects_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*(word for word in SMALL if "objects" not in word), "scenes=objects_new", f"output={tmp_path}"]
    assert main(["scenes", *words, "count=1", "first=7", "workers=1"]) == 0
    assert "1 scenes in" in capsys.readouterr().out
    dataset = PoseDataset(tmp_path)
    assert {key.scene for key in dataset.views} == {7}
    assert min(dataset.models) == 101


def test_a_silhouette_counts_what_lies_beyond_the_edge() -> None:
    (cube,) = objects(["cube"])
    renderer = MeshRenderer(object_model(cube, 1), threads=1)
    camera, size = np.array([200.0, 200.0, 49.5, 39.5]), (80, 100)
    side = 0.065 * 200.0 / (0.5 - 0.0325)  # pixels of the front face, which hides the rest

    def at(x_m: float, z_m: float = 0.5) -> FloatArray:
        out = np.eye(4)
        out[:3, 3] = (x_m, 0.0, z_m)
        return out

    inside, count = silhouette(renderer, at(0.0), camera, size)
    assert count == inside.sum() == pytest.approx(side**2, rel=0.06)
    cut, every = silhouette(renderer, at(0.125), camera, size)  # its middle on the right edge
    assert every > count * 0.95
    assert 0.3 < cut.sum() / every < 0.7
    columns = np.flatnonzero(cut.any(0))
    assert columns[-1] == 99
    assert math.isclose(columns[0], 49.5 + (0.125 - 0.0325) * 200 / (0.5 - 0.0325), abs_tol=9)
    for pose in (at(0.2), at(0.0, -0.5)):  # beside the picture; behind the camera
        mask, beyond = silhouette(renderer, pose, camera, size)
        assert not mask.any()
        assert (beyond > 0) == (pose[2, 3] > 0)
