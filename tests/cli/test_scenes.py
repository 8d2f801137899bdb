"""perceive scenes: the same clouds however it is run, interrupted or damaged; what it makes can be trained on."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceive.cli import main
from perceive.cli.compose import ConfigError, compose_config
from perceive.cli.scenes import SETTINGS_FILE, make_scenes, scene_path
from perceive.cli.train import job
from perceive.points.files.store import read_cloud
from perceive.points.shape_scenes import ShapeScenes
from perceive.points.shapes import ShapeSource
from policies.checkpoint import latest
from sensors.errors import DataError, SpecError, WiringError

SMALL = ["progress=false", "scenes=shapes", "scenes.points=64", "scenes.classes=[box,cone,mug]"]


def config(folder: Path, *words: str) -> dict[str, Any]:
    return compose_config("scenes", [*SMALL, f"output={folder}", *words])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("scene_*"))}


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("six")
    summary = make_scenes(config(folder, "count=6", "workers=1"))
    assert (summary.scenes, summary.were_there, summary.points) == (6, 0, 64.0)
    return folder


def test_files_are_the_shapes_of_their_numbers(six: Path) -> None:
    source = ShapeSource(0, 64, ["box", "cone", "mug"], noise_m=0.01)
    whole = source.batch(range(6))
    for number in range(6):
        cloud = read_cloud(scene_path(six, number))
        np.testing.assert_array_equal(cloud.xyz_m, whole.xyz_m[number].numpy())
        np.testing.assert_array_equal(cloud.normal, whole.normal[number].numpy())
        np.testing.assert_array_equal(cloud.part, whole.part[number].numpy())
        assert cloud.label == number % 3
        assert (cloud.classes, cloud.parts) == (("box", "cone", "mug"), source.part_names)
    assert len(contents(six)) == 6


def test_several_workers_write_the_same_bytes(six: Path, tmp_path: Path) -> None:
    make_scenes(config(tmp_path, "count=6", "workers=2"))
    assert contents(tmp_path) == contents(six)


def test_it_goes_on_where_it_was(six: Path, tmp_path: Path) -> None:
    make_scenes(config(tmp_path, "count=2", "workers=1"))
    before = scene_path(tmp_path, 1).stat().st_mtime_ns
    summary = make_scenes(config(tmp_path, "count=6", "workers=1"))
    assert (summary.scenes, summary.were_there) == (6, 2)
    assert scene_path(tmp_path, 1).stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(six)
    assert "(6 were there before); 0 made" in str(make_scenes(config(tmp_path, "count=6", "workers=1")))


def test_scenes_further_on_are_others(six: Path, tmp_path: Path) -> None:
    make_scenes(config(tmp_path, "count=2", "first=4", "workers=1"))
    assert contents(tmp_path) == {name: data for name, data in contents(six).items() if name >= "scene_000004"}
    assert not np.array_equal(read_cloud(scene_path(six, 1)).xyz_m, read_cloud(scene_path(six, 4)).xyz_m)


def test_a_damaged_file_is_named_and_made_again(six: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_scenes(config(tmp_path, "count=6", "workers=1"))
    damaged = scene_path(tmp_path, 3)
    damaged.write_bytes(damaged.read_bytes()[:-300])
    leftover = tmp_path / ".scene_000002.npz.77.tmp"
    leftover.write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert make_scenes(config(tmp_path, "count=6", "workers=1")).were_there == 5
    assert damaged.name in caplog.text
    assert contents(tmp_path) == contents(six)
    assert not leftover.exists()


def test_other_settings_in_the_same_folder_are_refused(six: Path) -> None:
    with pytest.raises(DataError, match=r"noise_m: 0\.01 -> 0\.5"):
        make_scenes(config(six, "count=6", "scenes.noise_m=0.5"))
    with pytest.raises(DataError, match="seed: 0 -> 1"):
        make_scenes(config(six, "count=6", "scenes.seed=1"))


def test_foreign_folders_are_refused(six: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(scene_path(six, 0).read_bytes())
    with pytest.raises(DataError, match="other clouds"):
        make_scenes(config(tmp_path, "count=1"))
    (tmp_path / "mine.npz").unlink()
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(DataError, match="settings of this folder"):
        make_scenes(config(tmp_path, "count=1"))


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    for word in ("count=0", "first=-1", "workers=-1"):
        with pytest.raises(SpecError, match="count >= 1"):
            make_scenes(config(tmp_path, word))
    plain = config(tmp_path, "count=1") | {"scenes": {"_target_": "perceive.points.shapes.ShapeSource", "seed": 0}}
    with pytest.raises(SpecError, match=r"scene\(number\)"):
        make_scenes(plain)
    with pytest.raises(SpecError, match="number >= 0"):
        ShapeScenes(0).scene(-1)


def test_a_wrong_setting_of_the_generator_reaches_the_reader(tmp_path: Path) -> None:
    for workers in (1, 2):
        with pytest.raises(SpecError, match="a known class"):
            make_scenes(config(tmp_path, "count=2", f"workers={workers}", "scenes.classes=[boks]"))


@pytest.mark.parametrize("kind", ["tabletop", "room"])
def test_rendered_scenes_have_all_labels(kind: str, tmp_path: Path) -> None:
    words = ["progress=false", f"scenes={kind}", "scenes.points=500", f"output={tmp_path}", "count=1", "workers=1"]
    make_scenes(compose_config("scenes", words))
    cloud = read_cloud(scene_path(tmp_path, 0))
    assert len(cloud) == 500
    assert cloud.frame == "base"
    assert cloud.semantic is not None
    assert cloud.boxes is not None
    assert len(np.unique(cloud.semantic)) > 2
    assert len(cloud.boxes) >= 5
    assert cloud.boxes.points.sum() == (np.asarray(cloud.instance) >= 0).sum()
    assert (cloud.rgb is not None, cloud.intensity is not None) == (kind == "tabletop", kind == "room")
    assert json.loads((tmp_path / SETTINGS_FILE).read_text())["points"] == 500


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    assert main(["scenes", *SMALL, f"output={folder}", "count=2", "workers=1"]) == 0
    assert "2 scenes in" in capsys.readouterr().out
    assert len(contents(folder)) == 2
    assert main(["scenes", *SMALL, f"output={folder}", "count=2", "scenes.seed=5"]) == 1
    assert "seed: 0 -> 5" in capsys.readouterr().err
    assert main(["scenes", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "perceive scenes scenes=tabletop" in shown
    assert "room, shapes, tabletop" in shown
    with pytest.raises(ConfigError, match="Did you mean 'tabletop'"):
        compose_config("scenes", ["scenes=tabletopp"])


TINY = [
    "progress=false", "experiment=points_classification", "train.steps=3", "train.batch_size=2",
    "train.tensorboard=false", "train.validation_fraction=0.2", "train.checkpoint_every=2", "dataset.points=64",
    "model.width=32", "model.trunk.heads=2",
    "model.encoders.cloud.groups=8", "model.encoders.cloud.size=8", "model.encoders.cloud.hidden=16",
    "model.heads.class.classes=[mug,box,cone]",
]  # fmt: skip


def test_what_it_makes_can_be_trained_on(six: Path, tmp_path: Path) -> None:
    words = [*TINY, f"data={six}"]
    job(compose_config("train", [*words, f"output={tmp_path / 'whole'}"]))
    whole = latest(tmp_path / "whole")
    assert whole is not None
    assert whole.step == 3
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {"class", "_accuracy", "validation_loss"} <= {name.rpartition("/")[2] for name in rows[-1]}
    # The numbers of the files follow the names of the head, which stand in another order.
    job(compose_config("train", [*words, f"output={tmp_path / 'parts'}", "train.steps=2"]))
    assert main(["train", f"resume={tmp_path / 'parts'}", "train.steps=3"]) == 0
    part = latest(tmp_path / "parts")
    assert part is not None
    assert part.step == 3


def test_what_does_not_fit_is_said_before_the_first_step(six: Path, tmp_path: Path) -> None:
    words = [*TINY, f"data={six}", f"output={tmp_path}"]
    cases: list[tuple[str, type[Exception], str]] = [
        ("model.heads.class.classes=[mug,box,chair]", DataError, "'chair'"),
        ("dataset.needs=[semantic]", DataError, "no .'semantic'"),
        ("dataset.sensor=lidar", WiringError, "no sensor 'cloud'"),
        ("heads=[klass]", WiringError, "Did you mean 'class'"),
        (f"data={tmp_path / 'nowhere'}", DataError, "no such folder"),
    ]
    for number, (word, error, said) in enumerate(cases):
        with pytest.raises(error, match=said):
            job(compose_config("train", [*words, f"output={tmp_path / str(number)}", word]))
