"""The layers between tokens and maps of object coordinates."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class CoordinateNet(nn.Module):
    """Tokens of a crop and the crop itself -> a map at half of its resolution.

    Args:
        width: D.
        side: tokens along each side of the crop.
        factor: pixels of the map along each side of a token's patch; even.
        channels: of the convolutions.
        told: channels that each pixel gets from its token.
        outputs: channels of the map: the mask, 3 coordinates, the logarithm of their spread, and any others.
    """

    def __init__(self, width: int, side: int, factor: int, channels: int, told: int, outputs: int) -> None:
        super().__init__()
        self._side, self._factor, self._told = side, factor, told
        self.token = nn.Linear(width, told * factor**2)
        self.affine = nn.Linear(width, 12)
        self.raw = nn.Conv2d(7 * 4 + 4, channels, 3, padding=1)  # four pixels of the crop, and their mean point
        self.film = nn.Linear(width, 2 * channels)
        self.mix = nn.Conv2d(channels + told + 3, channels, 3, padding=1)
        self.near = nn.Conv2d(channels, channels, 3, padding=1)
        self.far = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.out = nn.Conv2d(channels, outputs, 1)

    def forward(
        self, tokens: Tensor, readout: Tensor, rgb: Tensor, points: Tensor, hit: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The map, the mean measured point of its pixels, and where there is one.

        Args:
            tokens: [B, side * side, D], row by row.
            readout: [B, D].
            rgb: [B, S, S, 3], about 0.
            points: [B, S, S, 3], about 0, of order 1.
            hit: bool [B, S, S], which of them were measured.

        Returns:
            float [B, S / 2, S / 2, outputs], [B, S / 2, S / 2, 3], bool [B, S / 2, S / 2].
        """
        size, side, factor = len(tokens), self._side, self._factor
        known = hit[:, None].to(points.dtype)
        place = points.permute(0, 3, 1, 2)
        count = nn.functional.avg_pool2d(known, 2)
        measured = nn.functional.avg_pool2d(place * known, 2) / count.clamp_min(0.25)
        there = count > 0
        middle = torch.where(there, measured, nn.functional.avg_pool2d(place, 2))
        plain = torch.cat([rgb.permute(0, 3, 1, 2), place, known], 1)
        raw = torch.cat([nn.functional.pixel_unshuffle(plain, 2), middle, there.to(points.dtype)], 1)
        gain, shift = self.film(readout)[..., None, None].chunk(2, 1)
        seen = nn.functional.gelu(self.raw(raw) * (1 + gain) + shift)
        told = self.token(tokens).transpose(1, 2).reshape(size, -1, side, side)
        told = nn.functional.pixel_shuffle(told, factor)
        rule = self.affine(tokens).transpose(1, 2).reshape(size, 12, side, side)
        rule = nn.functional.interpolate(rule, scale_factor=factor, mode="bilinear", align_corners=False)
        turn = rule[:, :9].reshape(size, 3, 3, *rule.shape[2:])
        voted = (turn * middle[:, None]).sum(2) + rule[:, 9:]
        x = nn.functional.gelu(self.mix(torch.cat([seen, told, voted], 1)))
        x = x + nn.functional.gelu(self.near(x))
        x = x + nn.functional.gelu(self.far(x))
        out = self.out(x)
        out = torch.cat([out[:, :1], out[:, 1:4] + voted, out[:, 4:]], 1)
        return out.permute(0, 2, 3, 1), measured.permute(0, 2, 3, 1), there[:, 0]
