"""Calibrations on disk and on screen, and sessions that are simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perceive.build import build
from sensors.calibration.board import Board
from sensors.calibration.drawing import draw_reprojection
from sensors.calibration.files import (
    read_lens,
    read_mount,
    read_poses,
    write_beside,
    write_intrinsics,
    write_mount,
    write_poses,
)
from sensors.calibration.hand_eye import HandEye, Mounting, calibrate_hand_eye
from sensors.calibration.intrinsics import ViewFit, calibrate_intrinsics
from sensors.calibration.rendering import BoardRenderer, random_views
from sensors.calibration.simulation import exact_views, hand_poses, simulate_session, simulated_lens, write_session
from sensors.calibration.summary import hand_eye_summary, intrinsics_summary
from sensors.calibration.views import View, picture_size, read_pictures
from sensors.errors import DataError, SpecError
from sensors.geometry import pose
from sensors.live import Mount

BOARD = Board()
LENS = simulated_lens(320, 240)
CAMERA = pose((0.06, -0.02, 0.05), (0.1, -0.2, 0.7, 0.68))


def hand_eye(mounting: Mounting = Mounting.EYE_IN_HAND) -> HandEye:
    rng = np.random.default_rng(0)
    seen = random_views(BOARD, LENS, 8, rng)
    views = exact_views(BOARD, LENS, seen, rng, 0.1)
    return calibrate_hand_eye(views, hand_poses(mounting, CAMERA, pose((0.5, 0, 0)), seen), BOARD, LENS, mounting)


def test_intrinsics_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = calibrate_intrinsics(exact_views(BOARD, LENS, random_views(BOARD, LENS, 10, rng), rng, 0.2), BOARD)
    write_intrinsics(tmp_path / "deep" / "intrinsics.json", found, BOARD)
    lens, covariance = read_lens(tmp_path / "deep" / "intrinsics.json")
    assert (lens.width, lens.height) == (320, 240)
    np.testing.assert_array_equal(lens.intrinsics_px, found.lens.intrinsics_px)
    np.testing.assert_array_equal(lens.distortion, found.lens.distortion)
    assert covariance is not None
    np.testing.assert_array_equal(covariance, found.covariance)
    data = json.loads((tmp_path / "deep" / "intrinsics.json").read_text())
    assert data["rms_px"] == found.rms_px
    assert data["board"]["squares_x"] == 8
    assert len(data["views"]) == 10
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["intrinsics.json"]
    said = intrinsics_summary(found, BOARD, {"a.png": "no marker at all"})
    assert f"{lens.intrinsics_px[0]:.3f}" in said
    assert "no board in 'a.png'" in said


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{", "JSON"),
        ("[1]", "JSON object"),
        ('{"width": 3, "height": 3}', "intrinsics_px"),
        ('{"width": 3, "height": 3, "intrinsics_px": [1, 2, 3]}', "fx fy cx cy"),
        ('{"width": 3, "height": 3, "intrinsics_px": [1, 2, 3, 4], "distortion": [1]}', "k1 k2 p1 p2 k3"),
        ('{"width": 3, "height": 3, "intrinsics_px": [1, 2, 3, 4], "covariance": [[1]]}', "9 x 9"),
    ],
)
def test_files_that_are_no_intrinsics_are_refused(text: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=hint):
        read_lens(tmp_path / "a.json")
    with pytest.raises(DataError, match="Check the path"):
        read_lens(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("mounting", "link"), [(Mounting.EYE_IN_HAND, "panda_hand"), (Mounting.EYE_TO_HAND, None)], ids=["hand", "base"]
)
def test_a_mount_loads_as_a_sensors_mount(mounting: Mounting, link: str | None, tmp_path: Path) -> None:
    found = hand_eye(mounting)
    write_mount(tmp_path / "mount.yaml", found, BOARD, link)
    built = build(yaml.safe_load((tmp_path / "mount.yaml").read_text()))
    assert isinstance(built, Mount)
    for mount in (built, read_mount(tmp_path / "mount.json")):
        assert mount.link == link
        np.testing.assert_allclose(mount.matrix(), found.carrier_from_camera, atol=1e-7)
    data = json.loads((tmp_path / "mount.json").read_text())
    assert data["rms_px"] == found.rms_px
    np.testing.assert_allclose(data["position_std_mm"], 1000 * found.position_std_m)
    key = "hand_from_camera" if mounting is Mounting.EYE_IN_HAND else "base_from_camera"
    np.testing.assert_array_equal(data[key], found.carrier_from_camera)
    said = hand_eye_summary(found, BOARD, {})
    assert key in said
    assert f"{1000 * found.position_m[0]:.2f}" in said
    with pytest.raises(SpecError, match="link"):
        write_mount(tmp_path / "mount.yaml", found, BOARD, "panda_hand" if link is None else None)
    (tmp_path / "other.json").write_text('{"mount": {"link": null, "position_m": [0, 0, 0]}}')
    with pytest.raises(DataError, match="quaternion_xyzw"):
        read_mount(tmp_path / "other.json")


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_beside(tmp_path / "a", "first")
    held = (tmp_path / "a").open()  # whoever reads the old file goes on reading it
    write_beside(tmp_path / "a", "before")
    assert held.read() == "first"
    held.close()

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_beside(tmp_path / "a", "after")
    assert (tmp_path / "a").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_poses_come_back_in_both_forms(tmp_path: Path) -> None:
    poses = {"a.png": pose((0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4)), "b.png": pose((1, 2, 3))}
    write_poses(tmp_path / "poses.json", poses)
    back = read_poses(tmp_path / "poses.json")
    assert list(back) == ["a.png", "b.png"]
    for name, matrix in poses.items():
        np.testing.assert_allclose(back[name], matrix, atol=1e-9)
    rows = {name: matrix.tolist() for name, matrix in poses.items()}
    (tmp_path / "rows.json").write_text(json.dumps({"base_from_hand": rows}))
    np.testing.assert_array_equal(read_poses(tmp_path / "rows.json")["a.png"], poses["a.png"])


MIRROR = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"a.png": {}}, "Put the poses under 'base_from_hand'"),
        ({"base_from_hand": {}}, "a pose for every picture"),
        ({"base_from_hand": [[1]]}, "base_from_hand"),
        ({"base_from_hand": {"a.png": {"position": [0, 0, 0], "quaternion_xyzw": [0, 0, 0, 1]}}}, "'position_m'"),
        ({"base_from_hand": {"a.png": {"position_m": [0, 0, 0]}}}, r"a\.png.*quaternion_xyzw: expected 4 finite"),
        ({"base_from_hand": {"a.png": {"position_m": [0, "x", 0], "quaternion_xyzw": [0, 0, 0, 1]}}}, "3 finite"),
        ({"base_from_hand": {"a.png": {"position_m": [0, 0, 0], "quaternion_xyzw": [0, 0, 0, 2]}}}, "length 1"),
        ({"base_from_hand": {"a.png": {"position_m": [412, 0, 0], "quaternion_xyzw": [0, 0, 0, 1]}}}, "millimetres"),
        ({"base_from_hand": {"a.png": [1, 2, 3]}}, "4 x 4 finite numbers"),
        ({"base_from_hand": {"a.png": MIRROR}}, "rigid transform"),
        ({"base_from_hand": {"a.png": pose((0.5, 0, 0)).T.tolist()}}, "rigid transform"),
    ],
)
def test_malformed_poses_are_refused_with_their_picture(data: Any, hint: str, tmp_path: Path) -> None:
    (tmp_path / "poses.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=hint):
        read_poses(tmp_path / "poses.json")


def test_a_session_on_disk_gives_its_truth_back(tmp_path: Path) -> None:
    session = simulate_session(BOARD, LENS, Mounting.EYE_TO_HAND, 8, 3)
    again = simulate_session(BOARD, LENS, Mounting.EYE_TO_HAND, 8, 3)
    np.testing.assert_array_equal(session.pictures[5], again.pictures[5])
    np.testing.assert_array_equal(session.base_from_hand, again.base_from_hand)
    write_session(tmp_path, session)
    poses = read_poses(tmp_path / "poses.json")
    found = read_pictures(tmp_path, BOARD, list(poses))
    assert [view.name for view in found.views] == list(poses)
    matrices = np.stack([poses[view.name] for view in found.views])
    result = calibrate_hand_eye(found.views, matrices, BOARD, LENS, Mounting.EYE_TO_HAND)
    off_m = result.carrier_from_camera[:3, 3] - session.carrier_from_camera[:3, 3]
    assert np.linalg.norm(off_m) < 3e-3


def test_folders_are_read_with_what_is_wrong_in_them(tmp_path: Path) -> None:
    import cv2

    board = BoardRenderer(BOARD, LENS).render(pose((-0.12, -0.09, 0.45)))
    with pytest.raises(DataError, match="a folder"):
        read_pictures(tmp_path / "none", BOARD)
    with pytest.raises(DataError, match="Put the pictures there"):
        read_pictures(tmp_path, BOARD)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((240, 320), 90, np.uint8))
    with pytest.raises(DataError, match=r"it in none; in 'a\.png': no marker"):
        read_pictures(tmp_path, BOARD)
    cv2.imwrite(str(tmp_path / "b.png"), board)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = read_pictures(tmp_path, BOARD)
    assert [view.name for view in found.views] == ["b.png"]
    assert list(found.without) == ["a.png"]
    with pytest.raises(DataError, match=r"'c\.png'"):
        read_pictures(tmp_path, BOARD, ["c.png"])
    cv2.imwrite(str(tmp_path / "c.png"), np.pad(board, 4, constant_values=120))
    with pytest.raises(DataError, match="328 x 248"):
        read_pictures(tmp_path, BOARD)
    (tmp_path / "c.png").write_bytes(b"\x89PNG of no use")
    with pytest.raises(DataError, match="cannot be decoded"):
        read_pictures(tmp_path, BOARD)
    with pytest.raises(DataError, match="views of the board"):
        picture_size([])


def test_the_picture_shows_the_errors() -> None:
    rng = np.random.default_rng(0)
    seen = random_views(BOARD, LENS, 8, rng)
    renderer = BoardRenderer(BOARD, LENS)
    views = [
        View(view.name, view.width, view.height, view.corners, renderer.render(matrix))
        for view, matrix in zip(exact_views(BOARD, LENS, seen, rng), seen, strict=True)
    ]
    errors = [rng.normal(0, 0.2, view.corners.pixels.shape) for view in views]
    fits = [ViewFit(view.name, 0.28, number != 2) for number, view in enumerate(views)]
    picture = draw_reprojection(views, errors, fits)
    tile = 480 * 240 // 320 + 20
    assert picture.shape == (2 * tile + 300, 1440, 3)
    arrows = (picture == (0, 114, 178)).all(axis=2)
    assert arrows[:tile, :480].sum() > 10
    # Errors twice as long: the arrows' scale follows, so that only captions and crosses differ; the histogram does.
    double = draw_reprojection(views, [2 * part for part in errors], fits)
    assert np.abs(double[20:tile, :480].astype(int) - picture[20:tile, :480]).mean() < 2
    assert (double[2 * tile :] != picture[2 * tile :]).any()
    # A view that was left out and has no errors: its corners are shown, without arrows.
    alone = draw_reprojection(views[2:3], [np.zeros((0, 2))], fits[2:3])
    assert alone.shape == (tile + 300, 1440, 3)
    assert not (alone[:tile] == (0, 114, 178)).all(axis=2).any()
