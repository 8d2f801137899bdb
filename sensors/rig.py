"""SensorRig: the named sensors of a robot on one clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.errors import SensorError, SensorLost, SpecError, nearest
from sensors.observation import Observation, observation_space
from sensors.timeline import EPSILON_S, Timeline


class SensorRig:
    """Names -> sensors; reads those that are due and shows all of them at one moment.

    Args:
        sensors: name -> sensor; names must not contain ``/``.
    """

    def __init__(self, sensors: Mapping[str, Sensor]) -> None:
        for name in sensors:
            if not name or "/" in name:
                raise SpecError("SensorRig", "sensor names without '/'", repr(name), "Rename the sensor.")
        self._sensors = dict(sensors)
        self._timelines = {name: Timeline(name, s.timing, s.space) for name, s in self._sensors.items()}
        self._disabled: frozenset[str] = frozenset()
        self._open = False

    @property
    def names(self) -> tuple[str, ...]:
        """Sensor names in their fixed order."""
        return tuple(self._sensors)

    @property
    def sensor_spaces(self) -> dict[str, spaces.Dict]:
        """Name -> frame space of one instant."""
        return {name: sensor.space for name, sensor in self._sensors.items()}

    @property
    def history(self) -> dict[str, int]:
        """Name -> T."""
        return {name: sensor.timing.history for name, sensor in self._sensors.items()}

    @property
    def rates_hz(self) -> dict[str, float]:
        """Name -> measurements per second."""
        return {name: sensor.timing.rate_hz for name, sensor in self._sensors.items()}

    @property
    def space(self) -> spaces.Dict:
        """The flat Gymnasium space of the rig's observations."""
        return observation_space(self.sensor_spaces, self.history)

    @property
    def next_due_s(self) -> float:
        """The earliest moment at which a sensor has to be read; infinity where there are none but live ones."""
        return min((timeline.next_due_s for timeline in self._timelines.values()), default=float("inf"))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Name -> frames dropped and frames masked as corrupt since reset."""
        return {n: {"dropped": t.dropped, "corrupt": t.corrupt} for n, t in self._timelines.items()}

    def disable(self, names: frozenset[str]) -> None:
        """Act as if these sensors were unplugged: they are not read, and their frames are ``valid=False``.

        Raises:
            SpecError: a name is not in the rig.
        """
        for name in names:
            if name not in self._sensors:
                raise SpecError("SensorRig.disable", "a sensor of this rig", f"'{name}'", nearest(name, self._sensors))
        self._disabled = names

    def open(self, world: World | None) -> None:
        """Open every sensor; if one fails, those already open are closed again."""
        opened: list[Sensor] = []
        try:
            for sensor in self._sensors.values():
                sensor.open(world)
                opened.append(sensor)
        except Exception:
            for sensor in opened:
                sensor.close()
            raise
        self._open = True

    def reset(self, now_s: float, seed: int | np.random.SeedSequence) -> None:
        """Start an episode at ``now_s``; every sensor and timeline gets a generator of its own.

        A sensor's noise depends on the seed and its name only, not on which other sensors there are.
        """
        if not self._open:
            raise SensorError("SensorRig.reset", "an open rig", "a closed one", "Call open(world) first.")
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        for name, sensor in self._sensors.items():
            # Below the root's own key: sequences spawned from one parent share its entropy and differ only in the key.
            own = np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *name.encode()))
            noise, timing = own.spawn(2)
            sensor.reset(np.random.default_rng(noise))
            self._timelines[name].reset(now_s, np.random.default_rng(timing))

    def tick(self, now_s: float) -> None:
        """Read every sensor that is due at ``now_s``, and all that came from live ones."""
        for name, timeline in self._timelines.items():
            if self._sensors[name].timing.live or timeline.next_due_s <= now_s + EPSILON_S:
                self._read(name, timeline, now_s)

    def _read(self, name: str, timeline: Timeline, now_s: float) -> None:
        sensor = self._sensors[name]
        if name in self._disabled:
            timeline.push(now_s, None)
            return
        timing = sensor.timing
        try:
            if timing.gaps and not timing.live:
                timeline.push(now_s, sensor.read(now_s))
                return
            timeline.asked(now_s)
            while (frame := sensor.read(now_s)) is not None:  # all that came since the last tick
                timeline.push(now_s, frame)
        except SensorLost:
            timeline.push(now_s, None)

    def observe(self, now_s: float) -> Observation:
        """What all sensors show at ``now_s``. Calling it twice gives the same answer."""
        return Observation(now_s, {name: timeline.stream(now_s) for name, timeline in self._timelines.items()})

    def close(self) -> None:
        """Close every sensor. May be called twice."""
        for sensor in self._sensors.values():
            sensor.close()
        self._open = False
