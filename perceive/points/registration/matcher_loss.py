"""What a matcher learns from: pairs of clouds whose transform is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from perceive.geometry import transform_points
from perceive.points.neighbours import nearest
from perceive.points.registration.matcher import Assignment, PairMatcher, of_groups
from perceive.points.registration.scan import ScanGeometry
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class Overlap:
    """Which superpoints of two clouds are the same surface.

    Attributes:
        forth: float [B, G, G' + 1], the share of a source superpoint's points that lie on each of the target's; the
            last is none. Rows of superpoints that are not there are zero.
        back: float [B, G', G + 1], the same from the other side.
    """

    forth: Tensor
    back: Tensor


@torch.no_grad()
def overlap(source: ScanGeometry, target: ScanGeometry, target_from_source: Tensor, within_m: float) -> Overlap:
    """How the superpoints' points lie on each other under the true transform.

    Each point belongs to its nearest superpoint; a point's partner is the nearest point of the other cloud.

    Args:
        source: B clouds.
        target: B clouds.
        target_from_source: float [B, 4, 4].
        within_m: partners are no farther apart.
    """
    moved = transform_points(target_from_source.double(), source.xyz_m)

    def side(a: ScanGeometry, a_m: Tensor, b: ScanGeometry, b_m: Tensor) -> Tensor:
        found = nearest(a_m, b_m, 1, query_valid=a.valid, valid=b.valid)
        groups, others = a.member.shape[1], b.member.shape[1]
        met = found.distance_m[..., 0] <= within_m
        partner = torch.where(met, b.owner.gather(1, found.index[..., 0]), others)
        cell = a.owner * (others + 1) + partner
        count = a_m.new_zeros(len(a_m), groups * (others + 1)).scatter_add(1, cell, a.valid.to(a_m.dtype))
        count = count.view(len(a_m), groups, others + 1)
        return (count / count.sum(-1, keepdim=True).clamp_min(1)).float()

    return Overlap(side(source, moved, target, target.xyz_m), side(target, target.xyz_m, source, moved))


@dataclass(frozen=True, eq=False)
class MatcherLoss:
    """Both levels.

    Attributes:
        total: float [], to be minimised.
        coarse: float [], cross-entropy of superpoints' partners.
        fine: float [], cross-entropy of points' partners within groups that overlap.
    """

    total: Tensor
    coarse: Tensor
    fine: Tensor


@final
class MatcherObjective:
    """Cross-entropy against how much superpoints overlap, and against the nearest point within overlapping groups.

    The first is InfoNCE (van den Oord et al., 2018) over all superpoints of the other cloud, with the overlap as its
    soft target, as the overlap-aware losses of GeoTransformer (Qin et al., CVPR 2022) weight their pairs.

    Args:
        within_m: points nearer than this, under the true transform, are the same.
        pairs: overlapping pairs of groups per pair of clouds from which points learn; the largest overlaps.
        least_overlap: of these.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(self, within_m: float, pairs: int = 24, least_overlap: float = 0.2) -> None:
        if not 0 < within_m < float("inf") or pairs < 1 or not 0 < least_overlap <= 1:
            got = f"{within_m}, {pairs}, {least_overlap}"
            raise SpecError("MatcherObjective", "within_m > 0, pairs >= 1, 0 < least_overlap <= 1", got, "Correct.")
        self.within_m, self.pairs, self.least_overlap = within_m, pairs, least_overlap

    def __call__(
        self, matcher: PairMatcher, source: ScanGeometry, target: ScanGeometry, target_from_source: Tensor
    ) -> MatcherLoss:
        """The loss of B pairs; 0 where there is nothing to learn from."""
        true = overlap(source, target, target_from_source, self.within_m)
        one, two = matcher(source, target)
        guess = matcher.match_groups(source, target, one, two)
        coarse = (_entropy(guess.forth, true.forth) + _entropy(guess.back, true.back)) / 2
        mutual = torch.minimum(true.forth[..., :-1], true.back[..., :-1].transpose(1, 2))
        most = min(self.pairs, mutual[0].numel())
        share, flat = mutual.flatten(1).topk(most, dim=1)
        i, j = flat // mutual.shape[2], flat % mutual.shape[2]
        points = matcher.match_members(source, target, one, two, i, j)
        fine = self._fine(points, source, target, target_from_source, i, j, share >= self.least_overlap)
        return MatcherLoss(coarse + fine, coarse.detach(), fine.detach())

    def _fine(
        self,
        guess: Assignment,
        source: ScanGeometry,
        target: ScanGeometry,
        target_from_source: Tensor,
        i: Tensor,
        j: Tensor,
        used: Tensor,
    ) -> Tensor:
        with torch.no_grad():
            mine, theirs = of_groups(source.member_m, i), of_groups(target.member_m, j)
            moved = transform_points(target_from_source.double()[:, None], mine)
            gap = torch.cdist(moved, theirs)
            have, other = of_groups(source.member_valid, i), of_groups(target.member_valid, j)
            gap = torch.where(have[..., :, None] & other[..., None, :], gap, torch.inf)
        forth = self._partner(guess.forth, gap, have & used[..., None])
        return (forth + self._partner(guess.back, gap.transpose(-1, -2), other & used[..., None])) / 2

    def _partner(self, guess: Tensor, gap: Tensor, used: Tensor) -> Tensor:
        least, nearest_one = gap.min(-1)
        partner = torch.where(least <= self.within_m, nearest_one, gap.shape[-1])
        lost = -guess.gather(-1, partner[..., None])[..., 0]
        return torch.where(used, lost, 0.0).sum() / used.sum().clamp_min(1)


def _entropy(guess: Tensor, true: Tensor) -> Tensor:
    """Mean cross-entropy of rows of log probabilities against shares; rows without shares do not count."""
    lost = torch.where(true > 0, true * guess, 0.0).sum(-1)
    return -lost.sum() / (true.sum(-1) > 0).sum().clamp_min(1)
