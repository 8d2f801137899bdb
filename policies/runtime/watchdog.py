"""Watchdog: stops the robot when the loop hangs, from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

from policies.runtime.clock import Clock


@final
class Watchdog:
    """Calls ``bite`` once when it was not fed for ``limit_s``.

    Used as a context manager: watches inside the block.

    Args:
        limit_s: the longest time between two feedings.
        bite: stops the robot; called in the watchdog's thread.
        clock: measures the time; the thread itself wakes up by the machine's clock four times per ``limit_s``.
    """

    def __init__(self, limit_s: float, bite: Callable[[], None], clock: Clock) -> None:
        self._limit_s = limit_s
        self._bite = bite
        self._clock = clock
        self._fed_s = clock.now_s()
        self._over = threading.Event()
        self._bitten = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def bitten(self) -> bool:
        """Whether it had to act."""
        return self._bitten.is_set()

    def feed(self) -> None:
        """Say that the loop is alive."""
        self._fed_s = self._clock.now_s()

    def check(self) -> bool:
        """Bite if it is time; whether it has bitten."""
        if not self._bitten.is_set() and self._clock.now_s() - self._fed_s > self._limit_s:
            self._bitten.set()
            self._bite()
        return self._bitten.is_set()

    def __enter__(self) -> Watchdog:
        self.feed()
        self._over.clear()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._limit_s / 4):
            if self.check():
                return
