"""TrainingData: what the training loop asks of a dataset, whatever its samples are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from perceive.batch import ActionTarget, Batch
from perceive.normalize import FieldStats
from policies.episodes import EpisodeHeader
from sensors.action import ActionSpec


class TrainingData(Protocol):
    """Samples out of a folder of episodes.

    Attributes:
        folder: where the episodes are.
        header: of the first episode.
        sensor_spaces: sensor -> space of one frame, of the sensors that are read.
        history: sensor -> T, of the same.
        action_spec: what the targets mean.
        chunk: K, actions per target.
    """

    folder: Path
    header: EpisodeHeader
    sensor_spaces: dict[str, spaces.Dict]
    history: dict[str, int]
    action_spec: ActionSpec
    chunk: int

    def __len__(self) -> int:
        """Number of samples."""

    def batch(self, indices: ArrayLike) -> tuple[Batch, ActionTarget]:
        """The samples at ``indices`` [B] with their targets [B, K, A]."""

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample indices for training and for validation; whole episodes are held back."""

    def stats(self) -> dict[str, FieldStats]:
        """``"sensor/field"`` and ``"action"`` -> statistics."""
