"""Replay: a recording as live sensors, at any speed, or as sensors on a clock of your own.

    rig = replay_rig("drive.mcap", speed=2.0)     # LiveSensors in real time, twice as fast
    rig = stepped_rig("drive.mcap")               # tick(now_s) with times of the recording: the same at every run

What reads the rig cannot tell it from the one that was recorded.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.alignment import Alignment
from sensors.base import Sensor, World
from sensors.clock import host_now_s
from sensors.errors import SensorError, SpecError, nearest
from sensors.frames import Frame
from sensors.live import Captured, Device, LiveSensor
from sensors.recording.reader import RecordedFrame, Recording, SensorInfo
from sensors.rig import SensorRig
from sensors.timeline import EPSILON_S, Timing


@final
class Playback:
    """The clock of a replay, shared by the devices that play one recording, so that they keep step.

    Args:
        speed: seconds of the recording per second; 0 or infinity = as fast as frames are read.

    Raises:
        SpecError: the speed is negative or NaN.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if not speed >= 0:
            raise SpecError(
                "Playback.speed", "a number >= 0; 0 or inf = as fast as possible", repr(speed), "Correct it."
            )
        self.speed = math.inf if speed == 0 else speed
        self._lock = threading.Lock()
        self._began_s: float | None = None

    def begin(self) -> None:
        """Start, unless another device did."""
        with self._lock:
            if self._began_s is None:
                self._began_s = host_now_s()

    def host_s(self, since_start_s: float) -> float:
        """When, on the host's clock, something happens that is so far into the recording."""
        assert self._began_s is not None, "begun"
        return self._began_s + since_start_s / self.speed


@final
class RecordedDevice(Device):
    """A sensor of a recording that plays as a device.

    Frames come when they came, counted from the start of the recording and divided by the speed, and are stamped on the
    host's clock likewise. At the end nothing comes any more. As fast as possible, each frame comes when it is asked
    for, as old as it was when it was read first. Poses come back as they were recorded: leave the mount at identity.

    Args:
        path: the recording.
        sensor: which of its sensors.
        speed: seconds of the recording per second; 0 or infinity = as fast as frames are read.
        playback: share one among the devices of a rig to keep them in step; its speed holds then.

    Raises:
        DataError: there is no such recording.
        SpecError: it has no such sensor.
    """

    def __init__(self, path: str | Path, sensor: str, speed: float = 1.0, playback: Playback | None = None) -> None:
        self._recording = Recording(path)
        self._sensor = recorded_sensor(self._recording, sensor)
        self._given = playback
        self._playback = playback or Playback(speed)
        self._frames: Iterator[RecordedFrame] = iter(())
        self._next: RecordedFrame | None = None
        self._open = False

    @property
    def space(self) -> spaces.Dict:
        """That of the sensor when it was recorded."""
        return self._sensor.space

    @property
    def counts(self) -> dict[str, int]:
        """Bytes at the file's end that are no whole chunk."""
        return {"lost_bytes": self._recording.lost_bytes}

    @property
    def is_over(self) -> bool:
        """Whether every frame was given."""
        return self._open and self._next is None

    def open(self) -> None:
        """Begin at the first frame."""
        if self._given is None:
            self._playback = Playback(self._playback.speed)
        self._frames = self._recording.frames([self._sensor.name])
        self._next = next(self._frames, None)
        self._open = True
        self._playback.begin()

    def wait(self, timeout_s: float) -> Captured | None:
        """The next frame when it is due; None if it is not within the timeout, or the recording is over.

        Raises:
            DataError: the file is damaged here.
            SensorError: not open.
        """
        if not self._open:
            raise SensorError("RecordedDevice.wait", "an open recording", "a closed one", "Call open() first.")
        ends_s = host_now_s() + timeout_s
        if self._next is None:
            time.sleep(timeout_s)
            return None
        recorded, start_s = self._next, self._recording.start_s
        arrived_s = host_now_s()
        if self._playback.speed < math.inf:
            due_s = self._playback.host_s(self._due_s(recorded) - start_s)
            time.sleep(max(min(due_s, ends_s) - host_now_s(), 0.0))
            if due_s > ends_s:
                return None
            arrived_s = due_s
            stamp_s = self._playback.host_s(recorded.frame.stamp_s - start_s)
        else:
            stamp_s = arrived_s - (self._due_s(recorded) - recorded.frame.stamp_s)
        self._next = next(self._frames, None)
        return Captured(replace(recorded.frame, stamp_s=stamp_s), arrived_s, device_clock=False)

    def close(self) -> None:
        """Let go of the file."""
        self._frames, self._next, self._open = iter(()), None, False

    def _due_s(self, recorded: RecordedFrame) -> float:
        return recorded.read_s + self._sensor.timing.delay_s


