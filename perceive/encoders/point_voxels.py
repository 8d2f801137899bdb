"""The light encoder of point clouds: what lies in the workspace, voxel by voxel, a token each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from perceive.points.scatter import segment_max, segment_mean
from perceive.points.voxels import Voxels, voxelise
from perceive.tokens import Tokens
from sensors.errors import WiringError


@final
class PointVoxelEncoder(Encoder):
    """Points inside a box, pooled by the cubes of a grid through the base frame's origin; a token for each cube.

    A token sits at the mean of its points. Two small layers see each point by its place in the cube, its place
    relative to that mean, and its features; their largest and mean values over the cube, and how many points it holds,
    make the token. Nothing is searched for, so time goes with the number of points.

    More than ``tokens`` occupied cubes are cut to those that come first by the rule ``keep``: ``"fullest"`` those with
    most points (what is sparse is mostly edges and stray points), ``"nearest"`` those whose middle is nearest to the
    base frame's origin; of equals, those of lower x, then y, then z.

    Args:
        space: frame space with ``xyz_m`` [N, 3] and ``count`` [1] (PointFrame, LidarFrame).
        history: T.
        width: D.
        tokens: most tokens of a frame; those that are left over are not valid.
        edge_m: edge of a cube.
        low_m: corner of the box [3] in the base frame; points on it are inside.
        high_m: the opposite corner; points on it are outside.
        keep: see above.
        hidden: channels of the layers.
        features: what else a point tells, see :class:`perceive.encoders.point_frame.PointReader`; None = all there is.

    Raises:
        WiringError: a field is missing, or a number is out of its range.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        tokens: int = 256,
        edge_m: float = 0.05,
        low_m: Sequence[float] = (0.2, -0.4, -0.02),
        high_m: Sequence[float] = (0.8, 0.4, 0.5),
        keep: str = "fullest",
        hidden: int = 32,
        features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        owner = "PointVoxelEncoder"
        self._reader = PointReader(owner, space, features)
        self._low_m, self._high_m = checked_box(owner, tokens, edge_m, low_m, high_m)
        if hidden < 1:
            raise WiringError(f"{owner}.hidden", ">= 1", repr(hidden), "Correct it.")
        if keep not in ("fullest", "nearest"):
            raise WiringError(f"{owner}.keep", "'fullest' or 'nearest'", repr(keep), "Choose one.")
        self._history, self._tokens, self._edge_m = history, tokens, float(edge_m)
        self._nearest = keep == "nearest"
        channels = 6 + self._reader.channels
        self.point = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.voxel = nn.Linear(2 * hidden + 1, width)
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
            voxels = voxelise(base, self._edge_m, valid=points.valid, low_m=self._low_m, high_m=self._high_m)
            chosen, slot = self._chosen(voxels)
            number = torch.full_like(voxels.sample, -1)
            number[chosen] = torch.arange(len(chosen), device=number.device)
            # Only points of tokens go on: most of a sweep lies elsewhere.
            of_point = torch.cat([number, number.new_full((1,), -1)])[voxels.of_point.flatten()]
            kept = (of_point >= 0).nonzero()[:, 0]
            owner = of_point.index_select(0, kept)
            middle = voxels.centre_m.to(base.dtype).index_select(0, chosen)
            # In edges from the middle: small numbers, whose sums are exact however far off the cube is.
            inside = (base.flatten(0, 1).index_select(0, kept) - middle.index_select(0, owner)) / self._edge_m
            mean = segment_mean(inside, owner, len(chosen))
            told = [inside, inside - mean.index_select(0, owner), points.features.flatten(0, 1).index_select(0, kept)]
            places = middle + mean * self._edge_m
            held = voxels.count.index_select(0, chosen).to(base.dtype).log1p()[:, None]
        each = self.point(torch.cat(told, -1))
        pooled = [segment_max(each, owner, len(chosen)), segment_mean(each, owner, len(chosen)), held.to(each.dtype)]
        made = self.norm(self.voxel(torch.cat(pooled, -1)))
        return in_rows(made, places, slot, stream, self._tokens)

    def _chosen(self, voxels: Voxels) -> tuple[Tensor, Tensor]:
        """Which voxels become tokens, int64 [V], and each one's place among all tokens of all frames, int64 [V]."""
        # Whole numbers, half edges squared: no rounding decides which cube comes first.
        key = (2 * voxels.cell + 1).square().sum(1) if self._nearest else -voxels.count
        return first_cells(key, voxels.sample, len(voxels.per_sample), self._tokens)
