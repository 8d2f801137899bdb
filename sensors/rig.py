"""SensorRig: the named sensors of a robot on one clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium import spaces

from sensors.alignment import Alignment, align, keep_s
from sensors.base import Sensor, World
from sensors.errors import SensorError, SensorLost, SpecError, nearest
from sensors.observation import Observation, Stream, observation_space
from sensors.timeline import EPSILON_S, Spread, Timeline, TimingReport


class SensorRig:
    """Names -> sensors; reads those that are due and shows all of them at one moment.

    Args:
        sensors: name -> sensor; names must not contain ``/``.
        alignment: show what all sensors saw at one moment of capture (:mod:`sensors.alignment`); None = show of each
            sensor what came last.

    Raises:
        SpecError: a bad name, or a sensor that says it may be interpolated and has pictures or counts.
    """

    def __init__(self, sensors: Mapping[str, Sensor], alignment: Alignment | None = None) -> None:
        for name in sensors:
            if not name or "/" in name:
                raise SpecError("SensorRig", "sensor names without '/'", repr(name), "Rename the sensor.")
        self._sensors = dict(sensors)
        self._alignment = alignment
        self._timelines = {
            name: Timeline(name, s.timing, s.space, keep_s(alignment, s.timing)) for name, s in self._sensors.items()
        }
        self._skew = Spread()
        self._complete = 0
        self._noted_s: float | None = None  # the last moment that was observed
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

    def timing_report(self) -> TimingReport:
        """Latency of every sensor, and skew of what was observed, since reset."""
        timelines = self._timelines
        return TimingReport(
            latency_s={name: timeline.latency.quantiles() for name, timeline in timelines.items()},
            skew_s=self._skew.quantiles(),
            dropped={name: timeline.dropped for name, timeline in timelines.items()},
            corrupt={name: timeline.corrupt for name, timeline in timelines.items()},
            complete=self._complete,
            aligned=self._alignment is not None,
        )

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
        self._skew, self._complete, self._noted_s = Spread(), 0, None
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
        """What can be seen of all sensors at ``now_s``. Calling it twice gives the same answer.

        Without an alignment, that is what came last of each sensor; with one, what they saw at one moment of capture.
        Either way ``age_s`` says when the data are from.
        """
        if self._alignment is None:
            streams = {name: timeline.stream(now_s) for name, timeline in self._timelines.items()}
        else:
            streams = align(self._timelines, self._alignment, now_s)
        if now_s != self._noted_s:
            self._note(now_s, streams)
        return Observation(now_s, streams)

    def _note(self, now_s: float, streams: Mapping[str, Stream]) -> None:
        """Count a moment for the report, once."""
        self._noted_s = now_s
        ages = [stream.age_s.item(-1) for stream in streams.values() if stream.valid.item(-1)]
        if ages:
            self._skew.add(max(ages) - min(ages))
        self._complete += len(ages) == len(streams) - len(self._disabled)

    def close(self) -> None:
        """Close every sensor. May be called twice."""
        for sensor in self._sensors.values():
            sensor.close()
        self._open = False
