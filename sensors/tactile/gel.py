"""Gel: size and pixel grid of the soft layer, and what a height map over it must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sensors.errors import SpecError
from sensors.simulated import check_settings, positive


@final
@dataclass(frozen=True)
class Gel:
    """The soft layer of a fingertip and the pixels that it is seen with.

    Attributes:
        height_m: size along +y (down the picture), metres.
        width_m: size along +x, metres.
        thickness_m: how thick it is, metres; nothing can be pressed in further.
        rows: h, pixels down the picture.
        columns: w, pixels across.

    Raises:
        SpecError: a size is not positive.
    """

    height_m: float
    width_m: float
    thickness_m: float
    rows: int
    columns: int

    def __post_init__(self) -> None:
        check_settings(
            "Gel",
            {
                **positive({"height_m": self.height_m, "width_m": self.width_m, "thickness_m": self.thickness_m}),
                "rows": (self.rows >= 3, self.rows, "at least 3"),
                "columns": (self.columns >= 3, self.columns, "at least 3"),
            },
        )

    @property
    def pitch_m(self) -> tuple[float, float]:
        """Size of a pixel along y and x, metres."""
        return self.height_m / self.rows, self.width_m / self.columns

    def with_pixels(self, rows: int, columns: int) -> Gel:
        """The same gel seen with other pixels."""
        return Gel(self.height_m, self.width_m, self.thickness_m, rows, columns)

    def centres(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Places of the pixels' centres: y [h, 1] and x [1, w], metres from the middle."""
        row = torch.arange(self.rows, dtype=dtype, device=device)
        column = torch.arange(self.columns, dtype=dtype, device=device)
        y = ((row + 0.5) / self.rows - 0.5) * self.height_m
        x = ((column + 0.5) / self.columns - 0.5) * self.width_m
        return y[:, None], x[None, :]

    def check(self, overlap_m: Tensor, where: str = "height map") -> Tensor:
        """The height map [B, h, w] as it came, after a look at it.

        Raises:
            SpecError: not a float tensor of this size, not finite, or negative.
        """
        expected = f"a float tensor [B, {self.rows}, {self.columns}]"
        shape = tuple(overlap_m.shape)
        if not overlap_m.is_floating_point() or overlap_m.ndim != 3 or shape[1:] != (self.rows, self.columns):
            fix = "Render it for this gel's pixels; a single map needs a batch of one: overlap_m[None]."
            raise SpecError(where, expected, f"{overlap_m.dtype} {list(shape)}", fix)
        if overlap_m.numel() == 0:
            return overlap_m
        low, high = (float(bound) for bound in torch.aminmax(overlap_m.detach()))
        if not low >= 0 or not high < float("inf"):  # NaN fails every comparison
            got = f"values from {low} to {high}" if low == low else "NaN"
            fix = "It is how far the object stands inside the gel; outside it is 0: clamp(min=0), and look for NaN."
            raise SpecError(where, "finite metres >= 0", got, fix)
        return overlap_m
