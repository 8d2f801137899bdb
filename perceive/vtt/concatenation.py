"""Concatenation: a picture's numbers and a wrench's side by side."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from perceive.vtt.base import Fused, FusionNetwork
from perceive.vtt.convolution import PictureNet, WrenchNet, judge

IMAGE, WRENCH = 256, 32  # numbers of the feature that are the picture's and the wrench's


@final
class Concatenation(FusionNetwork):
    """256 numbers of a CNN beside 32 of an MLP: the first network that VTT is compared to (arXiv 2210.00121).

    Only the sizes are published ones: 288 features, 0.77 million parameters at the width 32. The published comparison
    sets it against a network of fifteen times its size; ``width=140`` makes it as large as VTT.

    What is not there is zeros in the feature.

    Args:
        image_px: S, edge of the picture.
        width: channels of the first convolution, see PictureNet and WrenchNet.

    Raises:
        WiringError: a size below 1.
    """

    def __init__(self, image_px: int = 84, width: int = 32) -> None:
        super().__init__()
        self._image_px = image_px
        self.picture = PictureNet(image_px, width, IMAGE)
        self.felt = WrenchNet(width, WRENCH)
        self.alignment = judge(self.width, width)
        self.contact = judge(self.width, width)

    @property
    def image_px(self) -> int:
        return self._image_px

    @property
    def width(self) -> int:
        return IMAGE + WRENCH

    def forward(self, image: Tensor, wrench: Tensor, image_there: Tensor, wrench_there: Tensor) -> Fused:
        picture = torch.where(image_there[:, None], self.picture(image, image_there), 0.0)
        felt = torch.where(wrench_there[:, None], self.felt(wrench, wrench_there), 0.0)
        features = torch.cat([picture, felt], 1)
        return Fused(features, self.alignment(features)[:, 0], self.contact(features)[:, 0])
