"""What the head of query coordinates is to say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from perceive.pose.crop_source import CropSource


@final
@dataclass(frozen=True, eq=False)
class Episode:
    """What B samples were cut out of, for augmentation.

    Attributes:
        query: B wide crops.
        references: B * K wide crops, the K of one sample in a row.
        there: bool [B, K], which references there are.
        symmetries: float [B, S, 4, 4], of the objects, object from object, metres.
    """

    query: CropSource
    references: CropSource
    there: Tensor
    symmetries: Tensor


@final
@dataclass(frozen=True, eq=False)
class QueryTarget:
    """What B query crops show, in the frame and scale that the references are stated in.

    Attributes:
        mask: bool [B, h, w], the object's visible pixels.
        coordinates_m: float [B, h, w, 3], what is seen there, in the references' frame; 0 elsewhere.
        symmetries: float [B, S, 4, 4], in that frame, the identity first; filled up with the identity.
        frame_from_object: float [B, 4, 4], the pose in the crop's frame.
        episode: what it was cut out of; None = cut for good.
    """

    mask: Tensor
    coordinates_m: Tensor
    symmetries: Tensor
    frame_from_object: Tensor
    episode: Episode | None = None

    def to(self, device: torch.device | str) -> QueryTarget:
        """The same target on a device, without its episode."""
        names = ("mask", "coordinates_m", "symmetries", "frame_from_object")
        return replace(self, **{name: getattr(self, name).to(device) for name in names}, episode=None)
