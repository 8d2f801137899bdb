"""Head, the interface of everything that reads a result out of the trunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from perceive.batch import Batch
from perceive.tokens import Tokens


@dataclass(frozen=True, eq=False)
class HeadContext:
    """What a head may read.

    Attributes:
        readouts: [B, R, D], this head's readouts after the trunk.
        tokens: the sensors' tokens with their features after the trunk.
        origin_m: [B, 3] in the base frame, the tool point (or the model's fallback where the joints are absent).
        origin_rotation: [B, 3, 3], base_from_tool rotation (identity where the joints are absent).
        batch: what the sensors measured, for heads whose result is one per point or pixel.
    """

    readouts: Tensor
    tokens: Tokens
    origin_m: Tensor
    origin_rotation: Tensor
    batch: Batch = field(default_factory=lambda: Batch({}))


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """K future commands.

    Attributes:
        values: [B, K, A] in the units of the action spec; step k is for k periods after the observation.
    """

    values: Tensor


class Head(nn.Module, ABC):
    """Readouts -> one dataclass of results, and the loss against one target."""

    @property
    @abstractmethod
    def num_readouts(self) -> int:
        """R, the readout tokens that the model appends for this head."""

    @abstractmethod
    def fit(self, stats: Any) -> None:
        """Fit normalisers to a dataset's statistics, ``"action"`` and ``"sensor/field"`` -> FieldStats."""

    @abstractmethod
    def forward(self, context: HeadContext) -> Any:
        """The result, a frozen dataclass."""

    @abstractmethod
    def loss(self, context: HeadContext, target: Any) -> dict[str, Tensor]:
        """Named scalar terms; the model's loss is their sum. Names that start with ``_`` are logged, not summed."""
