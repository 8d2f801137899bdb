"""RANSAC: the rigid transform that most of a set of doubtful matches agree on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.geometry import full_precision, widened
from perceive.points.registration.kabsch import align_unchecked
from perceive.points.registration.rigid import rigid
from sensors.errors import SpecError

_BLOCK = 1 << 22  # coordinates held at once
_FAR_M = 1e15
_LEAST_SINE = 0.05  # height of a triangle over its longest side, below which it is too flat to give a rotation


@dataclass(frozen=True, eq=False)
class Consensus:
    """What the matches of B pairs of clouds agree on.

    Attributes:
        target_from_source: float64 [B, 4, 4]; the identity where nothing was found.
        inlier: bool [B, M].
        inlier_share: float64 [B], of the valid matches.
        rms_m: float64 [B], of the inliers.
        found: bool [B]; False = too few inliers, or inliers on one line.
        judged: int64 [B], triplets that passed the checks and were tried on all matches.
        flat: int64 [B], triplets that span no proper triangle.
        confidence: float64 [B], the odds that a triplet of inliers only was drawn, if this is the inliers' share.
    """

    target_from_source: Tensor
    inlier: Tensor
    inlier_share: Tensor
    rms_m: Tensor
    found: Tensor
    judged: Tensor
    flat: Tensor
    confidence: Tensor


def ransac(
    source_m: Tensor,
    target_m: Tensor,
    valid: Tensor | None = None,
    *,
    inlier_m: float,
    triplets: int = 4096,
    judged: int = 512,
    refinements: int = 5,
    least_inliers: int = 6,
    seed: int = 0,
) -> Consensus:
    """Random sample consensus (Fischler and Bolles, CACM 1981) over B sets of matches at once.

    All triplets are drawn first. One is dropped if it is too flat, smaller than the tolerance, or if its sides differ
    between source and target by more than inliers may; the first ``judged`` of the others give a transform each,
    scored by truncated squares (Torr and Zisserman, CVIU 2000). The best is fitted to its inliers by :func:`align`.

    The same seed gives the same result, on any device up to rounding; no pair depends on the others of its batch.

    Args:
        source_m: float [B, M, 3].
        target_m: float [B, M, 3], what each source point is believed to be.
        valid: bool [B, M]; None = all. Matches with a NaN or infinite coordinate are left out.
        inlier_m: an inlier is off by at most this.
        triplets: how many are drawn.
        judged: see above.
        refinements: fits at most.
        least_inliers: fewer count as nothing found.
        seed: of the triplets.

    Raises:
        SpecError: shapes that do not fit, or a number out of its range.
    """
    if source_m.ndim != 3 or source_m.shape != target_m.shape or source_m.shape[-1] != 3:
        raise SpecError(
            "ransac", "matches [B, M, 3] twice", f"{list(source_m.shape)} and {list(target_m.shape)}", "Correct it."
        )
    if not inlier_m > 0 or triplets < 1 or judged < 1 or least_inliers < 3:
        raise SpecError(
            "ransac",
            "inlier_m > 0, triplets and judged >= 1, least_inliers >= 3",
            f"{inlier_m}, {triplets}, {judged}, {least_inliers}",
            "Correct it.",
        )
    with full_precision(source_m.device), torch.no_grad():
        return _ransac(source_m, target_m, valid, inlier_m, triplets, judged, refinements, least_inliers, seed)


def _ransac(
    source_m: Tensor,
    target_m: Tensor,
    valid: Tensor | None,
    inlier_m: float,
    triplets: int,
    judged: int,
    refinements: int,
    least_inliers: int,
    seed: int,
) -> Consensus:
    batch, count = source_m.shape[:2]
    there = (source_m.abs() <= _FAR_M).all(-1) & (target_m.abs() <= _FAR_M).all(-1)
    if valid is not None:
        there = there & valid
    number = there.sum(1)
    source, middle_s = _centred(source_m, there)
    target, middle_t = _centred(target_m, there)
    identity = torch.eye(4, dtype=torch.float64, device=source_m.device).repeat(batch, 1, 1)
    if not count:
        nothing = number.double()
        return Consensus(identity, there, nothing, nothing, there.any(1), number, number, nothing)

    corner = _draw(there, number, triplets, seed)  # [B, H, 3] into the matches
    s, t = _taken(source, corner), _taken(target, corner)  # [B, H, 3 corners, 3]
    enough = (number >= 3)[:, None]
    flat = ~(_proper(s, inlier_m) & _proper(t, inlier_m))
    passed = enough & ~flat & ((_sides(s) - _sides(t)).abs() <= 2 * inlier_m).all(-1)
    order = torch.argsort((~passed).to(torch.uint8), dim=1, stable=True)[:, :judged]
    kept = passed.gather(1, order)
    turn, shift = _from_triangles(_rows(s, order), _rows(t, order))

    single = widened(source_m).dtype
    cost = _costs(
        source.to(single), target.to(single), there, turn.to(single), shift.to(single), inlier_m
    )  # [B, judged]
    cost = torch.where(kept, cost, torch.inf)
    best = (cost == cost.amin(1, keepdim=True)).to(torch.uint8).argmax(1)
    pose = rigid(*(value[torch.arange(batch, device=value.device), best] for value in (turn, shift)))
    pose, inlier, square = _refined(pose, source, target, there, inlier_m, refinements)

    fit = align_unchecked(source, target, inlier.double())
    found = kept.any(1) & (inlier.sum(1) >= least_inliers) & fit.unique
    share = inlier.sum(1) / number.clamp_min(1)
    rms = (torch.where(inlier, square, 0.0).sum(1) / inlier.sum(1).clamp_min(1)).sqrt()
    # Back from around the middles.
    moved = pose[:, :3, 3] + middle_t - (pose[:, :3, :3] @ middle_s[..., None])[..., 0]
    pose = torch.where(found[:, None, None], rigid(pose[:, :3, :3], moved), identity)
    inlier = inlier & found[:, None]
    share = torch.where(found, share.double(), 0.0)
    return Consensus(
        pose,
        inlier,
        share,
        torch.where(found, rms, 0.0),
        found,
        kept.sum(1),
        (flat & enough).sum(1),
        1 - (1 - share**3) ** triplets,
    )


def _centred(points: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Points in double precision around their middle, zero where not there, and the middle [B, 3]."""
    clean = torch.where(there[..., None], points.double(), 0.0)
    middle = clean.sum(1) / there.sum(1, keepdim=True).clamp_min(1)
    return torch.where(there[..., None], clean - middle[:, None], 0.0), middle


