"""What may stand on a table, with random sizes and colours; furniture as in :mod:`envs.models`."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np

from envs import models
from envs.cloud_scenes.things import Piece, Rgba, Solid, Thing, ring_of_boards, solids_of

Maker = Callable[[np.random.Generator], Thing]
MUG_SIDES = 10


def colour(rng: np.random.Generator) -> Rgba:
    """Any colour, pale or vivid."""
    hue, saturation, value = rng.uniform((0.0, 0.1, 0.25), (1.0, 1.0, 1.0))
    return (*colorsys.hsv_to_rgb(hue, saturation, value), 1.0)


def box(rng: np.random.Generator) -> Thing:
    """A box that stands on any of its sides."""
    wide, deep, high = rng.uniform(0.03, 0.12, 3).tolist()
    return Thing("box", (Piece("box", (Solid((wide, deep, high), (0.0, 0.0, high / 2)),), colour(rng)),))


def can(rng: np.random.Generator) -> Thing:
    """A cylinder, upright or lying."""
    radius, height = float(rng.uniform(0.02, 0.045)), float(rng.uniform(0.05, 0.14))
    lying = rng.random() < 0.3
    solid = Solid(
        (radius, height),
        (0.0, 0.0, radius if lying else height / 2),
        (0.0, math.pi / 2, 0.0) if lying else (0.0, 0.0, 0.0),
    )
    return Thing("can", (Piece("can", (solid,), colour(rng)),))


def ball(rng: np.random.Generator) -> Thing:
    """A ball."""
    radius = float(rng.uniform(0.02, 0.05))
    return Thing("ball", (Piece("ball", (Solid((radius,), (0.0, 0.0, radius)),), colour(rng)),))


def tray(rng: np.random.Generator) -> Thing:
    """The tray of :func:`envs.models.tray_urdf`."""
    return Thing("tray", (Piece("tray", solids_of(models.tray_urdf(), {})["body"], colour(rng)),))


def bowl(rng: np.random.Generator) -> Thing:
    """The bowl of :func:`envs.models.bowl_urdf`."""
    return Thing("bowl", (Piece("bowl", solids_of(models.bowl_urdf(), {})["body"], colour(rng)),))


def button(rng: np.random.Generator) -> Thing:
    """The push button of :func:`envs.models.button_urdf`, pressed somehow."""
    links = solids_of(models.button_urdf(), {"press": float(rng.uniform(0.0, models.CAP_TRAVEL_M))})
    return Thing("button", (Piece("base", links["body"], colour(rng)), Piece("cap", links["cap"], colour(rng))))


def cabinet(rng: np.random.Generator) -> Thing:
    """The cabinet of :func:`envs.models.cabinet_urdf`, its drawer open somehow."""
    links = solids_of(models.cabinet_urdf(), {"slide": float(rng.uniform(0.0, models.DRAWER_TRAVEL_M))})
    paint = colour(rng)
    # Half of the drawers have their cabinet's colour: only their shape tells them.
    drawer = paint if rng.random() < 0.5 else colour(rng)
    return Thing("cabinet", (Piece("body", links["body"], paint), Piece("drawer", links["drawer"], drawer)))


def mug(rng: np.random.Generator) -> Thing:
    """A cup of upright boards around a floor, with a square handle."""
    radius, height = float(rng.uniform(0.03, 0.045)), float(rng.uniform(0.07, 0.11))
    wall, floor = 0.005, 0.006
    cup = (
        Solid((radius + wall / 2, floor), (0.0, 0.0, floor / 2)),
        *ring_of_boards(radius, wall, height - floor, MUG_SIDES, floor),
    )
    thick, reach, rise = 0.008, float(rng.uniform(0.025, 0.04)), height * float(rng.uniform(0.45, 0.65))
    # A little inside of the wall, so that they touch.
    start, low = radius + wall * 0.6, (height - rise) / 2
    bars = [Solid((reach, thick, thick), (start + reach / 2, 0.0, at + thick / 2)) for at in (low, low + rise - thick)]
    grip = Solid((thick, thick, rise - 2 * thick), (start + reach - thick / 2, 0.0, height / 2))
    paint = colour(rng)
    return Thing("mug", (Piece("cup", cup, paint), Piece("handle", (*bars, grip), paint)))


def bottle(rng: np.random.Generator) -> Thing:
    """A cylinder, a thinner one and a cap."""
    radius, height = float(rng.uniform(0.022, 0.04)), float(rng.uniform(0.09, 0.16))
    neck, long, cap = radius * float(rng.uniform(0.35, 0.55)), float(rng.uniform(0.03, 0.05)), 0.014
    paint = colour(rng)
    return Thing(
        "bottle",
        (
            Piece("body", (Solid((radius, height), (0.0, 0.0, height / 2)),), paint),
            Piece("neck", (Solid((neck, long), (0.0, 0.0, height + long / 2)),), paint),
            Piece("cap", (Solid((neck * 1.3, cap), (0.0, 0.0, height + long + cap / 2)),), colour(rng)),
        ),
    )


def screwdriver(rng: np.random.Generator) -> Thing:
    """Grip and shaft, lying."""
    radius, grip, long = (
        float(rng.uniform(0.012, 0.018)),
        float(rng.uniform(0.08, 0.11)),
        float(rng.uniform(0.07, 0.14)),
    )
    lying = (0.0, math.pi / 2, 0.0)
    return Thing(
        "screwdriver",
        (
            Piece("grip", (Solid((radius, grip), (-grip / 2, 0.0, radius), lying),), colour(rng)),
            Piece("shaft", (Solid((0.004, long), (long / 2, 0.0, radius), lying),), (0.6, 0.6, 0.62, 1.0)),
        ),
    )


MAKERS: dict[str, Maker] = {
    "box": box,
    "can": can,
    "ball": ball,
    "tray": tray,
    "bowl": bowl,
    "button": button,
    "cabinet": cabinet,
    "mug": mug,
    "bottle": bottle,
    "screwdriver": screwdriver,
}
# On or in what a small thing may be put: the height of that floor, and the radius that is free there.
SMALL = ("box", "can", "ball")


def room_on(thing: Thing) -> tuple[float, float]:
    """The height at which a small thing stands on this one, and the radius that it may have; 0 = it may not."""
    if thing.label == "tray":
        return models.FLOOR_M, models.TRAY_HALF_M
    if thing.label == "bowl":
        return models.FLOOR_M, models.BOWL_RADIUS_M
    if thing.label == "box":
        high = thing.bounds_m[1]
        return float(high[2]), float(min(high[:2]))
    return 0.0, 0.0
