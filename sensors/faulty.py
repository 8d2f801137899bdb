"""Faulty: any sensor, simulated or real, with faults around it.

    Faulty(camera, [Freeze(when=When(start_s=2.0, stop_s=4.0)), Drop(when=When(probability=0.1))])

The kinds of faults are in :mod:`sensors.faults`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.errors import SensorLost, SpecError
from sensors.frames import Frame
from sensors.timeline import EPSILON_S, Timing

Items = list[Frame | None]  # what a read gave; None = a frame that is lost


@dataclass(frozen=True)
class When:
    """When a fault acts.

    Attributes:
        start_s: from here on, seconds since the episode's first reading.
        stop_s: until here.
        probability: chance for each frame (for :class:`Disconnect` and :class:`Freeze`: of each episode).
    """

    start_s: float = 0.0
    stop_s: float = float("inf")
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.start_s < self.stop_s and 0 <= self.probability <= 1):
            got = f"{self.start_s}, {self.stop_s}, {self.probability}"
            raise SpecError("When", "0 <= start_s < stop_s and 0 <= probability <= 1", got, "Correct them.")

    def covers(self, since_s: float) -> bool:
        """Whether a moment of the episode lies within."""
        return self.start_s - EPSILON_S <= since_s < self.stop_s - EPSILON_S


class Fault(ABC):
    """One thing that goes wrong."""

    @abstractmethod
    def check(self, space: spaces.Dict) -> None:
        """Raise SpecError if the fault does not fit the sensor's frames."""

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""

    @abstractmethod
    def process(self, since_s: float, items: Items) -> Items:
        """What comes through of what was just read; called at every reading, also with nothing.

        Raises:
            SensorLost: the fault is that the sensor is away.
        """


@final
class Faulty(Sensor):
    """A sensor with faults around it; shows the same space and timing as the sensor inside.

    Args:
        sensor: the sensor.
        faults: what goes wrong, in the order in which a frame meets it.

    Raises:
        SpecError: a fault names a field that the sensor does not have.
    """

    def __init__(self, sensor: Sensor, faults: Sequence[Fault]) -> None:
        for fault in faults:
            fault.check(sensor.space)
        self._sensor = sensor
        self._faults = tuple(faults)
        # A frame that comes late is no gap, so "nothing" must not be taken for one.
        self._timing = replace(sensor.timing, gaps=False)
        self._outbox: deque[Frame | None] = deque()
        self._start_s: float | None = None
        self._polled_s: float | None = None

    @property
    def space(self) -> spaces.Dict:
        """The sensor's."""
        return self._sensor.space

    @property
    def timing(self) -> Timing:
        """The sensor's, save that a lost frame is told by SensorLost, and None is no gap."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Open the sensor."""
        self._sensor.open(world)

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode. The sensor draws what it would draw without faults."""
        self._sensor.reset(rng)
        for fault, own in zip(self._faults, rng.spawn(len(self._faults)), strict=True):
            fault.reset(own)
        self._outbox.clear()
        self._start_s = self._polled_s = None

    def read(self, now_s: float) -> Frame | None:
        """The next frame that comes through; None = none for now.

        Raises:
            SensorLost: a frame was lost, or the sensor is away.
        """
        if self._timing.live or now_s != self._polled_s:
            self._poll(now_s)
        while self._outbox:
            frame = self._outbox.popleft()
            if frame is not None:
                return frame
            if not self._timing.live:
                raise SensorLost("Faulty", "a frame", "one that is lost by an injected fault", "Nothing to do.")
        return None

    def close(self) -> None:
        """Close the sensor."""
        self._sensor.close()

    def _poll(self, now_s: float) -> None:
        self._polled_s = now_s
        self._start_s = now_s if self._start_s is None else self._start_s
        items: Items = [self._sensor.read(now_s)]
        if self._timing.live:
            items = []
            while (frame := self._sensor.read(now_s)) is not None:
                items.append(frame)
        for fault in self._faults:
            items = fault.process(now_s - self._start_s, items)
        self._outbox.extend(items)
