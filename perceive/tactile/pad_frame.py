"""Tokens of fingertips seen from a fingertip, so that what is felt does not depend on where the arm is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from perceive.batch import BatchStream
from perceive.geometry import full_precision, transform_points
from perceive.tokens import Tokens


def pad_from_base(streams: Sequence[BatchStream]) -> Tensor:
    """Rigid transforms [B, 4, 4] into the frame of the first of these pads that is there, at its newest frame.

    The identity for a sample of which no pad is there (or whose pose is not finite).
    """
    chosen: Tensor | None = None
    for stream in reversed(streams):
        pose = stream.data["base_from_pad"].float()
        there = stream.valid & pose.flatten(2).isfinite().all(-1)
        order = torch.arange(there.shape[1], device=there.device)
        newest = torch.where(there, order, -1).amax(1)
        own = pose[torch.arange(len(pose), device=pose.device), newest.clamp_min(0)]
        if chosen is None:
            chosen = torch.eye(4, device=pose.device).expand(len(pose), 4, 4)
        chosen = torch.where((newest >= 0)[:, None, None], own, chosen)
    assert chosen is not None, "no stream"
    turned = chosen[:, :3, :3].transpose(1, 2)
    out = torch.eye(4, device=chosen.device).repeat(len(chosen), 1, 1)
    out[:, :3, :3] = turned
    with full_precision(chosen.device):
        out[:, :3, 3] = -(turned @ chosen[:, :3, 3:])[..., 0]
    return out


def moved(tokens: Tokens, other_from_base: Tensor) -> Tokens:
    """The tokens with their places in another frame, given by transforms [B, 4, 4]; those without a place stay at 0."""
    place = transform_points(other_from_base, tokens.position_m)
    return replace(tokens, position_m=torch.where(tokens.placed[..., None], place, 0.0))
