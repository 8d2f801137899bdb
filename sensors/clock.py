"""ClockMap: a device's clock on the host's, out of nothing but when its data arrived.

Every clock in the project counts seconds. The host's is ``time.monotonic``: it never jumps.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sensors.errors import SensorError, SpecError
from sensors.geometry import FloatArray

JUMP_S = 0.5  # a reading further off than this is no reading of the clock that is known
AGREE_S = 0.05  # readings off by the same to within this speak of one other clock
JUMP_READINGS, JUMP_SPAN_S = 5, 0.2  # as many, over as long on the host's clock, and the device was restarted
STEP_S = 0.01  # a whole cell that lies this far off the line was not delayed by chance
EARLY_CELLS, LATE_CELLS = 2, 5  # nothing arrives before it was sent; but a network may be slow for a while
WILD = 6.0  # quarter widths below the median; 4.5 would still be a normal distribution's
CELL_READINGS = 16  # fewer do not tell a shortest delay from a wild stamp
DRIFT_POINTS, DRIFT_SPAN_S = 3, 4.0  # over less, a drift cannot be told from jitter
EARLY_S = 0.02  # a stamp further after its own arrival than this is wrong
STRAYS = 8  # other clocks that are kept in mind


def host_now_s() -> float:
    """The host's clock, seconds."""
    return time.monotonic()


@dataclass(frozen=True)
class _Line:
    """host - device = ahead_s + drift * (device - origin_s)."""

    origin_s: float
    ahead_s: float
    drift: float
    uncertainty_s: float

    def ahead_at(self, device_s: float) -> float:
        return self.ahead_s + self.drift * (device_s - self.origin_s)


@dataclass(frozen=True)
class _Point:
    """What a stretch of readings says of the offset: at ``device_s``, up to about ``blur_s``."""

    device_s: float
    ahead_s: float
    blur_s: float


@dataclass
class _Stray:
    """Readings that agree with each other and not with the line."""

    ahead_s: float
    first_s: float  # host clock
    fits_before: int
    count: int = 1


