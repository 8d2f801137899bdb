"""ReadoutHead: what its readout tokens hold, as one vector; for learners that bring their own last layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from perceive.heads.base import Head, HeadContext
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class Readout:
    """A summary of what was sensed.

    Attributes:
        features: [B, R * D].
    """

    features: Tensor


class ReadoutHead(Head):
    """Hands out the readouts after the trunk. It has no parameters and no loss of its own.

    Args:
        width: D.
        count: R, how many readouts.

    Raises:
        SpecError: ``count`` is below 1.
    """

    def __init__(self, width: int, count: int = 1) -> None:
        super().__init__()
        if count < 1:
            raise SpecError("ReadoutHead.count", "at least 1", repr(count), "Correct it.")
        self._count = count
        self._width = width

    @property
    def num_readouts(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """R * D, the length of the vector."""
        return self._count * self._width

    def fit(self, stats: Any) -> None:
        """Nothing to fit."""

    def forward(self, context: HeadContext) -> Readout:
        return Readout(context.readouts.flatten(1))

    def loss(self, context: HeadContext, target: Any) -> dict[str, Tensor]:
        """There is none.

        Raises:
            SpecError: always.
        """
        raise SpecError("ReadoutHead.loss", "a learner with a loss of its own", "a target", "Train another head.")
