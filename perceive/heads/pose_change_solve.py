"""The rigid motion that explains how points before a camera are seen to move, by weighted least squares."""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 3e-4  # of the mean weight: what nothing is known of does not move


def rigid_motion(points: Tensor, motion: Tensor, weights: Tensor, focal: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Gauss and Newton: the turn and the shift that fit motions of points best. Differentiable.

    Lengths are in one unit of the caller's choice; the camera looks along z at the middle that points are relative to.

    Args:
        points: [B, N, 3], about the middle, in the camera's axes.
        motion: [B, N, 3]: how far each is seen to move right and down as a share of the picture's width, and how much
            farther away than the middle it comes, as a length.
        weights: [B, N, 2], at least 0: of what is seen in the picture, and of the distance.
        focal: [B, 2], focal lengths as a share of the picture's width.
        away: [B], distance of the middle.

    Returns:
        Rotation vectors [B, 3] about the middle, and shifts [B, 3] of it.
    """
    depth = (away[:, None] + points[..., 2]).clamp_min(1e-3)
    slope = points[..., :2] / depth[..., None]
    seen = motion[..., :2] * depth[..., None] / focal[:, None]  # as lengths at the points' distance
    x, y, z = points.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    # How a point moves with a rotation vector (w x p) and a shift, axis by axis: [B, N, 3, 6].
    moves = torch.stack(
        [
            torch.stack([zero, z, -y, one, zero, zero], -1),
            torch.stack([-z, zero, x, zero, one, zero], -1),
            torch.stack([y, -x, zero, zero, zero, one], -1),
        ],
        2,
    )
    turned = moves[:, :, 2:] * torch.tensor([1.0, 1, 1, 1, 1, 0], device=points.device, dtype=points.dtype)
    rows = torch.cat([moves[:, :, :2] - slope[..., None] * moves[:, :, 2:], turned], 2)
    asked = torch.cat([seen, motion[..., 2:]], -1)
    weight = torch.cat([weights[..., :1], weights], -1)
    pull = rows * weight[..., None]
    normal = torch.einsum("bnki,bnkj->bij", pull, rows)
    right = torch.einsum("bnki,bnk->bi", pull, asked)
    damping = DAMPING * weight.sum((1, 2)) + 1e-6
    normal = normal + damping[:, None, None] * torch.eye(6, device=points.device, dtype=points.dtype)
    answer = torch.linalg.solve(normal, right)
    return answer[:, :3], answer[:, 3:]
