"""RecordingClock: seconds of the rig's clock to nanoseconds since 1970 (UTC), by one offset for the whole recording."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sensors.recording.format import NS

LAST_NS = 2**63 - 1  # in the year 2262
TRIES = 9


@dataclass(frozen=True)
class RecordingClock:
    """The times of a recording.

    The rig's clock never jumps; UTC may be set while recording. So UTC is looked at once, when a recording begins.

    Attributes:
        utc_offset_ns: UTC minus the rig's clock, nanoseconds.
    """

    utc_offset_ns: int

    @staticmethod
    def begin(rig_now_s: Callable[[], float]) -> RecordingClock:
        """The offset as of now."""
        best_ns, offset_ns = None, 0
        for _ in range(TRIES):  # the pair that was read quickest was disturbed least
            before_ns = time.perf_counter_ns()
            now_s, utc_ns = rig_now_s(), time.time_ns()
            took_ns = time.perf_counter_ns() - before_ns
            if best_ns is None or took_ns < best_ns:
                best_ns, offset_ns = took_ns, utc_ns - round(now_s * NS)
        return RecordingClock(offset_ns)

    def to_ns(self, rig_s: float) -> int:
        """Nanoseconds since 1970 (UTC) of a time on the rig's clock; what no file holds becomes the nearest."""
        return min(max(round(rig_s * NS) + self.utc_offset_ns, 0), LAST_NS)

    def to_s(self, utc_ns: int) -> float:
        """Seconds on the rig's clock."""
        return (utc_ns - self.utc_offset_ns) / NS
