"""What may stand or move in a room, with random sizes, out of boxes and upright cylinders; heads are balls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from envs.cloud_scenes.tabletop_things import colour
from envs.cloud_scenes.things import Piece, Rgba, Solid, Thing

Maker = Callable[[np.random.Generator], Thing]
SIDES = (-1.0, 1.0)


def _box(part: str, size: tuple[float, float, float], middle: tuple[float, float, float], rgba: Rgba) -> Piece:
    return Piece(part, (Solid(size, middle),), rgba)


def _pole(part: str, radius: float, height: float, x: float, y: float, foot: float, rgba: Rgba) -> Piece:
    return Piece(part, (Solid((radius, height), (x, y, foot + height / 2)),), rgba)


def _legs(wide: float, deep: float, thick: float, height: float, round_legs: bool, rgba: Rgba) -> list[Piece]:
    out = []
    for x in SIDES:
        for y in SIDES:
            at = (x * (deep - thick) / 2, y * (wide - thick) / 2)
            if round_legs:
                out.append(_pole("legs", thick / 2, height, *at, 0.0, rgba))
            else:
                out.append(_box("legs", (thick, thick, height), (*at, height / 2), rgba))
    return out


def table(rng: np.random.Generator) -> Thing:
    """Four legs and a top."""
    wide, deep, high, thick, leg = rng.uniform((0.9, 0.6, 0.65, 0.03, 0.04), (1.8, 0.9, 0.8, 0.06, 0.09)).tolist()
    paint = colour(rng)
    top = _box("top", (deep, wide, thick), (0.0, 0.0, high - thick / 2), paint)
    return Thing("table", (*_legs(wide, deep, leg, high - thick, rng.random() < 0.5, paint), top))


def chair(rng: np.random.Generator) -> Thing:
    """Four legs, a seat and a back; it looks along x."""
    wide, deep, high, thick, back = rng.uniform((0.4, 0.4, 0.4, 0.03, 0.35), (0.55, 0.55, 0.5, 0.06, 0.6)).tolist()
    paint = colour(rng)
    seat = _box("seat", (deep, wide, thick), (0.0, 0.0, high - thick / 2), paint)
    rest = _box("back", (thick, wide, back), (-(deep - thick) / 2, 0.0, high + back / 2), paint)
    return Thing("chair", (*_legs(wide, deep, 0.04, high - thick, rng.random() < 0.5, paint), seat, rest))


def shelf(rng: np.random.Generator) -> Thing:
    """Two sides and four or five boards; open at front and back."""
    wide, deep, high, thick = rng.uniform((0.6, 0.3, 1.2, 0.02), (1.2, 0.45, 2.0, 0.04)).tolist()
    paint, boards = colour(rng), int(rng.integers(4, 6))
    out = [_box("sides", (deep, thick, high), (0.0, y * (wide - thick) / 2, high / 2), paint) for y in SIDES]
    for number in range(boards):
        up = thick / 2 + (high - thick) * number / (boards - 1)
        out.append(_box("boards", (deep, wide - 2 * thick, thick), (0.0, 0.0, up), paint))
    return Thing("shelf", tuple(out))


def sofa(rng: np.random.Generator) -> Thing:
    """A seat between two arms before a back."""
    wide, deep, seat, back, arm = rng.uniform((1.2, 0.75, 0.38, 0.35, 0.14), (2.0, 0.95, 0.46, 0.5, 0.22)).tolist()
    paint = colour(rng)
    out = [
        _box("seat", (deep - arm, wide - 2 * arm, seat), (arm / 2, 0.0, seat / 2), paint),
        _box("back", (arm, wide, seat + back), (-(deep - arm) / 2, 0.0, (seat + back) / 2), paint),
    ]
    for y in SIDES:
        high = seat + 0.18
        out.append(_box("arms", (deep - arm, arm, high), (arm / 2, y * (wide - arm) / 2, high / 2), paint))
    return Thing("sofa", tuple(out))


def carton(rng: np.random.Generator) -> Thing:
    """A box."""
    size = tuple(rng.uniform(0.25, 0.7, 3).tolist())
    return Thing("carton", (_box("carton", size, (0.0, 0.0, size[2] / 2), colour(rng)),))


def waste_bin(rng: np.random.Generator) -> Thing:
    """A cylinder."""
    radius, height = float(rng.uniform(0.12, 0.25)), float(rng.uniform(0.3, 0.8))
    return Thing("bin", (_pole("bin", radius, height, 0.0, 0.0, 0.0, colour(rng)),))


def person(rng: np.random.Generator) -> Thing:
    """Two legs, a trunk with round shoulders and a head; as high as people are."""
    high, trunk_radius, apart, step = rng.uniform((1.5, 0.15, 0.09, -0.15), (1.95, 0.22, 0.12, 0.15)).tolist()
    clothes, head = colour(rng), 0.11
    hip, neck = 0.48 * high, high - 2 * head
    legs = [_pole("legs", 0.07, hip, side * step, side * apart, 0.0, clothes) for side in SIDES]
    trunk = _pole("trunk", trunk_radius, neck - 0.6 * trunk_radius - hip, 0.0, 0.0, hip, clothes)
    shoulders = Piece("trunk", (Solid((trunk_radius * 0.95,), (0.0, 0.0, neck - trunk_radius * 0.95)),), clothes)
    return Thing(
        "person",
        (*legs, trunk, shoulders, Piece("head", (Solid((head,), (0.0, 0.0, high - head)),), (0.8, 0.6, 0.5, 1.0))),
    )


def cart(rng: np.random.Generator) -> Thing:
    """A load on four wheels with a handle behind; it looks along x."""
    wide, deep, low, load = rng.uniform((0.5, 0.7, 0.12, 0.3), (0.8, 1.2, 0.2, 0.8)).tolist()
    paint = colour(rng)
    wheel = 0.08
    out = [
        _box("wheels", (wheel, 0.04, low), (x * (deep - wheel) / 2, y * (wide - 0.04) / 2, low / 2), paint)
        for x in SIDES
        for y in SIDES
    ]
    out.append(_box("load", (deep, wide, load), (0.0, 0.0, low + load / 2), paint))
    high = max(0.95, low + load + 0.1)
    post = high - low - load
    for y in SIDES:
        place = (-(deep - 0.03) / 2, y * (wide - 0.03) / 2, low + load + post / 2)
        out.append(_box("handle", (0.03, 0.03, post), place, paint))
    out.append(_box("handle", (0.03, wide, 0.03), (-(deep - 0.03) / 2, 0.0, high + 0.015), paint))
    return Thing("cart", tuple(out))


STANDING: dict[str, Maker] = {
    "table": table,
    "chair": chair,
    "shelf": shelf,
    "sofa": sofa,
    "carton": carton,
    "bin": waste_bin,
    "person": person,
    "cart": cart,
}
MOVING: dict[str, Maker] = {"person": person, "cart": cart}
SPEED_M_S = {"person": (0.4, 1.6), "cart": (0.2, 1.2)}


def room(wide_m: float, deep_m: float, high_m: float, thick_m: float = 0.1) -> tuple[Thing, Thing]:
    """A floor whose top is z = 0 and four walls around ``deep_m`` (x) times ``wide_m`` (y), middle in the origin."""
    outer = (deep_m + 2 * thick_m, wide_m + 2 * thick_m)
    floor = Thing("floor", (_box("floor", (*outer, thick_m), (0.0, 0.0, -thick_m / 2), (0.6, 0.55, 0.5, 1.0)),))
    white: Rgba = (0.85, 0.85, 0.82, 1.0)
    walls = [
        _box("wall", (thick_m, outer[1], high_m), (x * (deep_m + thick_m) / 2, 0.0, high_m / 2), white) for x in SIDES
    ]
    walls += [
        _box("wall", (deep_m, thick_m, high_m), (0.0, y * (wide_m + thick_m) / 2, high_m / 2), white) for y in SIDES
    ]
    return floor, Thing("wall", tuple(walls))


def heading_velocity(thing: Thing, yaw_rad: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """A walking pace straight ahead, m/s; zero for what does not move by itself."""
    low, high = SPEED_M_S[thing.label]
    speed = float(rng.uniform(low, high))
    return (speed * math.cos(yaw_rad), speed * math.sin(yaw_rad), 0.0)
