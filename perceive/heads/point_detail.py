"""The fine view of a cloud that a head of points has: a small U-net on the cells of a grid, fed by tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision
from perceive.points.neighbours import nearest
from perceive.points.scatter import segment_max, segment_mean
from perceive.points.sparse_conv import KernelMap, SubmanifoldConv3d, kernel_map
from perceive.points.voxels import Voxels, unique_cells
from perceive.tokens import Tokens
from sensors.errors import WiringError

_KERNEL = 3


@dataclass(frozen=True, eq=False)
class CellLevel:
    """The M occupied cells of B clouds at one resolution, sorted by sample, x, y, z.

    Attributes:
        cell: int64 [M, 3].
        sample: int64 [M], ascending.
        position_m: float [M, 3], mean of the points in it, in the base frame.
        neighbours: in a kernel of 3.
        child_of: int64 [cells one level finer], the cell of this level that each lies in; of the finest level itself.
    """

    cell: Tensor
    sample: Tensor
    position_m: Tensor
    neighbours: KernelMap
    child_of: Tensor


def cell_levels(voxels: Voxels, position_m: Tensor, count: int) -> tuple[CellLevel, ...]:
    """``count`` levels, each with cells of twice the edge of the one before.

    Args:
        voxels: cells of the finest level.
        position_m: float [M, 3], mean of the points in each.
        count: how many levels, at least 1.
    """
    own = torch.arange(len(voxels.cell), device=voxels.cell.device)
    levels = [CellLevel(voxels.cell, voxels.sample, position_m, kernel_map(voxels.cell, voxels.sample, _KERNEL), own)]
    for _ in range(count - 1):
        fine = levels[-1]
        cell, sample, child_of, _ = unique_cells(fine.cell >> 1, fine.sample)
        # A mean of means: each finer cell is a piece of surface, however densely it was measured.
        place = segment_mean(fine.position_m, child_of, len(cell))
        levels.append(CellLevel(cell, sample, place, kernel_map(cell, sample, _KERNEL), child_of))
    return tuple(levels)


@final
class CellBlock(nn.Module):
    """A residual block: normalise, submanifold convolution, GELU, linear.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = SubmanifoldConv3d(width, width, _KERNEL)
        self.out = nn.Linear(width, width)

    def forward(self, features: Tensor, level: CellLevel) -> Tensor:
        """Features [M, C] of features [M, C]."""
        seen = nn.functional.gelu(self.conv(self.norm(features), level.neighbours))
        out: Tensor = features + self.out(seen)
        return out


