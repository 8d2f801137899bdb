"""Key poses by commands: collect, train, evaluate with a report, go on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perceive.cli import main
from perceive.cli.policy import for_policy
from policies.checkpoint import find_checkpoint
from policies.learned import trained_mode

QUIET = ["progress=false"]
FEW = [
    "train.steps=2",
    "train.batch_size=2",
    "train.tensorboard=false",
    "train.device=cpu",
    "train.validation_fraction=0",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    demos, run = home / "demos", home / "run"
    assert main(["collect", "env=press_buttons", "episodes=1", "workers=1", f"output={demos}", *QUIET]) == 0
    assert main(["train", "experiment=rvt_press_buttons", f"data={demos}", f"output={run}", *FEW, *QUIET]) == 0
    return run


def test_the_checkpoint_predicts_key_poses(run: Path) -> None:
    assert find_checkpoint(run).step == 2
    assert trained_mode(run) == "key_pose"
    env = {"action_mode": "ee_pose", "max_steps": 5}
    assert for_policy(str(run), env) == {"action_mode": "key_pose", "max_steps": 5}
    assert env["action_mode"] == "ee_pose"


def test_it_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"resume={run}", "train.steps=3"]) == 0
    assert "train.steps: 2 -> 3" in capsys.readouterr().out
    assert find_checkpoint(run).step == 3


def test_evaluating_counts_the_planner_apart_and_draws_the_heatmaps(run: Path, home: Path) -> None:
    output = home / "evaluation"
    words = [f"checkpoint={run}", "env=press_buttons", "env.max_key_poses=2", "episodes=2", "workers=1", "films=1"]
    assert main(["evaluate", *words, f"output={output}", *QUIET]) == 0
    figures = json.loads((output / "result.json").read_text())["figures"]
    failed = figures["failures with a failed plan"]["value"] + figures["failures of the policy alone"]["value"]
    assert failed == 2 - round(2 * figures["success"]["value"])
    page = (output / "report.html").read_text()
    assert "data:image/gif" in page
    assert "A cross marks" in page
    rows = json.loads((output / "episodes.json").read_text())["by_seed"]
    assert all(row["steps"] <= 2 for row in rows)
