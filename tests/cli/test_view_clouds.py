"""perceive view of clouds: files of them, preprocessing, and episodes whose sensors measure points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from perceive.cli import main, view, view_clouds
from perceive.cli.compose import compose_config
from perceive.viewing.rerun_log import log_sensor, log_tile, show_clouds_in_rerun
from perceive.viewing.storyboard import BOX_PX, Storyboard
from sensors.errors import DataError, SpecError
from sensors.observation import Observation, Stream
from tests.cli.labelled_clouds import scene, write_scenes


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("clouds"), 2)


def test_a_folder_is_a_sheet_and_says_what_preprocessing_did(
    clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", f"cloud={clouds}", "points=tabletop", "to=png", f"output={tmp_path}", "moments=1"]) == 0
    said = capsys.readouterr().out
    assert "460 points" in said
    assert said.count("planes") == 1
    one = cv2.imread(str(tmp_path / f"{clouds.name}.png"))
    assert main(["view", f"cloud={clouds}", "to=png", f"output={tmp_path}"]) == 0
    two = cv2.imread(str(tmp_path / f"{clouds.name}.png"))
    assert one is not None
    assert two is not None
    assert one.shape[1] == 2 * two.shape[1]  # measured, classes, left and clusters
    assert two.shape[0] == 2 * one.shape[0]
    assert "planes" not in capsys.readouterr().out


def test_a_file_is_a_film_around_it(clouds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_clouds, "TURN_FRAMES", 3)
    assert main(["view", f"cloud={clouds / 'scene_0.npz'}", f"output={tmp_path}"]) == 0
    with av.open(str(tmp_path / "scene_0.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 3
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 1


def test_words_that_do_not_go_together(clouds: Path, tmp_path: Path) -> None:
    config = compose_config("view", [f"output={tmp_path}"])
    with pytest.raises(SpecError, match="Leave one out"):
        view.job({**config, "cloud": str(clouds), "episode": "a.h5"})
    with pytest.raises(SpecError, match="points= without cloud="):
        view.job({**config, "points": {"_target_": "perceive.points.preprocess.presets.lidar"}})
    with pytest.raises(DataError, match="no such folder"):
        view.job({**config, "cloud": str(tmp_path / "none")})
    with pytest.raises(SpecError, match="'kitti'"):
        view.job({**config, "cloud": str(clouds), "layout": "kiti"})


@pytest.mark.parametrize("name", ["tabletop", "lidar"])
def test_presets_compose(name: str) -> None:
    target = compose_config("view", ["cloud=x", f"points={name}"])["points"]["_target_"]
    assert target == f"perceive.points.preprocess.presets.{name}"


def observations() -> list[Observation]:
    """A cloud of which half is padding, and a sweep of a LiDAR that hangs a metre to the left of what it sees."""
    out = []
    base_from_lidar = np.eye(4)
    base_from_lidar[1, 3] = 1.0
    for step in range(3):
        first = scene(0)
        assert first.rgb is not None
        frame = {
            "xyz_m": np.concatenate([first.xyz_m, np.full_like(first.xyz_m, 99.0)])[None],
            "rgb": np.concatenate([first.rgb, first.rgb])[None],
            "count": np.array([[len(first) if step else 3]]),
        }
        sweep = {
            "xyz_m": first.xyz_m[None], "intensity": np.linspace(0, 1, len(first), dtype=np.float32)[None],
            "offset_s": np.zeros((1, len(first)), np.float32), "count": np.array([[len(first)]]),
            "base_from_lidar": base_from_lidar[None],
        }  # fmt: skip
        streams = {
            "cloud": Stream(frame, np.zeros(1, np.float32), np.array([True])),
            "lidar": Stream(sweep, np.zeros(1, np.float32), np.array([step < 2])),
        }
        out.append(Observation(step / 10, streams))
    return out


def test_episodes_show_their_clouds() -> None:
    board = Storyboard(observations())
    first, second, third = board
    red = np.array([200, 40, 40])
    cloud, lidar = (slice(None), slice(None, BOX_PX)), (slice(None), slice(BOX_PX, None))
    assert not (first[cloud] == red).all(axis=2).any()  # three points, all of the table
    assert (second[cloud] == red).all(axis=2).any()
    np.testing.assert_array_equal(first[lidar], second[lidar])
    assert np.any(third[lidar] != second[lidar])  # not there


class Heard:
    """Stands in for a recording's stream to a file, and keeps what was sent."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def log(self, place: str, what: Any) -> None:
        self.sent[place] = what


def test_rerun_gets_points_with_their_colours_and_boxes(tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun", reason="needs the extra 'viewer'")
    heard = Heard()
    for name, stream in observations()[0].streams.items():
        log_sensor(rerun, heard, name, {field: value[-1] for field, value in stream.data.items()})
    cloud, sweep = heard.sent["base/cloud/points"], heard.sent["base/lidar/points"]
    assert [len(each.positions.as_arrow_array()) for each in (cloud, sweep)] == [3, 460]
    # The sweep is where it was seen, a metre to the left of the sensor's own frame.
    places = np.array(sweep.positions.as_arrow_array().to_pylist())
    np.testing.assert_allclose(places, scene(0).xyz_m + np.array([0, 1, 0]), atol=1e-6)
    assert len(set(sweep.colors.as_arrow_array().to_pylist())) > 100  # by intensity
    assert list(heard.sent) == ["base/cloud/points", "base/lidar/points"]

    measured, classes = view_clouds.shown(scene(0), None)[1]
    log_tile(rerun, heard, "base/0", measured)
    boxes = heard.sent["base/0/boxes/0"]
    np.testing.assert_allclose(boxes.half_sizes.as_arrow_array().to_pylist()[0], [0.05, 0.03, 0.05], atol=1e-6)
    assert boxes.labels.as_arrow_array().to_pylist() == ["red", "blue"]
    file = tmp_path / "a.rrd"
    assert show_clouds_in_rerun([("a", [measured, classes]), ("b", [classes])], "clouds", file) == str(file)
    assert file.stat().st_size > 1000
