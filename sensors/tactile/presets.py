"""Two fingertips to begin with: lights and gel in closed form, like a GelSight Mini and like a DIGIT.

Made by code from round numbers, not measured on any device and not taken from anybody's calibration: they have the size
of the real sensors and three coloured lights around the gel. For the look of your own fingertip calibrate it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sensors.errors import SpecError, nearest
from sensors.tactile.deform import Softness
from sensors.tactile.gel import Gel
from sensors.tactile.optics import GelOptics
from sensors.tactile.shadow import Shadow
from sensors.tactile.smooth_light import Lamp, SmoothLight
from sensors.tactile.table import ColourTable, Lookup, TableColour


@dataclass(frozen=True)
class Preset:
    """A kind of fingertip.

    Attributes:
        size_m: height and width of the gel in the upright picture, metres.
        thickness_m: of the gel.
        lamps: its lights.
        ambient: grey of the surroundings' even light.
        softness: how the gel follows.
    """

    size_m: tuple[float, float]
    thickness_m: float
    lamps: tuple[Lamp, ...]
    ambient: float
    softness: Softness


def _lamps(azimuths_deg: tuple[float, float, float], strong: float, weak: float, falloff: float) -> tuple[Lamp, ...]:
    colours = [tuple(strong if channel == own else weak for channel in range(3)) for own in range(3)]
    return tuple(
        Lamp(math.radians(azimuth), math.radians(25.0), (colour[0], colour[1], colour[2]), falloff)
        for azimuth, colour in zip(azimuths_deg, colours, strict=True)
    )


PRESETS = {
    # Sizes: the makers' data sheets, as in sensors.gel_camera.
    "gelsight_mini": Preset((0.0143, 0.0186), 0.004, _lamps((180.0, 0.0, 90.0), 150.0, 20.0, 20.0), 45.0, Softness()),
    # Three lights at 120 degrees, as M. Lambeta et al., "DIGIT", RA-L 2020; a harder and thinner gel, less diffuse.
    "digit": Preset(
        (0.020, 0.016), 0.003, _lamps((30.0, 150.0, 270.0), 190.0, 12.0, 30.0), 60.0, Softness(reach_m=0.0025)
    ),
}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        SpecError: there is none.
    """
    if name not in PRESETS:
        raise SpecError("preset", f"one of {sorted(PRESETS)}", repr(name), nearest(name, PRESETS))
    return PRESETS[name]


def preset_gel(name: str, rows: int, columns: int) -> Gel:
    """Its gel, seen with so many pixels."""
    kind = preset(name)
    return Gel(*kind.size_m, kind.thickness_m, rows, columns)


def preset_light(name: str, gel: Gel) -> SmoothLight:
    """Its lights over a gel."""
    return SmoothLight(gel, preset(name).lamps)


def preset_background(name: str, gel: Gel) -> Tensor:
    """Its untouched gel, float [3, h, w]."""
    return preset_light(name, gel).flat(preset(name).ambient).detach()


def preset_optics(
    name: str, rows: int, columns: int, *, table: Lookup | None = None, shadow: bool = False
) -> GelOptics:
    """The whole fingertip.

    Args:
        name: "gelsight_mini" or "digit".
        rows: h, pixels down the picture.
        columns: w.
        table: colours by a table made from the lights, looked up in this way, instead of the lights themselves.
        shadow: with shadows.

    Raises:
        SpecError: no such preset.
    """
    kind, gel = preset(name), preset_gel(name, rows, columns)
    light = preset_light(name, gel)
    colour = light if table is None else TableColour(ColourTable.from_light(light), gel, table)
    shades = Shadow(gel, kind.lamps) if shadow else None
    return GelOptics(gel, colour, light.flat(kind.ambient).detach(), kind.softness, shades)
