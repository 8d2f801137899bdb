"""Two processes share each batch and learn what one process learns from all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from policies.checkpoint import find_checkpoint
from policies.logbook import read_metrics
from tests.policies.point_env import record
from tests.policies.train_tiny import run


@pytest.mark.slow
def test_two_processes_are_one_with_half_the_batch_each(tmp_path: Path) -> None:
    record(tmp_path / "data", range(10))
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    rest = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    script = ["-m", "tests.policies.train_tiny", str(tmp_path / "data"), str(tmp_path / "two"), "20", "plain"]
    done = subprocess.run(
        [sys.executable, *launch, *rest, *script],
        capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run(str(tmp_path / "data"), str(tmp_path / "one"), 20, tensorboard=False, plain=True)
    one, two = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    assert len(one) == len(two) == 20
    for mine, theirs in zip(one, two, strict=True):
        assert mine["samples_crc32"] == theirs["samples_crc32"]
    # The mean over two halves is the mean over all only up to the chunks cut at the ends of episodes.
    for mine, theirs in zip(one[:5], two[:5], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=0.05)
    for name, value in find_checkpoint(tmp_path / "one").model().state_dict().items():
        other = find_checkpoint(tmp_path / "two").model().state_dict()[name]
        torch.testing.assert_close(other, value, atol=0.05, rtol=0, msg=name)
