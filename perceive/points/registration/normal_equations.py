"""One Gauss-Newton step of registration: residuals, their normal equations, the step, and what is left uncertain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.points.registration.rigid import skew_of

FREE = 1e-3  # least eigenvalue, per point, below which a direction is not fixed by the surface


@dataclass(frozen=True, eq=False)
class Equations:
    """Sums over the points of each hypothesis. Twists are (rotation * size, translation) about the surface's middle.

    Attributes:
        matrix: float64 [A, 6, 6], sum of w J^T J.
        vector: float64 [A, 6], sum of w J^T r.
        square: float64 [A], sum of w r^2 in square metres.
        weight: float64 [A], sum of w.
    """

    matrix: Tensor
    vector: Tensor
    square: Tensor
    weight: Tensor

    def step(self) -> Tensor:
        """The twist [A, 6] that lowers the residuals most, without the motions that the surface does not fix.

        Those are left out (Zhang, Kaess and Singh, ICRA 2016): what the residuals say of them is noise, by which a
        cloud would slide along a plane or spin about a cylinder.
        """
        value, vector = torch.linalg.eigh(self.matrix)
        fixed = value > FREE * self.weight[:, None]
        along = -(vector.transpose(1, 2) @ self.vector[..., None])[..., 0]
        part = torch.where(fixed, along / torch.where(fixed, value, 1.0), 0.0)
        step: Tensor = (vector @ part[..., None])[..., 0]
        return step

    def uncertainty(self, size_m: float, middle_m: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Covariance [A, 6, 6] of the twist (rad, m) at the model's origin, and the least eigenvalue [A] per point.

        Args:
            size_m: unit of the rotation.
            middle_m: [3], what the twists of the equations turn about.
            rows: residuals for each point.
        """
        value, vector = torch.linalg.eigh(self.matrix)
        # The variance of one residual from what is left of them, six numbers having been fitted.
        freedom = (rows * self.weight - 6).clamp_min(1)
        variance = self.square / freedom
        # What is not fixed has a large variance, not an infinite one.
        known = torch.maximum(value, 1e-9 * value[:, -1:]).clamp_min(1e-300)
        inverse = (vector / known[:, None]) @ vector.transpose(1, 2)
        # From turns about the middle to turns about the origin: v0 = v - w x c.
        change = torch.zeros(6, 6, dtype=torch.float64, device=value.device)
        eye = torch.eye(3, dtype=torch.float64, device=value.device)
        change[:3, :3] = eye / size_m
        change[3:, 3:] = eye
        change[3:, :3] = skew_of(middle_m) / size_m
        covariance = change @ (variance[:, None, None] * inverse) @ change.T
        return covariance, value[:, 0] / self.weight.clamp_min(1)


def to_plane(moved: Tensor, target: Tensor, normal: Tensor, weight: Tensor, size_m: float) -> Equations:
    """Of distances along the surface's normals (Chen and Medioni, IVC 1992); everything [A, N, 3], weight [A, N]."""
    residual = ((moved - target) * normal).sum(-1, keepdim=True)
    row = torch.cat([torch.linalg.cross(moved, normal) / size_m, normal, residual], -1)
    product = _products(row, weight)
    return Equations(product[:, :6, :6], product[:, :6, 6], product[:, 6, 6], weight.sum(-1, dtype=torch.float64))


def to_point(moved: Tensor, target: Tensor, weight: Tensor, size_m: float) -> Equations:
    """Of distances to the surface's points themselves (Besl and McKay, TPAMI 1992)."""
    eye = torch.eye(3, dtype=moved.dtype, device=moved.device).expand(*moved.shape[:-1], 3, 3)
    row = torch.cat([-skew_of(moved) / size_m, eye, (moved - target)[..., None]], -1).flatten(1, 2)  # [A, 3N, 7]
    product = _products(row, weight.repeat_interleave(3, 1))
    return Equations(product[:, :6, :6], product[:, :6, 6], product[:, 6, 6], weight.sum(-1, dtype=torch.float64))


def _products(row: Tensor, weight: Tensor) -> Tensor:
    """Sums of w row^T row, float64 [A, 7, 7]; in single precision a direction that is not fixed could look fixed."""
    wide = row.double()
    return (wide * weight.double()[..., None]).transpose(1, 2) @ wide
