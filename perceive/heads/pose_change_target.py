"""What the head of pose changes is to say."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class ChangeTarget:
    """B hypotheses beside the truth that looks the same and is nearest.

    Attributes:
        turn: float [B, 3, 3], the true change, see :class:`perceive.pose.compare.PoseChange`.
        shift: float [B, 2].
        depth: float [B].
        near: bool [B], whether the change is to be learned: gross hypotheses are only to be recognised.
        right: bool [B], whether the hypothesis counts as right.
        points: float [B, P, 3], the hypothesis' surface about its middle, in the crop's axes and diameters.
        mask: bool [B, h, h] with h = S / 2, the object's visible pixels in what was seen.
    """

    turn: Tensor
    shift: Tensor
    depth: Tensor
    near: Tensor
    right: Tensor
    points: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> ChangeTarget:
        """The same target on a device."""
        return replace(self, **{one.name: getattr(self, one.name).to(device) for one in fields(self)})
