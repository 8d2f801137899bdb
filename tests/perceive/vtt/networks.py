"""The three networks, small, and what they read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from perceive.vtt.base import FusionNetwork
from perceive.vtt.concatenation import Concatenation
from perceive.vtt.network import VttNetwork
from perceive.vtt.product_of_experts import ProductOfExperts

PX, PATCH, SIDE = 21, 7, 3

SMALL: dict[str, Callable[[], FusionNetwork]] = {
    "vtt": lambda: VttNetwork(PX, PATCH, token_width=48, depth=2, heads=4, mlp_ratio=2.0, compressed=8, width=32),
    "concatenation": lambda: Concatenation(PX, width=8),
    "product_of_experts": lambda: ProductOfExperts(PX, width=8, features=32),
}


def small(name: str, seed: int = 0) -> FusionNetwork:
    torch.manual_seed(seed)
    return SMALL[name]()


def seen(size: int = 5, seed: int = 0, px: int = PX) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Picture, wrench, and that both are there."""
    draw = torch.Generator().manual_seed(seed)
    there = torch.ones(size, dtype=torch.bool)
    return torch.rand(size, 3, px, px, generator=draw), torch.randn(size, 6, generator=draw), there, there.clone()
