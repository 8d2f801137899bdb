"""What all simulated sensors refuse, in one wording: bad settings, no world, reading too early."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sensors.base import World
from sensors.errors import SensorError, SpecError

Rule = tuple[bool, object, str]  # holds, value, what is expected


def check_settings(sensor: str, rules: Mapping[str, Rule]) -> None:
    """Check the arguments of a constructor: argument name -> (whether it is right, its value, what is expected).

    Raises:
        SpecError: one of them is wrong.
    """
    for name, (good, value, expected) in rules.items():
        if not good:
            raise SpecError(f"{sensor}, {name}", expected, repr(value), "Correct the sensor's config.")


def not_negative(settings: Mapping[str, float]) -> dict[str, Rule]:
    """Rules for standard deviations, lengths and other finite numbers >= 0."""
    return {
        name: (value >= 0 and np.isfinite(value), value, "a finite number >= 0") for name, value in settings.items()
    }


def positive(settings: Mapping[str, float]) -> dict[str, Rule]:
    """Rules for finite numbers > 0."""
    return {name: (value > 0 and np.isfinite(value), value, "a finite number > 0") for name, value in settings.items()}


def require_world(sensor: str, world: World | None) -> World:
    """The world given to ``open``.

    Raises:
        SensorError: there is none.
    """
    if world is None:
        fix = "A simulated sensor needs an environment's world; on hardware, use a hardware adapter."
        raise SensorError(f"{sensor}.open", "a World", "None", fix)
    return world


def not_ready(sensor: str) -> SensorError:
    """The error of a ``read`` before ``open`` and ``reset``, or after ``close``."""
    got = "one that is closed or was never reset"
    return SensorError(f"{sensor}.read", "an open sensor", got, "Call open(world), then reset(rng), then read.")
