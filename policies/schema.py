"""Sensor schemas: what a recording, a model and a live rig must agree on, and the words for where they do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from gymnasium import spaces

from perceive.model_base import Model
from sensors.errors import DataError, WiringError, nearest
from sensors.spec import Json, space_from_json, space_to_json


def schema_hash(sensor_spaces: Mapping[str, spaces.Dict], history: Mapping[str, int], action: Json | None) -> str:
    """16 hex digits that are equal when two parts read the same fields of the same sensors and mean the same action."""
    data = {
        "sensors": {name: space_to_json(sensor_spaces[name]) for name in sorted(sensor_spaces)},
        "history": {name: history[name] for name in sorted(history)},
        "action": action,
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def difference(expected: Mapping[str, spaces.Dict], got: Mapping[str, spaces.Dict]) -> str | None:
    """The first difference between two sets of sensors in words; None where there is none.

    Names, fields, shapes and dtypes count; bounds do not, since a sensor's range may be declared more tightly.
    """
    for name in expected:
        if name not in got:
            return f"no sensor '{name}' ({nearest(name, got)})"
    for name in got:
        if name not in expected:
            return f"another sensor '{name}' ({nearest(name, expected)})"
    for name, space in expected.items():
        fields = got[name].spaces
        if set(fields) != set(space.spaces):
            return f"sensor '{name}' with the fields {sorted(fields)} instead of {sorted(space.spaces)}"
        for field, part in space.spaces.items():
            other = fields[field]
            if (other.shape, other.dtype) != (part.shape, part.dtype):
                return f"'{name}/{field}' as {other.dtype} {other.shape} instead of {part.dtype} {part.shape}"
    return None


def check_dataset_fits(where: str, model: Model, data_spaces: Mapping[str, spaces.Dict]) -> None:
    """Raise unless the recorded sensors are those of the model; sensors that the model ignores may be there or not.

    Raises:
        DataError: a sensor is missing, is one too many, or has other fields, shapes or dtypes.
    """
    expected = model_sensors(model)
    ignored = ignored_sensors(model)
    wrong = difference(expected, {name: space for name, space in data_spaces.items() if name not in ignored})
    if wrong is not None:
        raise DataError(
            where,
            f"episodes recorded with the sensors {sorted(expected)}",
            wrong,
            "Collect episodes with the model's rig, or build the model for these sensors.",
        )


def model_sensors(model: Model) -> dict[str, spaces.Dict]:
    """Sensor -> frame space, for the sensors that a model reads."""
    out = {}
    for name in model.sensor_names:
        space = space_from_json(model.config["sensor_spaces"][name])
        if not isinstance(space, spaces.Dict):
            raise WiringError(
                f"sensor '{name}'", "a Dict space", type(space).__name__, "The model's config is damaged."
            )
        out[name] = space
    return out


def ignored_sensors(model: Model) -> frozenset[str]:
    """Sensors of the rig that a model was built not to read."""
    return frozenset(model.config["model"].get("ignored_sensors", ()))


def check_observation_fits(
    where: str,
    model_spaces: Mapping[str, spaces.Dict],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
    ignored: frozenset[str] = frozenset(),
) -> None:
    """Raise unless a live observation has the sensors, fields and shapes that a model was trained with.

    Args:
        where: who asks.
        model_spaces: sensor -> space of one frame.
        shapes: sensor -> field -> shape of one frame, as observed.
        ignored: sensors that may be there and are not read.

    Raises:
        WiringError: naming what is missing or one too many, and the nearest known name.
    """
    fix = "Give the robot's rig the sensors that the model was trained with, under the same names."
    known = sorted(model_spaces)
    for name, space in model_spaces.items():
        if name not in shapes:
            raise WiringError(where, f"the sensors {known}", f"no '{name}'. {nearest(name, shapes)}", fix)
        for field, part in space.spaces.items():
            got = shapes[name].get(field)
            if got is None:
                raise WiringError(where, f"'{name}/{field}'", f"no such field. {nearest(field, shapes[name])}", fix)
            if got != part.shape:
                raise WiringError(where, f"'{name}/{field}' of shape {part.shape}", f"{got}", fix)
    for name in shapes:
        if name not in model_spaces and name not in ignored:
            raise WiringError(where, f"the sensors {known}", f"another one, '{name}'. {nearest(name, known)}", fix)
