"""Point Transformer V3 as an encoder: cells of the workspace that have seen their surroundings, a token each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder
from perceive.encoders.point_cells import checked_box, first_cells, in_rows
from perceive.encoders.point_frame import PointReader
from perceive.geometry import full_precision
from perceive.normalize import FieldStats
from perceive.points.ptv3.levels import grid_cloud
from perceive.points.ptv3.network import GridFeatures, PointTransformerV3
from perceive.points.voxels import unique_cells
from perceive.tokens import Tokens


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
        self._low_m, self._high_m = checked_box(owner, tokens, edge_m, low_m, high_m)
        self._history, self._tokens, self._edge_m = history, tokens, float(edge_m)
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
        chosen, slot = first_cells(-weight, seen.sample, seen.samples, self._tokens)
        tokens: Tensor = self.norm(self.out(seen.features.index_select(0, chosen)))
        return in_rows(tokens, seen.position_m.index_select(0, chosen).to(base.dtype), slot, stream, self._tokens)
