"""Tap: a sensor that hands on every frame of another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.errors import SensorLost
from sensors.frames import Frame
from sensors.live import LiveSensor
from sensors.timeline import Timing


@final
class Tap(Sensor):
    """A sensor that is the same as the one inside, to whoever reads it; each frame also goes to ``hand_on``.

    Args:
        sensor: the sensor inside.
        name: its name.
        hand_on: called with the name, the frame and the time of reading; must return at once.
    """

    def __init__(self, sensor: Sensor, name: str, hand_on: Callable[[str, Frame, float], object]) -> None:
        self._sensor = sensor
        self._name = name
        self._hand_on = hand_on
        self._lost = 0

    @property
    def space(self) -> spaces.Dict:
        """The sensor's."""
        return self._sensor.space

    @property
    def timing(self) -> Timing:
        """The sensor's."""
        return self._sensor.timing

    def statistics(self) -> dict[str, Any]:
        """Readings that found the sensor lost, and of a live sensor its counts and how its clock ran, as JSON data."""
        found: dict[str, Any] = {"lost_readings": self._lost}
        if isinstance(self._sensor, LiveSensor):
            clock = self._sensor.clock
            found["counts"] = self._sensor.counts
            if clock.count:
                found["clock"] = {
                    "offset_s": clock.offset_s, "drift": clock.drift, "readings": clock.count,
                    "restarts": clock.restarts, "uncertainty_s": str(clock.uncertainty_s),
                }  # fmt: skip
        return found

    def open(self, world: World | None) -> None:
        """Open the sensor."""
        self._sensor.open(world)

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._sensor.reset(rng)

    def read(self, now_s: float) -> Frame | None:
        """What the sensor gives.

        Raises:
            SensorLost: the sensor is away.
        """
        try:
            frame = self._sensor.read(now_s)
        except SensorLost:
            self._lost += 1
            raise
        if frame is not None:
            # A tick has the time at which it began. A device that took this frame since then was read after that.
            self._hand_on(self._name, frame, max(now_s, frame.stamp_s))
        return frame

    def close(self) -> None:
        """Close the sensor."""
        self._sensor.close()