@final
class ClockMap:
    """Maps device time to host time, online.

    A reading arrives after its device stamp by the clocks' offset plus a delay that is never negative and sometimes
    long (USB, network, scheduler). So the least delayed readings tell the offset. The readings are cut into cells of
    ``window_s / cells`` seconds and 16 readings at least. Of each cell the lower edge of its delays is taken, by their
    10 % and 30 % quantiles and not by the least one, since a stamp may also be wrong towards the future. A line is laid
    through the edges by the median of their slopes (Theil, 1950; Sen, 1968), which 29 % of wild cells do not move.

    A device that starts anew is noticed by readings that disagree with the line by more than half a second and agree
    with each other; a smaller step of its clock by whole cells beside the line, two if the device's clock went
    forward, five if back, for that may also be a slow network. The drift, which is the crystal's, is kept.

    The shortest delay itself cannot be told from the offset; it is measured once per kind of device and taken off
    elsewhere (``latency_s`` of LiveSensor). Wrap-around of counters is undone before (by the adapter).

    Accuracy (tests/sensors/test_clock.py): with drifts up to 500 ppm, exponential, half-normal, heavy-tailed or batched
    delays and 5 % wild stamps, after 10 s of a sensor of 30 Hz or more, the error is below 0.1 ms plus half the median
    delay (over the shortest one); it typically is a tenth of that delay. Delays without a sharp shortest one, as of a
    normal distribution, are mapped to about their 5 % quantile, which is constant and part of ``latency_s``.

    Args:
        window_s: how far back readings count.
        cells: stretches that the window is cut into.
        max_drift: greatest difference of the clocks' speeds that is believed.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(self, window_s: float = 60.0, cells: int = 30, max_drift: float = 1e-3) -> None:
        if not (window_s > 0 and cells >= DRIFT_POINTS and 0 <= max_drift < 1):
            got = f"{window_s}, {cells}, {max_drift}"
            raise SpecError("ClockMap", "window_s > 0, cells >= 3, 0 <= max_drift < 1", got, "Correct them.")
        self._cell_s = window_s / cells
        self._max_drift = max_drift
        self._points: deque[_Point] = deque(maxlen=cells)  # of the closed cells
        self._device = array("d")  # readings of the open cell
        self._ahead = array("d")
        self._line: _Line | None = None
        self._drift = 0.0  # the last that was believed
        self._strays: list[_Stray] = []
        self._beside = 0  # closed cells in a row that lie beside the line, on one side
        self._fit_at = 1
        self._newest_s = -math.inf
        self._count = 0
        self._restarts = 0

    @property
    def offset_s(self) -> float:
        """Host minus device at the newest stamp, seconds; NaN before the first reading."""
        return math.nan if self._line is None else self._line.ahead_at(self._newest_s)

    @property
    def drift(self) -> float:
        """How much faster the host's clock runs, seconds per second; 0 until it is known."""
        return self._drift

    @property
    def uncertainty_s(self) -> float:
        """Half-width of ``host_s`` at the newest stamp; infinity before the second reading.

        The error lies within twice this in 95 % of all cases, in the tests of tests/sensors/test_clock.py. It holds how
        far the cells scatter about the line, how well the edge of the delays is known, and the greatest drift while
        the drift is not known; not the shortest delay, which nobody can see from here.
        """
        return math.inf if self._line is None else self._line.uncertainty_s

    @property
    def count(self) -> int:
        """Readings since the last restart."""
        return self._count

    @property
    def restarts(self) -> int:
        """How often the device's clock began anew or was set."""
        return self._restarts

    def restart(self) -> None:
        """Forget everything: the device's clock begins anew."""
        self._clear()
        self._drift = 0.0

    def update(self, device_s: float, arrived_s: float) -> bool:
        """Take a reading: its stamp on the device's clock, and when it arrived on the host's.

        Returns:
            Whether the stamp can be right. False = not finite, or it would lie more than 20 ms after its own arrival.
        """
        ahead_s = arrived_s - device_s
        if not math.isfinite(ahead_s):
            return False
        line = self._line
        if line is not None and abs(ahead_s - line.ahead_at(device_s)) > JUMP_S:
            if not self._is_restart(ahead_s, arrived_s):
                return ahead_s > line.ahead_at(device_s)  # late perhaps, early never
            self._clear()
        if self._device and device_s - self._device[0] >= self._cell_s and len(self._device) >= CELL_READINGS:
            self._close_cell()
        self._count += 1
        self._newest_s = max(self._newest_s, device_s)
        self._device.append(device_s)
        self._ahead.append(ahead_s)
        if len(self._device) >= self._fit_at:
            self._fit()
            # Late readings of a full cell change little, so they need not all be looked at.
            self._fit_at = len(self._device) + 1 + len(self._device) // 8
        return self.host_s(device_s) <= arrived_s + EARLY_S

    def host_s(self, device_s: float) -> float:
        """The host's time at a device's stamp, plus the shortest delay.

        Raises:
            SensorError: there was no reading yet.
        """
        line = self._line
        if line is None:
            raise SensorError("ClockMap.host_s", "at least one reading", "none", "Call update() first.")
        return device_s + line.ahead_at(device_s)

    def _clear(self) -> None:
        self._points.clear()
        self._open_cell()
        self._line = None
        self._strays.clear()
        self._newest_s = -math.inf
        self._count, self._beside = 0, 0
        self._restarts += 1

    def _open_cell(self) -> None:
        self._device, self._ahead = array("d"), array("d")
        # A cell that has just begun says less than the others; it is needed while there are few.
        self._fit_at = CELL_READINGS if len(self._points) >= DRIFT_POINTS else 5 if self._points else 1

    def _is_restart(self, ahead_s: float, arrived_s: float) -> bool:
        """Note a reading far off the line; whether enough of these agree that the line is wrong.

        A packet that was held up is late by as much less as it was sent later, so a burst of these does not agree; and
        it comes all at once.
        """
        fits = self._count
        self._strays = [s for s in self._strays if s.count >= fits - s.fits_before]
        for stray in self._strays:
            if abs(ahead_s - stray.ahead_s) <= AGREE_S:
                stray.count += 1
                return stray.count >= JUMP_READINGS and arrived_s - stray.first_s >= JUMP_SPAN_S
        self._strays = [*self._strays[1 - STRAYS :], _Stray(ahead_s, arrived_s, fits)]
        return False

    def _close_cell(self) -> None:
        point, line = self._edge(), self._line
        assert line is not None, "a cell has readings, so there is a line"
        off_s = point.ahead_s - line.ahead_at(point.device_s)
        limit_s = max(STEP_S, 10 * point.blur_s)
        self._points.append(point)
        self._open_cell()
        if len(self._points) < DRIFT_POINTS + 1 or abs(off_s) < limit_s or off_s * self._beside < 0:
            self._beside = 0
            return
        self._beside += 1 if off_s > 0 else -1
        if self._beside == LATE_CELLS or self._beside == -EARLY_CELLS:
            for _ in range(len(self._points) - abs(self._beside)):
                self._points.popleft()
            self._beside = 0
            self._restarts += 1

    def _edge(self) -> _Point:
        """The lower edge of the open cell's delays, at the middle of the cell."""
        device, ahead = np.array(self._device), np.array(self._ahead)
        middle_s = float(device[0] + device[-1]) / 2
        level = ahead - self._drift * (device - middle_s)
        return _Point(middle_s, *_lower_edge(level))

    def _fit(self) -> None:
        edges = [*self._points, self._edge()]
        device = np.array([edge.device_s for edge in edges])
        ahead = np.array([edge.ahead_s for edge in edges])
        span_s = float(device.max() - device.min())
        slope = _median_slope(device, ahead) if len(edges) >= DRIFT_POINTS and span_s >= DRIFT_SPAN_S else None
        if slope is not None:
            self._drift = min(max(slope, -self._max_drift), self._max_drift)
        origin_s = float(device[-1])
        level = ahead - self._drift * (device - origin_s)
        middle = float(np.median(level))
        blur_s = float(np.median([edge.blur_s for edge in edges]))
        # Few points lie close to any line through them, so their scatter is not believed to be less than their blur.
        scatter_s = max(1.4826 * float(np.median(np.abs(level - middle))), blur_s)
        # At its end, the line through n points is known with 2 sigma / sqrt(n); medians cost another 25 %.
        uncertainty_s = math.hypot(2.5 * scatter_s / math.sqrt(len(edges)), blur_s)
        if slope is None:
            uncertainty_s += self._max_drift * (self._newest_s - float(device[0]))
        self._line = _Line(origin_s, middle, self._drift, uncertainty_s)


