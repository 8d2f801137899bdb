"""FlatFormer as an encoder: pillars in line along a snake through the windows, in groups of equal size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, final

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
from perceive.points.padding import Pieces, snake_groups, snake_order
from perceive.tokens import Tokens
from sensors.errors import WiringError

LONGEST = 10_000.0  # wavelengths go up to about this many cells, over 2 pi


def wave_place(cell: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """Places as waves (Vaswani et al., 2017): sines and cosines of x, then of y, of C / 4 wavelengths each.

    Args:
        cell: int64 [N, 2 or more]; z is not looked at.
        channels: C, a multiple of 4.
        dtype: of the result [N, C].
    """
    waves = channels // 4
    # Single precision at least: a cell number in half precision is wrong from 2048 on.
    step = torch.arange(waves, device=cell.device, dtype=torch.float32)
    angle = cell[:, :2, None].to(torch.float32) * torch.exp(-math.log(LONGEST) / waves * step)
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(1).to(dtype)


@final
class SnakeLayer(nn.Module):
    """Attention inside of groups, then an MLP; each normalised before, and added to what came in.

    Args:
        owner: class that asks, for errors.
        channels: C.
        heads: of the attention.
        ratio: of the MLP.
    """

    def __init__(self, owner: str, channels: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = PieceAttention(owner, channels, heads)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = feed_forward(owner, channels, ratio)

    def forward(self, features: Tensor, place: Tensor, groups: Pieces) -> Tensor:
        """Features [N, C] of features [N, C]."""
        features = features + self.attention(self.attention_norm(features), place, groups)
        out: Tensor = features + self.mlp(self.mlp_norm(features))
        return out


@final
class PointSnakeEncoder(Encoder):
    """Points inside a box, pooled by pillars, through the blocks of FlatFormer; a token for each pillar.

    Liu et al., "FlatFormer", CVPR 2023, without the map from above and, by default, far smaller. Pillars are put in
    line, window by window, and the line is cut into groups of ``group_length``: groups are equal in size, not in
    space. The four layers of a block walk along x, along x with windows moved by half of one, along y, and along y with
    moved windows. Places enter queries and keys as waves of the cell in the box, for a group may reach over windows.
    Published: groups of 69, windows of 9 x 9. Where the paper's pillars have batch normalisation there is LayerNorm,
    since a sweep's tokens must not depend on its batch mates.

    All pillars in the box enter; then, more than ``tokens`` are cut to those that come first by the rule ``keep``, and
    a token sits at the mean of its points, both as of :class:`perceive.encoders.point_sets.PointSetEncoder`.

    Args:
        space: frame space with ``xyz_m`` [N, 3] and ``count`` [1] (LidarFrame, PointFrame).
        history: T.
        width: D.
        tokens: most tokens of a frame; those that are left over are not valid.
        edge_m: edge of a pillar along x and y; it is as high as the box.
        low_m: corner of the box [3] in the base frame; points on it are inside.
        high_m: the opposite corner; points on it are outside.
        channels: C, a multiple of 4.
        heads: of the attention.
        blocks: how many, of four layers each.
        group_length: pillars of a group.
        window: cells of a window along x, y.
        mlp_ratio: hidden channels of the MLPs over channels.
        keep: ``"fullest"`` or ``"nearest"``.
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
        low_m: Sequence[float] = (-1.5, -1.5, -0.1),
        high_m: Sequence[float] = (2.0, 1.5, 1.5),
        channels: int = 96,
        heads: int = 4,
        blocks: int = 1,
        group_length: int = 69,
        window: Sequence[int] = (9, 9),
        mlp_ratio: float = 2.0,
        keep: str = "fullest",
        features: Sequence[str] | None = None,
        compensate: bool = False,
    ) -> None:
        super().__init__()
        owner = "PointSnakeEncoder"
        self._reader = PointReader(owner, space, features, compensate)
        for name, value in (("blocks", blocks), ("group_length", group_length)):
            if value < 1:
                raise WiringError(f"{owner}.{name}", ">= 1", repr(value), "Correct it.")
        if channels < 4 or channels % 4:
            raise WiringError(f"{owner}.channels", "a multiple of 4", repr(channels), "Correct it.")
        if len(window) != 2 or any(int(cells) != cells or cells < 1 for cells in window):
            raise WiringError(f"{owner}.window", "2 numbers of cells >= 1", repr(list(window)), "Correct it.")
        self._window = (int(window[0]), int(window[1]))
        self._nearest = keeps_nearest(owner, keep)
        self._history, self._tokens, self._length, self._channels = history, tokens, group_length, channels
        self.pillars = PillarNet(owner, self._reader, channels, tokens, edge_m, None, low_m, high_m)
        self.layers = nn.ModuleList(SnakeLayer(owner, channels, heads, mlp_ratio) for _ in range(4 * blocks))
        self.out = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))

    @property
    def num_tokens(self) -> int:
        return self._history * self._tokens

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: metres, seconds and intensities have natural scales."""

    def forward(self, stream: BatchStream) -> Tokens:
        pillars: Pillars = self.pillars(self._reader.read(stream))
        features = pillars.features
        place = wave_place(pillars.cell, self._channels, features.dtype)
        passes = snake_passes(pillars, self._window, self._length)
        for number, layer in enumerate(self.layers):
            features = layer(features, place, passes[number % len(passes)])
        seen = replace(pillars, features=features)
        return pillar_tokens(seen, self.out, stream, self._tokens, self._nearest)


def snake_passes(pillars: Pillars, window: tuple[int, int], length: int) -> list[Pieces]:
    """The groups of the four layers of a block: x, x moved, y, y moved."""
    half = (window[0] // 2, window[1] // 2)
    ways: tuple[Literal["x", "y"], ...] = ("x", "y")
    passes = []
    for along in ways:
        for shift in ((0, 0), half):
            order = snake_order(pillars.cell, pillars.sample, window, shift, along)
            passes.append(snake_groups(order, pillars.sample, pillars.samples, length))
    return passes