@final
class NearTokens(nn.Module):
    """What the nearest tokens of each cell say: attention of a cell over K tokens and where they are from it.

    The keys and values of a token are its features after the trunk and an embedding of its place relative to the cell
    (as in Point Transformer, Zhao et al., ICCV 2021, with one weight per head), so that moving cells and tokens
    together changes nothing. Where there is no token, nothing is added.

    Args:
        width: C of the cells; ``heads`` must divide it.
        token_width: D.
        count: K.
        heads: of attention.
        reach_m: distance that is far: nearer ones are told linearly, farther ones ever less.
    """

    def __init__(self, width: int, token_width: int, count: int, heads: int, reach_m: float) -> None:
        super().__init__()
        self._count, self._heads, self._reach_m = count, heads, reach_m
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(token_width, width)
        self.value = nn.Linear(token_width, width)
        self.place = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, 2 * width))
        self.out = nn.Linear(width, width)

    def forward(self, features: Tensor, level: CellLevel, tokens: Tokens) -> Tensor:
        """Features [M, C] with what the tokens added to features [M, C]."""
        if not tokens.valid.shape[1]:  # only sensors without tokens: there is no row to look at
            return features
        index, valid = self._nearest(level, tokens)
        with full_precision(features.device):
            places = tokens.position_m.flatten(0, 1).to(level.position_m.dtype)
            apart = places.index_select(0, index.flatten()).view(*index.shape, 3) - level.position_m[:, None]
            apart = torch.where(valid[..., None], apart / self._reach_m, 0.0)
            far = apart.square().sum(-1, keepdim=True).add(1.0).sqrt()  # at least 1, smooth at 0
            told = torch.cat([apart / far, far.log()], -1)
        each = self.query.out_features // self._heads
        rows = (*index.shape, self._heads, each)
        by_place, of_place = self.place(told.to(features.dtype)).chunk(2, -1)
        clean = torch.where(tokens.valid[..., None], tokens.features, 0.0).flatten(0, 1)
        key = self.key(clean).index_select(0, index.flatten()).view_as(by_place) + by_place
        value = self.value(clean).index_select(0, index.flatten()).view_as(of_place) + of_place
        query = self.query(self.norm(features)).view(-1, 1, self._heads, each)
        score = (query * key.view(rows)).sum(-1) / math.sqrt(each)  # [M, K, H]
        score = torch.where(valid[..., None], score, torch.finfo(score.dtype).min)
        weight = torch.where(valid[..., None], score.softmax(1), 0.0)
        seen = (weight[..., None] * value.view(rows)).sum(1).flatten(1)
        any_there = valid.any(1, keepdim=True)
        out: Tensor = features + torch.where(any_there, self.out(seen), 0.0)
        return out

    def _nearest(self, level: CellLevel, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The K tokens [M, K] of each cell, counted over all samples, and whether there are so many."""
        size, total = tokens.valid.shape
        per_sample = torch.bincount(level.sample, minlength=size)
        widest = int(per_sample.max()) if size else 0
        first = per_sample.cumsum(0) - per_sample
        slot = torch.arange(len(level.sample), device=level.sample.device) + (
            torch.arange(size, device=level.sample.device) * widest - first
        ).index_select(0, level.sample)
        query = level.position_m.new_zeros(size * widest, 3).index_copy(0, slot, level.position_m)
        asks = torch.zeros(size * widest, dtype=torch.bool, device=slot.device).index_fill(0, slot, True)
        found = nearest(
            query.view(size, widest, 3),
            tokens.position_m.to(query.dtype),
            self._count,
            query_valid=asks.view(size, widest),
            valid=tokens.valid & tokens.placed,
        )
        index = found.index.flatten(0, 1).index_select(0, slot) + (level.sample * total)[:, None]
        return index, found.valid.flatten(0, 1).index_select(0, slot)


@final
class CellNet(nn.Module):
    """A U-net of submanifold convolutions (Graham et al., CVPR 2018; in its shape MinkUNet, Choy et al., CVPR 2019).

    Its coarsest level looks at the tokens nearby and hears the sample's readout, so that what the trunk knows of the
    whole reaches every cell. Layers are normalised row by row: no cloud of a batch changes another.

    Args:
        in_width: channels of a cell.
        token_width: D.
        channels: of each level, from the finest.
        blocks: residual blocks of each level on the way down; there is one on the way up.
        near_tokens: how many tokens a coarse cell looks at.
        heads: of that attention.
        reach_m: see :class:`NearTokens`.

    Raises:
        WiringError: numbers that do not fit together.
    """

    def __init__(
        self,
        in_width: int,
        token_width: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        near_tokens: int,
        heads: int,
        reach_m: float,
    ) -> None:
        super().__init__()
        if not channels or len(channels) != len(blocks) or min(*channels, *blocks, near_tokens, heads) < 1:
            got = f"channels {list(channels)}, blocks {list(blocks)}, near_tokens {near_tokens}, heads {heads}"
            raise WiringError("CellNet", "as many blocks as channels, numbers >= 1", got, "Correct them.")
        if channels[-1] % heads:
            got = f"{channels[-1]} channels, {heads} heads"
            raise WiringError("CellNet.heads", "a divisor of the last level's channels", got, "Correct one.")
        if not 0 < reach_m < float("inf"):
            raise WiringError("CellNet.reach_m", "a length above 0", repr(reach_m), "Correct it.")
        self.stem = SubmanifoldConv3d(in_width, channels[0], _KERNEL)
        self.down = nn.ModuleList(
            nn.ModuleList(CellBlock(width) for _ in range(depth)) for width, depth in zip(channels, blocks, strict=True)
        )
        steps = list(itertools.pairwise(channels))
        self.coarser = nn.ModuleList(nn.Linear(fine, coarse) for fine, coarse in steps)
        self.finer = nn.ModuleList(nn.Linear(coarse, fine) for fine, coarse in steps)
        self.up = nn.ModuleList(CellBlock(fine) for fine, _ in steps)
        self.readout = nn.Linear(token_width, channels[-1])
        self.near = NearTokens(channels[-1], token_width, near_tokens, heads, reach_m)
        self.mix = CellBlock(channels[-1])
        self.norm = nn.LayerNorm(channels[0])

    def forward(self, told: Tensor, levels: Sequence[CellLevel], tokens: Tokens, readout: Tensor) -> Tensor:
        """Features [M, C] of the finest cells.

        Args:
            told: float [M, F], what is known of each cell.
            levels: as many as there are channels.
            tokens: after the trunk.
            readout: float [B, D].
        """
        features = self.stem(told, levels[0].neighbours)
        kept: list[Tensor] = []
        for number, (level, stage) in enumerate(zip(levels, self.down, strict=True)):
            if number:
                kept.append(features)
                features = segment_max(self.coarser[number - 1](features), level.child_of, len(level.cell))
            for block in stage:  # type: ignore[attr-defined]  # ModuleList forgets
                features = block(features, level)
        last = levels[-1]
        features = features + self.readout(readout).index_select(0, last.sample)
        features = self.mix(self.near(features, last, tokens), last)
        for number in reversed(range(len(kept))):
            lifted = self.finer[number](features).index_select(0, levels[number + 1].child_of)
            features = self.up[number](kept[number] + lifted, levels[number])
        out: Tensor = self.norm(features)
        return out