@final
class RecordedSensor(Sensor):
    """A sensor of a recording on the clock of whoever reads it: ``read(now_s)`` gives what had come by then.

    ``now_s`` counts on the recording's clock. ``reset`` begins again at the first frame.

    Args:
        path: the recording.
        sensor: which of its sensors.

    Raises:
        DataError: there is no such recording.
        SpecError: it has no such sensor.
    """

    def __init__(self, path: str | Path, sensor: str) -> None:
        self._recording = Recording(path)
        self._sensor = recorded_sensor(self._recording, sensor)
        self._timing = replay_timing(self._sensor.timing)
        self._frames: Iterator[RecordedFrame] | None = None
        self._next: RecordedFrame | None = None

    @property
    def space(self) -> spaces.Dict:
        """That of the sensor when it was recorded."""
        return self._sensor.space

    @property
    def timing(self) -> Timing:
        """That of the sensor when it was recorded, as a live one."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Nothing to connect to."""
        self._begin()

    def reset(self, rng: np.random.Generator) -> None:
        """Begin again at the first frame."""
        if self._frames is not None:
            self._begin()

    def read(self, now_s: float) -> Frame | None:
        """The oldest frame that came by ``now_s`` and was not read yet.

        Raises:
            SensorError: not open.
        """
        if self._frames is None:
            raise SensorError("RecordedSensor.read", "an open sensor", "a closed one", "Call open() first.")
        recorded = self._next
        if recorded is None or recorded.read_s + self._sensor.timing.delay_s > now_s + EPSILON_S:
            return None
        self._next = next(self._frames, None)
        return recorded.frame

    def close(self) -> None:
        """Let go of the file."""
        self._frames = self._next = None

    def _begin(self) -> None:
        self._frames = self._recording.frames([self._sensor.name])
        self._next = next(self._frames, None)


def replay_rig(
    path: str | Path, speed: float = 1.0, capacity: int = 4096, alignment: Alignment | None = None
) -> SensorRig:
    """A rig of live sensors that play a recording in step with each other.

    Args:
        path: the recording.
        speed: seconds of the recording per second; 0 or infinity = as fast as possible, so that frames are lost, and
            counted by the sensors, beyond ``capacity``. To see every frame without waiting, use :func:`stepped_rig`.
        capacity: frames of each sensor that are kept until they are read.
        alignment: as of any rig.

    Raises:
        DataError: there is no such recording.
    """
    playback = Playback(speed)
    return SensorRig(
        {
            name: LiveSensor(
                device=RecordedDevice(path, name, playback=playback),
                timing=replay_timing(sensor.timing),
                capacity=capacity,
            )
            for name, sensor in Recording(path).sensors.items()
        },
        alignment,
    )


def stepped_rig(path: str | Path, alignment: Alignment | None = None) -> SensorRig:
    """A rig of the sensors of a recording that is ticked with times of the recording, from its ``start_s`` on.

    Args:
        path: the recording.
        alignment: as of any rig.

    Raises:
        DataError: there is no such recording.
    """
    return SensorRig({name: RecordedSensor(path, name) for name in Recording(path).names}, alignment)


def replay_timing(timing: Timing) -> Timing:
    """The timing with which recorded frames are replayed: they come by themselves, and come late as they came."""
    return replace(timing, delay_s=0.0, jitter_s=0.0, dropout=0.0, live=True)


def recorded_sensor(recording: Recording, name: str) -> SensorInfo:
    """What a recording knows of a sensor.

    Raises:
        SpecError: it has no such sensor.
    """
    if name not in recording.sensors:
        known = nearest(name, recording.sensors)
        raise SpecError(f"recording '{recording.path}'", "one of its sensors", f"'{name}'", known)
    return recording.sensors[name]
