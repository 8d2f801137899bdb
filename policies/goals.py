"""Goals as sensors: ``achieved_goal`` and ``desired_goal`` of a goal environment become placed vector streams.

A goal is a point in the base frame, so it is a token at that point. Hindsight relabelling, which replaces a goal by
one that was reached, then simply moves the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import WiringError
from sensors.observation import AGE, VALID, Observation, Stream, observation_space

GOAL_KEYS = ("achieved_goal", "desired_goal")
POSITION = "position_m"


def split_space(space: spaces.Dict) -> tuple[dict[str, spaces.Dict], dict[str, int]]:
    """Frame spaces and histories of a flat observation space ``"sensor/field"``, goals included as sensors.

    Raises:
        WiringError: an entry is neither of a sensor nor a goal of three numbers.
    """
    fields: dict[str, dict[str, spaces.Space[Any]]] = {}
    history: dict[str, int] = {}
    for key, part in space.spaces.items():
        if not isinstance(part, spaces.Box):
            raise WiringError(
                f"observation space, '{key}'", "a Box", type(part).__name__, "Use an env of a sensor rig."
            )
        name, slash, field = key.rpartition("/")
        if key in GOAL_KEYS and part.shape == (3,):
            fields[key], history[key] = {POSITION: spaces.Box(part.low, part.high, dtype=np.float32)}, 1
        elif not slash:
            fix = "Use an env of a sensor rig, or one with goals of three numbers (metres in the base frame)."
            raise WiringError("observation space", "'sensor/field' keys or goals [3]", f"'{key}' {part.shape}", fix)
        elif field in (AGE, VALID):
            history[name] = part.shape[0]
        else:
            fields.setdefault(name, {})[field] = spaces.Box(part.low[0], part.high[0], dtype=part.dtype.type)
    return {name: spaces.Dict(dict(parts)) for name, parts in fields.items()}, history


def goal_stream(goal_m: NDArray[Any]) -> Stream:
    """A goal [3] as a stream of one instant that is now and always there."""
    data = {POSITION: np.asarray(goal_m, np.float32)[None]}
    return Stream(data, np.zeros(1, np.float32), np.ones(1, bool))


def with_goals(observation: Observation, values: Mapping[str, NDArray[Any]]) -> Observation:
    """The observation and the goals that stand in ``values``."""
    goals = {name: goal_stream(values[name]) for name in GOAL_KEYS if name in values}
    return Observation(observation.now_s, {**observation.streams, **goals})


def to_flat(observation: Observation) -> dict[str, NDArray[Any]]:
    """The flat dict of a goal environment: goals are plain entries again."""
    sensors = {name: stream for name, stream in observation.streams.items() if name not in GOAL_KEYS}
    goals = {n: np.asarray(s.data[POSITION][-1]) for n, s in observation.streams.items() if n in GOAL_KEYS}
    return Observation(observation.now_s, sensors).to_dict() | goals


@final
class GoalsAsSensors(gymnasium.ObservationWrapper[dict[str, NDArray[Any]], Any, dict[str, NDArray[Any]]]):
    """A goal environment whose goals are sensors, for loops that know sensors only (rollout, evaluation).

    Args:
        env: with ``achieved_goal`` and ``desired_goal`` among its observations, or without; then nothing changes.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict):
            raise WiringError(
                "GoalsAsSensors", "a Dict observation space", type(space).__name__, "Use an env of a sensor rig."
            )
        self.observation_space = observation_space(*split_space(space))  # type: ignore[assignment]  # a Dict is a Space of dicts

    def observation(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Goals under the keys of sensors."""
        return with_goals(Observation.from_dict(observation), observation).to_dict()
