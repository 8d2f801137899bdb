"""Model, the interface of every network that training, checkpoints and policies work with."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from perceive.batch import Batch
from perceive.hub import upload
from perceive.normalize import FieldStats
from perceive.saved import CONFIG_FILE, WEIGHTS_FILE, Description, write_model
from sensors.action import ActionSpec
from sensors.errors import WiringError


class Model(nn.Module, ABC):
    """Sensor frames -> head results. A subclass says how; this is what is the same for all: config and saving.

    The constructor of a subclass that a config names (``_target_``) takes ``sensor_spaces``, ``history`` and
    ``action_spec`` besides its own arguments; see :func:`perceive.loading.build_model`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._config: dict[str, Any] | None = None

    @property
    @abstractmethod
    def sensor_names(self) -> tuple[str, ...]:
        """The sensors that the model reads."""

    def also_reads(self, fields: Collection[str]) -> bool:
        """Whether the model also reads a sensor that it was not made for, if its frames have these fields."""
        return False

    @property
    @abstractmethod
    def head_names(self) -> tuple[str, ...]:
        """The names of its results."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Any]:
        """Head name -> its result."""

    @abstractmethod
    def loss(self, batch: Batch, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Sum of all terms of the heads that have a target (``"loss"``), and each term as ``"head/term"``."""

    @abstractmethod
    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit every normaliser to a dataset's statistics: ``"sensor/field"`` and ``"action"``."""

    @abstractmethod
    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups; see :func:`decayed`."""

    @property
    def config(self) -> dict[str, Any]:
        """Everything that is needed to build this model again.

        Raises:
            WiringError: the model was put together by hand.
        """
        if self._config is None:
            raise WiringError(
                f"{type(self).__name__}.config", "a model built from a config", "one built by hand",
                "Use perceive.loading.build_model.",
            )  # fmt: skip
        return self._config

    def describe(self, description: Description) -> None:
        """Note what the model was built from, so that it can be saved."""
        self._config = description.to_json()

    @property
    def action_spec(self) -> ActionSpec | None:
        """What the action heads' numbers mean."""
        data = self.config["action"]
        return None if data is None else ActionSpec.from_json(data)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` beside and rename them into place."""
        return write_model(folder, self.config, self.state_dict())

    def push_to_hub(self, repository: str, private: bool = False) -> str:
        """Save to the Hugging Face hub as ``owner/name``; returns the address. Needs network and ``hf auth login``.

        Raises:
            DataError: the repository cannot be written.
        """
        with tempfile.TemporaryDirectory() as folder:
            return upload(self.save_pretrained(folder), repository, (CONFIG_FILE, WEIGHTS_FILE), private)


def decayed(model: nn.Module, weight_decay: float, bare: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Optimizer groups: matrices decay; biases, norms and what ``bare`` names do not. Frozen ones are left out.

    Args:
        model: whose parameters.
        weight_decay: of the matrices.
        bare: beginnings or endings of the names of further parameters that do not decay.
    """
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim < 2 or name.startswith(bare) or name.endswith(bare) else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
