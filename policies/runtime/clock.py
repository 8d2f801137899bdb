"""The loop's clock, so that tests can bring their own, and pacing by absolute deadlines."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from typing import final


class Clock(ABC):
    """Seconds that never step back, and waiting."""

    @abstractmethod
    def now_s(self) -> float:
        """Now; only differences mean anything."""

    @abstractmethod
    def wait_until(self, moment_s: float) -> None:
        """Return at ``moment_s``, or at once if it has passed."""


@final
class MonotonicClock(Clock):
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Now."""
        return time.monotonic()

    def wait_until(self, moment_s: float) -> None:
        """Sleep until then."""
        left_s = moment_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)


@final
class Pacer:
    """Ticks on the grid ``start + k * period``: lateness of one tick never moves the next, so the rate does not drift.

    A tick that is due while the one before is still at work is left out and counted; it is not made up for by a burst.

    Args:
        clock: to wait on.
        period_s: seconds between two ticks.
    """

    def __init__(self, clock: Clock, period_s: float) -> None:
        self._clock = clock
        self._period_s = period_s
        self._start_s = 0.0
        self._index = -1  # of the tick that is being worked on
        self.missed = 0  # ticks left out since start

    def start(self, at_s: float) -> None:
        """Let the first tick be at ``at_s``."""
        self._start_s, self._index, self.missed = at_s, -1, 0

    def next(self) -> float:
        """Wait for the next tick; its deadline."""
        self._index += 1
        passed = (self._clock.now_s() - self._start_s) / self._period_s
        # A tick counts as missed only when the one after it is due too; being somewhat late is lateness, not a miss.
        if passed >= self._index + 1:
            due = math.floor(passed)
            self.missed += due - self._index
            self._index = due
        deadline_s = self._start_s + self._index * self._period_s
        self._clock.wait_until(deadline_s)
        return deadline_s
