"""Slopes and normals of a height map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sensors.tactile.gel import Gel


def slopes(height_m: Tensor, gel: Gel) -> tuple[Tensor, Tensor]:
    """Metres per metre along +x and +y, each [B, h, w].

    Central differences; at the border that of the neighbour further in, so that a tilted plane is exact everywhere.
    """
    dy, dx = gel.pitch_m
    inner = height_m[:, 1:-1, 1:-1]
    assert inner.numel() or not height_m.numel()
    along_x = (height_m[:, 1:-1, 2:] - height_m[:, 1:-1, :-2]) * (0.5 / dx)
    along_y = (height_m[:, 2:, 1:-1] - height_m[:, :-2, 1:-1]) * (0.5 / dy)
    edges = (1, 1, 1, 1)
    return (
        functional.pad(along_x[:, None], edges, mode="replicate")[:, 0],
        functional.pad(along_y[:, None], edges, mode="replicate")[:, 0],
    )


def normals(along_x: Tensor, along_y: Tensor) -> Tensor:
    """Unit normals [B, 3, h, w] of the gel's inner face for its slopes [B, h, w].

    Components along +x, +y and towards the camera; where the gel bulges towards it they point away from the top.
    """
    scale = (1 + along_x * along_x + along_y * along_y).rsqrt()
    return torch.stack([-along_x * scale, -along_y * scale, scale], dim=1)
