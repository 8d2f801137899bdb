"""Observation: what all sensors of a rig show at one moment, with the age and validity of every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import SpecError
from sensors.spec import box

AGE, VALID = "age_s", "valid"
MAX_AGE_S = 1e6  # the age of a frame that never came


@dataclass(frozen=True, eq=False)
class Stream:
    """The last T instants of one sensor, oldest first.

    Attributes:
        data: field -> array [T, ...]; zeros where ``valid`` is False.
        age_s: float32 [T], seconds between capture and now, >= 0.
        valid: bool [T]; False = absent, dropped, corrupt or too old.
    """

    data: Mapping[str, NDArray[Any]]
    age_s: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Observation:
    """Sensor name -> stream, at one moment of the rig's clock.

    Attributes:
        now_s: the moment, seconds on the rig's clock.
        streams: sensor name -> its last T frames.
    """

    now_s: float
    streams: Mapping[str, Stream]

    def to_dict(self) -> dict[str, NDArray[Any]]:
        """Flat dict ``"sensor/field" -> array``, the form that crosses the Gymnasium boundary.

        Flat since stable-baselines3 refuses nested Dict spaces. Arrays are copies: a caller may keep them.
        """
        out: dict[str, NDArray[Any]] = {}
        for name, stream in self.streams.items():
            for field, value in stream.data.items():
                out[f"{name}/{field}"] = value.copy()
            out[f"{name}/{AGE}"] = stream.age_s.copy()
            # Gymnasium has no boolean Box that stable-baselines3 accepts; 0/1 bytes travel instead.
            out[f"{name}/{VALID}"] = stream.valid.astype(np.uint8)
        return out

    @staticmethod
    def from_dict(values: Mapping[str, NDArray[Any]], now_s: float = 0.0) -> Observation:
        """The inverse of :meth:`to_dict`; keys without a ``/`` (goals of a goal environment) are left out.

        Raises:
            SpecError: a sensor lacks its ``age_s`` or ``valid`` entry.
        """
        fields: dict[str, dict[str, NDArray[Any]]] = {}
        for key, value in values.items():
            name, slash, field = key.rpartition("/")
            if slash:
                fields.setdefault(name, {})[field] = np.asarray(value)
        streams = {}
        for name, data in fields.items():
            if AGE not in data or VALID not in data:
                raise SpecError(
                    f"Observation.from_dict, sensor '{name}'",
                    f"'{name}/{AGE}' and '{name}/{VALID}'",
                    f"the keys {sorted(data)}",
                    "Pass the whole dict that the environment returned.",
                )
            age, valid = data.pop(AGE), data.pop(VALID)
            streams[name] = Stream(data, np.asarray(age, np.float32), np.asarray(valid).astype(bool))
        return Observation(now_s, streams)


def observation_space(sensor_spaces: Mapping[str, spaces.Dict], history: Mapping[str, int]) -> spaces.Dict:
    """The flat Gymnasium space of :meth:`Observation.to_dict` for sensors with frame spaces and T instants each."""
    out: dict[str, spaces.Space[Any]] = {}
    for name, space in sensor_spaces.items():
        steps = history[name]
        for field, part in space.spaces.items():
            if not isinstance(part, spaces.Box):
                raise SpecError(f"sensor '{name}', field '{field}'", "a Box", type(part).__name__, "Use a Box space.")
            # An absent frame is all zeros, so zero must be legal in every element.
            low = np.repeat(np.minimum(part.low, 0)[None], steps, axis=0)
            high = np.repeat(np.maximum(part.high, 0)[None], steps, axis=0)
            out[f"{name}/{field}"] = spaces.Box(low, high, dtype=part.dtype.type)
        out[f"{name}/{AGE}"] = box(0.0, MAX_AGE_S, (steps,))
        out[f"{name}/{VALID}"] = box(0, 1, (steps,), np.uint8)
    return spaces.Dict(out)
