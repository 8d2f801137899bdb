"""From the packets of a spinning LiDAR to frames of fixed size; the same for all makers.

A maker's decoder (:class:`SweepDecoder`) knows its packets; where they come from, silence, the arrival on the host's
clock and the frame are dealt with here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import LidarFrame
from sensors.geometry import FloatArray
from sensors.live import Captured
from sensors.packets import PacketSource
from sensors.spec import box

LONGEST_SWEEP_S = 1.0  # no LiDAR of these makers turns slower than 5 times a second


@dataclass(frozen=True, eq=False)
class Sweep:
    """One turn of a LiDAR, as measured.

    Attributes:
        xyz_m: float32 [n, 3] in the sensor's frame: x forward, y left, z up.
        intensity: float32 [n] in [0, 1].
        time_s: float [n], device clock, rising.
        start_s: device clock when the turn began.
        ahead_s: the least of host clock minus device clock over the turn's packets, each taken at its last shot: that
            of the packet that was delayed least. The mean, or the last packet's, would add what the network did.
    """

    xyz_m: NDArray[np.float32]
    intensity: NDArray[np.float32]
    time_s: FloatArray
    start_s: float
    ahead_s: float


class SweepDecoder(ABC):
    """Puts the packets of one LiDAR together. Whatever comes in, nothing raises: what is no packet is counted."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """What went wrong so far, by kind."""

    @property
    @abstractmethod
    def refusal(self) -> str:
        """Why the latest packet that was no packet of this LiDAR is none; "" if there was none such."""

    @abstractmethod
    def feed(self, payload: bytes, arrived_s: float) -> bool:
        """Take a packet; False = it is none of this LiDAR's."""

    @abstractmethod
    def take(self) -> Sweep | None:
        """The oldest finished turn that was not taken yet."""


def lidar_space(capacity: int, max_range_m: float) -> spaces.Dict:
    """The space of a :class:`sensors.frames.LidarFrame` with ``capacity`` points."""
    return spaces.Dict(
        {
            "xyz_m": box(-max_range_m, max_range_m, (capacity, 3)),
            "intensity": box(0.0, 1.0, (capacity,)),
            "offset_s": box(0.0, LONGEST_SWEEP_S, (capacity,)),
            "count": box(0, capacity, (1,), np.int64),
            "base_from_lidar": box(-1000.0, 1000.0, (4, 4), np.float64),
        }
    )


@final
class SweepReader:
    """Reads a source through a decoder, and makes frames of the turns.

    Args:
        source: where the packets come from.
        capacity: N, points of a frame; the points beyond are lost and counted (``overflowed``).
        silence_s: a LiDAR that sent no packet of its kind for so long is away.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(self, source: PacketSource, capacity: int, silence_s: float) -> None:
        if capacity < 1 or silence_s <= 0:
            raise SpecError("SweepReader", "capacity >= 1, silence_s > 0", f"{capacity}, {silence_s}", "Correct them.")
        self._source = source
        self._capacity = capacity
        self._silence_s = silence_s
        self._decoder: SweepDecoder | None = None
        self._heard_s = -math.inf
        self._overflowed = 0
        self._before: Counter[str] = Counter()  # counted before the device was lost and found

    @property
    def counts(self) -> dict[str, int]:
        """The decoder's, the source's and ``overflowed``, over all times that it was open."""
        total = Counter(self._before)
        total.update(self._now())
        return {**total, "overflowed": self._overflowed}

    def open(self, decoder: SweepDecoder, fix: str) -> None:
        """Open the source and wait for the first packet of this LiDAR.

        Args:
            decoder: a fresh one.
            fix: what to do if none comes.

        Raises:
            SensorError: the source cannot be opened, or no packet of this LiDAR came within the silence.
        """
        self.close()
        self._source.open()
        self._decoder = decoder
        self._heard_s = host_now_s()
        end_s = self._heard_s + self._silence_s
        while not self._listen(decoder, end_s):
            if host_now_s() >= end_s or self._source.ended:
                got = decoder.refusal or "no packet"
                self.close()
                raise SensorError(self._source.where, f"packets of this LiDAR within {self._silence_s} s", got, fix)

    def wait(self, timeout_s: float) -> Captured | None:
        """The next turn; None if none was finished within the timeout.

        Raises:
            SensorLost: the LiDAR has been silent for too long.
            SensorError: not open.
        """
        decoder = self._decoder
        if decoder is None:
            raise SensorError(self._source.where, "an open LiDAR", "a closed one", "Call open() first.")
        end_s = host_now_s() + timeout_s
        while True:
            sweep = decoder.take()
            if sweep is not None:
                return self._captured(sweep)
            if host_now_s() >= end_s:
                return None
            self._listen(decoder, min(end_s, self._heard_s + self._silence_s))
            if host_now_s() - self._heard_s >= self._silence_s and not self._source.ended:
                raise SensorLost(
                    self._source.where, f"a packet every {self._silence_s} s", decoder.refusal or "silence",
                    "Check power and cable of the LiDAR.",
                )  # fmt: skip

    def close(self) -> None:
        """Close the source. May be called twice."""
        self._source.close()
        if self._decoder is not None:
            self._before.update(self._now())
            self._decoder = None

    def _listen(self, decoder: SweepDecoder, end_s: float) -> bool:
        packet = self._source.receive(max(end_s - host_now_s(), 0.0))
        if packet is None or not decoder.feed(packet.payload, packet.arrived_s):
            return False
        self._heard_s = host_now_s()
        return True

    def _now(self) -> dict[str, int]:
        decoder = self._decoder  # once: another thread may ask while this one closes
        return {} if decoder is None else {**self._source.counts, **decoder.counts}

    def _captured(self, sweep: Sweep) -> Captured:
        count = min(len(sweep.time_s), self._capacity)
        self._overflowed += len(sweep.time_s) - count
        xyz_m = np.zeros((self._capacity, 3), np.float32)
        intensity = np.zeros(self._capacity, np.float32)
        offset_s = np.zeros(self._capacity, np.float32)
        xyz_m[:count] = sweep.xyz_m[:count]
        intensity[:count] = sweep.intensity[:count]
        offset_s[:count] = np.maximum(sweep.time_s[:count] - sweep.start_s, 0.0)  # rounding
        frame = LidarFrame(
            stamp_s=sweep.start_s,
            xyz_m=xyz_m,
            intensity=intensity,
            offset_s=offset_s,
            count=np.array([count]),
            base_from_lidar=np.eye(4),
        )
        # The clocks are compared at the frame's stamp, and what belongs to the stamp is when its data would have come
        # in over an idle network, not when the turn was over.
        return Captured(frame, sweep.start_s + sweep.ahead_s, device_clock=True)
