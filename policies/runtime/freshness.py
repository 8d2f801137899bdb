"""Freshness: whether required sensors still see, by the robot's clock, and the robot still talks, by the loop's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from sensors.observation import Observation, Stream


@final
class Freshness:
    """Remembers when each required sensor last measured something sound.

    One lost frame does no harm: what counts is how old the newest sound one is.

    Args:
        required: names of sensors.
        max_age_s: older than this is stale.
    """

    def __init__(self, required: Sequence[str], max_age_s: float) -> None:
        self._required = tuple(required)
        self._max_age_s = max_age_s
        self._stamps_s: dict[str, float] = {}
        self._newest_s = -math.inf  # of the observations, on the robot's clock
        self._advanced_s = 0.0  # when that one came, on the loop's clock

    def reset(self, now_s: float) -> None:
        """Forget everything; ``now_s`` is on the loop's clock."""
        self._stamps_s = dict.fromkeys(self._required, -math.inf)
        self._newest_s, self._advanced_s = -math.inf, now_s

    def look(self, observation: Observation, now_s: float) -> list[str]:
        """Take in an observation; ``stale:<sensor>`` for each that is, and ``frozen`` if observations have stopped."""
        if observation.now_s > self._newest_s:
            self._newest_s, self._advanced_s = observation.now_s, now_s
        # The robot's clock stands still when its observations do, so the loop's clock measures that.
        silent_s = now_s - self._advanced_s
        flags = ["frozen"] if silent_s > self._max_age_s else []
        for name, before_s in self._stamps_s.items():
            stamp_s = max(before_s, _newest_stamp(observation.streams.get(name), observation.now_s))
            self._stamps_s[name] = stamp_s
            if observation.now_s - stamp_s + silent_s > self._max_age_s:
                flags.append(f"stale:{name}")
        return flags


def _newest_stamp(stream: Stream | None, now_s: float) -> float:
    """Capture time of the newest sound frame; minus infinity if there is none."""
    if stream is None:
        return -math.inf
    for age_s, valid in zip(stream.age_s[::-1].tolist(), stream.valid[::-1].tolist(), strict=True):
        if valid:
            return now_s - float(age_s)
    return -math.inf
