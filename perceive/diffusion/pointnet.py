"""PointNet: a set of points as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from sensors.errors import WiringError

_AT_ONCE = 4096  # points; their features stay in a processor's cache


@final
class PointNet(nn.Module):
    """The same small network for every point, the largest answer of each channel, and a projection of these.

    PointNet (Qi et al., CVPR 2017) in the form of 3D Diffusion Policy (Ze et al., RSS 2024): three layers with layer
    normalisation, no transformation networks. Where no point is valid the answer is a learned vector.

    Only the points with the largest answer get a gradient, at most one per channel. So all points are run without
    one, and these few are run again with it: the same gradient at less than half the cost.

    Args:
        inputs: numbers per point.
        width: D, of the answer.
        layers: widths of the layers.

    Raises:
        WiringError: no layer.
    """

    def __init__(self, inputs: int, width: int = 128, layers: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        if not layers:
            raise WiringError("PointNet.layers", "at least one width", "none", "(64, 128, 256) is published.")
        parts: list[nn.Module] = []
        for before, after in zip([inputs, *layers[:-1]], layers, strict=True):
            parts += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        # No ReLU before the maximum: a channel that no point excites would stay without a gradient.
        self.each = nn.Sequential(*parts[:-1])
        self.leave = nn.Sequential(nn.Linear(layers[-1], width), nn.LayerNorm(width))
        self.nothing = nn.Parameter(torch.zeros(width))

    def forward(self, points: Tensor, valid: Tensor) -> Tensor:
        """One vector [B, D] per set.

        Args:
            points: float [B, N, inputs]; anything where not valid.
            valid: bool [B, N].
        """
        there = valid.any(1, keepdim=True)
        # What is not valid becomes a copy of the first point that is, which cannot change a maximum.
        first = points.gather(1, valid.int().argmax(1)[:, None, None].expand(-1, 1, points.shape[2]))
        points = torch.where(valid[..., None], points, torch.where(there[..., None], first, 0.0))
        best, winner = self._best(points)
        if torch.is_grad_enabled():
            best = self._again(points, winner)
        return torch.where(there, self.leave(best), self.nothing)

    @torch.no_grad()
    def _best(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The largest answer of each channel [B, C] and the point that gave it."""
        sets = max(_AT_ONCE // points.shape[1], 1) if points.device.type == "cpu" else len(points)
        # Weights that autocast converts here must not be kept: in older versions of torch they lack the gradient.
        kept = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            found = [self.each(part).max(1) for part in torch.split(points, sets)]
        finally:
            torch.set_autocast_cache_enabled(kept)
        return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])

    def _again(self, points: Tensor, winner: Tensor) -> Tensor:
        """The answers of the points int64 [B, C] that were the best in channels 0 .. C - 1, with their gradient."""
        needed = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device).scatter_(1, winner, True)
        features = self.each(points[needed])
        row = (needed.flatten().cumsum(0) - 1).view_as(needed).gather(1, winner)
        best: Tensor = features.gather(0, row)
        return best
