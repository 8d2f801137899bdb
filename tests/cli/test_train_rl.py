"""perceive train algorithm=sac|ppo env=reach: by one command, with the trunk; and what can be done with the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perceive.cli import main
from perceive.cli.compose import compose_config

SHORT = ["rl.learning_starts=42", "rl.batch_size=8", "rl.tensorboard=false", "rl.log_every=1", "progress=false"]
GOAL_ENV = ["env=reach_goal", "rig=state"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rl") / "run"
    assert main(["train", "algorithm=sac", "env=reach", "rl.steps=50", f"output={folder}", *SHORT]) == 0
    return folder


def test_algorithm_chooses_rig_model_and_actions() -> None:
    for algorithm, reward in (("sac", "sparse"), ("ppo", "dense")):
        config = compose_config("train", [f"algorithm={algorithm}", "env=reach"])
        assert config["algorithm"] == algorithm
        assert list(config["rig"]["sensors"]) == ["joints"]
        assert config["env"]["rig"] == config["rig"]
        assert config["env"]["action_mode"] == "ee_delta"
        assert config["env"]["task"]["reward"] == reward
        assert "features" in config["model"]["heads"]
    assert compose_config("train", ["env=reach"])["rl"] is None


def test_sac_equals_the_goal_preset() -> None:
    mine = compose_config("train", ["algorithm=sac", "env=reach"])["env"]
    preset = compose_config("evaluate", ["checkpoint=x", *GOAL_ENV])["env"]
    assert mine == preset  # so that `evaluate env=reach_goal rig=state` sees the task as it was trained


def test_a_run_can_be_evaluated_and_resumed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run / "policy" / "policy.safetensors").exists()
    assert json.loads((run / "run.json").read_text())["algorithm"] == "sac"
    words = ["evaluate", f"checkpoint={run}", *GOAL_ENV, "episodes=2", "workers=1", "progress=false"]
    assert main([*words, f"output={tmp_path}"]) == 0
    assert "of 2 episodes" in capsys.readouterr().out
    assert main(["train", f"resume={run}", "rl.steps=60"]) == 0
    said = capsys.readouterr().out
    assert "rl.steps: 50 -> 60" in said
    assert "60 steps" in said


def test_ppo_trains(tmp_path: Path) -> None:
    words = ["rl.steps=32", "rl.rollout_steps=32", "rl.envs=1", "rl.epochs=1", "rl.batch_size=16"]
    assert main(["train", "algorithm=ppo", "env=reach", f"output={tmp_path / 'run'}", *words, "progress=false"]) == 0


def test_what_does_not_fit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "algorithm=sac", "env=lift", f"output={tmp_path / 'a'}", *SHORT]) == 1
    assert "goal" in capsys.readouterr().err  # Lift has none
    assert main(["train", "algorithm=sac", "env=reach", "model=situated", f"output={tmp_path / 'b'}", *SHORT]) == 1
    assert "encoder 'front'" in capsys.readouterr().err
    assert main(["train", "algorithm=sac", "env=reach", "rl.stepz=3"]) == 2
    assert "rl.steps" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_policy_drives_the_simulated_robot(run: Path, tmp_path: Path) -> None:
    words = ["run", f"policy={run}", *GOAL_ENV, "duration_s=2", "loop.watchdog_s=10", f"output={tmp_path}"]
    assert main(words) == 0
    assert json.loads((tmp_path / "run.json").read_text())["ticks"] > 1
