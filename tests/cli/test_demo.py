"""perceive demo end to end, small: every stage runs, a second call repeats nothing, another setting is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from perceive.cli.compose import compose_config
from perceive.cli.demo import StageClock, demo, moved_cameras
from sensors.errors import DataError, WiringError


def small(folder: Path, *overrides: str) -> dict[str, Any]:
    """The demo's config with everything as small as it goes."""
    words = [f"output={folder}", "progress=false", "films=1", "collect.episodes=2", "collect.workers=1"]
    words += [
        "train.steps=2",
        "train.batch_size=4",
        "train.checkpoint_every=1",
        "env.max_steps=20",
        "evaluate.workers=1",
    ]
    config = compose_config("demo", [*words, *overrides])
    conditions = config["evaluate"]["conditions"]
    config["evaluate"]["conditions"] = {
        name: conditions[name] | {"episodes": 1} for name in ("full", "moved", "no_front")
    }
    return config


def test_runs_whole_and_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    record = demo(small(folder, f"result={tmp_path / 'results' / 'copy.json'}"))
    assert record["figures"]["success"]["n"] == 1
    assert {"success_moved", "success_no_front", "train_wall", "whole_wall"} <= set(record["figures"])
    assert str(tmp_path) not in json.dumps(record)  # a result names no folder of this machine
    assert (tmp_path / "results" / "copy.json").is_file()
    page = (folder / "report.html").read_text()
    for piece in ("Learning curve", "Moved cameras", "Missing sensors", "without the front camera", "data:image/gif"):
        assert piece in page, piece
    assert "report.html" in capsys.readouterr().out

    # The whole work is there: nothing is collected, trained or played again.
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    kept |= {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    kept |= {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()}
    again = demo(small(folder))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert again["figures"]["success"] == record["figures"]["success"]

    # A lost episode and a lost condition come back, the rest stays.
    (folder / "evaluation" / "moved.json").unlink()
    demo(small(folder))
    assert (folder / "evaluation" / "moved.json").is_file()

    with pytest.raises(DataError, match=r"train\.lr"):
        demo(small(folder, "train.lr=0.5"))


def test_moves_only_the_named_cameras() -> None:
    env = {"rig": {"sensors": {"front": {"mount_shift_m": 0.0}, "wrist": {"mount_shift_m": 0.0}}}}
    moved = moved_cameras(env, {"front": {"mount_shift_m": 0.1}})
    assert moved["rig"]["sensors"] == {"front": {"mount_shift_m": 0.1}, "wrist": {"mount_shift_m": 0.0}}
    assert env["rig"]["sensors"]["front"]["mount_shift_m"] == 0.0
    with pytest.raises(WiringError, match="front"):
        moved_cameras(env, {"frnot": {"mount_shift_m": 0.1}})


def test_stage_clock_adds_up_over_sittings(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    with pytest.raises(KeyboardInterrupt), StageClock(path).stage("train"):
        raise KeyboardInterrupt
    first = StageClock(path).seconds["train"]["wall_s"]
    with StageClock(path).stage("train"):
        pass
    assert StageClock(path).seconds["train"]["wall_s"] > first >= 0
