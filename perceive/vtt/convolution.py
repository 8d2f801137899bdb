"""The parts of the networks that VTT is compared to: convolutions for a picture, MLPs for a wrench and for logits."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from perceive.vtt.base import keep_scale
from sensors.errors import WiringError


@final
class PictureNet(nn.Module):
    """A picture [B, 3, S, S] as a vector [B, outputs]: five convolutions that halve it each, and one layer.

    Args:
        image_px: S.
        width: channels of the first convolution; the others have 2, 4, 8 and 2 times as many.
        outputs: size of the vector.

    Raises:
        WiringError: a width below 1.
    """

    def __init__(self, image_px: int, width: int, outputs: int) -> None:
        super().__init__()
        if width < 1 or image_px < 1:
            raise WiringError("PictureNet", "image_px and width >= 1", f"{image_px} and {width}", "Correct them.")
        channels = [3, *(width * times for times in (1, 2, 4, 8, 2))]
        layers: list[nn.Module] = []
        edge = image_px
        for before, after, kernel in zip(channels[:-1], channels[1:], (5, 3, 3, 3, 3), strict=True):
            layers += [nn.Conv2d(before, after, kernel, 2, kernel // 2), nn.GELU()]
            edge = (edge + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * edge * edge, outputs))
        keep_scale(self.layers)

    def forward(self, image: Tensor, there: Tensor) -> Tensor:
        """The vector [B, outputs]; what is not there, ``there`` bool [B], is read as zeros."""
        # Selected before the first layer: a NaN that reached its weights' gradient would stay.
        read: Tensor = self.layers(torch.where(there[:, None, None, None], image, 0.0))
        return read


@final
class WrenchNet(nn.Module):
    """A wrench [B, 6] as a vector [B, outputs].

    Args:
        width: a sixth of that of its two hidden layers.
        outputs: size of the vector.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        hidden = 6 * width
        self.layers = nn.Sequential(
            nn.Linear(6, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, outputs)
        )
        keep_scale(self.layers)

    def forward(self, wrench: Tensor, there: Tensor) -> Tensor:
        """The vector [B, outputs]; what is not there, ``there`` bool [B], is read as zeros."""
        read: Tensor = self.layers(torch.where(there[:, None], wrench, 0.0))
        return read


def judge(features: int, width: int) -> nn.Module:
    """Features [B, W] -> a logit [B, 1]; ``2 * width`` hidden units.

    Not linear: what is linear in numbers of the picture beside numbers of the wrench is a sum of what each says alone,
    which cannot say whether they belong together.
    """
    layers = nn.Sequential(nn.Linear(features, 2 * width), nn.GELU(), nn.Linear(2 * width, 1))
    keep_scale(layers)
    return layers
