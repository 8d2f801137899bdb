"""Coloured lights around a gel: a smooth closed form of how its colour follows its slope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sensors.simulated import check_settings, not_negative
from sensors.tactile.gel import Gel


@final
@dataclass(frozen=True)
class Lamp:
    """One coloured light at the rim of the gel.

    Attributes:
        azimuth_rad: where it stands, from +x (right) towards +y (down).
        elevation_rad: how high above the face of the gel, towards the camera, its light comes in.
        rgb: grey values [3] that it adds where its light falls perpendicularly, in the middle of the gel.
        falloff_per_m: by how much its light gets weaker with the distance from it: relative change per metre.

    Raises:
        SpecError: a value is out of its range.
    """

    azimuth_rad: float
    elevation_rad: float
    rgb: tuple[float, float, float]
    falloff_per_m: float = 0.0

    def __post_init__(self) -> None:
        check_settings(
            "Lamp",
            {
                "azimuth_rad": (math.isfinite(self.azimuth_rad), self.azimuth_rad, "a finite angle"),
                "elevation_rad": (0 < self.elevation_rad < math.pi / 2, self.elevation_rad, "in (0, pi / 2)"),
                "rgb": (all(map(math.isfinite, self.rgb)), self.rgb, "3 finite numbers"),
                **not_negative({"falloff_per_m": self.falloff_per_m}),
            },
        )

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector towards it: +x, +y, towards the camera."""
        flat = math.cos(self.elevation_rad)
        return flat * math.cos(self.azimuth_rad), flat * math.sin(self.azimuth_rad), math.sin(self.elevation_rad)


@final
class SmoothLight(nn.Module):
    """Change of colour against the flat gel, for directional lights on a diffuse face.

    A lamp in direction l adds ``rgb * fall(x, y) * (s(n . l) - s(l_z))``: what changes when the normal turns from flat
    to n. ``s(u) = (u + sqrt(u^2 + k^2)) / 2`` is a light that cannot be negative, without the corner of max(u, 0), so
    that every derivative exists. The constant light of the surroundings is in the picture of the untouched gel already.
    All numbers of the lamps are parameters: fit them, or vary them.

    Args:
        gel: size and pixels.
        lamps: the lights.
        corner: k, how round the corner of the terminator is; 0 = Lambert's law.

    Raises:
        SpecError: no lamp, or a negative corner.
    """

    def __init__(self, gel: Gel, lamps: Sequence[Lamp], corner: float = 0.15) -> None:
        super().__init__()
        rules = {"lamps": (len(lamps) > 0, lamps, "at least one"), **not_negative({"corner": corner})}
        check_settings("SmoothLight", rules)
        self.gel = gel
        self.corner = corner
        self.azimuth_rad = nn.Parameter(torch.tensor([lamp.azimuth_rad for lamp in lamps]))
        self.elevation_rad = nn.Parameter(torch.tensor([lamp.elevation_rad for lamp in lamps]))
        self.rgb = nn.Parameter(torch.tensor([lamp.rgb for lamp in lamps]))
        self.falloff_per_m = nn.Parameter(torch.tensor([lamp.falloff_per_m for lamp in lamps]))
        y, x = gel.centres()
        self.register_buffer("_y", y, persistent=False)
        self.register_buffer("_x", x, persistent=False)

    def forward(self, along_x: Tensor, along_y: Tensor) -> Tensor:
        """Slopes [B, h, w] along x and y -> change of the grey values, float [B, 3, h, w]; exactly 0 where flat."""
        y, x = self.get_buffer("_y").to(along_x), self.get_buffer("_x").to(along_x)
        return torch.stack(self._change(along_x, along_y, x, y), dim=1)

    def at(self, along_x: Tensor, along_y: Tensor, x_m: float, y_m: float) -> Tensor:
        """The same for slopes of any shape [...] at one place of the gel: [3, ...]."""
        place = (torch.as_tensor(value, dtype=along_x.dtype, device=along_x.device) for value in (x_m, y_m))
        return torch.stack(self._change(along_x, along_y, *place))

    def flat(self, ambient: float = 0.0) -> Tensor:
        """What the untouched gel shows under these lights and an even grey: float [3, h, w]."""
        _, _, up = self._directions()
        falls = self._falls(self.get_buffer("_x"), self.get_buffer("_y"))
        lit = self._clipped(up)
        return ambient + sum(
            (lit[lamp] * fall * self.rgb[lamp, :, None, None] for lamp, fall in enumerate(falls)),
            start=torch.zeros(3, 1, 1, dtype=lit.dtype, device=lit.device),
        )

    def _directions(self) -> tuple[Tensor, Tensor, Tensor]:
        level = self.elevation_rad.cos()
        return level * self.azimuth_rad.cos(), level * self.azimuth_rad.sin(), self.elevation_rad.sin()

    def _falls(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The strength of each lamp at places in metres, 1 in the middle."""
        along_x, along_y = self.falloff_per_m * self.azimuth_rad.cos(), self.falloff_per_m * self.azimuth_rad.sin()
        return [1 + (x * one + y * other) for one, other in zip(along_x.unbind(), along_y.unbind(), strict=True)]

    def _change(self, along_x: Tensor, along_y: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
        scale = (1 + along_x * along_x + along_y * along_y).rsqrt()
        planes: list[Tensor] = []
        directions = zip(*(part.unbind() for part in self._directions()), strict=True)
        for (to_x, to_y, up), fall, parts in zip(directions, self._falls(x, y), self.rgb.unbind(), strict=True):
            lit = (up - to_x * along_x - to_y * along_y) * scale
            change = (self._clipped(lit) - self._clipped(up)) * fall
            planes = (
                [torch.addcmul(plane, change, part) for plane, part in zip(planes, parts.unbind(), strict=True)]
                if planes
                else [change * part for part in parts.unbind()]
            )
        return planes

    def _clipped(self, cosine: Tensor) -> Tensor:
        return (cosine + (cosine * cosine + self.corner**2).sqrt()) * 0.5
