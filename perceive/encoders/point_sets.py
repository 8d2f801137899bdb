"""DSVT as an encoder: pillars that look at the others of their window, in sets of equal size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder
from perceive.encoders.pillars import (
    PieceAttention,
    PillarNet,
    Pillars,
    feed_forward,
    keeps_nearest,
    pillar_tokens,
)
from perceive.encoders.point_frame import PointReader
from perceive.normalize import FieldStats
from perceive.points.padding import Pieces, partition_sets, windows_of
from perceive.tokens import Tokens
from sensors.errors import WiringError

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Partition:
    """One way to cut pillars into windows, and the windows into sets; made once, for all blocks that use it.

    Attributes:
        shape: cells of a window along x, y, z.
        inner: int64 [N], which cell of its window each pillar is.
        by_x: sets sorted by x first.
        by_y: sets sorted by y first.
    """

    shape: Triple
    inner: Tensor
    by_x: Pieces
    by_y: Pieces


def partition_of(pillars: Pillars, shape: Triple, shift: Triple, length: int) -> Partition:
    """Windows of ``shape`` cells moved down by ``shift``, in sets of ``length``."""
    windows = windows_of(pillars.cell, pillars.sample, shape, shift)
    x, y, z = windows.inner.unbind(1)
    inner = (x * shape[1] + y) * shape[2] + z
    return Partition(shape, inner, partition_sets(windows, length, "x"), partition_sets(windows, length, "y"))


@final
class WindowPlace(nn.Module):
    """Where in its window a pillar stands, learned: a small network of the cell's offset from the window's middle.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, channels), nn.Linear(channels, channels)

    def forward(self, partition: Partition) -> Tensor:
        """Features [N, C]."""
        like = self.first.weight
        steps = [(torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n * 2 - 1 for n in partition.shape]
        # For each cell that a window has, not for each pillar: these are fewer.
        table: Tensor = self.second(self.first(torch.cartesian_prod(*steps)).relu())
        return table.index_select(0, partition.inner)


@final
class SetLayer(nn.Module):
    """Attention inside of sets, then an MLP; each added to what came in, and normalised after.

    Args:
        owner: class that asks, for errors.
        channels: C.
        heads: of the attention.
        ratio: of the MLP.
    """

    def __init__(self, owner: str, channels: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.place = WindowPlace(channels)
        self.attention = PieceAttention(owner, channels, heads)
        self.attention_norm = nn.LayerNorm(channels)
        self.mlp = feed_forward(owner, channels, ratio)
        self.mlp_norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor, partition: Partition, sets: Pieces) -> Tensor:
        """Features [N, C] of features [N, C]."""
        features = self.attention_norm(features + self.attention(features, self.place(partition), sets))
        out: Tensor = self.mlp_norm(features + self.mlp(features))
        return out


@final
class SetBlock(nn.Module):
    """Two layers over the same windows: sets along x, then along y.

    Arguments as of :class:`SetLayer`.
    """

    def __init__(self, owner: str, channels: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.along_x = SetLayer(owner, channels, heads, ratio)
        self.along_y = SetLayer(owner, channels, heads, ratio)

    def forward(self, features: Tensor, partition: Partition) -> Tensor:
        """Features [N, C] of features [N, C]."""
        out: Tensor = self.along_y(self.along_x(features, partition, partition.by_x), partition, partition.by_y)
        return out


@final
class PointSetEncoder(Encoder):
    """Points inside a box, pooled by pillars, through the blocks of DSVT; a token for each pillar.

    Wang et al., "DSVT", CVPR 2023, arXiv 2301.06051, without the map from above and, by default, far smaller. The
    pillars of a window are dealt evenly to sets of ``set_length``, sorted along x in the first layer of a block and
    along y in the second, so that attention has one size everywhere. Every second block has windows of ``wide`` cells
    moved by ``shift``, through which windows exchange. Published: 0.32 m over +-75 m, 192 channels, 8 heads, 4 blocks,
    sets of 36, windows of 12 x 12 and 24 x 24 moved by 6. Attention is normalised after (LayerNorm), as published;
    where the paper has batch normalisation (points, positions) there is LayerNorm or none, since a sweep's tokens must
    not depend on its batch mates.

    All pillars in the box see each other; then, more than ``tokens`` are cut to those that come first by the rule
    ``keep``: ``"fullest"`` those with most points, ``"nearest"`` those whose middle is nearest to the base frame's
    origin; of equals, those of lower x, then y, then z. A token sits at the mean of its points, in the base frame.

    Args:
        space: frame space with ``xyz_m`` [N, 3] and ``count`` [1] (LidarFrame, PointFrame).
        history: T.
        width: D.
        tokens: most tokens of a frame; those that are left over are not valid.
        edge_m: edge of a pillar along x and y.
        height_m: height of a voxel; None = pillars as high as the box.
        low_m: corner of the box [3] in the base frame; points on it are inside.
        high_m: the opposite corner; points on it are outside.
        channels: C, even.
        heads: of the attention.
        blocks: how many, of two layers each.
        set_length: pillars of a set.
        window: cells of a window along x, y, z.
        wide: cells of a window in every second block.
        shift: by how many cells those are moved down.
        mlp_ratio: hidden channels of the MLPs over channels.
        keep: see above.
        features: what else a point tells, see :class:`perceive.encoders.point_frame.PointReader`; None = all there is.
        compensate: whether sweeps are straightened by the sensor's motion, see there; it needs ``history`` >= 2.

    Raises:
        WiringError: a field is missing, or a number is out of its range.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        tokens: int = 128,
        edge_m: float = 0.05,
        height_m: float | None = None,
        low_m: Sequence[float] = (-1.5, -1.5, -0.1),
        high_m: Sequence[float] = (2.0, 1.5, 1.5),
        channels: int = 96,
        heads: int = 4,
        blocks: int = 2,
        set_length: int = 36,
        window: Sequence[int] = (12, 12, 1),
        wide: Sequence[int] = (24, 24, 1),
        shift: Sequence[int] = (6, 6, 0),
        mlp_ratio: float = 2.0,
        keep: str = "fullest",
        features: Sequence[str] | None = None,
        compensate: bool = False,
    ) -> None:
        super().__init__()
        owner = "PointSetEncoder"
        self._reader = PointReader(owner, space, features, compensate)
        self._window, self._wide = cells_of(owner, "window", window, 1), cells_of(owner, "wide", wide, 1)
        self._shift = cells_of(owner, "shift", shift, 0)
        for name, value in (("blocks", blocks), ("set_length", set_length)):
            if value < 1:
                raise WiringError(f"{owner}.{name}", ">= 1", repr(value), "Correct it.")
        self._nearest = keeps_nearest(owner, keep)
        self._history, self._tokens, self._length = history, tokens, set_length
        self.pillars = PillarNet(owner, self._reader, channels, tokens, edge_m, height_m, low_m, high_m)
        self.blocks = nn.ModuleList(SetBlock(owner, channels, heads, mlp_ratio) for _ in range(blocks))
        self.out = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))

    @property
    def num_tokens(self) -> int:
        return self._history * self._tokens

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: metres, seconds and intensities have natural scales."""

    def forward(self, stream: BatchStream) -> Tokens:
        pillars: Pillars = self.pillars(self._reader.read(stream))
        features = pillars.features
        shapes = ((self._window, (0, 0, 0)), (self._wide, self._shift))[: len(self.blocks)]
        partitions = [partition_of(pillars, shape, shift, self._length) for shape, shift in shapes]
        for number, block in enumerate(self.blocks):
            features = block(features, partitions[number % 2])
        seen = replace(pillars, features=features)
        return pillar_tokens(seen, self.out, stream, self._tokens, self._nearest)


def cells_of(owner: str, name: str, cells: Sequence[int], least: int) -> Triple:
    """Three whole numbers of cells.

    Raises:
        WiringError: they are not, or one is below ``least``.
    """
    if len(cells) != 3 or any(int(cell) != cell or cell < least for cell in cells):
        raise WiringError(f"{owner}.{name}", f"3 numbers of cells >= {least}", repr(list(cells)), "Correct it.")
    return int(cells[0]), int(cells[1]), int(cells[2])
