"""A scalar per observation: the value of a state, a progress, a return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceive.heads.base import Head, HeadContext
from perceive.normalize import Affine, FieldStats


@dataclass(frozen=True, eq=False)
class Value:
    """What the head says.

    Attributes:
        values: [B], in the units of the target.
    """

    values: Tensor


@dataclass(frozen=True, eq=False)
class ValueTarget:
    """What the head is to say.

    Attributes:
        values: float32 [B].
        valid: bool [B]; False = no target for this sample.
    """

    values: Tensor
    valid: Tensor


class ValueHead(Head):
    """One readout and an MLP (Huber loss in units of the targets' standard deviation).

    Args:
        width: D.
        hidden: width of the MLP.
        stats_key: key of the targets' statistics, by which they are normalised; without them they are used as they are.
    """

    def __init__(self, width: int, hidden: int = 128, stats_key: str = "value") -> None:
        super().__init__()
        self._stats_key = stats_key
        self.normalizer = Affine(1)
        self.out = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))

    @property
    def num_readouts(self) -> int:
        return 1

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Normalise the targets by their statistics."""
        if self._stats_key in stats:
            self.normalizer.fit(stats[self._stats_key])

    def forward(self, context: HeadContext) -> Value:
        return Value(self.normalizer.inverse(self.out(context.readouts[:, 0]))[:, 0])

    def loss(self, context: HeadContext, target: ValueTarget) -> dict[str, Tensor]:
        """``value``: Huber loss over the valid samples, normalised; ``_value_error``: mean absolute error."""
        said = self.out(context.readouts[:, 0])[:, 0]
        wanted = self.normalizer(target.values[:, None])[:, 0]
        error = torch.where(target.valid, said - wanted, 0.0)
        count = target.valid.sum().clamp_min(1)
        huber = nn.functional.huber_loss(error, torch.zeros_like(error), reduction="sum") / count
        return {"value": huber, "_value_error": error.detach().abs().sum() / count * self.normalizer.scale[0]}
