"""resume=: the run's own config, a short list of changes, and everything else refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceive.cli.compose import ConfigError, compose_config
from perceive.cli.resume import CHANGEABLE, CONFIG_FILE, saved_run
from perceive.results import write_json
from sensors.errors import DataError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = compose_config("train", ["data=episodes", "train.steps=10", "train.seed=7", "model=regression"])
    write_json(tmp_path / CONFIG_FILE, config)
    return tmp_path


def test_without_resume_there_is_nothing_to_do() -> None:
    assert saved_run(["train.steps=3"]) is None
    assert saved_run(["resume=null"]) is None


def test_the_runs_own_settings_hold(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = saved_run([f"resume={run}"])
    assert config is not None
    assert (config["train"]["steps"], config["train"]["seed"]) == (10, 7)
    assert "regression" in config["model"]["heads"]["action"]["_target_"]
    assert Path(config["output"]) == run
    assert "unchanged" in capsys.readouterr().out


def test_allowed_changes_are_made_and_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = saved_run([f"resume={run}", "train.steps=20", "train.threads=1", "data=elsewhere"])
    assert config is not None
    assert (config["train"]["steps"], config["train"]["threads"], config["data"]) == (20, 1, "elsewhere")
    said = capsys.readouterr().out
    assert "train.steps: 10 -> 20" in said
    assert "data: 'episodes' -> 'elsewhere'" in said


@pytest.mark.parametrize(
    "word", ["train.lr=1.0", "model=flow", "model.width=64", "train.seed=1", "output=x", "heads=[a]"]
)
def test_anything_else_is_refused(run: Path, word: str) -> None:
    with pytest.raises(ConfigError, match="Start a new run"):
        saved_run([f"resume={run}", word])


def test_a_misspelt_or_mistyped_change_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'train\.steps'"):
        saved_run([f"resume={run}", "train.step=20"])
    with pytest.raises(ConfigError, match=r"'train\.steps'"):
        saved_run([f"resume={run}", "train.steps=long"])


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=CONFIG_FILE):
        saved_run([f"resume={tmp_path}"])
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(DataError, match=CONFIG_FILE):
        saved_run([f"resume={tmp_path}"])


def test_every_changeable_key_exists() -> None:
    config = compose_config("train", ["algorithm=sac", "env=reach"])
    for key in CHANGEABLE:
        section, _, name = key.rpartition(".")
        assert name in (config[section] if section else config)
