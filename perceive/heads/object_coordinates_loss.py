"""Losses of object coordinates and poses, against the nearest of all truths that look alike."""

from __future__ import annotations

import torch
from torch import Tensor

_CHOICE = 3  # every third pixel along each side is enough to tell which truth is nearest


def nearest_truth(guess_m: Tensor, truth_m: Tensor, mask: Tensor, symmetries: Tensor) -> Tensor:
    """Coordinates [B, h, w, 3] under the symmetry of each sample whose coordinates are nearest to the guess.

    An object with symmetries looks the same with other coordinates on it; which of them the file happens to name is not
    to be learned (Park et al., Pix2Pose, ICCV 2019).

    Args:
        guess_m: float [B, h, w, 3] in the object's frame; gives no gradient.
        truth_m: float [B, h, w, 3], as labelled.
        mask: bool [B, h, w], where they count.
        symmetries: float [B, S, 4, 4].
    """
    with torch.no_grad():
        part = (slice(None), slice(1, None, _CHOICE), slice(1, None, _CHOICE))
        some, near, there = truth_m[part].flatten(1, 2), guess_m[part].flatten(1, 2), mask[part].flatten(1)
        moved = some[:, None] @ symmetries[..., :3, :3].mT + symmetries[..., None, :3, 3]  # [B, S, P, 3]
        off = (moved - near[:, None]).abs().sum(-1)
        best = torch.where(there[:, None], off, 0.0).sum(-1).argmin(1)
        chosen = symmetries[torch.arange(len(best), device=best.device), best]
        out = truth_m.flatten(1, 2) @ chosen[:, :3, :3].mT + chosen[:, None, :3, 3]
        return torch.where(mask[..., None], out.view_as(truth_m), 0.0)


def point_matching(guess: Tensor, truth: Tensor, points_m: Tensor, symmetries: Tensor) -> Tensor:
    """How far points of the object are from where they should be, metres [B], under the best symmetry of each sample.

    Li et al., DeepIM (ECCV 2018), with the least over the symmetries as in BOP's MSSD.

    Args:
        guess: float [B, 4, 4], frame from object.
        truth: float [B, 4, 4].
        points_m: float [B, P, 3] on the object.
        symmetries: float [B, S, 4, 4].
    """
    placed = points_m @ guess[:, :3, :3].mT + guess[:, None, :3, 3]
    alike = truth[:, None] @ symmetries
    wanted = points_m[:, None] @ alike[..., :3, :3].mT + alike[..., None, :3, 3]  # [B, S, P, 3]
    off: Tensor = (placed[:, None] - wanted).abs().sum(-1).mean(-1)
    return off.amin(1)


def region_of(points_m: Tensor, centres_m: Tensor) -> Tensor:
    """The index [B, P] of the nearest of the centres [B, R, 3] to each of the points [B, P, 3]."""
    return torch.cdist(points_m, centres_m).argmin(-1)
