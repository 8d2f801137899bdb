"""Features of pairs of points with normals that no rotation changes, and normals out of neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.geometry import full_precision
from perceive.points.neighbours import nearest, take_points, usable
from sensors.errors import SpecError

_SAME = 1e-7  # relative gap of the two smallest variances below which no direction is the least


@dataclass(frozen=True, eq=False)
class Normals:
    """Unit normals of points.

    Attributes:
        normal: float [B, P, 3]; 0 where not valid.
        curvature: float [B, P], share of the least variance in all three: 0 on a plane, at most 1/3.
        valid: bool [B, P]; False where the point is not, or its neighbours span no surface (fewer than 3, or on a
            line).
    """

    normal: Tensor
    curvature: Tensor
    valid: Tensor


def pair_features(from_m: Tensor, from_normal: Tensor, to_m: Tensor, to_normal: Tensor) -> Tensor:
    """Point-pair features [..., 4]: distance, and the angles of n1 with d, n2 with d and n1 with n2.

    Angles are in units of pi, by ``atan2(|a x b|, a . b)``, which is exact also where they are small; d is
    ``to - from``. Unchanged when all four are rotated, or both points moved. Of two equal points the angles with d
    are 0.

    Args:
        from_m: float [..., 3].
        from_normal: float [..., 3], need not be of unit length.
        to_m: float [..., 3]; shapes are broadcast.
        to_normal: float [..., 3].

    Papers: Drost et al., "Model Globally, Match Locally", CVPR 2010; Yu et al., "Rotation-Invariant Transformer for
    Point Cloud Matching" (RoITr), CVPR 2023, for the angles as here.
    """
    with full_precision(from_m.device):
        apart = to_m - from_m
        parts = (_length(apart), _angle(from_normal, apart), _angle(to_normal, apart), _angle(from_normal, to_normal))
        return torch.stack(torch.broadcast_tensors(*parts), -1)  # type: ignore[no-untyped-call]  # torch has no types


def estimate_normals(
    points_m: Tensor,
    valid: Tensor,
    count: int = 16,
    viewpoint_m: Tensor | None = None,
    block: int = 1 << 17,
) -> Normals:
    """Normals as the direction in which a point's neighbours vary least (principal components).

    A normal's sign is a matter of agreement. With a viewpoint it looks there, as a measured surface does. Without, it
    looks away from the mean of the cloud, which turns with the cloud but is not defined where the surface runs through
    that mean.

    Args:
        points_m: float [B, P, 3]; anything where not valid.
        valid: bool [B, P].
        count: neighbours, the point itself included.
        viewpoint_m: float [B, 3], where the sensor stood, in the frame of the points.
        block: points at a time, which bounds the memory.

    Raises:
        SpecError: fewer than 3 neighbours are asked for.
    """
    if count < 3:
        raise SpecError("estimate_normals.count", "at least 3", repr(count), "Raise it.")
    there = usable(points_m, valid)
    clean = torch.where(there[..., None], points_m, 0.0)
    if viewpoint_m is None:
        outwards = clean - (clean.sum(1) / there.sum(1, keepdim=True).clamp_min(1))[:, None]
    else:
        outwards = viewpoint_m[:, None] - clean
    parts = []
    with full_precision(points_m.device), torch.no_grad():
        for start in range(0, points_m.shape[1], block):
            part = slice(start, start + block)
            found = nearest(clean[:, part], clean, count, query_valid=there[:, part], valid=there)
            near = take_points(clean, found.index) - clean[:, part, None]
            parts.append(_least_direction(near, found.valid))
    if not parts:
        return Normals(points_m, points_m[..., 0], there)
    normal, curvature, known = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    towards = (normal * outwards).sum(-1, keepdim=True)
    normal = torch.where(towards < 0, -normal, normal)
    known = known & there
    return Normals(
        torch.where(known[..., None], normal, 0.0).to(points_m.dtype),
        torch.where(known, curvature, 0.0).to(points_m.dtype),
        known,
    )


def _least_direction(near_m: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit eigenvectors [..., 3] of the least variance of neighbours [..., K, 3], its share, and whether it is one.

    In closed form and double precision: LAPACK's one matrix at a time takes fifty times as long.
    """
    near = torch.where(valid[..., None], near_m, 0.0).double()
    number = valid.sum(-1).clamp_min(1)[..., None]
    near = torch.where(valid[..., None], near - (near.sum(-2) / number)[..., None, :], 0.0)
    x, y, z = near.unbind(-1)
    xx, yy, zz, xy, xz, yz = ((a * b).sum(-1) for a, b in ((x, x), (y, y), (z, z), (x, y), (x, z), (y, z)))
    # Free of units, so that one tolerance serves millimetres and kilometres.
    total = xx + yy + zz
    scale = torch.where(total > 0, total, 1.0)
    xx, yy, zz, xy, xz, yz = (value / scale for value in (xx, yy, zz, xy, xz, yz))
    # Eigenvalues of a symmetric matrix by the cosine of a third of an angle (Smith, CACM 1961).
    middle = (xx + yy + zz) / 3
    a, b, c = xx - middle, yy - middle, zz - middle
    spread = ((a * a + b * b + c * c + 2 * (xy * xy + xz * xz + yz * yz)) / 6).sqrt()
    safe = torch.where(spread > 0, spread, 1.0)
    half = (a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)) / (2 * safe**3)
    angle = half.clamp(-1, 1).acos() / 3
    most = middle + 2 * spread * angle.cos()
    least = middle + 2 * spread * (angle + 2 * math.pi / 3).cos()
    second = 3 * middle - most - least
    # Rows of (matrix - least) are orthogonal to the direction: the longest of their products is the most exact.
    rows = torch.stack(
        [torch.stack([xx - least, xy, xz], -1), torch.stack([xy, yy - least, yz], -1),
         torch.stack([xz, yz, zz - least], -1)], -2,
    )  # fmt: skip
    products = torch.linalg.cross(rows, rows.roll(-1, -2), dim=-1)
    lengths = products.norm(dim=-1)
    best = lengths.argmax(-1, keepdim=True)
    length = lengths.gather(-1, best)
    chosen = products.gather(-2, best[..., None].expand(*best.shape, 3))[..., 0, :]
    known = (total > 0) & (second - least > _SAME) & (length[..., 0] > 0)
    return chosen / torch.where(length > 0, length, 1.0), least.clamp_min(0.0), known


def _length(vector: Tensor) -> Tensor:
    """Lengths [...], with the gradient 0 at 0."""
    square = vector.square().sum(-1)
    some = square > 0
    return torch.where(some, torch.where(some, square, 1.0).sqrt(), 0.0)


def _angle(one: Tensor, other: Tensor) -> Tensor:
    """Angles [...] from 0 to 1 between vectors, in units of pi; 0 where one of them is 0."""
    across = _length(torch.linalg.cross(one, other))
    # torch takes the gradient at (0, 0) for 0.
    return torch.atan2(across, (one * other).sum(-1)) / math.pi
