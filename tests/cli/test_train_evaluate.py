"""From episodes to a result file by commands, as small as it gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perceive.cli import main
from perceive.cli.train import chunk_of
from policies.checkpoint import checkpoint_folders, find_checkpoint
from sensors.errors import WiringError

JOINTS_ONLY = [f"~model.encoders.{name}" for name in ("front", "wrist", "wrench", "touch_left", "touch_right")]
SMALL = ["model.width=32", "model.trunk.depth=1", "model.trunk.heads=2", "train.batch_size=4", "train.device=cpu"]
QUIET = ["progress=false"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    episodes, run = home / "episodes", home / "run"
    collected = ["collect", "rig=state", "episodes=2", "workers=1", f"output={episodes}", *QUIET]
    assert main(collected) == 0
    trained = ["train", f"data={episodes}", f"output={run}", "train.steps=4", "train.tensorboard=false"]
    assert main([*trained, *JOINTS_ONLY, *SMALL, *QUIET]) == 0
    return run


def test_training_leaves_a_checkpoint_that_knows_its_config(run: Path) -> None:
    checkpoint = find_checkpoint(run)
    assert checkpoint.step == 4
    assert checkpoint.state["config"]["model"]["width"] == 32
    assert checkpoint.state["config"]["recorded_in"]["task"]["_target_"] == "envs.tasks.lift.Lift"


def test_a_run_folder_is_used_once_and_can_be_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=x", f"output={run}", *QUIET]) == 1
    assert f"perceive train resume={run}" in capsys.readouterr().err
    assert main(["train", f"resume={run}", "train.steps=6"]) == 0
    assert "train.steps: 4 -> 6" in capsys.readouterr().out
    assert checkpoint_folders(run)[-1].name == "step_000006"


def test_evaluating_writes_a_result(run: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = home / "evaluation"
    words = [
        "evaluate",
        f"checkpoint={run}",
        "rig=state",
        "episodes=2",
        "workers=1",
        "env.max_steps=3",
        f"output={output}",
    ]
    assert main([*words, "name=tiny", *QUIET]) == 0
    result = json.loads((output / "result.json").read_text())
    assert result["name"] == "tiny"
    assert result["figures"]["success"]["n"] == 2
    assert result["seeds"] == [1_000_000, 1_000_001]
    assert result["command"].startswith("perceive evaluate checkpoint=")
    assert str(home) not in json.dumps(result)
    assert len(json.loads((output / "episodes.json").read_text())["by_seed"]) == 2
    assert "trained in" not in capsys.readouterr().out


def test_sensors_can_be_those_of_another_episode(run: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = home / "shuffled"
    words = ["evaluate", f"checkpoint={run}", "rig=state", "episodes=1", "workers=1", "env.max_steps=3", *QUIET]
    assert main([*words, f"output={output}", "shuffled=[joints]", f"shuffled_from={home / 'episodes'}"]) == 0
    result = json.loads((output / "result.json").read_text())
    assert "with joints of other episodes" in result["about"]
    assert main([*words, f"output={home / 'none'}", "shuffled=[joints]"]) == 1
    assert "shuffled_from=" in capsys.readouterr().err


def test_without_a_camera_there_is_no_film_and_no_error(run: Path, home: Path) -> None:
    output = home / "films"
    words = [f"checkpoint={run}", "rig=state", "episodes=1", "workers=1", "env.max_steps=3", f"output={output}", *QUIET]
    assert main(["evaluate", *words, "films=1"]) == 0
    assert list(output.glob("*.mp4")) == []


def test_another_rig_or_task_is_noticed(run: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"checkpoint={run}", "episodes=1", "workers=1", "env.max_steps=3", f"output={home / 'other'}", *QUIET]
    assert main(["evaluate", "env=push", "rig=push", *words]) == 1
    said = capsys.readouterr()
    assert "sensor" in said.err
    assert "was trained in envs.tasks.lift.Lift" in said.out


def test_without_data_the_key_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=null", f"output={home / 'nothing'}", *QUIET]) == 1
    assert "data=" in capsys.readouterr().err


def test_the_chunk_is_the_heads() -> None:
    model = {"heads": {"a": {"chunk": 8}, "b": {"chunk": 4}}}
    assert chunk_of(model, ["a"]) == 8
    with pytest.raises(WiringError, match="one chunk length"):
        chunk_of(model, ["a", "b"])
    with pytest.raises(WiringError, match="'c'"):
        chunk_of(model, ["c"])
