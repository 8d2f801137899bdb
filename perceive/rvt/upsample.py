"""From a grid of patch tokens to a picture: learned convex upsampling, and a convolution of an enlarged map."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from sensors.errors import WiringError

NEIGHBOURS = 9
MASK_SCALE = 0.1  # keeps the weights near uniform at the start, as in RAFT (there 0.25)


@final
class ConvexUpsample(nn.Module):
    """Logits of a picture from patch tokens; each pixel is a convex mix of the 3 x 3 coarse logits around it.

    Convex upsampling: Teed and Deng (RAFT), ECCV 2020; as heatmap decoder: Goyal et al. (RVT-2), RSS 2024.

    Args:
        width: channels C of a token.
        factor: pixels per token and axis.
        hidden: channels inside the net of the weights; ``2 * width`` if None.
    """

    def __init__(self, width: int, factor: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        self._factor = factor
        self.coarse = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        self.weights = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, NEIGHBOURS * factor**2, 1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, C, g, g] -> logits [B, 1, g * factor, g * factor]."""
        return convex_upsample(self.coarse(tokens), MASK_SCALE * self.weights(tokens), self._factor)


def convex_upsample(coarse: Tensor, weight_logits: Tensor, factor: int) -> Tensor:
    """Mix the 3 x 3 neighbourhood of each coarse value into ``factor`` x ``factor`` pixels.

    Outside the border the map counts as 0, as in RAFT.

    Args:
        coarse: [B, 1, h, w].
        weight_logits: [B, 9 * factor * factor, h, w], neighbour slowest, then the pixel's row and column; the softmax
            over the neighbours gives the weights.
        factor: pixels per coarse value and axis.

    Returns:
        [B, 1, h * factor, w * factor].
    """
    B, _, h, w = coarse.shape
    weights = weight_logits.view(B, NEIGHBOURS, factor**2, h, w).softmax(1)
    around = nn.functional.unfold(coarse, 3, padding=1).view(B, NEIGHBOURS, 1, h, w)
    return nn.functional.pixel_shuffle((weights * around).sum(1), factor)


@final
class EnlargedConv(nn.Module):
    """A convolution of a bilinearly enlarged map, without ever making the enlarged map.

    Equal to ``conv2d(interpolate(x, scale_factor=factor, mode="bilinear"), padding=kernel // 2)``, the decoder of RVT
    (Goyal et al., CoRL 2023), but with a fraction of its products (8 instead of 120 billion for 5 views of 220 px):
    enlarging and shifting are linear along each axis, so the kernel meets the coarse map first (as a 1 x 1 convolution
    to one channel per tap), and two matrix products, one per axis, then place and blend every tap.

    Args:
        channels: channels in.
        out_channels: channels out.
        kernel: side of the kernel, odd.
        coarse: side of the coarse map.
        factor: how many times the map is enlarged.

    Raises:
        WiringError: an even kernel.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int, coarse: int, factor: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise WiringError("EnlargedConv.kernel", "an odd side", str(kernel), "An even kernel has no centre.")
        bound = 1 / math.sqrt(channels * kernel**2)  # as nn.Conv2d starts
        self.weight = nn.Parameter(torch.empty(out_channels, channels, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.placing: Tensor
        self.register_buffer("placing", _placing(kernel, coarse, factor), persistent=False)

    def forward(self, coarse: Tensor) -> Tensor:
        """[B, I, g, g] -> [B, O, g * factor, g * factor]."""
        B, _, g, _ = coarse.shape
        O, I, K, _ = self.weight.shape  # noqa: E741 (channels in)
        taps = nn.functional.conv2d(coarse, self.weight.permute(0, 2, 3, 1).reshape(O * K * K, I, 1, 1))
        taps = taps.view(B, O, K, K, g, g).transpose(3, 4)  # tap row, row, tap column, column
        across = taps.reshape(B, O, K * g, K * g) @ self.placing
        return self.placing.T @ across + self.bias[:, None, None]


def _placing(kernel: int, coarse: int, factor: int) -> Tensor:
    """How much of coarse cell ``c`` tap ``k`` brings to fine pixel ``x``: [kernel * coarse, coarse * factor]."""
    enlarge = nn.functional.interpolate(torch.eye(coarse)[None], scale_factor=factor, mode="linear")[0]
    half = kernel // 2
    padded = nn.functional.pad(enlarge, (half, half))
    return torch.stack([padded[:, k : k + coarse * factor] for k in range(kernel)]).flatten(0, 1)
