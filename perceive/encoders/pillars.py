"""What the LiDAR transformers share: pillars and their features, attention inside of pieces, tokens of pillars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.point_cells import checked_box, first_cells, in_rows
from perceive.encoders.point_frame import FramePoints, PointReader
from perceive.geometry import full_precision
from perceive.points.padding import Pieces
from perceive.points.scatter import segment_max, segment_sum
from perceive.points.voxels import voxelise
from perceive.tokens import Tokens
from sensors.errors import WiringError


@dataclass(frozen=True, eq=False)
class Pillars:
    """The N occupied pillars (or voxels) of M frames, sorted by frame, x, y, z.

    Attributes:
        cell: int64 [N, 3], counted from the box's low corner.
        sample: int64 [N], the frame of each.
        samples: M.
        count: int64 [N], points in each.
        middle_m: float [N, 3], middle of each in the base frame.
        position_m: float [N, 3], mean of its points in the base frame.
        features: float [N, C].
    """

    cell: Tensor
    sample: Tensor
    samples: int
    count: Tensor
    middle_m: Tensor
    position_m: Tensor
    features: Tensor


@final
class PillarNet(nn.Module):
    """Points inside a box -> the features of the pillars that hold them.

    Two layers see each point by its place in its pillar, its place relative to the mean of the pillar's points, and
    what was measured beside; the second also sees the largest values of the first over the pillar. The largest values
    of the second are the pillar's. No point is dropped and none padded (PointPillars: Lang et al., CVPR 2019; without
    a limit on points as in DSVT: Wang et al., CVPR 2023). They use batch normalisation; here each point is normalised
    by itself (LayerNorm), or what comes of a sweep would depend on its batch mates.

    Args:
        owner: class that asks, for errors.
        reader: of the points.
        channels: C, even.
        tokens: most tokens of a frame.
        edge_m: edge of a pillar along x and y.
        height_m: height of a layer; None = one layer, the box's whole height.
        low_m: corner of the box [3] in the base frame; points on it are inside.
        high_m: the opposite corner; points on it are outside.

    Raises:
        WiringError: a number is out of its range.
    """

    def __init__(
        self,
        owner: str,
        reader: PointReader,
        channels: int,
        tokens: int,
        edge_m: float,
        height_m: float | None,
        low_m: Sequence[float],
        high_m: Sequence[float],
    ) -> None:
        super().__init__()
        self._low_m, self._high_m = checked_box(owner, tokens, edge_m, low_m, high_m)
        if height_m is not None and not 0 < height_m < float("inf"):
            raise WiringError(f"{owner}.height_m", "a length above 0, or null", repr(height_m), "Correct it.")
        if channels < 2 or channels % 2:
            raise WiringError(f"{owner}.channels", "an even number >= 2", repr(channels), "Correct it.")
        self._posed, self._layers = reader.posed, height_m is not None
        tall = self._high_m[2] - self._low_m[2] if height_m is None else float(height_m)
        self._edge_m = (float(edge_m), float(edge_m), tall)
        self.first = nn.Sequential(
            nn.Linear(6 + reader.channels, channels // 2), nn.LayerNorm(channels // 2), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU())

    def forward(self, points: FramePoints) -> Pillars:
        """The pillars of M frames of P points."""
        with full_precision(points.xyz_m.device):
            base = points.in_base(points.xyz_m) if self._posed else points.xyz_m
            # One layer is looked for in twice its height: a point just below its top must not be rounded into a second.
            edge = self._edge_m if self._layers else (*self._edge_m[:2], 2 * self._edge_m[2])
            voxels = voxelise(
                base, edge, valid=points.valid, origin_m=self._low_m, low_m=self._low_m, high_m=self._high_m
            )
            size, low = base.new_tensor(self._edge_m), base.new_tensor(self._low_m)
            middle = (voxels.cell + 0.5) * size + low
            kept = (voxels.of_point.flatten() >= 0).nonzero()[:, 0]
            owner = voxels.of_point.flatten().index_select(0, kept)
            inside = (base.flatten(0, 1).index_select(0, kept) - middle.index_select(0, owner)) / size
            # In edges from the middle: small numbers, whose sums are exact however far off the pillar is.
            mean = segment_sum(inside, owner, len(middle)) / voxels.count[:, None]
            told = [inside, inside - mean.index_select(0, owner), points.features.flatten(0, 1).index_select(0, kept)]
        each = self.first(torch.cat(told, -1))
        most = segment_max(each, owner, len(middle))
        each = self.second(torch.cat([each, most.index_select(0, owner)], -1))
        features = segment_max(each, owner, len(middle))
        return Pillars(voxels.cell, voxels.sample, len(base), voxels.count, middle, middle + mean * size, features)


@final
class PieceAttention(nn.Module):
    """Multi-head self-attention inside of each piece; positions enter queries and keys, not values.

    Args:
        owner: class that asks, for errors.
        channels: C.
        heads: a divisor of C.

    Raises:
        WiringError: it does not divide.
    """

    def __init__(self, owner: str, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise WiringError(f"{owner}.heads", f"a divisor of {channels}", repr(heads), "Use one.")
        self._heads = heads
        self.query_key = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, features: Tensor, place: Tensor, pieces: Pieces) -> Tensor:
        """Features [N, C] of features [N, C] and what tells their places [N, C]."""
        told = torch.cat([self.query_key(features + place), self.value(features)], -1)
        if not len(told):
            nothing: Tensor = self.project(told[:, : features.shape[1]])
            return nothing
        taken = pieces.take(told)
        count, length = taken.shape[:2]
        query, key, value = taken.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        # Always masked: whether some batch mate's last piece holds repetitions must not choose how sums are made.
        out = nn.functional.scaled_dot_product_attention(query, key, value, pieces.key[:, None, None, :])
        result: Tensor = self.project(pieces.give(out.transpose(1, 2).reshape(count, length, -1)))
        return result


def feed_forward(owner: str, channels: int, ratio: float) -> nn.Sequential:
    """Two linear maps with a GELU between.

    Raises:
        WiringError: no hidden channel is left.
    """
    hidden = int(channels * ratio)
    if hidden < 1:
        raise WiringError(f"{owner}.mlp_ratio", "at least one hidden channel", repr(ratio), "Raise it.")
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


def keeps_nearest(owner: str, keep: str) -> bool:
    """Whether the rule is ``"nearest"``, not ``"fullest"``.

    Raises:
        WiringError: it is neither.
    """
    if keep not in ("fullest", "nearest"):
        raise WiringError(f"{owner}.keep", "'fullest' or 'nearest'", repr(keep), "Choose one.")
    return keep == "nearest"


def pillar_tokens(pillars: Pillars, out: nn.Module, stream: BatchStream, tokens: int, nearest: bool) -> Tokens:
    """A token for each of the first pillars of each frame, at the mean of its points.

    Args:
        pillars: with features [N, C].
        out: features [V, C] -> [V, D].
        stream: of the frames.
        tokens: most tokens of a frame.
        nearest: the rule, see :class:`perceive.encoders.point_sets.PointSetEncoder`.
    """
    # To a millimetre: rounding must not tell apart what stands equally far.
    key = (1e3 * pillars.middle_m.norm(dim=1)).round().long() if nearest else -pillars.count
    chosen, slot = first_cells(key, pillars.sample, pillars.samples, tokens)
    made: Tensor = out(pillars.features.index_select(0, chosen))
    return in_rows(made, pillars.position_m.index_select(0, chosen), slot, stream, tokens)
