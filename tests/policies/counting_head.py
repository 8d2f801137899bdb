"""A head that says which step of its chunk an action is, and where the tool was when it was predicted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perceive.heads.base import ActionChunk, Head, HeadContext
from sensors.action import ActionSpec


class CountingHead(Head):
    """Entry 0 of step k is k, entry 1 the tool's x; the rotation is the identity."""

    def __init__(self, width: int, action_spec: ActionSpec, chunk: int = 4) -> None:
        super().__init__()
        self._chunk = chunk
        self.calls = 0

    @property
    def num_readouts(self) -> int:
        return 1

    def fit(self, stats: Any) -> None: ...

    def forward(self, context: HeadContext) -> ActionChunk:
        self.calls += 1
        size = context.origin_m.shape[0]
        values = torch.zeros(size, self._chunk, 10)
        values[..., 0] = torch.arange(self._chunk)
        values[..., 1] = context.origin_m[:, None, 0]
        values[..., 3], values[..., 7] = 1.0, 1.0
        return ActionChunk(values)

    def loss(self, context: HeadContext, target: Any) -> dict[str, Tensor]:
        return {"broken": context.readouts.sum() * float("nan")}
