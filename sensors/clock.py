"""ClockMap: a device's clock on the host's, out of nothing but when its data arrived.

Every clock in the project counts seconds. The host's is ``time.monotonic``: it never jumps.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import final

import numpy as np

from sensors.errors import SensorError
from sensors.geometry import FloatArray

JUMP_S = 0.5  # a device whose clock is off by so much, several times in a row, was restarted
JUMPS = 3
LEAST_DRIFT_SPAN_S = 2.0  # over less, a drift cannot be told from jitter


def host_now_s() -> float:
    """The host's clock, seconds."""
    return time.monotonic()


@dataclass
class _Cell:
    """The least delayed pair of a stretch of device time."""

    number: int
    device_s: float
    ahead_s: float  # host minus device


@final
class ClockMap:
    """Maps device time to host time, online.

    A reading arrives after its device stamp by the clocks' offset plus a delay that is never negative and sometimes
    long (USB, network, scheduler). So the least delayed readings tell the offset: the window is cut into cells, of each
    the least delayed one is kept, and a line is laid through these by the median of their slopes (Theil, 1950; Sen,
    1968), which up to 29 % of wild stamps do not move. The shortest delay itself cannot be told from the offset; it is
    measured once per kind of device and taken off elsewhere (``latency_s`` of LiveSensor).

    Args:
        window_s: how far back readings count.
        cells: stretches that the window is cut into.
        max_drift: greatest difference of the clocks' speeds that is believed.
    """

    def __init__(self, window_s: float = 60.0, cells: int = 30, max_drift: float = 1e-3) -> None:
        self._cell_s = window_s / cells
        self._max_drift = max_drift
        self._cells: deque[_Cell] = deque(maxlen=cells)
        self._origin_s = 0.0  # device time that the line is anchored at
        self._ahead_s = math.nan
        self._drift = 0.0
        self._uncertainty_s = math.inf
        self._count = 0
        self._jumps = 0
        self._restarts = 0

    @property
    def offset_s(self) -> float:
        """Host minus device at the newest stamp, seconds; NaN before the first reading."""
        return self._ahead_s + self._drift * (self._newest_s - self._origin_s) if self._cells else math.nan

    @property
    def drift(self) -> float:
        """How much faster the host's clock runs, seconds per second."""
        return self._drift

    @property
    def uncertainty_s(self) -> float:
        """Half-width in which the least delays of the cells lie about the line (median deviation times 1.4826)."""
        return self._uncertainty_s

    @property
    def count(self) -> int:
        """Readings since the last restart."""
        return self._count

    @property
    def restarts(self) -> int:
        """How often the device's clock began anew."""
        return self._restarts

    def restart(self) -> None:
        """Forget everything: the device's clock begins anew."""
        self._cells.clear()
        self._drift, self._ahead_s, self._uncertainty_s = 0.0, math.nan, math.inf
        self._count, self._jumps = 0, 0
        self._restarts += 1

    def update(self, device_s: float, arrived_s: float) -> None:
        """Take a reading: its stamp on the device's clock, and when it arrived on the host's."""
        ahead_s = arrived_s - device_s
        if not math.isfinite(ahead_s):
            return
        if self._cells and abs(ahead_s - self._ahead_at(device_s)) > JUMP_S:
            self._jumps += 1
            if self._jumps < JUMPS:
                return  # one wild stamp, or one very late packet
            self.restart()
        self._jumps = 0
        self._count += 1
        number = math.floor(device_s / self._cell_s)
        cell = next((c for c in reversed(self._cells) if c.number == number), None)
        if cell is None:
            self._cells.append(_Cell(number, device_s, ahead_s))
        elif ahead_s < cell.ahead_s:
            cell.device_s, cell.ahead_s = device_s, ahead_s
        else:
            return  # it was delayed more than another: nothing to learn
        self._fit()

    def host_s(self, device_s: float) -> float:
        """The host's time at a device's stamp, plus the shortest delay.

        Raises:
            SensorError: there was no reading yet.
        """
        if not self._cells:
            raise SensorError("ClockMap.host_s", "at least one reading", "none", "Call update() first.")
        return device_s + self._ahead_at(device_s)

    @property
    def _newest_s(self) -> float:
        return max(cell.device_s for cell in self._cells)

    def _ahead_at(self, device_s: float) -> float:
        return self._ahead_s + self._drift * (device_s - self._origin_s)

    def _fit(self) -> None:
        device = np.array([cell.device_s for cell in self._cells])
        ahead = np.array([cell.ahead_s for cell in self._cells])
        self._origin_s = float(device[-1])
        span = device.max() - device.min()
        self._drift = 0.0
        if span >= LEAST_DRIFT_SPAN_S:
            self._drift = float(np.clip(_median_slope(device, ahead), -self._max_drift, self._max_drift))
        level = ahead - self._drift * (device - self._origin_s)
        # The lower quartile, not the least: one stamp from the future must not pull the line to itself. Few cells have
        # few of these, and a young line is better served by the least delay.
        self._ahead_s = float(np.quantile(level, 0.25)) if len(level) >= 8 else float(level.min())
        self._uncertainty_s = (
            1.4826 * float(np.median(np.abs(level - np.median(level)))) if len(level) > 1 else math.inf
        )


def _median_slope(x: FloatArray, y: FloatArray) -> float:
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    far = np.abs(apart) > 1e-9
    return float(np.median((y[second] - y[first])[far] / apart[far])) if far.any() else 0.0
