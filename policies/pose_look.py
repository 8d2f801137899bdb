"""Looking for a named object: what was found when, and asking an estimator at once or in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import final

from perceive.pose.estimate import PoseEstimate, PoseEstimator
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray


class Verdict(Enum):
    """How a try of the policy stands, or why it holds still."""

    LOOKING = "looking"
    MOVING = "moving"
    DONE = "done"
    NO_PICTURE = "no picture"
    UNKNOWN = "unknown object"
    NOT_FOUND = "not found"
    NOT_REACHABLE = "not reachable"
    NOT_LIFTED = "not lifted"


@final
@dataclass(frozen=True, eq=False)
class Look:
    """One look for the object.

    Attributes:
        name: of the object.
        now_s: when.
        base_from_object: [4, 4]; None = it was not found.
        score: the estimator's; 0 if it was not found.
        grasps: how many could be reached.
        why_not: how many could not, for what.
        estimate_s: CPU seconds of the estimate.
    """

    name: str
    now_s: float
    base_from_object: FloatArray | None
    score: float
    grasps: int
    why_not: dict[str, int]
    estimate_s: float


@final
@dataclass(frozen=True, eq=False)
class Found:
    """An estimator's answer.

    Attributes:
        frame: the picture that it was asked about.
        best: the likeliest pose; None = the object is not in the picture.
        spent_s: CPU seconds.
    """

    frame: RgbdFrame
    best: PoseEstimate | None
    spent_s: float


@final
class Finder:
    """Asks an estimator for one object in one picture after the other.

    Args:
        estimator: knows the objects.
        threaded: answer later, from a thread, so that a robot's loop keeps its rate meanwhile; else at once.
    """

    def __init__(self, estimator: PoseEstimator, threaded: bool) -> None:
        self._estimator = estimator
        self._pool = ThreadPoolExecutor(1, "pose") if threaded else None
        self._asked: Future[Found] | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is to come."""
        return self._asked is not None

    def forget(self) -> None:
        """What was asked is of no interest any more."""
        if self._asked is not None:
            self._asked.cancel()
        self._asked = None

    def ask(self, frame: RgbdFrame, number: int, also: Callable[[], object]) -> None:
        """Where object ``number`` is in a picture; ``also`` is called beside it, for what is to be ready then."""
        if self._pool is not None:
            self._asked = self._pool.submit(self._find, frame, number, also)
            return
        self._asked = Future()
        self._asked.set_result(self._find(frame, number, also))

    def answer(self) -> Found | None:
        """The answer, once; None = not yet. What went wrong in the thread is raised here."""
        if self._asked is None or not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        return asked.result()

    def _find(self, frame: RgbdFrame, number: int, also: Callable[[], object]) -> Found:
        also()
        clock = time.process_time if self._pool is None else time.thread_time  # beside others, its own time alone
        began_s = clock()
        found = self._estimator.estimate(frame, number, None)
        return Found(frame, found[0] if found else None, clock() - began_s)
