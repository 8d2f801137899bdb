"""What differs from one fingertip to the next and from day to day: lights, background, gel, camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from sensors.simulated import check_settings, not_negative
from sensors.tactile.gel import Gel

STIFFNESS_STEPS = 4  # to either side: few kinds of gel, so that their kernels are made once


@final
@dataclass(frozen=True)
class Ranges:
    """How widely a fingertip is varied; 0 everywhere = not at all. Draws are even between plus and minus the range.

    Attributes:
        gain: relative strength of each colour of the lights.
        mix: share of each colour that leaks into each other.
        turn_rad: angle by which the lights are turned round the gel.
        tint: relative change of the background's brightness and colour, even and slowly over the picture.
        stiffness: relative change of the gel's bending lengths (0.25: from 1 / 1.25 to 1.25).
        noise: the camera's noise, grey values: standard deviations from 0 to this.

    Raises:
        SpecError: a range is negative, or so wide that a light could go out.
    """

    gain: float = 0.15
    mix: float = 0.05
    turn_rad: float = 0.1
    tint: float = 0.1
    stiffness: float = 0.25
    noise: float = 2.0

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in ("turn_rad", "stiffness", "noise")}
        rules = not_negative(values)
        for name in ("gain", "mix", "tint"):
            value = getattr(self, name)
            rules[name] = (0 <= value < 0.5, value, "in [0, 0.5)")
        check_settings("Ranges", rules)


@final
@dataclass(frozen=True, eq=False)
class Variation:
    """One fingertip of many for each picture of a batch.

    Attributes:
        colours: float [B, 3, 3], change of the grey values after from before: gains on the diagonal, leaks beside it.
        turn_rad: float [B], angle of the lights from +x towards +y.
        tint: float [B, 3, h, w], factor of the background.
        stiffness: float [B], factor of the gel's bending lengths.
        noise: float [B], standard deviation of the camera's noise, grey values.
    """

    colours: Tensor
    turn_rad: Tensor
    tint: Tensor
    stiffness: Tensor
    noise: Tensor

    def __getitem__(self, part: slice) -> Variation:
        """Those of a part of the batch."""
        fields = (self.colours, self.turn_rad, self.tint, self.stiffness, self.noise)
        return Variation(*(field[part] for field in fields))


def draw(ranges: Ranges, gel: Gel, rng: np.random.Generator, batch: int = 1, device: str = "cpu") -> Variation:
    """Draw ``batch`` fingertips for an episode."""

    def even(width: float, *shape: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, (batch, *shape)) * width

    colours = np.eye(3) * (1 + even(ranges.gain, 3))[:, None] + (1 - np.eye(3)) * even(ranges.mix, 3, 3)
    turn = even(ranges.turn_rad)
    # One, and the slowest two waves along each axis; their sum stays within the range.
    y, x = (np.arange(size) + 0.5 for size in (gel.rows, gel.columns))
    waves_y = np.stack([np.ones(gel.rows), *(np.cos(math.pi * k * y / gel.rows) for k in (1, 2))])
    waves_x = np.stack([np.ones(gel.columns), *(np.cos(math.pi * k * x / gel.columns) for k in (1, 2))])
    weights = even(ranges.tint, 3, 3, 3)
    weights /= np.abs(weights).sum(axis=(2, 3), keepdims=True).clip(min=1e-12)
    weights *= np.abs(even(ranges.tint, 3))[..., None, None]
    tint = 1 + np.einsum("bcij,ih,jw->bchw", weights, waves_y, waves_x)
    steps = rng.integers(-STIFFNESS_STEPS, STIFFNESS_STEPS + 1, batch)
    stiffness = (1 + ranges.stiffness) ** (steps / STIFFNESS_STEPS)
    noise = rng.uniform(0.0, 1.0, batch) * ranges.noise
    return Variation(
        *(torch.tensor(part, dtype=torch.float32, device=device) for part in (colours, turn, tint, stiffness, noise))
    )
