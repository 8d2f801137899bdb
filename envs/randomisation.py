"""Randomisation: what differs between two episodes, and the scene that carries it."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.world import Light


@dataclass(frozen=True)
class Randomisation:
    """What a reset draws anew; a switch that is off leaves the middle value.

    Every value is drawn whether it is used or not, so that one switch does not change what the others draw.

    Attributes:
        place: position and yaw of objects and targets.
        size: size of objects.
        object_colour: colour of objects.
        light: direction and strength of the light.
        table: colour and texture of the table.
        start: start pose of the robot.
    """

    place: bool = True
    size: bool = True
    object_colour: bool = True
    light: bool = True
    table: bool = True
    start: bool = True


def uniform(rng: np.random.Generator, low: float, high: float, free: bool) -> float:
    """A number between ``low`` and ``high``; the middle if not ``free``. Draws in either case."""
    value = float(rng.uniform(low, high))
    return value if free else (low + high) / 2


def draw_colour(rng: np.random.Generator, free: bool, hue: float) -> tuple[float, float, float, float]:
    """A vivid colour (rgba) of any hue, or of ``hue`` if not ``free``."""
    drawn, saturation, value = rng.uniform((0.0, 0.75, 0.65), (1.0, 1.0, 1.0))
    red, green, blue = colorsys.hsv_to_rgb(drawn, saturation, value) if free else colorsys.hsv_to_rgb(hue, 0.9, 0.85)
    return (red, green, blue, 1.0)


def draw_light(rng: np.random.Generator, free: bool) -> Light:
    """A light from above at up to 50 degrees from the vertical."""
    turn, tilt, ambient, diffuse = rng.uniform((0.0, 0.0, 0.45, 0.3), (2 * math.pi, math.radians(50), 0.65, 0.55))
    if not free:
        return Light()
    direction = (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), math.cos(tilt))
    return Light(direction, float(ambient), float(diffuse))


def draw_table(rng: np.random.Generator, free: bool, patterns: int) -> tuple[int, tuple[float, float, float, float]]:
    """Which of ``patterns`` table textures (0 is plain), and the dull colour (rgba) that it is multiplied with."""
    hue, saturation, value = rng.uniform((0.0, 0.0, 0.45), (1.0, 0.25, 0.95))
    pattern = int(rng.integers(patterns))
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value) if free else colorsys.hsv_to_rgb(0.09, 0.25, 0.7)
    return (pattern if free else 0), (red, green, blue, 1.0)


def table_pattern(number: int, side: int) -> NDArray[np.uint8]:
    """Grey texture uint8 [side, side, 3] of stains, boards and grain; 0 is plain; a number always looks the same."""
    rng = np.random.default_rng(number)
    stains, grain, planks = rng.normal(size=(7, 7)), rng.normal(size=(side, side)), rng.normal(size=(1, 8))
    strength, noise, boards = rng.uniform(0.0, (0.15, 0.05, 0.12))
    shade = 0.8 + strength * _enlarged(stains, side) + noise * grain + boards * np.repeat(planks, side // 8, axis=1)
    if number == 0:
        shade = np.full((side, side), 0.9)
    return np.repeat(np.clip(255.0 * shade, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _enlarged(coarse: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Bilinear enlargement [side, side] of a small grid."""
    at = np.linspace(0, len(coarse) - 1, side)
    low = np.minimum(at.astype(int), len(coarse) - 2)
    share = at - low
    rows = coarse[low] * (1 - share)[:, None] + coarse[low + 1] * share[:, None]
    smooth: NDArray[np.float64] = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return smooth
