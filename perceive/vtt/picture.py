"""AreaResize: pictures made smaller by areas."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from sensors.errors import WiringError


@final
class AreaResize(nn.Module):
    """Pictures of one size as smaller square ones: a pixel becomes the mean of the area that it covers.

    Pixels that are covered in part count in part, so that no size needs to be a multiple of the other, and no pixel is
    skipped. Height and width shrink each by its own factor. A picture of the right size stays what it is, to the bit.

    Args:
        height: of the pictures that come.
        width: likewise.
        size: S, edge of those that leave.

    Raises:
        WiringError: the pictures are smaller than that.
    """

    def __init__(self, height: int, width: int, size: int) -> None:
        super().__init__()
        if min(height, width) < size:
            raise WiringError(
                "AreaResize", f"pictures of {size} x {size} pixels or more", f"{height} x {width}",
                "Use a camera with more pixels, or a network with a smaller image_px.",
            )  # fmt: skip
        self._same = height == width == size
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("rows", _shares(height, size), persistent=False)
        self.register_buffer("columns", _shares(width, size), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """Float [..., H, W] -> [..., S, S]."""
        if self._same:
            return picture
        smaller: Tensor = self.rows @ picture @ self.columns.T
        return smaller


def _shares(count: int, size: int) -> Tensor:
    """How much of each of ``size`` cells over ``count`` pixels each pixel is, float [size, count]; rows sum to 1."""
    edges = torch.arange(size + 1, dtype=torch.float64) * (count / size)
    pixel = torch.arange(count, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    return (overlap.clamp_min(0) * (size / count)).float()
