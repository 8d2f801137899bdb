"""The last step of a picture: noise of the camera, and grey values of eight bits."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(planes: Tensor) -> Tensor:
    """Grey values, float [B, 3, h, w] -> uint8 [B, h, w, 3], rounded and clipped to 0 .. 255."""
    B, _, h, w = planes.shape
    out = torch.empty(B, h, w, 3, dtype=torch.uint8, device=planes.device)
    for channel in range(3):
        out[..., channel] = planes[:, channel].round().clamp_(0, 255)
    return out


def with_noise(planes: Tensor, std: Tensor | float, generator: torch.Generator) -> Tensor:
    """Noise of the camera on grey values, float [B, 3, h, w]; ``std``: one for all, or one for each picture [B]."""
    noise = torch.randn(planes.shape, dtype=planes.dtype, device=planes.device, generator=generator)
    each = std.to(planes)[:, None, None, None] if isinstance(std, Tensor) else std
    return planes + noise * each
