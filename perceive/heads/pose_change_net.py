"""The layers that compare what was seen with what was drawn."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

CHANNELS = 11  # of a pair of pictures, see PoseChangeHead
OUTPUTS = 10  # turn 6, shift 2, depth, score
_KEPT = 20  # channels of each cell that the answer is read from
_GROUPS = 4


@final
class CompareNet(nn.Module):
    """A pair of pictures and their tokens after the trunk -> image motion of each cell, and the answer.

    Args:
        width: D.
        side: cells (and tokens) along each side of the crop, each of 8 x 8 pixels.
        channels: of a cell; a multiple of 8.
        hidden: width of the layers that read the answer from all cells.
    """

    def __init__(self, width: int, side: int, channels: int, hidden: int) -> None:
        super().__init__()
        self._side = side
        half = channels // 2
        self.stem = nn.Sequential(
            nn.Conv2d(4 * CHANNELS, half, 3, padding=1), nn.GroupNorm(_GROUPS, half), nn.GELU(),
            nn.Conv2d(half, half, 3, stride=2, padding=1), nn.GroupNorm(_GROUPS, half), nn.GELU(),
            nn.Conv2d(half, channels, 3, stride=2, padding=1), nn.GroupNorm(_GROUPS, channels), nn.GELU(),
        )  # fmt: skip
        self.token = nn.Linear(2 * width, channels)
        self.near = nn.Sequential(nn.GroupNorm(_GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1))
        self.far = nn.Sequential(nn.GroupNorm(_GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1))
        self.flow = nn.Conv2d(channels, 2, 1)
        self.keep = nn.Conv2d(channels, _KEPT, 1)
        self.all = nn.Linear((_KEPT + 6) * side**2 + width, hidden)
        self.more = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, OUTPUTS)
        with torch.no_grad():  # a fresh network hardly changes a hypothesis
            self.out.weight.mul_(0.1)

    def forward(self, pictures: Tensor, tokens: Tensor, readout: Tensor, surface: Tensor) -> tuple[Tensor, Tensor]:
        """The answer [B, OUTPUTS] and the flow [B, side, side, 2].

        Args:
            pictures: [B, CHANNELS, S, S].
            tokens: [B, side * side, 2 D], row by row.
            readout: [B, D].
            surface: [B, 4, side, side], the mean drawn point of each cell and its share of drawn pixels.
        """
        gelu = nn.functional.gelu
        x: Tensor = self.stem(nn.functional.pixel_unshuffle(pictures, 2))
        x = x + self.token(tokens).transpose(1, 2).reshape(len(x), -1, self._side, self._side)
        x = x + gelu(self.near(x))
        x = x + gelu(self.far(x))
        flow = self.flow(x)
        every = torch.cat([gelu(self.keep(x)), flow, surface], 1).flatten(1)
        y = gelu(self.all(torch.cat([every, readout], 1)))
        y = y + gelu(self.more(y))
        return self.out(y), flow.permute(0, 2, 3, 1)
