"""Groups of points around centres that are spread over the cloud, as Point-BERT and Point-MAE cut a cloud into tokens.

Farthest point sampling chooses the centres, each takes its nearest points, and these are given relative to it (Yu et
al., "Point-BERT", CVPR 2022; Pang et al., "Masked Autoencoders for Point Cloud Self-supervised Learning", ECCV 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.points.neighbours import nearest, take_points, usable
from perceive.points.sample import pick_farthest
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class Groups:
    """G groups of K points in each of B clouds.

    Attributes:
        centre_m: float [B, G, 3] in the frame of the cloud; 0 where not valid.
        relative_m: float [B, G, K, 3], points minus their centre, nearest first, the centre itself among them; where
            a member is not valid the centre again, so that a maximum over the group is not changed by it.
        centre: int64 [B, G], which of the P points are centres.
        index: int64 [B, G, K], which of the P points are members.
        valid: bool [B, G]; False where the cloud has fewer than G points.
        member_valid: bool [B, G, K]; False where it has fewer than K.
    """

    centre_m: Tensor
    relative_m: Tensor
    centre: Tensor
    index: Tensor
    valid: Tensor
    member_valid: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """The members' values [B, G, K, C] of values [B, P, C] of all points; differentiable."""
        return take_points(values, self.index)


def group(xyz_m: Tensor, valid: Tensor, groups: int, size: int, start: Tensor | None = None) -> Groups:
    """Cut clouds into groups that may overlap.

    Args:
        xyz_m: float [B, P, 3]; anything where not valid. Points that are not finite count as not valid.
        valid: bool [B, P].
        groups: G.
        size: K.
        start: int64 [B], the first centre of each cloud, a valid point; None = the point farthest from the mean, which
            makes the set of groups the same in any order of the points.

    Raises:
        SpecError: ``groups`` or ``size`` below 1, or clouds without any room for points.
    """
    if groups < 1 or size < 1:
        raise SpecError("group", "at least 1 group of at least 1 point", f"{groups} of {size}", "Correct them.")
    there = usable(xyz_m, valid)
    clean = torch.where(there[..., None], xyz_m, 0.0)
    picked = pick_farthest(clean, there, groups, start)
    centre = torch.where(picked.valid, picked.index, 0)
    centre_m = torch.where(picked.valid[..., None], take_points(clean, centre), 0.0)
    found = nearest(centre_m, clean, size, query_valid=picked.valid, valid=there)
    member = found.index
    relative = torch.where(found.valid[..., None], take_points(clean, member) - centre_m[:, :, None], 0.0)
    return Groups(centre_m, relative, centre, member, picked.valid, found.valid)