def _draw(there: Tensor, number: Tensor, triplets: int, seed: int) -> Tensor:
    """Three different valid matches for each triplet, int64 [B, triplets, 3]; the same draws for every sample."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(triplets, 3, generator=generator, dtype=torch.float64).to(there.device)
    left = (number[:, None, None] - torch.arange(3, device=there.device)).clamp_min(1)
    rank = torch.minimum((draw * left).long(), left - 1)
    # The second is drawn from those left after the first, and so on; stepping over the smaller ones first.
    a, b, c = rank.unbind(-1)
    b = b + (b >= a)
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    c = c + (c >= low)
    c = c + (c >= high)
    rank = torch.stack([a, b, c], -1).clamp_max(there.shape[1] - 1)
    place = torch.argsort((~there).to(torch.uint8), dim=1, stable=True)  # valid ones first, in their order
    return place.gather(1, rank.flatten(1)).view_as(rank)


def _taken(points: Tensor, corner: Tensor) -> Tensor:
    flat = corner.flatten(1)[..., None].expand(-1, -1, 3)
    return points.gather(1, flat).view(*corner.shape, 3)


def _rows(triangles: Tensor, order: Tensor) -> Tensor:
    return triangles.gather(1, order[..., None, None].expand(-1, -1, 3, 3))


def _sides(triangle: Tensor) -> Tensor:
    """Lengths [..., 3] of the sides of triangles [..., 3, 3]."""
    length: Tensor = torch.linalg.vector_norm(triangle - triangle.roll(1, -2), dim=-1)
    return length


def _proper(triangle: Tensor, inlier_m: float) -> Tensor:
    """Whether a triangle is large enough and not too flat to tell a rotation."""
    side = _sides(triangle)
    first, second = triangle[..., 1, :] - triangle[..., 0, :], triangle[..., 2, :] - triangle[..., 0, :]
    doubled = torch.linalg.vector_norm(torch.linalg.cross(first, second), dim=-1)
    proper: Tensor = (doubled > _LEAST_SINE * side.amax(-1) ** 2) & (side.amin(-1) > inlier_m)
    return proper


def _from_triangles(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations [..., 3, 3] and translations [..., 3] that lay triangles [..., 3, 3] on others, middle on middle."""
    turn = _frames(t) @ _frames(s).transpose(-1, -2)
    return turn, t.mean(-2) - (turn @ s.mean(-2)[..., None])[..., 0]


def _frames(triangle: Tensor) -> Tensor:
    """A right-handed frame for each triangle: along its first side, across in its plane, and its normal."""
    first = triangle[..., 1, :] - triangle[..., 0, :]
    along = torch.nn.functional.normalize(first, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(along, triangle[..., 2, :] - triangle[..., 0, :]), dim=-1)
    return torch.stack([along, torch.linalg.cross(normal, along), normal], -1)


def _costs(s: Tensor, t: Tensor, there: Tensor, turn: Tensor, shift: Tensor, inlier_m: float) -> Tensor:
    """Truncated squares over all matches, in units of the tolerance, float64 [B, K]."""
    batch, count = s.shape[:2]
    step = max(1, _BLOCK // max(1, 3 * batch * count))
    across, aim = s.transpose(1, 2), t.transpose(1, 2)[:, None]  # [B, 3, M], [B, 1, 3, M]
    found = []
    for start in range(0, turn.shape[1], step):
        part = turn[:, start : start + step]
        moved = (part.flatten(1, 2) @ across).view(batch, -1, 3, count)
        gap = moved.add_(shift[:, start : start + step, :, None]).sub_(aim)
        square = gap.square_().sum(2).mul_(1 / inlier_m**2).clamp_max_(1.0)
        found.append(torch.where(there[:, None], square, 0.0).sum(-1, dtype=torch.float64))
    return torch.cat(found, 1)


def _refined(
    pose: Tensor, s: Tensor, t: Tensor, there: Tensor, inlier_m: float, refinements: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The pose fitted to its inliers as long as that lowers the cost; its inliers and squared residuals [B, M]."""

    def judge(candidate: Tensor) -> tuple[Tensor, Tensor]:
        square = ((s @ candidate[:, :3, :3].transpose(1, 2) + candidate[:, None, :3, 3] - t) ** 2).sum(-1)
        square = torch.where(there, square, torch.inf)
        return square, square.clamp_max(inlier_m**2).sum(1)

    square, cost = judge(pose)
    for _ in range(refinements):
        fit = align_unchecked(s, t, (square <= inlier_m**2).double())
        new_square, new_cost = judge(fit.target_from_source)
        better = fit.unique & (new_cost < cost)
        pose = torch.where(better[:, None, None], fit.target_from_source, pose)
        square, cost = torch.where(better[:, None], new_square, square), torch.where(better, new_cost, cost)
    return pose, square <= inlier_m**2, square
