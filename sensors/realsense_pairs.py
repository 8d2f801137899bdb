"""Which depth picture belongs to which colour picture, and when each was taken.

The SDK's syncer gives framesets, but not only whole ones, and its pipeline fills the gaps of a frameset with the
picture before. Of a recording of 40 pairs, the syncer of SDK 2.59 gives 71 framesets, 62 of them with one picture; of
the pipeline's 70, 30 hold pictures of two instants. So stamps decide here, and what has no partner is dropped and
counted.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, final

from sensors.clock import host_now_s

WRAP_US = 2**32  # the D400's clock counts microseconds in 32 bits: it starts anew every 71.6 minutes
MAX_LAG_US = 1_000_000  # from the middle of an exposure to its read-out; more is a broken stamp
PAIR_PERIODS = 0.6  # of the faster stream: half, plus some jitter
WAITING = 4  # pictures of a stream that wait for a partner; the SDK has 16 buffers for each


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of one stream.

    Attributes:
        frame: the SDK's.
        number: the SDK's frame number.
        stamp_s: the SDK's stamp without wrap-around: device clock, or seconds since 1970 on the host's.
        middle_s: middle of the exposure on the same clock, as well as it is known.
        on_device: whether that clock is the device's own.
        arrived_s: host clock when it was taken from the SDK.
    """

    frame: Any
    number: int
    stamp_s: float
    middle_s: float
    on_device: bool
    arrived_s: float


@final
class Stamps:
    """Reads the SDK's stamps.

    Middle of the exposure: the metadata ``sensor_timestamp`` is just that, and ``frame_timestamp`` the read-out, which
    the frame's stamp is taken from; their difference is right in every clock domain. Without these, half of
    ``actual_exposure`` is taken off; without that too, nothing.

    Args:
        rs: the SDK's module.
    """

    def __init__(self, rs: Any) -> None:
        self._rs = rs
        self._last_s: float | None = None  # of either stream: both are on one clock

    def read(self, frame: Any, arrived_s: float) -> Shot:
        """What a frame of the SDK says about its time."""
        stamp_s = frame.get_timestamp() * 1e-3
        on_device = bool(frame.get_frame_timestamp_domain() == self._rs.timestamp_domain.hardware_clock)
        if on_device:
            if self._last_s is not None:
                wrap_s = WRAP_US * 1e-6
                stamp_s += wrap_s * round((self._last_s - stamp_s) / wrap_s)
            self._last_s = stamp_s
        middle_s = stamp_s - self._lag_us(frame, on_device) * 1e-6
        return Shot(frame, frame.get_frame_number(), stamp_s, middle_s, on_device, arrived_s)

    def _lag_us(self, frame: Any, on_device: bool) -> float:
        keys = self._rs.frame_metadata_value
        middle_us = _metadata(frame, keys.sensor_timestamp)
        read_out_us = _metadata(frame, keys.frame_timestamp)
        if read_out_us is None and on_device:
            read_out_us = frame.get_timestamp() * 1e3
        if middle_us is not None and read_out_us is not None:
            lag_us = (read_out_us - middle_us) % WRAP_US
            if lag_us < MAX_LAG_US:
                return lag_us
        return (_metadata(frame, keys.actual_exposure) or 0.0) / 2


def _metadata(frame: Any, key: Any) -> float | None:
    return float(frame.get_frame_metadata(key)) if frame.supports_frame_metadata(key) else None


def since_1970_minus_host_s() -> float:
    """How far the system's clock is ahead of the host clock; the closest of three looks at both."""
    looks = []
    for _ in range(3):
        before_s = host_now_s()
        wall_s = time.time()
        after_s = host_now_s()
        looks.append((after_s - before_s, wall_s - (before_s + after_s) / 2))
    return min(looks)[1]


@final
class Pairs:
    """Puts depth and colour pictures together whose stamps are nearest, within 0.6 periods of the faster stream.

    Pairs come in the order of time. A picture without a partner, and one that comes after a later one of its stream was
    paired, is dropped and counted.

    Args:
        fps: rate of the faster stream.
    """

    def __init__(self, fps: int) -> None:
        self._within_s = PAIR_PERIODS / fps
        self._waiting: dict[str, deque[Shot]] = {"depth": deque(), "colour": deque()}
        self._newest_s = {"depth": -math.inf, "colour": -math.inf}  # stamps of the last pair
        self._highest = {"depth": -1, "colour": -1}  # frame numbers
        self.counts = {"unpaired_depth": 0, "unpaired_colour": 0, "missing_depth": 0, "missing_colour": 0}

    def add(self, stream: str, shot: Shot) -> tuple[Shot, Shot] | None:
        """Take a picture of the stream ``depth`` or ``colour``; the pair (depth, colour), if this completes one."""
        self._count_missing(stream, shot.number)
        other = "colour" if stream == "depth" else "depth"
        if shot.stamp_s <= self._newest_s[stream] or any(shot.stamp_s == w.stamp_s for w in self._waiting[stream]):
            self.counts[f"unpaired_{stream}"] += 1
            return None
        partner = min(
            (w for w in self._waiting[other] if w.on_device == shot.on_device),
            key=lambda waiting: abs(waiting.stamp_s - shot.stamp_s),
            default=None,
        )
        if partner is None or abs(partner.stamp_s - shot.stamp_s) > self._within_s:
            self._waiting[stream].append(shot)
            if len(self._waiting[stream]) > WAITING:
                self._waiting[stream].popleft()
                self.counts[f"unpaired_{stream}"] += 1
            return None
        self._waiting[other].remove(partner)
        self._forget_before(stream, shot.stamp_s)
        self._forget_before(other, partner.stamp_s)
        return (shot, partner) if stream == "depth" else (partner, shot)

    def _forget_before(self, stream: str, stamp_s: float) -> None:
        self._newest_s[stream] = stamp_s
        later = [waiting for waiting in self._waiting[stream] if waiting.stamp_s > stamp_s]
        self.counts[f"unpaired_{stream}"] += len(self._waiting[stream]) - len(later)
        self._waiting[stream] = deque(later)

    def _count_missing(self, stream: str, number: int) -> None:
        """Numbers that were skipped; one that comes late after all is taken off again."""
        highest = self._highest[stream]
        if number > highest:
            self.counts[f"missing_{stream}"] += number - highest - 1 if highest >= 0 else 0
            self._highest[stream] = number
        elif self.counts[f"missing_{stream}"]:
            self.counts[f"missing_{stream}"] -= 1
