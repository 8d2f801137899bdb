"""Exact resume: N steps in one go, and N steps with a kill -9 in between, are the same run to the bit."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from policies.checkpoint import find_checkpoint
from policies.logbook import read_metrics
from tests.policies.point_env import record
from tests.policies.train_tiny import run

STEPS = 60


def start(data: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "tests.policies.train_tiny", str(data), str(run_dir), str(STEPS)]
    return subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def weights(run_dir: Path) -> dict[str, str]:
    """Digest of every file of the last checkpoint that holds numbers."""
    folder = find_checkpoint(run_dir).path
    assert folder.name == f"step_{STEPS:06d}"
    names = ("model/model.safetensors", "ema/model.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    record(tmp_path / "data", range(12))
    whole, broken, other = tmp_path / "whole", tmp_path / "broken", tmp_path / "other"
    process = start(tmp_path / "data", broken)
    deadline = time.monotonic() + 120
    while len(read_metrics(broken)) < 26:  # the last checkpoint is that of step 20
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    logged = len(read_metrics(broken))
    last = find_checkpoint(broken).step
    assert last < logged < STEPS, "the kill came too late to test anything"

    for each in (start(tmp_path / "data", broken), start(tmp_path / "data", whole)):
        finish(each)
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
