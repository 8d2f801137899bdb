"""ProductOfExperts: a picture and a wrench each say a Gaussian, and the feature is their product."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from perceive.geometry import full_precision, widened
from perceive.vtt.base import Fused, FusionNetwork
from perceive.vtt.convolution import PictureNet, WrenchNet, judge
from sensors.errors import SpecError

LEAST_VARIANCE = 1e-4  # so that one expert cannot silence the other for good
SURE = 4.0  # untrained experts have variances about softplus(-4) = 0.02: from 1 on, what is drawn is noise and stays it


@final
class ProductOfExperts(FusionNetwork):
    """The product of a picture's, a wrench's and a standard Gaussian: the second network that VTT is compared to.

    Product of experts: Hinton, Neural Computation 2002; with a standard normal prior as one of them, so that any may be
    absent: Wu & Goodman, NeurIPS 2018; over picture and wrench: Lee et al., T-RO 2020. Only the sizes are those of the
    VTT comparison (arXiv 2210.00121): 288 features, 1.06 million parameters at the width 32; ``width=132`` makes it as
    large as VTT.

    What is not there is no factor; without both the feature is that of the prior: mean 0, variance 1.

    Args:
        image_px: S, edge of the picture.
        width: channels of the first convolution, see PictureNet and WrenchNet.
        features: W, size of the Gaussians.
        sample: in training the feature is drawn from the product instead of being its mean; its noise comes from
            torch's global generator.

    Raises:
        WiringError: a size below 1.
    """

    def __init__(self, image_px: int = 84, width: int = 32, features: int = 288, sample: bool = True) -> None:
        super().__init__()
        self._image_px, self._features, self._sample = image_px, features, sample
        self.picture = PictureNet(image_px, width, 2 * features)
        self.felt = WrenchNet(width, 2 * features)
        self.alignment = judge(features, width)
        self.contact = judge(features, width)

    @property
    def image_px(self) -> int:
        return self._image_px

    @property
    def width(self) -> int:
        return self._features

    def forward(self, image: Tensor, wrench: Tensor, image_there: Tensor, wrench_there: Tensor) -> Fused:
        said = torch.stack([self.picture(image, image_there), self.felt(wrench, wrench_there)], 1)
        with full_precision(said.device):
            means, spread = widened(said).chunk(2, -1)
            there = torch.stack([image_there, wrench_there], 1)
            mean, variance = product_of_gaussians(means, softplus(spread - SURE) + LEAST_VARIANCE, there)
            features = mean
            if self.training and self._sample:
                features = mean + variance.sqrt() * torch.randn_like(mean)
        return Fused(features, self.alignment(features)[:, 0], self.contact(features)[:, 0], mean, variance)


def product_of_gaussians(means: Tensor, variances: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [B, W] of the normalised product of Gaussians and a standard one.

    The precisions add up, and the mean is the mean of the means weighted by them.

    Args:
        means: [B, M, W]; anything where not there.
        variances: [B, M, W], above 0; anything where not there.
        there: bool [B, M], which of the Gaussians are factors.

    Raises:
        SpecError: sizes that differ.
    """
    if means.shape != variances.shape or means.ndim != 3 or there.shape != means.shape[:2]:
        raise SpecError(
            "product_of_gaussians", "means and variances [B, M, W], there [B, M]",
            f"{tuple(means.shape)}, {tuple(variances.shape)}, {tuple(there.shape)}", "Correct them.",
        )  # fmt: skip
    keep = there[..., None]
    precision = torch.where(keep, 1 / torch.where(keep, variances, 1.0), 0.0)
    total = 1 + precision.sum(1)
    mean = (torch.where(keep, means, 0.0) * precision).sum(1) / total
    return mean, 1 / total
