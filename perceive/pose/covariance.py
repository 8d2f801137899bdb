"""The covariance of a pose from the residuals of a least-squares fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FREE = 1e-3  # least eigenvalue per residual, in units of the object's size, below which a motion is not observed


def pose_covariance(
    rows: Tensor,
    residual: Tensor,
    weight: Tensor,
    size_m: float,
    hidden: Tensor | None,
    slant: Tensor | None = None,
    free: float = FREE,
) -> Tensor:
    """Covariances float64 [N, 6, 6] of fitted motions; what is not observed gets the variance of knowing nothing.

    ``A^-1 (sum v J^T J) A^-1``, the covariance of ordinary least squares where residuals have variances v of their
    own (White, Econometrica 1980). Depth noise along the rays looks smaller on slanted faces, so v is fitted as
    ``a + b slant`` to the squared residuals, corrected for their leverage (MacKinnon and White, J. Econometrics
    1985): two numbers, not one for each residual, as a motion may hang on a handful of them.

    Args:
        rows: float64 [N, P, 6] (float32 will do without ``slant``), derivatives of the residuals by (rotation vector
            * size, translation).
        residual: [N, P], in any unit.
        weight: [N, P], 1 = it was fitted, 0 = it was not.
        size_m: unit of the rotation: a motion's first three numbers are ``size_m`` times its rotation vector.
        hidden: float64 [6, K], orthonormal motions (in the same unit) that the object's symmetries hide; None = none.
        slant: float64 [N, P], squared cosine between ray and normal; None = all residuals have one variance.
        free: least eigenvalue per residual of a motion that counts as observed.

    Returns:
        Of (rotation vector rad, translation m). Motions that no residual shows get (pi * size)^2 square metres, a
        half turn, which is as good as nothing known.
    """
    used = rows * weight[..., None]
    count = weight.sum(1).double()
    value, vector, known = observed((used.transpose(1, 2) @ rows).double(), count, hidden, free)
    inverse = torch.where(known, 1.0 / torch.where(known, value, 1.0), 0.0)
    inverse = (vector * inverse[:, None]) @ vector.transpose(1, 2)
    if slant is None:
        square = (weight * residual.square()).sum(1).double()
        found = (square / (count - known.sum(1)).clamp_min(1))[:, None, None] * inverse
    else:
        leverage = ((rows @ inverse) * rows).sum(-1)
        # Of a residual that alone fixes a motion nothing is left to judge it by.
        variance = weight * _variances(residual.square() / (1 - leverage).clamp_min(0.1), weight, slant)
        found = inverse @ ((rows * variance[..., None]).transpose(1, 2) @ rows) @ inverse
    unknown = torch.where(known, 0.0, (math.pi * size_m) ** 2)
    found = found + (vector * unknown[:, None]) @ vector.transpose(1, 2)
    unit = torch.ones(6, dtype=torch.float64, device=rows.device)
    unit[:3] = 1 / size_m
    found = unit[:, None] * found * unit
    return (found + found.transpose(1, 2)) / 2


def _variances(square: Tensor, weight: Tensor, slant: Tensor) -> Tensor:
    """``a + b slant`` [N, P], neither below 0, that fits squared residuals best."""
    count = weight.sum(1).clamp_min(1)
    mean = (weight * square).sum(1) / count
    middle = (weight * slant).sum(1) / count
    apart = slant - middle[:, None]
    spread = (weight * apart.square()).sum(1) / count
    slope = (weight * apart * square).sum(1) / count / spread.clamp_min(1e-12)
    # Both ends of the line stay at or above 0; where all faces are alike there is no line.
    slope = torch.where(spread > 1e-3, slope, 0.0).clamp_min(0).minimum(mean / middle.clamp_min(1e-12))
    return mean[:, None] + slope[:, None] * apart


def observed(matrix: Tensor, count: Tensor, hidden: Tensor | None, free: float = FREE) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues [N, 6], eigenvectors [N, 6, 6] (columns) of normal equations, and which motions [N, 6] they fix.

    The others are left alone (Zhang, Kaess and Singh, "On Degeneracy of Optimization-based State Estimation
    Problems", ICRA 2016).

    Args:
        matrix: float64 [N, 6, 6].
        count: [N], how many residuals are in it; with fewer than 6 nothing is fixed.
        hidden: as :func:`pose_covariance`.
        free: as there.
    """
    if hidden is not None:
        keep = torch.eye(6, dtype=matrix.dtype, device=matrix.device) - hidden @ hidden.T
        matrix = keep @ matrix @ keep
    value, vector = torch.linalg.eigh(matrix)
    known = (value > free * count[:, None]) & (count >= 6)[:, None]
    return value, vector, known


def about_origin(covariance: Tensor, point_m: Tensor) -> Tensor:
    """Covariances [N, 6, 6] of motions about the origin from those of motions about a point [3] (same axes).

    A turn w about the point c with the shift v moves the origin by ``v - w x c``.
    """
    x, y, z = (float(v) for v in point_m)
    change = torch.eye(6, dtype=covariance.dtype, device=covariance.device)
    change[3:, :3] = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=covariance.dtype)
    return change @ covariance @ change.T
