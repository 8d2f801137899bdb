"""What a learned matcher is told of a cloud: pair features that no rigid motion changes, nothing else.

Points are thinned by farthest point sampling; its first picks are the superpoints. All neighbourhoods are told by
point-pair features (Drost et al., CVPR 2010; Yu et al., RoITr, CVPR 2023), superpoints among each other too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from perceive.geometry import full_precision
from perceive.points.neighbours import nearest, take_points, usable
from perceive.points.pair_features import estimate_normals, pair_features
from perceive.points.sample import pick_evenly, pick_farthest
from sensors.errors import SpecError

CANDIDATES = 8192  # most points that farthest point sampling looks at
PAIR = 4


@dataclass(frozen=True, eq=False)
class ScanGeometry:
    """B thinned clouds of P points with G superpoints, the first G points, and groups of K points around them.

    Places and normals serve labels and results; a network that must not see a rotation reads the pair features only,
    whose distances are ``asinh(d / reach_m)``.

    Attributes:
        xyz_m: float64 [B, P, 3] in the frame of the cloud; 0 where not valid.
        valid: bool [B, P].
        row: int64 [B, P], which of the given points each is.
        near_pairs: float32 [B, P, N, 4] of each point and its nearest ones; the nearest again where there are fewer.
        member: int64 [B, G, K] into the P points.
        member_valid: bool [B, G, K].
        member_pairs: float32 [B, G, K, 4] of a superpoint and its members.
        between: float32 [B, G, G, 4] of superpoints.
        owner: int64 [B, P], the superpoint nearest to each point.
    """

    xyz_m: Tensor
    valid: Tensor
    row: Tensor
    near_pairs: Tensor
    member: Tensor
    member_valid: Tensor
    member_pairs: Tensor
    between: Tensor
    owner: Tensor

    @property
    def group_valid(self) -> Tensor:
        """Which superpoints there are, bool [B, G]."""
        return self.valid[:, : self.member.shape[1]]

    @property
    def member_m(self) -> Tensor:
        """Members' places, float64 [B, G, K, 3]."""
        return take_points(self.xyz_m, self.member)

    def rows(self, index: Tensor) -> ScanGeometry:
        """Some of the clouds, by their number [b]."""
        return ScanGeometry(*(getattr(self, field.name)[index] for field in fields(self)))


def joined(parts: Sequence[ScanGeometry]) -> ScanGeometry:
    """Clouds of several batches as one batch; all must have the same P, G and K."""
    return ScanGeometry(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(ScanGeometry)))


@torch.no_grad()
def scan_geometry(
    xyz_m: Tensor,
    valid: Tensor | None = None,
    normal: Tensor | None = None,
    viewpoint_m: Tensor | None = None,
    *,
    points: int = 768,
    groups: int = 64,
    size: int = 32,
    near: int = 16,
    reach_m: float = 0.05,
) -> ScanGeometry:
    """Prepare clouds. A rigid motion of a cloud changes its places and nothing else, up to rounding.

    The order of the points does not matter either, ties aside, up to 8,192 points; of larger clouds that many are taken
    evenly in the given order first.

    Args:
        xyz_m: float [B, N, 3]; points that are not finite count as not valid.
        valid: bool [B, N]; None = all.
        normal: float [B, N, 3], unit length and on the same side of a surface in both clouds; those not finite count
            as unknown. None = estimated from the points.
        viewpoint_m: float [B, 3], where the sensor stood, to which estimated normals look. None = they look away from
            the cloud's mean, on which two partial views of one thing need not agree.
        points: P.
        groups: G.
        size: K.
        near: N, neighbours of a point.
        reach_m: lengths are linear up to about here, logarithmic beyond.

    Raises:
        SpecError: shapes that do not fit, no room for points, or a number out of its range.
    """
    if xyz_m.dim() != 3 or xyz_m.shape[-1] != 3 or not xyz_m.shape[1] or not xyz_m.is_floating_point():
        raise SpecError("scan_geometry.xyz_m", "float [B, N, 3], N >= 1", f"{xyz_m.dtype} {[*xyz_m.shape]}", "Reshape.")
    for name, given, shape in (
        ("valid", valid, xyz_m.shape[:2]),
        ("normal", normal, xyz_m.shape),
        ("viewpoint_m", viewpoint_m, (len(xyz_m), 3)),
    ):
        if given is not None and given.shape != shape:
            raise SpecError(f"scan_geometry.{name}", f"{[*shape]}", f"{[*given.shape]}", "One per point (or cloud).")
    if min(groups, size) < 1 or near < 3 or points < groups or not 0 < reach_m < float("inf"):
        got = f"points {points}, groups {groups}, size {size}, near {near}, reach_m {reach_m}"
        raise SpecError("scan_geometry", "points >= groups >= 1, size >= 1, near >= 3, reach_m > 0", got, "Correct.")
    with full_precision(xyz_m.device):
        there = usable(xyz_m, valid)
        every = torch.where(there[..., None], xyz_m.double(), 0.0)
        # Around the mean, so that rounding does not grow with the distance from the origin.
        middle = every.sum(1, keepdim=True) / there.sum(1).clamp_min(1)[:, None, None]
        local = torch.where(there[..., None], every - middle, 0.0)
        normals = _normals(
            local, there, normal, None if viewpoint_m is None else viewpoint_m.double() - middle[:, 0], near
        )
        first = pick_evenly(there, min(CANDIDATES, there.shape[1]))
        chosen = pick_farthest(take_points(local, first.index), first.valid, points)
        row = torch.where(chosen.valid, first.index.gather(1, chosen.index), 0)
        kept = chosen.valid
        local = torch.where(kept[..., None], take_points(local, row), 0.0)
        normals = torch.where(kept[..., None], take_points(normals, row), 0.0)
        centre, centre_valid = local[:, :groups], kept[:, :groups]
        around = nearest(local, local, near, query_valid=kept, valid=kept).index
        found = nearest(centre, local, size, query_valid=centre_valid, valid=kept)
        own = normals[:, :groups]

        def told(one: Tensor, n_one: Tensor, other: Tensor, n_other: Tensor) -> Tensor:
            pairs = pair_features(one, n_one, other, n_other)
            return torch.cat([(pairs[..., :1] / reach_m).asinh(), pairs[..., 1:]], -1).float()

        near_pairs = told(
            local[:, :, None], normals[:, :, None], take_points(local, around), take_points(normals, around)
        )
        member_pairs = told(
            centre[:, :, None], own[:, :, None], take_points(local, found.index), take_points(normals, found.index)
        )
        between = told(centre[:, :, None], own[:, :, None], centre[:, None], own[:, None])
        owner = nearest(local, centre, 1, query_valid=kept, valid=centre_valid).index[..., 0]
        place = torch.where(kept[..., None], local + middle, 0.0)
    return ScanGeometry(place, kept, row, near_pairs, found.index, found.valid, member_pairs, between, owner)


def _normals(local: Tensor, there: Tensor, given: Tensor | None, viewpoint: Tensor | None, near: int) -> Tensor:
    if given is None:
        return estimate_normals(local, there, near, viewpoint).normal
    known = there & given.isfinite().all(-1)
    return torch.nn.functional.normalize(torch.where(known[..., None], given.double(), 0.0), dim=-1)
