"""LiveSensor: a real device as a sensor. Reads it in a thread, puts its stamps on the host's clock, reconnects.

A device adapter only knows its vendor's protocol (:class:`Device`); threads, clocks, mounts, lost and found cables are
the same for all of them and live here.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.clock import ClockMap, host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import Frame
from sensors.geometry import FloatArray, interpolate_pose, pose
from sensors.timeline import Timing

WAIT_S = 0.2  # the longest that a device is waited for before the thread looks whether it should end
POSES_S = 2.0  # how long the poses of a moving mount are remembered


@dataclass(frozen=True, eq=False)
class Captured:
    """One frame as a device gave it.

    Attributes:
        frame: with ``stamp_s`` on the device's own clock (any offset), or on the host's if ``device_clock`` is False.
            Fields named ``base_from_<x>`` hold mount_from_<x>: where <x> is on the device; the mount is added later.
        arrived_s: host clock (:func:`sensors.clock.host_now_s`) when the data came in.
        device_clock: whether ``frame.stamp_s`` is the device's time.
    """

    frame: Frame
    arrived_s: float
    device_clock: bool


class Device(ABC):
    """One physical device, or a file that plays as one. Used by one thread at a time.

    Life: constructed whole -> ``space`` readable -> (``open`` -> ``wait`` ... -> ``close``) as often as it is plugged
    in. Vendor packages are imported inside ``open`` only.
    """

    @property
    @abstractmethod
    def space(self) -> spaces.Dict:
        """Field name -> Box of one frame; readable before ``open``."""

    @abstractmethod
    def open(self) -> None:
        """Connect and start streaming.

        Raises:
            SensorError: no such device, no permission, or its package is missing; says the exact line that helps.
        """

    @abstractmethod
    def wait(self, timeout_s: float) -> Captured | None:
        """The next frame; None if none came within the timeout.

        Raises:
            SensorLost: the device went away.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop streaming. May be called twice, and after a failed ``open``."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """What went wrong so far, by kind: malformed packets, frames without a partner, ..."""


@dataclass(frozen=True)
class Mount:
    """Where a device is fixed.

    Attributes:
        link: link of the robot that carries it; None = fixed in the base frame.
        position_m: position [3] of the device in the link's (or the base) frame, metres.
        quaternion_xyzw: its rotation [4].
    """

    link: str | None = None
    position_m: Sequence[float] = (0.0, 0.0, 0.0)
    quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0)

    def matrix(self) -> FloatArray:
        """``link_from_device`` [4, 4] (base_from_device without a link)."""
        return pose(self.position_m, self.quaternion_xyzw)


@final
class LiveSensor(Sensor):
    """A device as a sensor.

    ``open`` connects once and fails loudly; from then on a thread reads the device, and when it is lost tries to
    connect again every ``retry_s``. ``read`` gives the oldest frame that was not read yet, or None; while the device is
    lost it raises :class:`SensorLost`, which a rig shows as ``valid=False``.

    Args:
        device: the adapter.
        timing: ``live`` must be True; ``rate_hz`` is the nominal rate.
        mount: where the device is fixed; with a link, ``open`` needs a world that knows the link's pose.
        latency_s: shortest time from capture to arrival, measured once per kind of device; arrival times alone cannot
            tell it from a clock offset. Frames stamped by a clock that is already the host's are not changed by it.
        capacity: frames kept until they are read; the oldest are lost (and counted) beyond.
        retry_s: pause between attempts to reconnect.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        device: Device,
        timing: Timing,
        mount: Mount | None = None,
        latency_s: float = 0.0,
        capacity: int = 4096,
        retry_s: float = 1.0,
    ) -> None:
        if not timing.live:
            raise SpecError("LiveSensor.timing", "live: true", "live: false", "Frames of a device come by themselves.")
        if latency_s < 0 or capacity < 1 or retry_s <= 0:
            got = f"{latency_s}, {capacity}, {retry_s}"
            raise SpecError("LiveSensor", "latency_s >= 0, capacity >= 1, retry_s > 0", got, "Correct them.")
        self._device = device
        self._timing = timing
        self._mount = mount or Mount()
        self._mount_matrix = self._mount.matrix()
        self._latency_s = latency_s
        self._retry_s = retry_s
        self._world: World | None = None
        self._poses: deque[tuple[float, FloatArray]] = deque()
        self._clock = ClockMap()
        self._frames: deque[Frame] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: SensorError | None = None
        self._failure: BaseException | None = None
        self._overflowed = 0
        self._unclocked = 0
        self._reconnects = 0

    @property
    def space(self) -> spaces.Dict:
        """The device's."""
        return self._device.space

    @property
    def timing(self) -> Timing:
        """Nominal rate, history and the staleness bound."""
        return self._timing

    @property
    def counts(self) -> dict[str, int]:
        """What went wrong since ``open``, and the device's own counts.

        ``overflowed``: frames that nobody read in time; ``unclocked``: frames whose stamp cannot be right;
        ``reconnects``: how often the device came back.
        """
        own = {"overflowed": self._overflowed, "unclocked": self._unclocked, "reconnects": self._reconnects}
        return {**own, **self._device.counts}

    @property
    def clock(self) -> ClockMap:
        """How the device's clock runs on the host's."""
        return self._clock

    def open(self, world: World | None) -> None:
        """Connect and start the thread. ``world`` is asked for the pose of the mount's link, if it has one.

        Raises:
            SensorError: the device is missing, or nobody knows where the link is.
        """
        if self._mount.link is not None and world is None:
            raise SensorError(
                "LiveSensor.open", f"somebody who knows where link '{self._mount.link}' is", "no world",
                "Give open() the robot's, or mount the device in the base frame (link: null).",
            )  # fmt: skip
        self.close()
        self._device.open()
        self._world = world
        self._lost, self._failure = None, None
        self._overflowed = self._unclocked = self._reconnects = 0
        self._clock = ClockMap()
        self._poses.clear()
        self._frames.clear()
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name=f"{type(self._device).__name__} reader", daemon=True)
        self._thread.start()

    def reset(self, rng: np.random.Generator) -> None:
        """Forget the frames that were not read; the noise is the device's own."""
        with self._lock:
            self._frames.clear()

    def read(self, now_s: float) -> Frame | None:
        """The oldest frame that was not read yet, stamped on the host's clock; None = none came since.

        Raises:
            SensorLost: the device is away; the thread goes on trying to connect.
            SensorError: not open, or the adapter failed for a reason of its own.
        """
        if self._thread is None:
            raise SensorError("LiveSensor.read", "an open sensor", "a closed one", "Call open() first.")
        if self._failure is not None:
            raise SensorError(
                type(self._device).__name__, "an adapter that works", repr(self._failure), "Report this as a bug."
            ) from self._failure
        link, last_s = self._mount.link, self._poses[-1][0] if self._poses else -math.inf
        if self._world is not None and link is not None and now_s > last_s:
            self._poses.append((now_s, self._world.link_pose(link)))
            while self._poses[0][0] < now_s - POSES_S:
                self._poses.popleft()
        with self._lock:
            frame = self._frames.popleft() if self._frames else None
            lost = self._lost
        if frame is not None:
            return self._mounted(frame)
        if lost is not None:
            raise SensorLost(lost.where, lost.expected, lost.got, lost.fix)
        return None

    def close(self) -> None:
        """End the thread and let go of the device."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._device.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                try:
                    captured = self._device.wait(WAIT_S)
                except SensorError as error:
                    self._device.close()
                    self._reconnect(error)
                    continue
                if captured is not None:
                    self._take(captured)
        except BaseException as error:  # told to whoever reads next
            self._failure = error

    def _reconnect(self, error: SensorError) -> None:
        self._lost = error
        while not self._ending.wait(self._retry_s):
            try:
                self._device.open()
            except SensorError as again:
                self._device.close()
                self._lost = again
                continue
            self._clock.restart()  # a device that was away counts from another start
            self._reconnects += 1
            self._lost = None
            return

    def _take(self, captured: Captured) -> None:
        frame = captured.frame
        if captured.device_clock:
            if not self._clock.update(frame.stamp_s, captured.arrived_s):
                self._unclocked += 1  # nobody knows when it was captured
                return
            frame = replace(frame, stamp_s=self._clock.host_s(frame.stamp_s) - self._latency_s)
        with self._lock:
            if len(self._frames) == self._frames.maxlen:
                self._overflowed += 1
            self._frames.append(frame)

    def _mounted(self, frame: Frame) -> Frame:
        base_from_mount = self._mount_matrix
        if self._poses:
            base_from_mount = _pose_at(self._poses, frame.stamp_s) @ base_from_mount
        changes: dict[str, Any] = {
            field.name: base_from_mount @ getattr(frame, field.name)
            for field in fields(frame)
            if field.name.startswith("base_from_")
        }
        return replace(frame, **changes)


def _pose_at(track: Sequence[tuple[float, FloatArray]], stamp_s: float) -> FloatArray:
    """The pose at a moment: between the two remembered beside it, or the nearest one outside of them."""
    later = next((i for i, (when_s, _) in enumerate(track) if when_s >= stamp_s), len(track))
    if later in (0, len(track)):
        return track[min(later, len(track) - 1)][1]
    (before_s, before), (after_s, after) = track[later - 1], track[later]
    return interpolate_pose(before, after, (stamp_s - before_s) / (after_s - before_s))


def wait_for(sensor: Sensor, timeout_s: float) -> Frame:
    """The next frame of an open live sensor; for scripts without a rig.

    Raises:
        SensorError: none came in time.
        SensorLost: the device went away.
    """
    end_s = host_now_s() + timeout_s
    while (frame := sensor.read(host_now_s())) is None:
        if host_now_s() > end_s:
            raise SensorError("wait_for", f"a frame within {timeout_s} s", "none", "Is the device streaming?")
        time.sleep(0.001)
    return frame
