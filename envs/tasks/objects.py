"""Named objects: their colours, and places on the table where the hand can get at them."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from envs.randomisation import uniform
from envs.tasks.place import Area
from sensors.errors import SpecError
from sensors.geometry import FloatArray

HUES = {"red": 0.0, "green": 0.36, "blue": 0.61, "yellow": 0.15}
HUE_SPREAD = 0.02
FINGERS_M = 0.062  # from the middle of the open hand to the outside of a finger
GAP_M = 0.008  # of air between things
PLACES, RESTARTS = 60, 400  # draws per thing, and per scene

Rgba = tuple[float, float, float, float]


def shade(rng: np.random.Generator, name: str, free: bool) -> Rgba:
    """A shade (rgba) of a named colour; the middle one if not ``free``.

    Raises:
        SpecError: there is no such colour.
    """
    if name not in HUES:
        raise SpecError("colour", f"one of {list(HUES)}", repr(name), "Use one of them.")
    hue = HUES[name] + uniform(rng, -HUE_SPREAD, HUE_SPREAD, free)
    saturation, value = uniform(rng, 0.8, 1.0, free), uniform(rng, 0.75, 1.0, free)
    return (*colorsys.hsv_to_rgb(hue % 1.0, saturation, value), 1.0)


def colours(rng: np.random.Generator, count: int) -> list[str]:
    """``count`` different names of colours, in random order."""
    return [str(name) for name in rng.permutation(list(HUES))[:count]]


@dataclass(frozen=True)
class Spot:
    """What a thing needs on the table.

    Attributes:
        radius_m: of the circle around it.
        graspable: whether the open hand has to fit around it.
    """

    radius_m: float
    graspable: bool = True


def apart_m(one: Spot, other: Spot) -> float:
    """How far the middles of two things have to be from each other, metres."""
    reach = max(one.radius_m, FINGERS_M * one.graspable)
    other_reach = max(other.radius_m, FINGERS_M * other.graspable)
    # Only one of the two is grasped at a time.
    return max(reach + other.radius_m, other_reach + one.radius_m) + GAP_M


def scatter(
    where: str,
    rng: np.random.Generator,
    free: bool,
    area: Area,
    spots: Sequence[Spot],
    fits: Callable[[FloatArray], bool] | None = None,
) -> list[FloatArray]:
    """A place [2] for each of ``spots``, far enough from each other; always the same ones if not ``free``.

    Args:
        where: the task's name, for errors.
        rng: of the episode; one number is drawn from it, however many places had to be tried.
        free: whether places are random.
        area: where the middles may be.
        spots: what is put down.
        fits: whether a thing may be at a place [2], whatever else is there; None = anywhere.

    Raises:
        SpecError: there is no room.
    """
    seed = int(rng.integers(2**63))
    own = np.random.default_rng(seed if free else 0)
    for _ in range(RESTARTS):
        places = _scattered(own, area, spots, fits)
        if places is not None:
            return places
    raise SpecError(f"{where}, area", f"room for {len(spots)} things", "none was found", "Make the area larger.")


def _scattered(
    rng: np.random.Generator, area: Area, spots: Sequence[Spot], fits: Callable[[FloatArray], bool] | None
) -> list[FloatArray] | None:
    places: list[FloatArray] = []
    for spot in spots:
        for _ in range(PLACES):
            drawn, _ = area.draw(rng, True)
            far = all(
                math.dist(drawn, other) >= apart_m(spot, before)
                for other, before in zip(places, spots[: len(places)], strict=True)
            )
            if far and (fits is None or fits(drawn)):
                places.append(drawn)
                break
        else:
            return None
    return places
