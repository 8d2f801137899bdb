"""What makes features tell things apart."""

from __future__ import annotations

from torch import Tensor


def spread_out(values: Tensor, valid: Tensor) -> Tensor:
    """Features [B, N, C] less their mean over the valid ones of a cloud, as shares of their deviation.

    What all have in common tells nothing apart, and similarities of features that are mostly that teach nothing.
    A cloud may be any set of things; where none is valid nothing is taken off.
    """
    there = valid[..., None].to(values.dtype)
    count = there.sum(1, keepdim=True).clamp_min(1)
    apart = values - (values * there).sum(1, keepdim=True) / count
    square = (apart.square() * there).sum(1, keepdim=True) / count
    return apart * (square + 1e-4).rsqrt()
