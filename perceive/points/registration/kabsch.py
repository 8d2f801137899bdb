"""Kabsch and Umeyama: the rigid or similarity transform between points that are known to correspond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from perceive.geometry import full_precision, widened
from perceive.points.registration.rigid import rigid
from sensors.errors import SpecError

_THIN = 1e-6  # width over length below which points count as lying on a line (thickness: on a plane)
_FAR_M = 1e15


@dataclass(frozen=True, eq=False)
class Alignment:
    """The transform that takes source points to target points with the least weighted squares.

    Attributes:
        target_from_source: [..., 4, 4]; its upper left is ``scale`` times a rotation with determinant +1.
        scale: [...], 1 unless it was asked for.
        rms_m: [...], root of the weighted mean of the squared residuals.
        used: int64 [...], points with finite coordinates and a weight above 0.
        dimension: int64 [...], of the figure that source *and* target have in common: 0 a point (or nothing), 1 a line,
            2 a plane, 3 a body.
        unique: bool [...]; False = other rotations fit as well (a point, a line, or a body and its mirror image that
            fit equally well): the rotation is one of them. In a plane it is unique, but a mirrored target could not be
            told.
    """

    target_from_source: Tensor
    scale: Tensor
    rms_m: Tensor
    used: Tensor
    dimension: Tensor
    unique: Tensor


def align(
    source_m: Tensor, target_m: Tensor, weight: Tensor | None = None, *, scale: bool = False, thin: float = _THIN
) -> Alignment:
    """The best rigid transform between corresponding points, or with ``scale`` the best similarity.

    Kabsch (Acta Cryst. 1976 and 1978), with the reflection case of Umeyama (TPAMI 1991). Computed in double precision.
    Gradients reach source, target and weight, and are finite: zero through the rotation where it is not unique.

    Args:
        source_m: float [..., N, 3].
        target_m: float [..., N, 3].
        weight: float [..., N], not negative; None = all 1. A pair with a NaN or infinite coordinate or weight counts
            as not there.
        scale: look for a scale too.
        thin: a spread below this share of the longest counts as none.

    Raises:
        SpecError: shapes that do not fit, or a negative weight.
    """
    if source_m.shape != target_m.shape or source_m.ndim < 2 or source_m.shape[-1] != 3:
        raise SpecError(
            "align",
            "source and target [..., N, 3]",
            f"{list(source_m.shape)} and {list(target_m.shape)}",
            "Pass corresponding points.",
        )
    if weight is not None and weight.shape != source_m.shape[:-1]:
        raise SpecError(
            "align.weight", f"{list(source_m.shape[:-1])}", f"{list(weight.shape)}", "One weight for each pair."
        )
    if weight is not None and bool((weight < 0).any()):
        raise SpecError("align.weight", "weights of 0 or more", f"{float(weight.min())}", "Correct them.")
    return align_unchecked(source_m, target_m, weight, scale=scale, thin=thin)


def align_unchecked(
    source_m: Tensor, target_m: Tensor, weight: Tensor | None = None, *, scale: bool = False, thin: float = _THIN
) -> Alignment:
    """:func:`align` for callers that made the arguments themselves: nothing waits for the device."""
    kind = torch.result_type(widened(source_m), widened(target_m))
    with full_precision(source_m.device):
        # False for NaN too; beyond this the squares overflow.
        there = (source_m.abs() <= _FAR_M).all(-1) & (target_m.abs() <= _FAR_M).all(-1)
        share = torch.ones_like(source_m[..., 0], dtype=torch.float64) if weight is None else weight.double()
        there = there & share.isfinite() & (share > 0)
        share = torch.where(there, share, 0.0)
        x = torch.where(there[..., None], source_m.double(), 0.0)
        y = torch.where(there[..., None], target_m.double(), 0.0)
        total = share.sum(-1)
        share = share / torch.where(total > 0, total, 1.0)[..., None]
        middle_x, middle_y = (share[..., None] * x).sum(-2), (share[..., None] * y).sum(-2)
        local_x = torch.where(there[..., None], x - middle_x[..., None, :], 0.0)
        local_y = torch.where(there[..., None], y - middle_y[..., None, :], 0.0)
        weighted = share[..., None] * local_x
        covariance = local_y.transpose(-1, -2) @ weighted  # sum of w y x^T: target rows, source columns
        rotation, spread = _nearest_rotation(covariance)
        spread_x = (weighted * local_x).sum((-1, -2))
        spread_y = (share[..., None] * local_y * local_y).sum((-1, -2))
        if scale:
            # The derivative by the rotation is zero at the best one, so what the mask of its gradient drops is nothing.
            gain = (rotation * covariance).sum((-1, -2)) / torch.where(spread_x > 0, spread_x, 1.0)
            gain = torch.where((spread_x > 0) & (gain > 0), gain, 1.0)
        else:
            gain = torch.ones_like(spread_x)
        turn = gain[..., None, None] * rotation
        shift = middle_y - (turn @ middle_x[..., None])[..., 0]
        residual = torch.where(there[..., None], local_y - local_x @ turn.transpose(-1, -2), 0.0)
        square = (share * (residual * residual).sum(-1)).sum(-1)
        rms = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
    with torch.no_grad():
        dimension, unique = _figure(spread, spread_x, spread_y, x, y, kind, thin)
    return Alignment(
        rigid(turn, shift).to(kind), gain.to(kind), rms.to(kind), there.sum(-1), dimension, unique & (dimension >= 2)
    )


def _figure(
    spread: Tensor, spread_x: Tensor, spread_y: Tensor, x: Tensor, y: Tensor, kind: torch.dtype, thin: float
) -> tuple[Tensor, Tensor]:
    """Dimension, and whether the best rotation is the only one, from the signed singular values [..., 3]."""
    # Rounding of the coordinates makes a line as thick as their last digit, which far from the origin is much.
    far_x, far_y = (value.abs().amax((-1, -2)) if value.shape[-2] else spread_x for value in (x, y))
    size_x, size_y = spread_x.sqrt(), spread_y.sqrt()
    last = 8 * torch.finfo(kind).eps
    noise_x, noise_y = last * far_x, last * far_y
    extended = (size_x > noise_x) & (size_y > noise_y)
    relative = torch.maximum(noise_x / size_x.clamp_min(1e-300), noise_y / size_y.clamp_min(1e-300)).clamp_min(thin)
    size = spread.abs()
    # A singular value is a product of a spread in the source with one in the target.
    wide = size > (relative**2)[..., None] * size[..., :1]
    dimension = torch.where(extended & (size[..., 0] > 0), 1 + wide[..., 1].long() + (wide[..., 1] & wide[..., 2]), 0)
    unique = spread[..., 1] + spread[..., 2] > relative**2 * size[..., 0]
    return dimension, unique


def _nearest_rotation(covariance: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _Nearest.apply(covariance)  # type: ignore[no-untyped-call]
    return found


class _Nearest(torch.autograd.Function):
    """Rotations [..., 3, 3] nearest to matrices, i.e. with the largest trace of R^T C, and signed singular values.

    The derivative is written out: of a singular value decomposition it is infinite where two values are equal, which
    the rotation does not mind. With C = U S V^T and R = U D V^T, dR = U K V^T where K_ij = (M - M^T)_ij / (s_i + s_j)
    times D_j for M = U^T dC V D and s = D S.
    """

    @staticmethod
    def forward(ctx: Any, covariance: Tensor) -> tuple[Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(covariance)
        mirrored = torch.linalg.det(u) * torch.linalg.det(vh) < 0
        sign = torch.ones_like(s)
        sign[..., 2] = torch.where(mirrored, -1.0, 1.0)
        vh = sign[..., None] * vh  # takes D along: C = U (D S) V'^T and R = U V'^T
        spread = sign * s
        ctx.save_for_backward(u, spread, vh)
        ctx.mark_non_differentiable(spread)
        return u @ vh, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        u, spread, vh = ctx.saved_tensors
        pair = spread[..., :, None] + spread[..., None, :]
        open_ = pair <= 1e-12 * spread[..., :1, None]  # s_i + s_j of a turn that changes nothing
        inside = u.transpose(-1, -2) @ gradients[0] @ vh.transpose(-1, -2)
        skew = inside - inside.transpose(-1, -2)
        scaled = torch.where(open_, 0.0, skew / torch.where(open_, 1.0, pair))
        found: Tensor = u @ scaled @ vh
        return found
