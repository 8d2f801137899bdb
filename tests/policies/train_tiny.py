"""Trains the tiny model in its own process: python -m tests.policies.train_tiny DATA RUN STEPS [plain | KILL_AT]."""

from __future__ import annotations

import os
import signal
import sys

import torch

from perceive.augment import SceneAugment
from perceive.batch import ActionTarget, Batch
from policies.dataset import EpisodeDataset
from policies.imitation import TrainResult, train
from policies.settings import TrainSettings
from tests.policies.point_env import SPEC, tiny_model


class Augment:
    """Augments, and ends the process as ``kill -9`` does when it is asked for the ``kill_at``-th batch."""

    def __init__(self, kill_at: int) -> None:
        self._inner = SceneAugment(
            SPEC, turn_rad=0.5, colour_gain=0.2, shift_px=2, sensor_dropout=0.2, keep_one_of=("front", "joints")
        )
        self._left = kill_at

    def __call__(self, batch: Batch, target: ActionTarget, generator: torch.Generator) -> tuple[Batch, ActionTarget]:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._inner(batch, target, generator)


def run(
    data: str,
    run_dir: str,
    steps: int,
    seed: int = 0,
    tensorboard: bool = True,
    plain: bool = False,
    kill_at: int = 0,
) -> TrainResult:
    """``plain``: without augmentation and dropout, whose random numbers depend on the number of processes."""
    settings = TrainSettings(
        steps=steps, batch_size=16, lr=3e-3, warmup_steps=5, ema_decay=0.9, log_every=1, checkpoint_every=20,
        validation_fraction=0.2, seed=seed, device="cpu", threads=1, tensorboard=tensorboard,
    )  # fmt: skip
    dataset = EpisodeDataset(data, chunk=4)
    model = tiny_model(seed, dropout=0.0 if plain else 0.1)
    augment = None if plain else Augment(kill_at)
    return train(model, dataset, settings, run_dir, augment=augment, resume=True, progress=False)


if __name__ == "__main__":
    word = "".join(sys.argv[4:])
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), plain=word == "plain", kill_at=int(word) if word.isdigit() else 0)
