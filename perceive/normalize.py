"""Fitted affine maps with their inverse, saved with the model that uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class FieldStats:
    """Statistics of one field over a dataset; each array has the field's own shape."""

    mean: NDArray[Any]
    std: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]


class Affine(nn.Module):
    """``(x - shift) / scale`` per element, and its inverse; identity until fitted.

    Args:
        size: length of the last axis.
        floor: smallest scale, so that a constant entry is not blown up.
    """

    def __init__(self, size: int, floor: float = 1e-3) -> None:
        super().__init__()
        self._floor = floor
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, stats: FieldStats) -> None:
        """Map the data to zero mean and unit deviation.

        Raises:
            SpecError: the statistics are of another size, or not finite.
        """
        mean = torch.as_tensor(stats.mean, dtype=torch.float32).flatten()
        std = torch.as_tensor(stats.std, dtype=torch.float32).flatten()
        if mean.shape != self.shift.shape:
            raise SpecError(
                "Affine.fit",
                f"statistics of {self.shift.shape[0]} entries",
                f"{mean.shape[0]}",
                "Fit on the same fields.",
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise SpecError(
                "Affine.fit", "finite statistics", "NaN or infinity", "Check the dataset for corrupt frames."
            )
        self.shift.copy_(mean)
        self.scale.copy_(std.clamp_min(self._floor))

    def forward(self, value: Tensor) -> Tensor:
        """Physical [..., size] -> normalised."""
        return (value - self.shift) / self.scale

    def inverse(self, value: Tensor) -> Tensor:
        """Normalised [..., size] -> physical."""
        return value * self.scale + self.shift
