"""What the head of object coordinates is to say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from perceive.pose.crop_source import CropSource


@final
@dataclass(frozen=True, eq=False)
class PoseTarget:
    """B asked objects in B crops.

    Attributes:
        which: int64 [B], the index of the object that is asked for.
        present: bool [B], whether the crop shows it.
        mask: bool [B, h, w], its visible pixels.
        coordinates_m: float [B, h, w, 3], what is seen there, in the object's frame; 0 elsewhere.
        frame_from_object: float [B, 4, 4], its pose in the crop's frame.
        numbers: int64 [K], the objects' numbers by index.
        symmetries: float [K, S, 4, 4], object from object, the identity first; filled up with the identity.
        source: what the crops were cut out of, for augmentation; None = cut for good.
    """

    which: Tensor
    present: Tensor
    mask: Tensor
    coordinates_m: Tensor
    frame_from_object: Tensor
    numbers: Tensor
    symmetries: Tensor
    source: CropSource | None = None

    def to(self, device: torch.device | str) -> PoseTarget:
        """The same target on a device, without its source."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("which", "present", "mask", "coordinates_m", "frame_from_object", "numbers", "symmetries")
        }
        return replace(self, **moved, source=None)