def _lower_edge(level: FloatArray) -> tuple[float, float]:
    """Where the delays [n] begin, and how well that is known."""
    ranked = np.sort(level)
    n = len(ranked)
    if n == 1:
        return float(ranked[0]), math.inf
    middle, upper = float(ranked[n // 2]), float(ranked[3 * n // 4])
    # Delays reach far above their median, not below it. What does was stamped wrong.
    ranked = ranked[int(np.searchsorted(ranked, middle - WILD * (upper - middle) - 1e-9)) :] if n > 2 else ranked
    n = len(ranked)
    known_s = 2 * ((middle if n >= CELL_READINGS else upper) - float(ranked[0])) / math.sqrt(n)
    if n < 5:
        return float(ranked[0]), known_s
    # Near its edge a density is about flat, so that quantiles go on downwards as they came.
    first, second = n // 10 + 1, max(3 * n // 10, 1) + 1  # ranks from 1
    low, high = float(ranked[first - 1]), float(ranked[second - 1])
    beyond_s = (high - low) * first / (second - first)
    return low - beyond_s, max(beyond_s, known_s)


@cache
def _pairs(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = np.triu_indices(n, 1)
    return first, second


def _median_slope(x: FloatArray, y: FloatArray) -> float | None:
    first, second = _pairs(len(x))
    apart = x[second] - x[first]
    far = np.abs(apart) > 1e-9
    return float(np.median((y[second] - y[first])[far] / apart[far])) if far.any() else None
