"""perceive collect: the same episodes however it is run, interrupted or damaged; labels stay clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceive.cli.collect import ATTEMPTS_FILE, collect
from perceive.cli.compose import compose_config
from policies.episode_file import Episode
from policies.episodes import episode_path, list_episodes
from sensors.errors import DataError, SpecError

FAST = ["env=lift", "rig=state", "progress=false"]


def config(folder: Path, *words: str) -> dict[str, Any]:
    return compose_config("collect", [*FAST, f"output={folder}", *words])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in list_episodes(folder)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    summary = collect(config(folder, "episodes=2", "workers=1"))
    assert (summary.episodes, summary.were_there) == (2, 0)
    return folder


def test_the_files_are_episodes_of_their_seeds(two: Path) -> None:
    for seed, path in enumerate(list_episodes(two)):
        episode = Episode(path)
        assert episode.header.seed == seed
        assert episode.header.success
        assert episode.header.env["_target_"] == "envs.base.RobotEnv"
        assert list(episode.header.sensor_spaces) == ["joints"]
        assert len(episode) > 5


def test_several_workers_write_the_same_bytes(two: Path, tmp_path: Path) -> None:
    collect(config(tmp_path, "episodes=2", "workers=2"))
    assert contents(tmp_path) == contents(two)


def test_it_goes_on_where_it_was(two: Path, tmp_path: Path) -> None:
    collect(config(tmp_path, "episodes=1", "workers=1"))
    before = episode_path(tmp_path, 0).stat().st_mtime_ns
    summary = collect(config(tmp_path, "episodes=2", "workers=1"))
    assert (summary.episodes, summary.were_there) == (2, 1)
    assert episode_path(tmp_path, 0).stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(two)


def test_a_damaged_episode_is_named_and_collected_again(
    two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collect(config(tmp_path, "episodes=2", "workers=1"))
    damaged = episode_path(tmp_path, 1)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    summary = collect(config(tmp_path, "episodes=2", "workers=1"))
    assert summary.were_there == 1
    assert damaged.name in caplog.text
    assert contents(tmp_path) == contents(two)


def test_noise_moves_what_is_sent_and_not_the_label(two: Path, tmp_path: Path) -> None:
    noise = ["noise.position_m=0.01", "noise.burst_probability=0.5", "noise.burst_steps=2"]
    collect(config(tmp_path, "episodes=1", "workers=1", *noise))
    noisy, clean = Episode(episode_path(tmp_path, 0)), Episode(episode_path(two, 0))
    # The first label comes from the same start; what was sent differs from it only in the position.
    assert np.array_equal(noisy.action[0], clean.action[0])
    assert np.allclose(clean.action_sent, clean.action, atol=1e-6)
    moved = np.abs(noisy.action_sent[:, :3] - noisy.action[:, :3]).max(axis=1)
    assert moved.max() > 0.003
    assert np.allclose(noisy.action_sent[:, 3:], noisy.action[:, 3:], atol=1e-5)


def test_other_settings_in_the_same_folder_are_refused(two: Path) -> None:
    with pytest.raises(DataError, match=r"env\.task\.height_m: 0\.1 -> 0\.2"):
        collect(config(two, "episodes=2", "workers=1", "env.task.height_m=0.2"))


def test_an_expert_that_fails_is_counted_and_ends_the_job(tmp_path: Path) -> None:
    # Three steps are too few to lift anything.
    with pytest.raises(DataError, match="4 failures"):
        collect(config(tmp_path, "episodes=2", "max_attempts=4", "workers=1", "env.max_steps=3"))
    assert list_episodes(tmp_path) == []
    rows = [json.loads(line) for line in (tmp_path / ATTEMPTS_FILE).read_text().splitlines()]
    assert [(row["seed"], row["success"]) for row in rows] == [(0, False), (1, False), (2, False), (3, False)]


def test_failures_are_kept_when_asked_for(tmp_path: Path) -> None:
    summary = collect(config(tmp_path, "episodes=2", "keep_failures=true", "workers=1", "env.max_steps=3"))
    assert (summary.episodes, summary.failures) == (2, 2)
    assert not Episode(episode_path(tmp_path, 0)).header.success


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="episodes"):
        collect(config(tmp_path, "episodes=0"))
    with pytest.raises(SpecError, match="ee_pose"):
        collect(config(tmp_path, "episodes=1", "workers=1", "env.action_mode=ee_delta"))


def test_an_error_in_a_worker_reaches_the_reader(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="ee_pose"):
        collect(config(tmp_path, "episodes=2", "workers=2", "env.action_mode=ee_delta"))


def test_the_command_from_another_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from perceive.cli import main; raise SystemExit(main())", "collect"]
    done = subprocess.run(
        [*command, *FAST, "episodes=2", "workers=2", "output=mine"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 episodes in" in done.stdout
    assert len(list_episodes(tmp_path / "mine")) == 2
