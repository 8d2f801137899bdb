"""Pictures, films and sheets of episodes, on data whose look is known."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from perceive.cli import main
from perceive.cli.view import show
from perceive.viewing import rerun_log
from perceive.viewing.draw import (
    BACKGROUND,
    LINES,
    curve_picture,
    depth_picture,
    fit,
    force_picture,
    mosaic,
    touch_picture,
)
from perceive.viewing.film import write_mp4
from perceive.viewing.storyboard import Storyboard, grid_steps
from sensors.errors import DataError, SensorError
from sensors.observation import Observation, Stream


def observations(count: int = 6, absent_step: int = 1) -> list[Observation]:
    rng = np.random.default_rng(0)
    out = []
    for step in range(count):
        camera = {
            "rgb": np.full((1, 12, 16, 3), 10 * step, np.uint8),
            "depth_m": rng.uniform(0.5, 1.0, (1, 12, 16)).astype(np.float32),
            "intrinsics_px": np.array([[10.0, 10.0, 7.5, 5.5]]),
            "base_from_camera": np.eye(4)[None],
        }
        wrench = {"force_N": np.array([[0.0, 1.0, float(step)]]), "base_from_sensor": np.eye(4)[None]}
        touch = {"indentation_m": np.full((1, 4, 3), 0.001 * (step == 3), np.float32)}
        field = {"force_N": np.full((1, 4, 5, 3), -0.01 * step, np.float32), "base_from_pad": np.eye(4)[None]}
        cells = {"normal_N": np.full((1, 2, 2), 0.1 * step, np.float32), "base_from_pad": np.eye(4)[None]}
        gel = {"rgb": np.full((1, 8, 6, 3), 20 * step, np.uint8), "base_from_pad": np.eye(4)[None]}
        lidar = {"xyz_m": rng.normal(size=(1, 5, 3)).astype(np.float32), "count": np.array([[3]])}
        streams = {
            name: Stream(data, np.zeros(1, np.float32), np.array([name != "touch" or step != absent_step]))
            for name, data in {
                "front": camera, "wrist": wrench, "touch": touch, "lidar": lidar, "field": field, "cells": cells,
                "gel": gel,
            }.items()
        }  # fmt: skip
        out.append(Observation(step / 10, streams))
    return out


def test_near_is_bright_and_unmeasured_is_background() -> None:
    picture = depth_picture(np.array([[0.0, 0.5, 1.0]]), 0.5, 1.0)
    assert tuple(picture[0, 0]) == (BACKGROUND[0],) * 3
    assert not np.array_equal(picture[0, 1], picture[0, 2])
    assert picture[0, 1, 0] > picture[0, 1, 2]  # red end of the map is near


def test_touch_grows_brighter() -> None:
    picture = touch_picture(np.array([[0.0, 0.0005, 0.001, 0.005]]), 0.001)
    light = picture[0].astype(int).sum(axis=1)
    assert light[0] < light[1] < light[2] == light[3]


def test_forces_are_pressed_bright_and_dragged_along() -> None:
    force = np.zeros((16, 16, 3))
    force[4:12, 4:12, 2] = -1.0
    still = force_picture(force, 1.0)
    assert still.shape == (160, 160, 3)
    light = still.astype(int).sum(axis=2)
    assert light[80, 80] > 2 * light[10, 10]
    force[4:12, 4:12, 0] = 1.0  # to the right
    force[0, 0] = np.nan  # a dead piece
    arrows = np.argwhere((force_picture(force, 1.0) != still).any(axis=2))
    blue = np.argwhere((force_picture(force, 1.0) == LINES[1]).all(axis=2))
    assert len(blue) > 50
    assert arrows[:, 0].min() >= 40
    assert arrows[:, 1].min() >= 45 < arrows[:, 1].max()
    np.testing.assert_array_equal(force_picture(force * [-1, 1, 1], 1.0)[:, ::-1].shape, still.shape)
    upwards = force.copy()
    upwards[..., :2] = upwards[..., [1, 0]] * [1, -1]
    assert np.argwhere((force_picture(upwards, 1.0) != still).any(axis=2))[:, 0].min() < arrows[:, 0].min()


def test_curves_are_drawn_up_to_now_and_nan_is_a_gap() -> None:
    values = np.linspace(0, 1, 50)[:, None]
    whole, half = curve_picture(values, 49, 60, 100), curve_picture(values, 24, 60, 100)
    assert np.any(whole[:, 60:95] != half[:, 60:95])
    gap = values.copy()
    gap[:] = np.nan
    assert np.any(whole != curve_picture(gap, 49, 60, 100))


def test_fitting_keeps_the_shape_of_pixels() -> None:
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[0, 0] = 255
    out = fit(picture, 80, 80)
    assert (out == 255).all(axis=2).sum() == 20 * 20
    assert mosaic({"a": picture, "b": picture, "c": picture}, 2, 31, 33).shape[0] % 2 == 0


def test_a_storyboard_has_a_frame_for_every_step_and_shows_absence() -> None:
    board = Storyboard(observations())
    frames = list(board)
    assert len(frames) == len(board) == 6
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert np.any(frames[1] != frames[0])
    # The data of an absent fingertip are those of an untouched one; only the picture tells them apart.
    assert np.any(frames[1] != Storyboard(observations(absent_step=-1)).frame(1))
    with pytest.raises(DataError, match="at least one"):
        Storyboard([])


def test_sheets_take_first_and_last() -> None:
    assert grid_steps(100, 5) == [0, 25, 50, 74, 99]
    assert grid_steps(3, 9) == [0, 1, 2]
    assert grid_steps(1, 9) == [0]


def test_films_can_be_played(tmp_path: Path) -> None:
    path = Path(show(observations(), "mp4", tmp_path / "a"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert float(stream.average_rate or 0) == pytest.approx(10.0)
    assert len(frames) == 6
    assert np.abs(frames[5].astype(float) - Storyboard(observations()).frame(5)).mean() < 12  # lossy, but the same
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="at least one frame"):
        write_mp4(tmp_path / "b.mp4", [], 10)
    assert not (tmp_path / "b.mp4").exists()


def test_a_sheet_is_one_picture(tmp_path: Path) -> None:
    path = show(observations(), "png", tmp_path / "a", moments=4)
    picture = cv2.imread(path)
    assert picture is not None
    assert picture.std() > 10


def test_without_rerun_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rerun_log, "find_spec", lambda name: None)
    with pytest.raises(SensorError, match=r"perceive\[viewer\]"):
        show(observations(), "rrd", tmp_path / "a")


def test_a_rerun_recording_is_written(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="needs the extra 'viewer'")
    path = Path(show(observations(), "rrd", tmp_path / "a"))
    assert path.stat().st_size > 1000


def test_the_command_shows_the_expert_and_its_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "rig=state", "episodes=1", "workers=1", "progress=false", "output=eps"]) == 0
    assert main(["view", "rig=state", "to=png", "steps=4", "output=shown"]) == 0
    assert main(["view", "episode=eps/episode_000000.h5", "output=shown"]) == 0
    assert {path.suffix for path in (tmp_path / "shown").glob("*.*") if path.suffix in (".png", ".mp4", ".rrd")} == {
        ".png",
        ".mp4",
    }
    assert main(["view", "episode=eps/episode_000001.h5", "output=shown"]) == 1
    assert "no such file" in capsys.readouterr().err
