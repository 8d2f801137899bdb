"""FusionNetwork, the interface of everything that makes one feature of a picture and a wrench."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Fused:
    """What a picture and a wrench say together.

    Attributes:
        features: float [B, W].
        alignment: float [B], logit of "this picture and this wrench were measured together".
        contact: float [B], logit of "the wrench is of a contact".
        mean: float [B, W] of the Gaussian that the features are drawn from, where the network says one.
        variance: float [B, W] of it.
    """

    features: Tensor
    alignment: Tensor
    contact: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None


class FusionNetwork(nn.Module, ABC):
    """Picture and wrench -> :class:`Fused`, the same for all networks so that a config can choose one."""

    @property
    @abstractmethod
    def image_px(self) -> int:
        """S, edge of the picture that it reads."""

    @property
    @abstractmethod
    def width(self) -> int:
        """W, of the features."""

    @property
    def bare(self) -> tuple[str, ...]:
        """Endings of the names of its parameters that are not to decay although they are matrices."""
        return ()

    @abstractmethod
    def forward(self, image: Tensor, wrench: Tensor, image_there: Tensor, wrench_there: Tensor) -> Fused:
        """Fuse. What is not there is never read, and is no picture of zeros to the network: its part is left out.

        Args:
            image: float [B, 3, S, S] in [0, 1]; anything where it is not there.
            wrench: float [B, 6], force and torque, scaled; anything where it is not there.
            image_there: bool [B].
            wrench_there: bool [B].
        """


def keep_scale(part: nn.Module) -> None:
    """Start layers so that what enters and what leaves vary alike (He et al., ICCV 2015), without biases.

    torch's own start shrinks differences between samples to a third per layer: after five layers the biases are nearly
    all that is left of a picture.
    """
    for layer in part.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
