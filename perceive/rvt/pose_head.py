"""Rotation, gripper and collision flag of a key pose, read from features around its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import widened
from perceive.rvt.rotation import BINS
from sensors.errors import WiringError


@dataclass(frozen=True, eq=False)
class PoseLogits:
    """What a stage says about a key pose besides its place.

    Attributes:
        rotation: [B, 3, 72], logits of the bins of roll, pitch, yaw (see ``RotationBins``); None with 6D rotations.
        rotation_6d: [B, 6], the first two columns of the rotation matrix before orthogonalisation; None with bins.
        gripper: [B, 2]; class 1 is open.
        collision: [B, 2]; class 1 keeps clear of everything.
    """

    rotation: Tensor | None
    rotation_6d: Tensor | None
    gripper: Tensor
    collision: Tensor


@final
class PoseHead(nn.Module):
    """Features [B, F] -> :class:`PoseLogits` (Goyal et al., CoRL 2023 and RSS 2024).

    With conditional rotation the pitch is predicted given the roll, and the yaw given both: the bin's sinusoidal code
    is added to the features. It is the true bin in training (teacher forcing) and the likeliest one otherwise.

    Args:
        width: F.
        hidden: width of the first hidden layer; the second has half of it.
        rotation: ``"bins"``, or ``"6d"`` for the continuous one of Zhou et al. (CVPR 2019).
        conditional: bins of one angle are predicted given the angles before; all from one net otherwise.
        norm: of the features: ``"layer"``, ``"batch"`` (as published for RVT-2: mixes the samples of a batch and cannot
            train on a single one) or ``"none"``.

    Raises:
        WiringError: an unknown kind of rotation or norm.
    """

    def __init__(self, width: int, hidden: int, rotation: str, conditional: bool, norm: str) -> None:
        super().__init__()
        if rotation not in ("bins", "6d"):
            raise WiringError("PoseHead.rotation", "'bins' or '6d'", repr(rotation), "Choose one.")
        norms = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": nn.Identity}
        if norm not in norms:
            raise WiringError("PoseHead.norm", f"one of {sorted(norms)}", repr(norm), "Choose one.")
        self._conditional = conditional and rotation == "bins"
        self._bins = rotation == "bins"
        self.norm = norms[norm](width)
        if self._conditional:
            self.angles = nn.ModuleList(_perceptron(width, hidden, BINS) for _ in range(3))
            self.rest = _perceptron(width, hidden, 4)
            self.codes: Tensor
            self.register_buffer("codes", _sinusoids(BINS, width), persistent=False)
        else:
            self.rest = _perceptron(width, hidden, (3 * BINS if self._bins else 6) + 4)

    def forward(self, features: Tensor, rotation_bins: Tensor | None = None) -> PoseLogits:
        """Logits of features [B, F]; ``rotation_bins`` int64 [B, 3] are the true ones, None = the likeliest."""
        features = self.norm(features)
        rest = self.rest(features)
        if self._conditional:
            rotation = self._angle_by_angle(features, rotation_bins)
            return PoseLogits(rotation, None, rest[:, :2], rest[:, 2:])
        turn, gripper, collision = rest[:, :-4], rest[:, -4:-2], rest[:, -2:]
        if self._bins:
            return PoseLogits(turn.unflatten(1, (3, BINS)), None, gripper, collision)
        # Nets start near zero, where orthogonalisation is ill-conditioned; so they add to the unit rotation.
        unit = turn.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        return PoseLogits(None, turn + unit, gripper, collision)

    def _angle_by_angle(self, features: Tensor, rotation_bins: Tensor | None) -> Tensor:
        logits: list[Tensor] = []
        given = features
        for axis, angle in enumerate(self.angles):
            logits.append(angle(given))
            chosen = logits[-1].argmax(-1) if rotation_bins is None else rotation_bins[:, axis]
            given = given + self.codes[chosen].to(given.dtype)
        return torch.stack(logits, 1)


def read_tokens(tokens: Tensor, pixels: Tensor, size_px: int) -> Tensor:
    """Features [B, V, C] of a grid of tokens [B, V, C, g, g] at points of the picture, blended from the 4 nearest.

    Args:
        tokens: one per patch; its place is the middle of its patch.
        pixels: continuous (u, v) [B, V, 2] in pixels of the picture, the middle of pixel ``i`` at ``i + 0.5``. Points
            outside the outermost tokens read the nearest token.
        size_px: side of the picture.
    """
    B, V = tokens.shape[:2]
    place = (widened(pixels) * (2 / size_px) - 1).view(B * V, 1, 1, 2)
    read = nn.functional.grid_sample(
        widened(tokens).flatten(0, 1), place.to(widened(tokens).dtype), padding_mode="border", align_corners=False
    )
    return read.view(B, V, -1).to(tokens.dtype)


def _perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    half = hidden // 2
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, half), nn.ReLU(), nn.Linear(half, out))


def _sinusoids(count: int, width: int) -> Tensor:
    """Sinusoidal codes [count, width] (Vaswani et al., 2017)."""
    place = torch.arange(count)[:, None]
    speed = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([(place * speed).sin(), (place * speed).cos()], -1).flatten(1)[:, :width]
