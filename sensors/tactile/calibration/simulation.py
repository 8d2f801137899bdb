"""Rendered presses of a ball on a fingertip whose lights nobody knows: to try a calibration, and to judge it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from sensors.tactile import shapes
from sensors.tactile.calibration.contact import Rgb
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.picture import to_uint8, with_noise
from sensors.tactile.presets import preset
from sensors.tactile.smooth_light import Lamp, SmoothLight

AMBIENT = 50.0  # grey of the light that comes from elsewhere
_DEEPEST = 0.35  # of a press, share of the ball's radius


@final
@dataclass(frozen=True, eq=False)
class HiddenUnit:
    """One fingertip with lights of its own.

    Attributes:
        optics: gel, lights and background.
        noise: of its camera, standard deviation of a pixel, grey values.
        gamma: of its camera: grey values are 255 (v / 255)^gamma; 1 = linear.
        vignette: share of the light that is missing in the corners of the picture.
    """

    optics: GelOptics
    noise: float
    gamma: float = 1.0
    vignette: float = 0.0

    @property
    def gel(self) -> Gel:
        """Its gel."""
        return self.optics.gel

    def film(self, overlap_m: Tensor, rng: np.random.Generator) -> list[Rgb]:
        """What its camera shows for height maps [B, h, w]."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        pictures = []
        with torch.no_grad():
            for one in overlap_m:
                planes = self.seen(one[None]).permute(0, 3, 1, 2)
                pictures.append(to_uint8(with_noise(planes, self.noise, generator))[0].numpy())
        return pictures

    @torch.no_grad()
    def seen(self, overlap_m: Tensor) -> Tensor:
        """The same without noise and in fractions of grey values, [B, h, w, 3]: what a calibration should say."""
        picture: Tensor = self.optics(overlap_m)
        if self.vignette:
            y, x = self.gel.centres()
            squared = (x / self.gel.width_m).square() + (y / self.gel.height_m).square()  # 1/2 in the corners
            picture = picture * (1 - 2 * self.vignette * squared[..., None])
        return picture if self.gamma == 1 else 255 * (picture.clamp(min=0) / 255) ** self.gamma

    def face_m(self, overlap_m: Tensor) -> Tensor:
        """How far its gel's face is pushed in, [B, h, w]: what depth is measured of."""
        with torch.no_grad():
            out: Tensor = self.optics.deform(overlap_m)
        return out


def hidden_lamps(rng: np.random.Generator) -> tuple[Lamp, ...]:
    """Three coloured lights anywhere around the gel, unlike those of any preset."""
    start = rng.uniform(0, 2 * math.pi)
    lamps = []
    for number in range(3):
        azimuth = start + number * 2 * math.pi / 3 + rng.uniform(-0.3, 0.3)
        colour = [rng.uniform(110, 180) if channel == number else rng.uniform(5, 40) for channel in range(3)]
        elevation = math.radians(rng.uniform(18, 35))
        lamps.append(Lamp(azimuth, elevation, (colour[0], colour[1], colour[2]), rng.uniform(10, 35)))
    return tuple(lamps)


def hidden_unit(
    settings: TouchSettings,
    lamps: Sequence[Lamp],
    *,
    gain: Sequence[float] = (1.0, 1.0, 1.0),
    ambient: float = AMBIENT,
    tint: float = 0.0,
    noise: float = 1.5,
    gamma: float = 1.0,
    vignette: float = 0.0,
) -> HiddenUnit:
    """A fingertip under lamps.

    Args:
        settings: size and pixels of its gel.
        lamps: its lights.
        gain: factor [3] of the camera's red, green and blue for the lights.
        ambient: even grey that is none of the lights'.
        tint: by how much, relatively, its gel is paler on the right than on the left; a property of the gel, so it
            changes what the lights add as well.
        noise: of the camera.
        gamma: of the camera.
        vignette: of the camera.
    """
    gel = settings.gel
    parts = [
        Lamp(lamp.azimuth_rad, lamp.elevation_rad,
             (lamp.rgb[0] * gain[0], lamp.rgb[1] * gain[1], lamp.rgb[2] * gain[2]), lamp.falloff_per_m)
        for lamp in lamps
    ]  # fmt: skip
    light = SmoothLight(gel, parts)
    background = light.flat(ambient).detach()
    if tint:
        background = background * (1 + tint * gel.centres()[1] / (gel.width_m / 2))
    return HiddenUnit(GelOptics(gel, light, background, preset(settings.model).softness), noise, gamma, vignette)


def ball_places(settings: TouchSettings, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Depth, x and y of presses [count], metres, all over the gel and whole within the picture."""
    gel, radius = settings.gel, settings.ball_radius_m
    deepest = min(_DEEPEST * radius, 0.5 * gel.thickness_m)
    depth = rng.uniform(0.45 * deepest, deepest, count)
    rim = np.sqrt(2 * radius * depth - depth**2)
    x, y = (rng.uniform(-1, 1, count) * np.maximum(size / 2 - rim - 2e-4, 0) for size in (gel.width_m, gel.height_m))
    depth_t, x_t, y_t = (torch.tensor(part, dtype=torch.float32) for part in (depth, x, y))
    return depth_t, x_t, y_t


def balls(settings: TouchSettings, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Height maps [B, h, w] of the ball at places of :func:`ball_places`."""
    return shapes.sphere(settings.gel, settings.ball_radius_m, *places)
