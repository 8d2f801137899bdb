"""Trains the tiny model in a process of its own: python -m tests.policies.train_tiny DATA RUN STEPS [plain]."""

from __future__ import annotations

import sys

from perceive.augment import SceneAugment
from policies.dataset import EpisodeDataset
from policies.imitation import TrainResult, train
from policies.settings import TrainSettings
from tests.policies.point_env import SPEC, tiny_model


def run(
    data: str, run_dir: str, steps: int, seed: int = 0, tensorboard: bool = True, plain: bool = False
) -> TrainResult:
    """``plain``: without augmentation and dropout, whose random numbers depend on the number of processes."""
    settings = TrainSettings(
        steps=steps, batch_size=16, lr=3e-3, warmup_steps=5, ema_decay=0.9, log_every=1, checkpoint_every=20,
        validation_fraction=0.2, seed=seed, device="cpu", threads=1, tensorboard=tensorboard,
    )  # fmt: skip
    augment = SceneAugment(
        SPEC, turn_rad=0.5, colour_gain=0.2, shift_px=2, sensor_dropout=0.2, keep_one_of=("front", "joints")
    )
    dataset = EpisodeDataset(data, chunk=4)
    model = tiny_model(seed, dropout=0.0 if plain else 0.1)
    return train(model, dataset, settings, run_dir, augment=None if plain else augment, resume=True, progress=False)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), plain=sys.argv[4:] == ["plain"])
