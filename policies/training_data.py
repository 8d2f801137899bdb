"""TrainingData: what the training loop asks of a dataset, whatever its samples are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from perceive.batch import Batch
from perceive.model_base import Model
from perceive.normalize import FieldStats
from sensors.action import ActionSpec
from sensors.spec import Json


class Target(Protocol):
    """What heads are to say of a batch: action chunks, labels of points, boxes."""

    def to(self, device: torch.device | str) -> Self:
        """The same target on a device."""


class Recorded(Protocol):
    """What is known of where samples come from."""

    @property
    def sensor_spaces(self) -> Mapping[str, spaces.Dict]:
        """Sensor -> space of one frame, of all that were recorded."""

    @property
    def history(self) -> Mapping[str, int]:
        """Sensor -> T, of the same."""

    @property
    def env(self) -> Json:
        """Config of the environment that it was recorded in; {} where there is none."""


class TrainingData(Protocol):
    """Samples out of a folder.

    Attributes:
        folder: where they are.
        sensor_spaces: sensor -> space of one frame, of the sensors that are read.
        history: sensor -> T, of the same.
    """

    folder: Path
    sensor_spaces: dict[str, spaces.Dict]
    history: dict[str, int]

    @property
    def header(self) -> Recorded:
        """Where they come from."""

    @property
    def action_spec(self) -> ActionSpec | None:
        """What the numbers of action targets mean; None where targets are no actions."""

    def __len__(self) -> int:
        """Number of samples."""

    def batch(self, indices: ArrayLike) -> tuple[Batch, Any]:
        """The samples at ``indices`` [B] with their :class:`Target`, for instance an ActionTarget [B, K, A]."""

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample indices for training and for validation; whole episodes or scenes are held back."""

    def stats(self) -> dict[str, FieldStats]:
        """``"sensor/field"`` and ``"action"`` -> statistics."""


class LabelledData(TrainingData, Protocol):
    """Samples with labels that have names."""

    def check_classes(self, model: Model, heads: Sequence[str]) -> None:
        """Raise WiringError unless the classes of a model's heads are those of the labels, name by name."""
