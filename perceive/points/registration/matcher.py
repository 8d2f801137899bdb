"""PairMatcher: which parts of two clouds are the same surface, by a transformer that sees no coordinates.

What the papers do, in small: point-pair features in local neighbourhoods (RoITr: Yu et al., CVPR 2023), attention
within each cloud that knows how superpoints lie to each other and attention across both (GeoTransformer: Qin et al.,
CVPR 2022), matches of superpoints first and of the points in their groups second. As in LoFTR (Sun et al., CVPR 2021) a
match is as likely as both sides find it; a place for "no partner" stands beside all others (SuperGlue: Sarlin et al.,
CVPR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.contrast import spread_out
from perceive.points.neighbours import take_points
from perceive.points.registration.scan import PAIR, ScanGeometry
from sensors.errors import SpecError

_QUICK = 10.0  # logits of a learned scalar of 1
_WAVES = 4  # frequencies at which the distance of superpoints is told


@dataclass(frozen=True, eq=False)
class Described:
    """What the network says about a batch of clouds.

    Attributes:
        group: float [B, G, D] of superpoints.
        member: float [B, G, K, F] of the members of their groups.
    """

    group: Tensor
    member: Tensor


@dataclass(frozen=True, eq=False)
class Assignment:
    """Partners of N things among M, each side with a place for none.

    Attributes:
        forth: float [..., N, M + 1], log probabilities of each thing's partner; the last is none.
        back: float [..., M, N + 1], the same from the other side.
    """

    forth: Tensor
    back: Tensor

    @property
    def score(self) -> Tensor:
        """How likely each pair is as both sides see it, float [..., N, M] from 0 to 1."""
        return (self.forth[..., :-1] + self.back[..., :-1].transpose(-1, -2)).exp()


def assign(similarity: Tensor, none: Tensor, valid: Tensor, other_valid: Tensor) -> Assignment:
    """Partners by similarity [..., N, M]; those not valid [..., N], [..., M] have none.

    Args:
        similarity: logits.
        none: logit of no partner, float [].
        valid: of the N.
        other_valid: of the M.
    """

    def side(logits: Tensor, mine: Tensor, theirs: Tensor) -> Tensor:
        seen = mine[..., :, None] & theirs[..., None, :]
        logits = torch.where(seen, logits, -torch.inf)
        bin_ = none.expand(*logits.shape[:-1], 1)
        return torch.cat([logits, bin_], -1).log_softmax(-1)

    return Assignment(side(similarity, valid, other_valid), side(similarity.transpose(-1, -2), other_valid, valid))


@final
class PairAttention(nn.Module):
    """Pre-norm attention and MLP; with pair features, these choose whom to look at and are part of what is seen.

    Args:
        width: D.
        heads: H, divides D.
        pairs: channels of the embedded pair features; 0 = none, as across two clouds.
    """

    def __init__(self, width: int, heads: int, pairs: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.bias = nn.Linear(pairs, heads) if pairs else None
        self.seen = nn.Linear(heads * pairs, width) if pairs else None
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, other: Tensor, other_valid: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Features [B, G, D] of features [B, G, D].

        Args:
            x: those that look.
            other: [B, G', D], those looked at.
            other_valid: bool [B, G']; where none is, nothing is added but the MLP.
            pairs: [B, G, G', E] of each with each.
        """
        size, count, width = x.shape
        seen = self.norm(other)

        def split(value: Tensor) -> Tensor:
            return value.view(size, value.shape[1], self.heads, -1).transpose(1, 2)

        key, value = self.key_value(seen).chunk(2, -1)
        logits = split(self.query(self.norm(x))) @ split(key).transpose(-1, -2) * (width // self.heads) ** -0.5
        if self.bias is not None and pairs is not None:
            logits = logits + self.bias(pairs).permute(0, 3, 1, 2)
        mask = other_valid[:, None, None, :]
        share = torch.where(mask, logits, -1e9).softmax(-1)  # finite: a cloud without points must not give NaN
        share = torch.where(mask, share, 0.0)  # [B, H, G, G']
        gathered = (share @ split(value)).transpose(1, 2).reshape(size, count, width)
        if self.seen is not None and pairs is not None:
            gathered = gathered + self.seen((share.transpose(1, 2) @ pairs).flatten(2))
        x = x + self.out(gathered)
        out: Tensor = x + self.mlp(x)
        return out


@final
class PairMatcher(nn.Module):
    """Two clouds to matching scores of superpoints, and of points in groups that match.

    No rigid motion of either cloud changes a score, for no coordinate enters. Clouds are exchangeable: the same weights
    read both.

    Args:
        width: D, of superpoints.
        heads: H.
        layers: rounds of attention within, then across.
        point_width: C, of points.
        pair_width: E, of embedded pairs of superpoints.
        fine_width: F, by which points are matched.

    Raises:
        SpecError: a size below 1, or heads that do not divide the width.
    """

    def __init__(
        self,
        width: int = 96,
        heads: int = 4,
        layers: int = 3,
        point_width: int = 64,
        pair_width: int = 24,
        fine_width: int = 32,
    ) -> None:
        super().__init__()
        if min(width, heads, layers, point_width, pair_width, fine_width) < 1 or width % heads:
            got = f"{width}, {heads}, {layers}, {point_width}, {pair_width}, {fine_width}"
            raise SpecError("PairMatcher", "sizes >= 1, heads that divide the width", got, "Correct them.")
        self.point = nn.Sequential(nn.Linear(PAIR, 32), nn.GELU(), nn.Linear(32, point_width))
        self.point_norm = nn.Sequential(nn.LayerNorm(point_width), nn.GELU(), nn.Linear(point_width, point_width))
        self.of_member = nn.Linear(point_width, width)
        self.of_pair = nn.Linear(PAIR, width)
        self.group = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        self.pair = nn.Sequential(
            nn.Linear(PAIR + 2 * _WAVES, pair_width), nn.GELU(), nn.Linear(pair_width, pair_width)
        )
        self.within = nn.ModuleList(PairAttention(width, heads, pair_width) for _ in range(layers))
        self.across = nn.ModuleList(PairAttention(width, heads, 0) for _ in range(layers))
        self.coarse = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.fine = nn.Linear(point_width + PAIR, 2 * fine_width)
        self.fine_group = nn.Linear(width, 2 * fine_width)
        self.fine_out = nn.Sequential(nn.LayerNorm(2 * fine_width), nn.GELU(), nn.Linear(2 * fine_width, fine_width))
        # Times _QUICK, for an optimiser moves every parameter by the same small steps.
        self.no_group, self.no_point = (nn.Parameter(torch.tensor(0.3)) for _ in range(2))
        self.group_sharpness, self.point_sharpness = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))

    def forward(self, source: ScanGeometry, target: ScanGeometry) -> tuple[Described, Described]:
        """Describe B pairs of clouds, each in view of the other."""
        one, one_points, one_pairs = self._local(source)
        two, two_points, two_pairs = self._local(target)
        for within, across in zip(self.within, self.across, strict=True):
            one = within(one, one, source.group_valid, one_pairs)
            two = within(two, two, target.group_valid, two_pairs)
            one, two = across(one, two, target.group_valid), across(two, one, source.group_valid)
        one, two = self.coarse(one), self.coarse(two)
        return self._described(source, one, one_points), self._described(target, two, two_points)

    def match_groups(self, source: ScanGeometry, target: ScanGeometry, one: Described, two: Described) -> Assignment:
        """Partners of superpoints, [B, G, G' + 1] and [B, G', G + 1]."""
        similarity = _QUICK * self.group_sharpness * one.group @ two.group.transpose(-1, -2)
        return assign(similarity, _QUICK * self.no_group, source.group_valid, target.group_valid)

    def match_members(
        self, source: ScanGeometry, target: ScanGeometry, one: Described, two: Described, i: Tensor, j: Tensor
    ) -> Assignment:
        """Partners of the members of groups ``i`` of the source among those of groups ``j`` of the target, [B, Q] both.

        Returns:
            [B, Q, K, K + 1] both.
        """
        mine, theirs = of_groups(one.member, i), of_groups(two.member, j)
        similarity = _QUICK * self.point_sharpness * mine @ theirs.transpose(-1, -2)
        valid, other = of_groups(source.member_valid, i), of_groups(target.member_valid, j)
        return assign(similarity, _QUICK * self.no_point, valid, other)

    def _local(self, scan: ScanGeometry) -> tuple[Tensor, Tensor, Tensor]:
        """Superpoints [B, G, D], points [B, P, C] and pairs [B, G, G, E]."""
        points = self.point_norm(spread_out(self.point(_scaled(scan.near_pairs)).amax(2), scan.valid))
        # A place of a group that has no point holds the nearest one again: no maximum is changed by it.
        members = take_points(self.of_member(points), scan.member) + self.of_pair(_scaled(scan.member_pairs))
        distance = scan.between[..., :1]
        waves = distance * 2.0 ** torch.arange(_WAVES, device=distance.device)
        pairs = self.pair(torch.cat([_scaled(scan.between), waves.sin(), waves.cos()], -1))
        return spread_out(self.group(members).amax(2), scan.group_valid), points, pairs

    def _described(self, scan: ScanGeometry, groups: Tensor, points: Tensor) -> Described:
        own = torch.cat([take_points(points, scan.member), _scaled(scan.member_pairs)], -1)
        member = self.fine_out(self.fine(own) + self.fine_group(groups)[:, :, None])
        member = spread_out(member.flatten(1, 2), scan.member_valid.flatten(1)).view(member.shape)
        groups = spread_out(groups, scan.group_valid)
        return Described(nn.functional.normalize(groups, dim=-1), nn.functional.normalize(member, dim=-1))


def _scaled(pairs: Tensor) -> Tensor:
    """Pair features about zero, of about unit size."""
    return 4 * (pairs - 0.5)


def of_groups(values: Tensor, index: Tensor) -> Tensor:
    """Rows [B, Q, ...] of values [B, G, ...]."""
    return values[torch.arange(len(values), device=values.device)[:, None], index]
