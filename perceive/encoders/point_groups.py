"""Groups of points as tokens, each at its centre: the tokenizer of Point-BERT and Point-MAE, in metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, per_token
from perceive.encoders.point_frame import FramePoints, PointReader
from perceive.geometry import full_precision
from perceive.normalize import FieldStats
from perceive.points.group import Groups, group
from perceive.points.neighbours import take_points
from perceive.points.pair_features import estimate_normals, pair_features
from perceive.points.sample import pick_evenly
from perceive.points.serialise import encode
from perceive.tokens import Tokens
from sensors.errors import WiringError

GEOMETRIES = ("xyz", "pairs")
_COMPANY = 4  # which of a centre's nearest points says whether it stands alone: two stray points may be neighbours
_DEPTH = 20  # levels of the curve along which points are ordered: a millionth of the cloud's extent


@dataclass(frozen=True, eq=False)
class CloudGroups:
    """The groups of T frames before any network, N = T * G of them, K points each.

    Attributes:
        told: float [B, N, K, C], what the network is told of each member.
        relative_m: float [B, N, K, 3], members minus their centre, along the axes of the base frame; 0 where not valid.
        member_valid: bool [B, N, K]; False where the cloud has fewer than K points.
        position_m: float [B, N, 3], centres in the base frame; 0 where not valid.
        age_s: float [B, N].
        valid: bool [B, N]; False where the cloud has fewer than G points, or is not there.
    """

    told: Tensor
    relative_m: Tensor
    member_valid: Tensor
    position_m: Tensor
    age_s: Tensor
    valid: Tensor

    def take(self, index: Tensor) -> CloudGroups:
        """The groups of indices [B, N'] of each sample."""
        return CloudGroups(
            *(
                value.gather(1, index[(..., *(None for _ in rest))].expand(-1, -1, *rest))
                for value in (self.told, self.relative_m, self.member_valid, self.position_m, self.age_s, self.valid)
                for rest in (value.shape[2:],)
            )
        )


@final
class PointGroupEncoder(Encoder):
    """Centres by farthest point sampling, their nearest points relative to them, and a small PointNet over each group.

    Yu et al., "Point-BERT", CVPR 2022; Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning"
    (Point-MAE), ECCV 2022. Unlike there, tokens carry their centre as a place in the base frame, lengths are told as
    ``asinh(length / reach_m)``, linear within the reach and logarithmic beyond, and rows are normalised one by one
    (no batch statistics), so that a cloud's tokens do not depend on its batch mates.

    Points are first put in order along a z-order curve through their own bounding cube, and at most ``candidates`` of
    them are taken evenly along it; so the order in which they came does not matter, and large sweeps cost no more than
    small ones. Where the sensor stands in the base frame changes positions only, to the bit.

    Farthest point sampling takes stray points first: of clouds in which 3 of 100 points belong to nothing, 30 of 100
    centres do. ``lonely`` makes centres of other points, out of twice as many; stray points are still members.

    ``geometry="pairs"`` tells point-pair features of the centre and each member in place of where it lies (Drost et
    al., CVPR 2010; Yu et al., RoITr, CVPR 2023), which no rotation changes. Normals look to the sensor where the frame
    has a pose, else away from the mean of the cloud. Of a cloud above ``candidates`` points a rotated copy is thinned
    to other points, so it is then invariant only as far as they stand for the same surface.

    Args:
        space: frame space with ``xyz_m`` [N, 3] and ``count`` [1] (PointFrame, LidarFrame).
        history: T.
        width: D.
        groups: G, tokens of a frame; those that a cloud of fewer points lacks are not valid.
        size: points of a group, the centre included.
        candidates: most points that groups are made of.
        hidden: channels of the first layer; further ones have two and four times as many (128 in the papers).
        reach_m: see above.
        features: what else a point tells, see :class:`perceive.encoders.point_frame.PointReader`; None = all there is.
        geometry: ``"xyz"``, or ``"pairs"`` for the rotation-invariant variant.
        normal_neighbours: points that a normal is made of; read by ``"pairs"`` only.
        placed: whether tokens tell where their group is. Without, and with ``"pairs"``, nothing that a rotation or a
            shift of the cloud changes reaches the trunk.
        lonely: a centre whose fourth-nearest point is more than so many times as far as a quarter of all centres have
            it makes a token only where there are too few others; None = farthest point sampling as published. Not for
            sweeps, whose points thin out with range.

    Raises:
        WiringError: a field is missing, or a number is out of its range.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        groups: int = 64,
        size: int = 32,
        candidates: int = 2048,
        hidden: int = 64,
        reach_m: float = 0.05,
        features: Sequence[str] | None = None,
        geometry: str = "xyz",
        normal_neighbours: int = 16,
        placed: bool = True,
        lonely: float | None = None,
    ) -> None:
        super().__init__()
        owner = "PointGroupEncoder"
        self._reader = PointReader(owner, space, features)
        if min(groups, size, hidden) < 1 or candidates < groups:
            got = f"groups {groups}, size {size}, hidden {hidden}, candidates {candidates}"
            raise WiringError(owner, "groups, size, hidden >= 1 and candidates >= groups", got, "Correct them.")
        if not 0 < reach_m < float("inf"):
            raise WiringError(f"{owner}.reach_m", "a length above 0", repr(reach_m), "Correct it.")
        if geometry not in GEOMETRIES:
            raise WiringError(f"{owner}.geometry", "'xyz' or 'pairs'", repr(geometry), "Choose one.")
        if normal_neighbours < 3:
            raise WiringError(f"{owner}.normal_neighbours", "at least 3", repr(normal_neighbours), "Raise it.")
        if lonely is not None and not 1 < lonely < float("inf"):
            raise WiringError(f"{owner}.lonely", "a number above 1, or None", repr(lonely), "Correct it.")
        self._lonely = lonely
        self._history, self._groups, self._size, self._candidates = history, groups, size, candidates
        self._reach_m = reach_m
        self._pairs = geometry == "pairs"
        self._normal_neighbours = normal_neighbours
        self._placed = placed
        channels = (4 if self._pairs else 3) + self._reader.channels
        self.point = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, 2 * hidden))
        # One map of (whole group, point) side by side, in two parts, so that the group's is done once per group.
        self.whole = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        self.own = nn.Linear(2 * hidden, 4 * hidden)
        self.member = nn.Sequential(nn.LayerNorm(4 * hidden), nn.GELU(), nn.Linear(4 * hidden, width))
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self._groups

    @property
    def size(self) -> int:
        """K, points of a group."""
        return self._size

    @property
    def reach_m(self) -> float:
        """Length up to which lengths are told linearly."""
        return self._reach_m

    @property
    def tells_places(self) -> bool:
        """Whether tokens tell where their group is and how its points lie along the axes of the base frame."""
        return self._placed and not self._pairs

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours, metres and seconds have natural scales."""

    def forward(self, stream: BatchStream) -> Tokens:
        return self.embed(self.groups(stream))

    def groups(self, stream: BatchStream) -> CloudGroups:
        """Cut the clouds of all frames into groups."""
        batch, steps = stream.valid.shape
        points = thinned_along_curve(self._reader.read(stream), self._candidates)
        with full_precision(points.xyz_m.device):
            # In the sensor's frame, so that no rounding of where the sensor stands can change a group.
            if self._lonely is None:
                groups = group(points.xyz_m, points.valid, self._groups, self._size)
            else:
                more = group(points.xyz_m, points.valid, 2 * self._groups, max(self._size, _COMPANY + 1))
                groups = in_company(more, self._groups, self._size, self._lonely)
            relative_m = points.turned(groups.relative_m)
            told = self._geometry(points, groups, relative_m)
            if self._reader.channels:
                told = torch.cat([told, groups.gather(points.features)], -1)
            position = torch.where(groups.valid[..., None], points.in_base(groups.centre_m), 0.0)
        lead = (batch, steps * self._groups)
        return CloudGroups(
            told.view(*lead, *told.shape[2:]),
            relative_m.view(*lead, self._size, 3),
            groups.member_valid.view(*lead, self._size),
            position.view(*lead, 3),
            per_token(stream.age_s, self._groups),
            groups.valid.view(lead),
        )

    def embed(self, groups: CloudGroups) -> Tokens:
        """One token for each group; what a group says depends on no other."""
        # A place of a group that has no point holds its nearest one again: no maximum is changed by it.
        each = self.point(groups.told)
        whole = self.whole(each.amax(2))[:, :, None]
        tokens = self.norm(self.member(self.own(each) + whole).amax(2))
        there = groups.valid[..., None]
        return Tokens(
            torch.where(there, tokens, 0.0),
            groups.position_m if self._placed else torch.zeros_like(groups.position_m),
            groups.valid if self._placed else torch.zeros_like(groups.valid),
            groups.age_s,
            groups.valid,
        )

    def _geometry(self, points: FramePoints, groups: Groups, relative_m: Tensor) -> Tensor:
        """What the network is told of where members lie, [M, G, K, 3 or 4]."""
        if not self._pairs:
            return (relative_m / self._reach_m).asinh()
        # The sensor is the origin of its own frame; a cloud in the base frame comes from nobody knows where.
        viewpoint = points.xyz_m.new_zeros(len(points.xyz_m), 3) if self._reader.posed else None
        normal = estimate_normals(points.xyz_m, points.valid, self._normal_neighbours, viewpoint).normal
        centre = take_points(normal, groups.centre)[:, :, None]
        pairs = pair_features(torch.zeros_like(groups.relative_m), centre, groups.relative_m, groups.gather(normal))
        return torch.cat([(pairs[..., :1] / self._reach_m).asinh(), pairs[..., 1:]], -1)


def in_company(groups: Groups, count: int, size: int, lonely: float) -> Groups:
    """Fewer groups of fewer members: first those that do not stand alone, each kind in the order in which it came.

    Args:
        groups: G of K points, at least 5; those that are valid first.
        count: how many of them to keep.
        size: how many members to keep, the nearest.
        lonely: a group stands alone whose fourth-nearest point is more than so many times as far as a quarter of the
            valid ones have it: not half of them, since of a tenth stray points half the centres are made. Where that
            quarter is of points that come five times, none stands alone.
    """
    # A member that is not there lies at the centre: clouds of four points or fewer have no lonely ones.
    reach_m = groups.relative_m[:, :, _COMPANY].norm(dim=-1)
    ranked = torch.where(groups.valid, reach_m, torch.inf).sort(dim=1).values
    usual_m = ranked.gather(1, (groups.valid.sum(1, keepdim=True) - 1).clamp_min(0) // 4)
    alone = (reach_m > lonely * usual_m) & (usual_m > 0)
    kept = torch.where(groups.valid, alone.long(), 2).sort(dim=1, stable=True).indices[:, :count]
    return Groups(
        take_points(groups.centre_m, kept),
        take_points(groups.relative_m.flatten(2), kept).view(*kept.shape, -1, 3)[:, :, :size],
        groups.centre.gather(1, kept),
        take_points(groups.index, kept)[..., :size],
        groups.valid.gather(1, kept),
        take_points(groups.member_valid, kept)[..., :size],
    )


@torch.no_grad()
def curve_order(xyz_m: Tensor, valid: Tensor) -> Tensor:
    """The order of points along a z-order curve through each cloud's own bounding cube, those not valid last.

    Args:
        xyz_m: float [M, P, 3], finite.
        valid: bool [M, P].

    Returns:
        int64 [M, P], which point stands at each place.
    """
    there = valid[..., None]
    low = torch.where(there, xyz_m, torch.inf).amin(1, keepdim=True)
    high = torch.where(there, xyz_m, -torch.inf).amax(1, keepdim=True)
    extent = (high - low).amax(-1, keepdim=True)
    extent = torch.where(extent > 0, extent, 1.0)
    top = (1 << _DEPTH) - 1
    share = torch.where(there, (xyz_m - low) / extent, 0.0)
    code = encode((share * top).clamp(0, top).long(), _DEPTH, "z")
    return torch.where(valid, code, 1 << (3 * _DEPTH)).sort(dim=1, stable=True).indices


def thinned_along_curve(points: FramePoints, most: int) -> FramePoints:
    """At most ``most`` points of each frame, evenly along a curve, in the order of the curve."""
    order = curve_order(points.xyz_m, points.valid)
    picked = pick_evenly(points.valid.gather(1, order), min(most, order.shape[1]))
    index = order.gather(1, picked.index)
    rows = take_points(torch.cat([points.xyz_m, points.features], -1), index)
    rows = torch.where(picked.valid[..., None], rows, 0.0)
    return FramePoints(rows[..., :3], rows[..., 3:], picked.valid, points.base_from_sensor)
