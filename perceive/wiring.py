"""Checks that the parts of a model fit each other and what it is fed. Names are checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium import spaces

from perceive.batch import BatchStream
from sensors.errors import SpecError, WiringError, nearest

_REQUIRED = ("width", "encoders", "trunk", "heads")
_KNOWN = (*_REQUIRED, "origin", "ignored_sensors")


def check_config(
    config: Mapping[str, Any], sensor_spaces: Mapping[str, spaces.Dict], history: Mapping[str, int]
) -> None:
    """Raise WiringError unless a model config has the right keys and names the sensors of the rig."""
    for key in config:
        if key not in _KNOWN:
            raise WiringError("model config", f"the keys {sorted(_KNOWN)}", f"'{key}'", nearest(key, _KNOWN))
    for key in _REQUIRED:
        if key not in config:
            raise WiringError("model config", f"a '{key}' entry", f"the keys {sorted(config)}", f"Add '{key}'.")
    ignored = set(config.get("ignored_sensors", ()))
    named = {f"encoder '{n}'": n for n in config["encoders"]} | {f"ignored_sensors, '{n}'": n for n in ignored}
    for where, name in named.items():
        if name not in sensor_spaces:
            raise WiringError(where, "a sensor of the rig", f"no sensor '{name}'", nearest(name, sensor_spaces))
    for name in config["encoders"]:
        if name not in history:
            raise WiringError(f"sensor '{name}'", "a number of instants in history", "none", "Pass the rig's history.")
    for name in sensor_spaces:
        if name not in config["encoders"] and name not in ignored:
            raise WiringError(
                f"sensor '{name}'",
                f"an encoder of that name (there are {sorted(config['encoders'])})",
                "none",
                "Add one to the model's encoders, or list the sensor in ignored_sensors.",
            )


def check_sensors(
    owner: str,
    read: Sequence[tuple[str, Sequence[str]]],
    sensor_spaces: Mapping[str, spaces.Dict],
    ignored: Sequence[str],
) -> None:
    """Raise WiringError unless all sensors that are read, (name, fields), are there, and no other that is not ignored.

    For models that read sensors without an encoder for each; ``owner`` is the class that asks.
    """
    names = [name for name, _ in read]
    for name in (*names, *ignored):
        if name not in sensor_spaces:
            raise WiringError(owner, f"the sensor '{name}'", f"{sorted(sensor_spaces)}", nearest(name, sensor_spaces))
    for name, fields in read:
        missing = [field for field in fields if field not in sensor_spaces[name].spaces]
        if missing:
            raise WiringError(
                f"{owner}, sensor '{name}'", f"the fields {list(fields)}", f"no {missing}", "Name another sensor."
            )
    for name in sensor_spaces:
        if name not in names and name not in ignored:
            raise WiringError(
                f"{owner}, sensor '{name}'", f"one of {names}", "another",
                "Add it to those that are read, or list it in ignored_sensors.",
            )  # fmt: skip


def check_shapes(sensor: str, stream: BatchStream, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless a stream has the fields that a sensor's space declares, field -> (T, ...).

    Raises:
        WiringError: a field is missing.
        SpecError: a field has another shape.
    """
    for field, shape in shapes.items():
        if field not in stream.data:
            raise WiringError(
                f"sensor '{sensor}'", f"the field '{field}'", f"{sorted(stream.data)}", nearest(field, stream.data)
            )
        got = tuple(stream.data[field].shape[1:])
        if got != shape:
            raise SpecError(
                f"sensor '{sensor}', field '{field}'",
                f"[B, T, ...] with T, ... = {shape}",
                f"{got}",
                "Feed the sensor settings (image size, history) that the model was made for.",
            )
