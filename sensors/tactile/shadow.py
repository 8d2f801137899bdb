"""Shadows that a deep print throws away from the lights, for whole batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensors.simulated import check_settings, positive
from sensors.tactile.gel import Gel
from sensors.tactile.smooth_light import Lamp


@final
class Shadow(nn.Module):
    """What is lost where the gel itself stands in the light.

    A pixel lies in the shadow of a lamp if somewhere on the way to it the face bulges above the ray. The highest point
    above the ray is found by doubling: the greatest over 2 n steps is that of n steps, and of the n steps after them.
    So a way of any length costs few operations on whole pictures, where marching costs one for each step.

    Args:
        gel: size and pixels.
        lamps: the lights; one with an elevation of e throws shadows H / tan(e) long.
        strength: share of a lamp's light that is lost in full shadow; the rest comes from all sides.
        penumbra_m: how far above the ray the face must stand for full shadow, metres.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(self, gel: Gel, lamps: Sequence[Lamp], strength: float = 0.6, penumbra_m: float = 1e-4) -> None:
        super().__init__()
        rules = {"strength": (0 < strength <= 1, strength, "in (0, 1]"), **positive({"penumbra_m": penumbra_m})}
        check_settings("Shadow", rules)
        self.gel = gel
        self._penumbra_m = penumbra_m
        self._lamps = [(self._leaps(lamp), self._lost(lamp, strength)) for lamp in lamps]

    def _leaps(self, lamp: Lamp) -> list[tuple[int, int, float]]:
        """Pixels down and right, and metres up, of each doubled step towards a lamp."""
        pitch, rise = min(self.gel.pitch_m), math.tan(lamp.elevation_rad)
        count = max(1, math.ceil(math.log2(max(self.gel.thickness_m / rise / pitch, 2))))
        leaps = []
        for number in range(count):
            way = pitch * 2**number
            down = round(way * math.sin(lamp.azimuth_rad) / self.gel.pitch_m[0])
            right = round(way * math.cos(lamp.azimuth_rad) / self.gel.pitch_m[1])
            if abs(down) >= self.gel.rows or abs(right) >= self.gel.columns:
                break
            if down or right:
                leaps.append((down, right, way * rise))
        return leaps

    @staticmethod
    def _lost(lamp: Lamp, strength: float) -> list[float]:
        return [strength * value * math.sin(lamp.elevation_rad) for value in lamp.rgb]

    def forward(self, face_m: Tensor) -> Tensor:
        """The gel's face [B, h, w], metres pushed in -> change of the grey values, float [B, 3, h, w], <= 0."""
        planes: list[Tensor] = []
        for leaps, lost in self._lamps:
            highest = face_m
            for down, right, up in leaps:
                highest = torch.maximum(highest, _moved(highest, down, right) - up)
            dark = ((highest - face_m) * (-1 / self._penumbra_m)).clamp(min=-1)
            planes = (
                [plane.add(dark, alpha=part) for plane, part in zip(planes, lost, strict=True)]
                if planes
                else [dark * part for part in lost]
            )
        return torch.stack(planes, dim=1)


def _moved(picture: Tensor, down: int, right: int) -> Tensor:
    """What stands ``down`` and ``right`` of each pixel; beyond the border, the pixel at it."""
    h, w = picture.shape[1:]
    edges = (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0))
    wide = functional.pad(picture[:, None], edges, mode="replicate")[:, 0]
    return wide[:, max(down, 0) : max(down, 0) + h, max(right, 0) : max(right, 0) + w]
