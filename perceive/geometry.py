"""The conventions of ``sensors.geometry`` in torch: batched and differentiable."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which automatic mixed precision is off: half-precision metres are off by millimetres."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def widened(value: Tensor) -> Tensor:
    """The value in single precision at least."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def transform_points(a_from_b: Tensor, points_b_m: Tensor) -> Tensor:
    """Points [..., N, 3] in frame ``b`` to frame ``a`` by transforms [..., 4, 4]."""
    with full_precision(points_b_m.device):
        return points_b_m @ a_from_b[..., :3, :3].transpose(-1, -2) + a_from_b[..., None, :3, 3]


def camera_rays(intrinsics_px: Tensor, height: int, width: int) -> Tensor:
    """Camera-frame points [B, H * W, 3] at depth 1 m, for intrinsics [B, 4]; integer pixels are pixel centres."""
    fx, fy, cx, cy = intrinsics_px[:, :, None, None].unbind(1)
    v = torch.arange(height, device=intrinsics_px.device, dtype=intrinsics_px.dtype)[None, :, None]
    u = torch.arange(width, device=intrinsics_px.device, dtype=intrinsics_px.dtype)[None, None, :]
    x = ((u - cx) / fx).expand(-1, height, -1)
    y = ((v - cy) / fy).expand(-1, -1, width)
    return torch.stack([x, y, torch.ones_like(x)], -1).flatten(1, 2)


def matrix_to_rotation_6d(rotation: Tensor) -> Tensor:
    """The first two *columns* [..., 6] of rotation matrices [..., 3, 3] (Zhou et al., CVPR 2019)."""
    return torch.cat([rotation[..., 0], rotation[..., 1]], -1)


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] by Gram-Schmidt from two columns [..., 6] (Zhou et al., CVPR 2019)."""
    x = torch.nn.functional.normalize(rotation_6d[..., :3], dim=-1)
    second = rotation_6d[..., 3:]
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def turn_z(angle_rad: Tensor) -> Tensor:
    """Rigid transforms [B, 4, 4] that turn about the z axis by angles [B]."""
    out = torch.eye(4, dtype=angle_rad.dtype, device=angle_rad.device).repeat(angle_rad.shape[0], 1, 1)
    cosine, sine = angle_rad.cos(), angle_rad.sin()
    out[:, 0, 0], out[:, 0, 1], out[:, 1, 0], out[:, 1, 1] = cosine, -sine, sine, cosine
    return out


def axis_angle_to_matrix(rotation_vector_rad: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of rotation vectors [..., 3]."""
    x, y, z = rotation_vector_rad.unbind(-1)
    zero = torch.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    skew = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return torch.matrix_exp(skew)
