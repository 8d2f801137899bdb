"""perceive poses: estimates in generated pictures, their scores, what disturbs them, and going on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perceive.cli import main, poses
from perceive.cli.compose import compose_config
from perceive.cli.poses_changes import PictureChange
from perceive.cli.poses_report import ChosenPictures
from perceive.metrics.pose_scores import score_bop19
from perceive.pose.files.dataset import PoseDataset
from perceive.pose.files.results_file import PoseRow, read_results, write_results
from perceive.pose.files.view import ViewKey
from perceive.pose.raster import MeshRenderer
from perceive.viewing.pose_picture import TRUE_COLOUR, pose_picture
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import project, unproject

FAST = ["pose=templates", "pose.views=42", "pose.turns=12", "pose.hypotheses=24", "progress=false", "pictures=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heap")
    words = ["scenes=objects_new", "scenes.objects=[star,jug]", "scenes.fewest=2", "scenes.most=2", "scenes.views=2",
             "scenes.width=320", "scenes.height=240", "count=1", "workers=1", "progress=false"]  # fmt: skip
    assert main(["scenes", *words, f"output={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("done")
    assert main(["poses", f"data={data}", f"output={output}", "name=tiny", *FAST]) == 0
    return output


def test_poses_are_found_scored_and_drawn(data: Path, done: Path) -> None:
    result = json.loads((done / "result.json").read_text())
    figures = result["figures"]
    rows = read_results(done / "estimates.csv")
    scores = score_bop19(PoseDataset(data), rows)
    assert figures["AR"]["value"] == pytest.approx(scores.ar)
    assert figures["AR"]["n"] == scores.targets == len(rows)
    assert scores.ar > 0.8
    assert result["command"].startswith("perceive poses data=")
    page = (done / "report.html").read_text()
    assert str(data) not in json.dumps(result) + page
    assert page.count("<figure>") == 1
    assert "star (102)" in page


def test_an_interrupted_run_goes_on_and_other_settings_begin_anew(data: Path, done: Path, tmp_path: Path) -> None:
    for name in ("settings.json", "estimates.jsonl"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    lines = (tmp_path / "estimates.jsonl").read_text().splitlines()
    scene, image, rows = json.loads(lines[0])
    rows[0][1] = 123.0  # a score that nobody would give: shows that it was kept
    (tmp_path / "estimates.jsonl").write_text(json.dumps([scene, image, rows]) + "\n" + lines[1][:30])
    words = ["poses", f"data={data}", f"output={tmp_path}", *FAST]
    assert main(words) == 0
    again = read_results(tmp_path / "estimates.csv")
    assert 123.0 in [row.score for row in again]
    assert len(again) == len(read_results(done / "estimates.csv"))
    assert main([*words, "seed=1"]) == 0
    assert 123.0 not in [row.score for row in read_results(tmp_path / "estimates.csv")]


def test_a_result_file_of_others_is_scored(data: Path, tmp_path: Path) -> None:
    dataset = PoseDataset(data)
    truth = [
        PoseRow(target.key, one.number, 1.0, one.camera_from_object, -1.0)
        for target in dataset.targets()
        for one in dataset.truth(target.key)
        if one.number == target.number
    ]
    write_results(tmp_path / "theirs.csv", truth)
    words = ["poses", f"data={data}", f"output={tmp_path}", f"estimates={tmp_path / 'theirs.csv'}", *FAST]
    assert main(words) == 0
    figures = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert figures["AR"]["value"] == 1.0
    assert "time per picture, median" not in figures
    moved = [PoseRow(r.key, r.number, r.score, r.camera_from_object @ np.diag([1.0, 1, 1, 1]), -1.0) for r in truth]
    moved[0].camera_from_object[0, 3] += 1.0
    write_results(tmp_path / "theirs.csv", moved)
    assert main(words) == 0
    figures = json.loads((tmp_path / "result.json").read_text())["figures"]
    assert figures["AR"]["value"] == pytest.approx(1 - 1 / len(truth))


def test_limits_choose_pictures(data: Path) -> None:
    dataset = PoseDataset(data)
    few = poses.chosen_targets(dataset, 1)
    assert {target.key for target in few} == {dataset.views[0]}
    assert list(ChosenPictures(dataset, few).detection_views()) == [dataset.views[0]]
    assert len(poses.chosen_targets(dataset, 0)) == len(dataset.targets())


@pytest.mark.parametrize(
    ("word", "error"),
    [("limit=-1", SpecError), ("zoom=0", SpecError), ("gain=-1", SpecError), ("split=nothing", DataError)],
)
def test_wrong_settings_are_named(data: Path, tmp_path: Path, word: str, error: type[Exception]) -> None:
    config = compose_config("poses", [f"data={data}", f"output={tmp_path}", word])
    with pytest.raises(error):
        poses.job(config)


def test_references_take_the_place_of_meshes(data: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    words = ["scenes=objects_new", "scenes.objects=[star,jug]", "scenes.fewest=2", "scenes.most=2", "scenes.views=1",
             "scenes.width=320", "scenes.height=240", "count=3", "first=50", "workers=1", "progress=false"]  # fmt: skip
    assert main(["scenes", *words, f"output={shown}"]) == 0
    few = ["pose=few_shot_fused", "limit=1", "pictures=0", "progress=false", f"references={shown}", "reference_views=2"]
    for pose in ("few_shot_fused", "few_shot"):
        few[0] = f"pose={pose}"
        assert main(["poses", f"data={data}", f"output={tmp_path / pose}", *few]) == 0
        figures = json.loads((tmp_path / pose / "result.json").read_text())["figures"]
        assert figures["AR"]["value"] > 0.5
    with pytest.raises(DataError, match="different scenes"):
        poses.job(compose_config("poses", [f"data={data}", f"output={tmp_path}", *few, "reference_views=9"]))
    same = [*few[:-2], f"references={data}"]
    with pytest.raises(SpecError, match="another folder than data"):
        poses.job(compose_config("poses", [f"data={data}", f"output={tmp_path}", *same]))


def test_no_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="data=<folder>"):
        poses.job(compose_config("poses", [f"output={tmp_path}"]))


KEY = ViewKey(3, 7)


def frame(seed: int = 0) -> RgbdFrame:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.4, 1.0, (24, 32)).astype(np.float32)
    depth[:4] = 0
    return RgbdFrame(
        stamp_s=0.0,
        rgb=rng.integers(0, 120, (24, 32, 3), dtype=np.uint8),
        depth_m=depth,
        intrinsics_px=np.array([30.0, 31.0, 15.5, 11.5]),
        base_from_camera=np.eye(4),
    )


def test_no_change_changes_nothing() -> None:
    changed = PictureChange().frame(frame(), KEY)
    for name, value in frame().arrays().items():
        np.testing.assert_array_equal(getattr(changed, name), value)
    assert str(PictureChange()) == ""


def test_noise_is_of_the_picture_and_leaves_holes() -> None:
    noisy = PictureChange(depth_noise_m=0.01, seed=4)
    first = noisy.frame(frame(), KEY).depth_m
    np.testing.assert_array_equal(first, noisy.frame(frame(), KEY).depth_m)
    assert (first != noisy.frame(frame(), ViewKey(3, 8)).depth_m).any()
    assert (first[:4] == 0).all()
    assert np.std(first[4:] - frame().depth_m[4:]) == pytest.approx(0.01, rel=0.15)


def test_depth_is_withheld_and_light_changes_colours() -> None:
    assert not PictureChange(drop_depth=True).frame(frame(), KEY).depth_m.any()
    lit = PictureChange(gain=2.0, tint=0.1).frame(frame(), KEY).rgb.astype(float)
    np.testing.assert_allclose(lit, np.minimum(frame().rgb * np.array([2.2, 2.0, 1.8]), 255), atol=0.51)


def test_a_zoomed_picture_shows_the_same_points() -> None:
    """Pixel centres of the smaller picture lie at the same rays as the middles of 2 x 2 pixels of the larger one."""
    half = PictureChange(zoom=0.5).frame(frame(), KEY)
    assert half.rgb.shape == (12, 16, 3)
    assert half.depth_m.shape == (12, 16)
    flat = np.ones((12, 16))
    points = unproject(flat, half.intrinsics_px)
    pixels, _ = project(points, frame().intrinsics_px)
    v, u = np.mgrid[0:12, 0:16]
    np.testing.assert_allclose(pixels, np.stack([2 * u + 0.5, 2 * v + 0.5], -1), atol=1e-9)
    mask = np.zeros((24, 32), bool)
    mask[8:16, 10:20] = True
    np.testing.assert_array_equal(np.argwhere(PictureChange(zoom=0.5).mask(mask))[[0, -1]], [[4, 5], [7, 9]])


def test_a_drawn_pose_covers_the_object_and_a_wrong_one_does_not(data: Path) -> None:
    dataset = PoseDataset(data)
    key = dataset.views[0]
    seen = dataset.frame(key)
    one = max(dataset.truth(key), key=lambda each: each.visible_share)
    renderers = {one.number: MeshRenderer(dataset.models[one.number])}
    camera = np.asarray(seen.intrinsics_px)
    mask = dataset.whole_mask(key, one.index)
    right = pose_picture(seen.rgb, camera, renderers, [(one.number, one.camera_from_object)])
    changed = (right != seen.rgb).any(-1)
    assert (changed & mask).sum() > 0.9 * mask.sum()
    away = one.camera_from_object.copy()
    away[2, 3] = -1.0
    np.testing.assert_array_equal(pose_picture(seen.rgb, camera, renderers, [(one.number, away)]), seen.rgb)
    true = pose_picture(seen.rgb, camera, renderers, [], [(one.number, one.camera_from_object)])
    outline = (true == TRUE_COLOUR).all(-1)
    assert outline.any()
    assert not (outline & ~mask).any()
