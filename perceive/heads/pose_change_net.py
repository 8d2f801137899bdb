"""The layers that compare what was seen with what was drawn."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

CHANNELS = 11  # of a pair of pictures, see PoseChangeHead
OUTPUTS = 10  # turn 6, shift 2, depth, score
CELL_PX = 4  # side of a cell
REACH = 4  # cells that something may have moved
_SEEN, _DRAWN = (0, 1, 2, 6, 7), (3, 4, 5, 8, 9)  # channels of one picture: colours, whether measured, depth
_MOTION = 3  # right, down, away
_KEPT = 12  # channels of 2 x 2 cells that the answer is read from
_GROUPS = 4
_NOWHERE = -1e4
_FINER = 0.1  # size of what convolutions add to a motion, as a share of the picture


@final
class CompareNet(nn.Module):
    """A pair of pictures and their tokens after the trunk -> the motion of each cell, how sure it is, and the answer.

    Features of cells of the drawing are compared with those of what was seen around the same place (a correlation
    volume, as of FlowNet: Dosovitskiy et al., ICCV 2015, and RAFT: Teed and Deng, ECCV 2020). Where they are likest is
    the first guess of how a cell moved, which convolutions over both pictures correct.

    Args:
        width: D.
        side: tokens along each side of the crop, each of 8 x 8 pixels.
        channels: of a cell; a multiple of 8.
        hidden: width of the layers that read the answer from all cells.
    """

    def __init__(self, width: int, side: int, channels: int, hidden: int) -> None:
        super().__init__()
        self._side, self._grid = side, 2 * side
        half = channels // 2
        self.look = _stem(4 * len(_SEEN), half, channels)
        self.describe = nn.Conv2d(channels, half, 3, padding=1)
        self.pair = _stem(4 * CHANNELS, half, channels)
        self.token = nn.Linear(2 * width, channels)
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        window = (2 * REACH + 1) ** 2
        self.join = nn.Conv2d(window + 2 + channels, channels, 1)
        self.near = nn.Sequential(nn.GroupNorm(_GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1))
        self.far = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        )
        self.motion = nn.Conv2d(channels, _MOTION + 2, 1)
        self.keep = nn.Conv2d(channels, _KEPT, 2, 2)
        self.all = nn.Linear((_KEPT + 4) * side**2 + width + 6, hidden)
        self.more = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, OUTPUTS)
        with torch.no_grad():  # a fresh network hardly changes a hypothesis
            self.out.weight.mul_(0.1)
        cells, there, step = _windows(self._grid)
        self.cells: Tensor
        self.there: Tensor
        self.step: Tensor
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("there", there, persistent=False)
        self.register_buffer("step", step, persistent=False)

    def forward(self, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Motions [B, 3, g, g] of cells (g = 2 side), logits [B, 2, g, g] of how sure they are, features [B, C, g, g].

        Motions are right and down, as a share of the picture, and away, in the unit of depth that pictures have. Last,
        logarithms [B, g * g, W] of where around it each cell of the drawing is found, for :meth:`misses`.

        Args:
            pictures: [B, CHANNELS, S, S].
            tokens: [B, side * side, 2 D], row by row.
        """
        gelu = nn.functional.gelu
        both = torch.cat([pictures[:, _SEEN], pictures[:, _DRAWN]])
        seen, drawn = self.describe(self.look(nn.functional.pixel_unshuffle(both, 2))).flatten(2).chunk(2)
        seen, drawn = nn.functional.normalize(seen, dim=1), nn.functional.normalize(drawn, dim=1)
        alike = drawn.mT @ seen  # [B, g * g, g * g], from each cell of the drawing to each that was seen
        alike = alike.gather(2, self.cells.expand(len(alike), -1, -1)).masked_fill(~self.there, -1.0)
        found = (self.sharpness.exp() * alike).masked_fill(~self.there, _NOWHERE).log_softmax(-1)
        guess = found.exp() @ self.step  # [B, g * g, 2]
        x = self.pair(nn.functional.pixel_unshuffle(pictures, 2))
        side, grid = self._side, self._grid
        told = self.token(tokens).transpose(1, 2).reshape(len(x), -1, side, side)
        volume = torch.cat([alike, guess / REACH * grid], 2).mT.reshape(len(x), -1, grid, grid)
        x = self.join(torch.cat([volume, x], 1)) + nn.functional.interpolate(told, scale_factor=2.0)
        x = x + gelu(self.near(x))
        x = x + gelu(self.far(x))
        out = self.motion(x)
        first = nn.functional.pad(guess.mT.reshape(len(x), 2, grid, grid), (0, 0, 0, 0, 0, 1))
        return first + _FINER * out[:, :_MOTION], out[:, _MOTION:], x, found

    def misses(self, found: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropies [B, g, g] of where cells are found, and whether their true places are where one looks.

        Args:
            found: of :meth:`forward`.
            motion: [B, g, g, 2], how they truly moved, right and down, as a share of the picture.
        """
        true = motion.flatten(1, 2)[:, :, None] - self.step  # [B, g * g, W, 2]
        wanted = (1 - self._grid * true.abs()).clamp_min(0).prod(-1) * self.there  # the four cells around the place
        entropy = -(wanted * found).sum(-1)
        return entropy.view(motion.shape[:3]), (wanted.sum(-1) > 0.99).view(motion.shape[:3])

    def answer(self, features: Tensor, surface: Tensor, solved: Tensor, readout: Tensor) -> Tensor:
        """What is to be done beside what was solved, and whether the hypothesis is right, [B, OUTPUTS].

        Args:
            features: of :meth:`forward`.
            surface: [B, 4, g, g], mean drawn point of each cell, and its share of drawn pixels.
            solved: [B, 6], the motion that explains those of the cells.
            readout: [B, D].
        """
        gelu = nn.functional.gelu
        pooled = nn.functional.avg_pool2d(surface, 2)
        every = torch.cat([gelu(self.keep(features)).flatten(1), pooled.flatten(1), solved, readout], 1)
        y = gelu(self.all(every))
        y = y + gelu(self.more(y))
        result: Tensor = self.out(y)
        return result


def _stem(channels: int, half: int, out: int) -> nn.Sequential:
    """Half a picture's size to cells of :data:`CELL_PX`."""
    return nn.Sequential(
        nn.Conv2d(channels, half, 3, padding=1), nn.GroupNorm(_GROUPS, half), nn.GELU(),
        nn.Conv2d(half, out, 3, stride=2, padding=1), nn.GroupNorm(_GROUPS, out), nn.GELU(),
    )  # fmt: skip


def _windows(grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells around each cell: their numbers [g * g, W], whether they are there, and steps [W, 2] to them as shares."""
    reach = torch.arange(-REACH, REACH + 1)
    down, right = (one.flatten() for one in torch.meshgrid(reach, reach, indexing="ij"))
    number = torch.arange(grid * grid)[:, None]
    row, column = number // grid + down, number % grid + right
    there = (row >= 0) & (row < grid) & (column >= 0) & (column < grid)
    cells = row.clamp(0, grid - 1) * grid + column.clamp(0, grid - 1)
    return cells, there, torch.stack([right, down], -1) / grid
