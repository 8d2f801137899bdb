"""Slopes where pixels are dead: what lies between their neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SWEEPS = 24


def fill(values: Tensor, good: Tensor) -> Tensor:
    """Values [B, C, h, w] with those at pixels that are not good replaced smoothly.

    First from means over ever larger blocks (as many as it takes to meet a good pixel), then levelled out until each is
    about the mean of its neighbours, so that no step remains at the rim of a hole.

    Args:
        values: float [B, C, h, w]; where not good they may be anything, NaN included.
        good: bool [B, h, w].
    """
    if bool(good.all()):
        return values
    mask = good[:, None]
    clean = torch.where(mask, values, torch.zeros_like(values))
    filled = torch.where(mask, values, _coarse(clean, mask.to(values.dtype)))
    for _ in range(_SWEEPS):
        padded = functional.pad(filled, (1, 1, 1, 1), mode="replicate")
        around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        filled = torch.where(mask, values, around / 4)
    return filled


def _coarse(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted means from coarse to fine: those of the finest blocks that hold any good pixel."""
    h, w = values.shape[2:]
    if h == 1 and w == 1:
        return values
    sums = functional.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)
    weights = functional.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    means = torch.where(weights > 0, sums / weights.clamp(min=1e-6), torch.zeros_like(sums))
    known = (weights > 0).to(values.dtype)
    below = _coarse(means, known)
    smaller = torch.where(known > 0, means, below)
    out: Tensor = functional.interpolate(smaller, size=(h, w), mode="bilinear", align_corners=False)
    return out
