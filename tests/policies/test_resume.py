"""Exact resume: N steps in one go, and N steps with a kill -9 in between, are the same run to the bit."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from policies.checkpoint import find_checkpoint
from policies.logbook import read_metrics
from tests.policies.point_env import record
from tests.policies.train_tiny import run

STEPS, KILL_AT = 60, 46


def start(data: Path, run_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "tests.policies.train_tiny", str(data), str(run_dir), str(STEPS), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=200, env=environment, check=False)


def weights(run_dir: Path) -> dict[str, str]:
    """Digest of every file of the last checkpoint that holds numbers."""
    folder = find_checkpoint(run_dir).path
    assert folder.name == f"step_{STEPS:06d}"
    names = ("model/model.safetensors", "ema/model.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    record(tmp_path / "data", range(12))
    whole, broken, other = tmp_path / "whole", tmp_path / "broken", tmp_path / "other"
    # Killed while one thread loads a batch and another is somewhere in the steps before it.
    assert start(tmp_path / "data", broken, str(KILL_AT)).returncode == -signal.SIGKILL
    assert find_checkpoint(broken).step == 40
    assert 40 < len(read_metrics(broken)) < KILL_AT, "the log has to reach beyond the checkpoint to test anything"
    for folder in (broken, whole):
        done = start(tmp_path / "data", folder)
        assert done.returncode == 0, done.stderr
    assert (whole / "metrics.jsonl").read_bytes() == (broken / "metrics.jsonl").read_bytes()
    assert weights(whole) == weights(broken)
    assert len(read_metrics(whole)) == STEPS
    states = [find_checkpoint(run).optimizer_state("cpu")["state"] for run in (whole, broken)]
    for number, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][number][name])
    # Positive control: the comparison does see another run.
    run(str(tmp_path / "data"), str(other), STEPS, seed=1, tensorboard=False)
    assert (whole / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes()
    assert weights(whole)["ema/model.safetensors"] != weights(other)["ema/model.safetensors"]


def test_a_resumed_run_passes_over_a_truncated_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path / "data", range(6))
    run(str(tmp_path / "data"), str(tmp_path / "run"), 30, tensorboard=False)
    newest = tmp_path / "run" / "checkpoints" / "step_000030" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    rows = read_metrics(tmp_path / "run")
    result = run(str(tmp_path / "data"), str(tmp_path / "run"), 30, tensorboard=False)
    assert "step_000030" in caplog.text
    assert "optimizer.pt" in caplog.text
    assert result.steps == 30
    assert find_checkpoint(tmp_path / "run").step == 30
    assert read_metrics(tmp_path / "run") == rows  # steps 21 to 30 were done again, alike
