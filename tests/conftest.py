"""What every test stands on: one torch thread, and no display or network needed."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# On a loaded machine an example may take any time; what a test may cost is not hypothesis' to judge.
settings.register_profile("any_speed", deadline=None)
settings.load_profile("any_speed")

# Sums in one thread are the same on every machine, and two test processes do not fight over two cores.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)
