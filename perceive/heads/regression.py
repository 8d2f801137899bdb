"""Direct regression of an action chunk."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceive.batch import ActionTarget
from perceive.heads.base import ActionChunk, Head, HeadContext
from perceive.heads.codec import ActionCodec, chunk_l1
from perceive.normalize import FieldStats
from sensors.action import ActionSpec


class RegressionHead(Head):
    """One readout per step of the chunk; an MLP turns it into the step's action (L1 loss, as ACT, Zhao et al., 2023).

    Args:
        width: D.
        action_spec: meaning of the entries.
        chunk: K.
        hidden: width of the MLP.
    """

    def __init__(self, width: int, action_spec: ActionSpec, chunk: int = 8, hidden: int = 128) -> None:
        super().__init__()
        self._chunk = chunk
        self.codec = ActionCodec(action_spec)
        self.out = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, action_spec.size))

    @property
    def num_readouts(self) -> int:
        return self._chunk

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the action normaliser."""
        self.codec.fit(stats)

    def forward(self, context: HeadContext) -> ActionChunk:
        return ActionChunk(self.codec.decode(self.out(context.readouts), context))

    def loss(self, context: HeadContext, target: ActionTarget) -> dict[str, Tensor]:
        """``action``: L1 in latent units; ``_position_m``: mean distance where the action has a position."""
        latent = self.out(context.readouts)
        wanted = self.codec.encode(target.values, context)
        with torch.no_grad():
            physical = self.codec.decode(latent, context)
        error = chunk_l1(physical, target.values, target.valid)
        return {"action": chunk_l1(latent, wanted, target.valid), "_action_physical": error}
