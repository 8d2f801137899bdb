"""Fifteen classes of shapes whose members differ in their proportions, as lists of surfaces with parts.

Lengths are metres, about as large as the real things; z is up. Handles and legs end in what carries them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from perceive.points.shape_surfaces import ALONG_X, ALONG_Y, Surfaces

Lot = Callable[[float, float], float]  # draws uniformly between two numbers
_HALF_TURNS = (-1.0, 1.0)


@dataclass(frozen=True)
class ShapeClass:
    """A class of shapes: its name, the names of its parts, and what puts up a member with random proportions."""

    name: str
    parts: tuple[str, ...]
    build: Callable[[Surfaces, Lot], None]


def lots(rng: np.random.Generator) -> Lot:
    """Uniform numbers between two bounds, drawn in one go: a member takes fewer than 24."""
    drawn: Iterator[float] = iter(rng.random(24).tolist())
    return lambda low, high: low + (high - low) * next(drawn)


def _vessel(out: Surfaces, radius: float, foot: float, height: float, wall: float) -> None:
    """A round vessel, open on top: part 0 is its wall and rim, part 1 its bottom."""
    out.cone(0, foot, radius, height, (0, 0, 0))
    out.cone(0, foot - wall, radius - wall, height - wall, (0, 0, wall), inwards=True)
    out.disc(0, radius, (0, 0, height), hole=radius - wall)
    out.disc(1, foot, (0, 0, 0), down=True)
    out.disc(1, foot - wall, (0, 0, wall))


def _box(out: Surfaces, lot: Lot) -> None:
    out.box(0, (lot(0.1, 0.4), lot(0.1, 0.4), lot(0.05, 0.4)), (0, 0, 0))


def _cone(out: Surfaces, lot: Lot) -> None:
    radius, height = lot(0.1, 0.2), lot(0.25, 0.5)
    plate = radius * lot(1.1, 1.4)
    out.cone(0, radius, radius * lot(0.0, 0.25), height, (0, 0, 0))
    out.box(1, (2 * plate, 2 * plate, lot(0.015, 0.03)), (0, 0, -0.015))


def _torus(out: Surfaces, lot: Lot) -> None:
    radius = lot(0.1, 0.2)
    out.ring(0, radius, radius * lot(0.15, 0.5), (0, 0, 0))


def _mug(out: Surfaces, lot: Lot) -> None:
    radius, height = lot(0.035, 0.05), lot(0.07, 0.12)
    _vessel(out, radius, radius * lot(0.8, 1.0), height, 0.004)
    loop, thick = height * lot(0.25, 0.38), lot(0.004, 0.007)
    for half in _HALF_TURNS:  # an upright ring's quarters above and below its middle, on the side of +x
        turn = (1.0, 0.0, 0.0, 0.0, 0.0, half, 0.0, -half, 0.0)
        out.ring(2, loop, thick, (radius * 0.94, 0, height / 2), turn, sweep=0.25)


def _cup(out: Surfaces, lot: Lot) -> None:
    radius = lot(0.035, 0.05)
    _vessel(out, radius, radius * lot(0.55, 0.95), lot(0.08, 0.14), 0.003)


def _bowl(out: Surfaces, lot: Lot) -> None:
    radius, wall = lot(0.07, 0.13), lot(0.004, 0.008)
    cut = lot(-0.9, -0.75)  # where the foot cuts the ball off
    inner = radius - wall
    brim = lot(-0.25, 0.0)
    out.ball(0, radius, (0, 0, 0), cut, brim)
    out.ball(0, inner, (0, 0, 0), -1.0, brim, inwards=True)
    level = math.sqrt(1 - brim * brim)
    out.disc(0, radius * level, (0, 0, radius * brim), hole=inner * level)
    out.disc(1, radius * math.sqrt(1 - cut * cut), (0, 0, radius * cut), down=True)


def _bottle(out: Surfaces, lot: Lot) -> None:
    radius, height = lot(0.03, 0.05), lot(0.12, 0.22)
    neck, shoulder, long = radius * lot(0.25, 0.5), radius * lot(0.5, 1.5), lot(0.03, 0.08)
    out.cone(0, radius, radius, height, (0, 0, 0))
    out.disc(0, radius, (0, 0, 0), down=True)
    out.cone(0, radius, neck, shoulder, (0, 0, height))
    out.cone(1, neck, neck, long, (0, 0, height + shoulder))
    out.cylinder(2, neck * 1.15, lot(0.01, 0.02), (0, 0, height + shoulder + long))


def _four_legs(
    out: Surfaces, part: int, wide: float, deep: float, thick: float, height: float, round_legs: bool
) -> None:
    for x in _HALF_TURNS:
        for y in _HALF_TURNS:
            place = (x * (wide - thick) / 2, y * (deep - thick) / 2)
            if round_legs:
                out.cone(part, thick / 2, thick / 2, height, (*place, 0))
                out.disc(part, thick / 2, (*place, 0), down=True)
            else:
                out.box(part, (thick, thick, height), (*place, height / 2))


def _chair(out: Surfaces, lot: Lot) -> None:
    wide, deep, seat, thick = lot(0.38, 0.55), lot(0.38, 0.55), lot(0.4, 0.55), lot(0.03, 0.07)
    _four_legs(out, 0, wide, deep, lot(0.03, 0.06), seat, lot(0, 1) < 0.5)
    out.box(1, (wide, deep, thick), (0, 0, seat + thick / 2))
    back = lot(0.3, 0.6)
    out.box(2, (thick, wide, back), (-(deep - thick) / 2, 0, seat + thick + back / 2))


def _stool(out: Surfaces, lot: Lot) -> None:
    radius, height, thick = lot(0.14, 0.22), lot(0.4, 0.75), lot(0.03, 0.07)
    _four_legs(out, 0, 1.4 * radius, 1.4 * radius, lot(0.025, 0.05), height, lot(0, 1) < 0.5)
    out.cylinder(1, radius, thick, (0, 0, height))


def _table(out: Surfaces, lot: Lot) -> None:
    wide, deep, height, thick = lot(0.8, 1.6), lot(0.6, 0.9), lot(0.6, 0.8), lot(0.03, 0.06)
    if lot(0, 1) < 0.3:  # one foot in the middle
        out.cone(0, 0.05, 0.05, height, (0, 0, 0))
        out.cylinder(0, lot(0.2, 0.3), 0.03, (0, 0, 0))
    else:
        _four_legs(out, 0, wide, deep, lot(0.04, 0.09), height, lot(0, 1) < 0.5)
    out.box(1, (wide, deep, thick), (0, 0, height + thick / 2))


def _shelf(out: Surfaces, lot: Lot) -> None:
    wide, deep, height, thick = lot(0.5, 1.0), lot(0.25, 0.4), lot(0.8, 1.8), lot(0.02, 0.04)
    for side in _HALF_TURNS:
        out.box(0, (thick, deep, height), (side * (wide - thick) / 2, 0, height / 2))
    boards = 3 + int(lot(0, 2.999))
    for number in range(boards):
        out.box(1, (wide - 2 * thick, deep, thick), (0, 0, thick / 2 + (height - thick) * number / (boards - 1)))


def _lamp(out: Surfaces, lot: Lot) -> None:
    height, radius, shade = lot(0.3, 0.6), lot(0.06, 0.12), lot(0.1, 0.2)
    out.cylinder(0, radius, 0.02, (0, 0, 0))
    out.cone(1, 0.01, 0.01, height, (0, 0, 0.02))
    low, high = lot(0.1, 0.18), lot(0.04, 0.1)
    for inwards in (False, True):  # a shade is thinner than any noise, and seen from both sides
        out.cone(2, low, high, shade, (0, 0, height - shade / 2), inwards=inwards)


def _hammer(out: Surfaces, lot: Lot) -> None:
    long, thick, head = lot(0.2, 0.35), lot(0.012, 0.02), lot(0.08, 0.14)
    wide = lot(0.025, 0.04)
    out.cylinder(0, thick, long, (0, 0, 0))
    out.box(1, (head * 0.6, wide, wide), (-head * 0.2, 0, long))
    out.cylinder(1, wide * lot(0.45, 0.7), head * 0.4, (head * 0.1, 0, long), ALONG_X)


def _screwdriver(out: Surfaces, lot: Lot) -> None:
    grip, long, radius = lot(0.08, 0.12), lot(0.08, 0.2), lot(0.012, 0.02)
    shaft = radius * lot(0.18, 0.35)
    out.cylinder(0, radius, grip, (0, 0, 0))
    out.cone(0, radius, shaft, radius, (0, 0, grip))
    out.cone(1, shaft, shaft, long, (0, 0, grip + radius))
    out.box(1, (3 * shaft, 0.8 * shaft, 3 * shaft), (0, 0, grip + radius + long))


def _dumbbell(out: Surfaces, lot: Lot) -> None:
    long, thick, radius = lot(0.1, 0.2), lot(0.01, 0.018), lot(0.035, 0.07)
    out.cone(0, thick, thick, long, (0, -long / 2, 0), ALONG_Y)
    if lot(0, 1) < 0.5:
        for side in _HALF_TURNS:
            out.ball(1, radius, (0, side * (long / 2 + 0.8 * radius), 0))
    else:
        deep = lot(0.02, 0.05)
        for foot in (-long / 2 - deep, long / 2):
            out.cylinder(1, radius, deep, (0, foot, 0), ALONG_Y)


CLASSES = (
    ShapeClass("box", ("body",), _box),
    ShapeClass("cone", ("body", "plate"), _cone),
    ShapeClass("torus", ("body",), _torus),
    ShapeClass("mug", ("wall", "bottom", "handle"), _mug),
    ShapeClass("cup", ("wall", "bottom"), _cup),
    ShapeClass("bowl", ("wall", "foot"), _bowl),
    ShapeClass("bottle", ("body", "neck", "cap"), _bottle),
    ShapeClass("chair", ("legs", "seat", "back"), _chair),
    ShapeClass("stool", ("legs", "seat"), _stool),
    ShapeClass("table", ("legs", "top"), _table),
    ShapeClass("shelf", ("sides", "boards"), _shelf),
    ShapeClass("lamp", ("foot", "stem", "shade"), _lamp),
    ShapeClass("hammer", ("handle", "head"), _hammer),
    ShapeClass("screwdriver", ("grip", "shaft"), _screwdriver),
    ShapeClass("dumbbell", ("bar", "weights"), _dumbbell),
)
