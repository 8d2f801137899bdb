"""Point Transformer V3 as an encoder: cells of the workspace that have seen their surroundings, a token each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, per_token
from perceive.encoders.point_frame import PointReader
from perceive.geometry import full_precision
from perceive.normalize import FieldStats
from perceive.points.ptv3.levels import grid_cloud
from perceive.points.ptv3.network import GridFeatures, PointTransformerV3
from perceive.points.voxels import unique_cells
from perceive.tokens import Tokens
from sensors.errors import WiringError


@final
class PointTransformerEncoder(Encoder):
    """Points inside a box, as cells of a grid, through the encoder of PTv3; a token for each cell of its last level.

    Wu et al., "Point Transformer V3", CVPR 2024, arXiv 2312.10035, without the decoder and, by default, far smaller. A
    token sits at the mean of the surface in its cell, in the base frame. A cell of the first level tells where in it
    its points lie on average, how many they are and what was measured beside; so nothing but the grid knows where in
    the room it is, and positions are left to the tokens.

    More than ``tokens`` cells are cut to those with most points; of equals, those of lower x, then y, then z. In
    evaluation a cloud's tokens do not depend on its batch mates; in training batch normalisation mixes them.

    Args:
        space: frame space with ``xyz_m`` [N, 3] and ``count`` [1] (PointFrame, LidarFrame).
        history: T.
        width: D.
        tokens: most tokens of a frame; those that are left over are not valid.
        edge_m: edge of a cell of the first level; each further level doubles it.
        low_m: corner of the box [3] in the base frame; points on it are inside.
        high_m: the opposite corner; points on it are outside.
        blocks: blocks of each level.
        channels: of each level.
        heads: of each level.
        patch: cells that look at each other.
        mlp_ratio: hidden channels of the MLPs over channels.
        drop_path: chance of dropping a branch of the last block in training.
        features: what else a point tells, see :class:`perceive.encoders.point_frame.PointReader`; None = all there is.

    Raises:
        WiringError: a field is missing, or a number is out of its range.
        SpecError: levels that do not fit together.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        tokens: int = 128,
        edge_m: float = 0.02,
        low_m: Sequence[float] = (0.2, -0.4, -0.02),
        high_m: Sequence[float] = (0.8, 0.4, 0.5),
        blocks: Sequence[int] = (1, 1, 2),
        channels: Sequence[int] = (32, 64, 128),
        heads: Sequence[int] = (2, 4, 8),
        patch: int = 256,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.1,
        features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        owner = "PointTransformerEncoder"
        self._reader = PointReader(owner, space, features)
        if tokens < 1:
            raise WiringError(f"{owner}.tokens", ">= 1", repr(tokens), "Correct it.")
        if not 0 < edge_m < float("inf"):
            raise WiringError(f"{owner}.edge_m", "a length above 0", repr(edge_m), "Correct it.")
        if len(low_m) != 3 or len(high_m) != 3 or not all(low < high for low, high in zip(low_m, high_m, strict=True)):
            raise WiringError(
                owner, "low_m [3] below high_m [3]", f"{list(low_m)} and {list(high_m)}", "Correct the box."
            )
        self._history, self._tokens, self._edge_m = history, tokens, float(edge_m)
        self._low_m, self._high_m = tuple(map(float, low_m)), tuple(map(float, high_m))
        self.network = PointTransformerV3(
            in_width=4 + self._reader.channels,
            encoder_blocks=blocks,
            encoder_width=channels,
            encoder_heads=heads,
            decoder_blocks=(),
            decoder_width=(),
            decoder_heads=(),
            patch=patch,
            mlp_ratio=mlp_ratio,
            drop_path=drop_path,
        )
        self.out = nn.Linear(self.network.out_width, width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self._tokens

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours, metres and seconds have natural scales."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        points = self._reader.read(stream)
        with full_precision(points.xyz_m.device):
            base = points.in_base(points.xyz_m) if self._reader.posed else points.xyz_m
            low, high = base.new_tensor(self._low_m), base.new_tensor(self._high_m)
            inside = points.valid & (base >= low).all(-1) & (base < high).all(-1)
            share = base / self._edge_m
            told = torch.cat([share - share.floor() - 0.5, points.features], -1)
            cloud, voxels = grid_cloud(base, told, self._edge_m, valid=inside)
            held = voxels.count.to(base.dtype).log1p()[:, None]
            cloud = replace(cloud, features=torch.cat([held, cloud.features], 1))
        seen: GridFeatures = self.network(cloud)
        # Rows of the last level are these, in this order.
        last = len(self.network.encoder) - 1
        _, _, of_cell, _ = unique_cells(cloud.cell >> last, cloud.sample)
        weight = torch.zeros_like(seen.sample).index_add_(0, of_cell, voxels.count)
        chosen, slot = self._chosen(weight, seen)
        tokens: Tensor = self.norm(self.out(seen.features.index_select(0, chosen)))
        rows = batch * steps * self._tokens
        features = tokens.new_zeros(rows, tokens.shape[1]).index_copy(0, slot, tokens)
        position = base.new_zeros(rows, 3).index_copy(0, slot, seen.position_m.index_select(0, chosen))
        valid = torch.zeros(rows, dtype=torch.bool, device=slot.device).index_fill(0, slot, True)
        lead = (batch, steps * self._tokens)
        return Tokens(
            features.view(*lead, -1),
            position.view(*lead, 3),
            valid.view(lead),
            per_token(stream.age_s, self._tokens),
            valid.view(lead),
        )

    def _chosen(self, weight: Tensor, seen: GridFeatures) -> tuple[Tensor, Tensor]:
        """Which cells become tokens, int64 [V], and each one's place among all tokens of all frames, int64 [V]."""
        order = (-weight).sort(stable=True).indices
        order = order[seen.sample[order].sort(stable=True).indices]
        sample = seen.sample[order]
        count = torch.bincount(sample, minlength=seen.samples)
        rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[sample]
        fits = rank < self._tokens
        return order[fits], (sample * self._tokens + rank)[fits]
