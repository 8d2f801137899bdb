"""The cube that virtual views look at, and the way into it and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sensors.errors import SpecError


@final
@dataclass(frozen=True)
class Cube:
    """One axis-aligned cube in the base frame per sample; inside it, coordinates run over [-1, 1]^3.

    Paper: the workspace cube of PerAct (Shridhar et al., CoRL 2022) and RVT (Goyal et al., CoRL 2023); ``zoomed`` is
    the second stage of RVT-2 (Goyal et al., RSS 2024).

    Attributes:
        centre_m: [B, 3], base frame.
        half_m: [B], half of the edge, positive.

    Raises:
        SpecError: the shapes do not fit.
    """

    centre_m: Tensor
    half_m: Tensor

    def __post_init__(self) -> None:
        if self.centre_m.ndim != 2 or self.centre_m.shape != (self.half_m.numel(), 3) or self.half_m.ndim != 1:
            raise SpecError(
                "Cube",
                "centre_m [B, 3] and half_m [B]",
                f"{tuple(self.centre_m.shape)} and {tuple(self.half_m.shape)}",
                "Give one centre and one half edge per sample.",
            )

    @classmethod
    def around(
        cls, low_m: Sequence[float] | Tensor, high_m: Sequence[float] | Tensor, batch: int, device: torch.device | str
    ) -> Cube:
        """The smallest cube with the middle of a box, the same for every sample.

        Args:
            low_m: lower corner of the box [3], base frame.
            high_m: upper corner [3].
            batch: B.
            device: where its tensors live.

        Raises:
            SpecError: not two corners with low below high.
        """
        low = torch.as_tensor(low_m, dtype=torch.float32, device=device)
        high = torch.as_tensor(high_m, dtype=torch.float32, device=device)
        if low.shape != (3,) or high.shape != (3,) or not bool((high > low).all()):
            raise SpecError(
                "Cube.around", "low_m [3] below high_m [3]", f"{low.tolist()} and {high.tolist()}", "Give the box."
            )
        centre, half = (low + high) / 2, (high - low).max() / 2
        return cls(centre.expand(batch, 3).clone(), half.expand(batch).clone())

    def normalise(self, points_m: Tensor) -> Tensor:
        """Points [B, ..., 3] of the base frame in units of the cube: its corners become +-1."""
        centre_m, half_m = self._like(points_m)
        return (points_m - centre_m) / half_m

    def restore(self, points: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`: points [B, ..., 3] in units of the cube, in metres in the base frame."""
        centre_m, half_m = self._like(points)
        return points * half_m + centre_m

    def inside(self, points_m: Tensor) -> Tensor:
        """Which points [B, ..., 3] of the base frame lie in the cube, its faces included: bool [B, ...]. NaN is not."""
        return in_cube(self.normalise(points_m))

    def zoomed(self, centre: Tensor, factor: float) -> Cube:
        """A cube ``factor`` times smaller about another centre [B, 3], given in units of this cube.

        Raises:
            SpecError: the factor is not positive.
        """
        if not factor > 0:
            raise SpecError("Cube.zoomed", "a positive factor", str(factor), "4 is the published zoom.")
        return Cube(self.restore(centre), self.half_m / factor)

    def _like(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Centre [B, ..., 3] and half edge [B, ..., 1] shaped to meet points [B, ..., 3]."""
        batch = self.half_m.numel()
        if points.ndim < 2 or points.shape[0] != batch or points.shape[-1] != 3:
            raise SpecError(
                "Cube", f"points [{batch}, ..., 3]", str(tuple(points.shape)), "Give one set of points per cube."
            )
        ones = (1,) * (points.ndim - 2)
        return self.centre_m.view(batch, *ones, 3), self.half_m.view(batch, *ones, 1)


def in_cube(points: Tensor) -> Tensor:
    """Which points [..., 3] in units of the cube lie in [-1, 1]^3, its faces included: bool [...]. NaN does not."""
    x, y, z = (points.abs() <= 1.0).unbind(-1)
    return x & y & z
