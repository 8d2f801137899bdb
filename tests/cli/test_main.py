"""The command line itself: help, exit status, and errors without tracebacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perceive.cli import COMMANDS, main
from perceive.cli.app import App
from sensors.errors import DataError


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_no_command_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["colect"]) == 2
    assert "Did you mean 'collect'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["collect", "train", "evaluate", "view"])
def test_help_of_a_command_shows_settings_and_groups(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: perceive {command}" in said
    assert "output" in said
    assert "lift" in said
    # Every setting carries its explanation from the schema's docstring.
    settings = said.partition("settings")[2].partition("groups")[0].splitlines()[1:]
    assert all(len(line.split()) >= 3 for line in settings if line.strip())


def test_a_typo_is_status_2_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "episodez=3"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'episodes'?" in said
    assert "Traceback" not in said


def test_an_unknown_flag_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--epsiodes", "3"]) == 2
    assert "perceive collect" in capsys.readouterr().err


def test_a_failure_is_status_1_and_debug_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERCEIVE_DEBUG", raising=False)
    assert main(["train", "resume=/nowhere/at/all"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("PERCEIVE_DEBUG", "1")
    assert main(["train", "resume=/nowhere/at/all"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["collect", "rig=state", f"output={tmp_path / 'file' / 'below'}"]) == 1
    said = capsys.readouterr().err
    assert "Not a directory" in said
    assert "output=" in said
    assert "Traceback" not in said


def test_cfg_prints_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "--cfg", "job", "rig=state"]) == 0
    assert "episodes: 100" in capfd.readouterr().out
    assert not list(tmp_path.rglob("*.h5"))


def test_an_app_gets_plain_data_and_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[dict[str, Any]] = []
    app = App("collect", "", (), seen.append)
    assert app.main(["rig=state", "episodes=7", "output=here"]) == 0
    assert type(seen[0]) is dict
    assert seen[0]["episodes"] == 7
    assert seen[0]["output"] == str(tmp_path / "here")
    assert Path.cwd() == tmp_path


def test_a_sweep_runs_every_combination_each_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[dict[str, Any]] = []
    App("collect", "", (), seen.append).main(["rig=state", "--multirun", "episodes=1,2", "first_seed=5,6"])
    assert sorted((config["episodes"], config["first_seed"]) for config in seen) == [(1, 5), (1, 6), (2, 5), (2, 6)]
    assert len({config["output"] for config in seen}) == 4


def test_what_a_job_raises_comes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def job(_config: dict[str, Any]) -> None:
        raise DataError("here", "room", "a full disk", "Free space.")

    with pytest.raises(DataError, match="full disk"):
        App("collect", "", (), job).main(["rig=state"])
    assert "Error executing job" not in capfd.readouterr().err
