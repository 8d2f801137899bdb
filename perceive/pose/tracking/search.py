"""Asking an estimator for a lost object, now and then, here or in a worker thread."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

import numpy as np

from perceive.pose.estimate import PoseEstimator
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_KEPT, _APART_S = 12, 0.06  # frames kept while a worker thinks, and how far apart
_PIECES, _OTHERS = 5, 2  # instances and further hypotheses of each that are tried

Answers = list[tuple[RgbdFrame, FloatArray]]


@final
class Searching:
    """Questions to an estimator and its answers.

    Args:
        estimator: who is asked.
        number: for which object.
        every: frames between two questions.
        threaded: a worker asks.
    """

    def __init__(self, estimator: PoseEstimator, number: int, every: int, threaded: bool) -> None:
        self._estimator, self._number, self._every = estimator, number, every
        self._worker = ThreadPoolExecutor(1, "pose-search") if threaded else None
        self._asked: tuple[RgbdFrame, Future[FloatArray]] | None = None
        self._since: list[RgbdFrame] = []
        self._wait = 0

    def ask(self, frame: RgbdFrame) -> Answers:
        """One frame without the object; what is known by now: a frame and poses [K, 4, 4] in it.

        Raises:
            PerceiveError: what the estimator raised, in a worker as well.
        """
        answers: Answers = []
        if self._worker is None:
            if self._wait <= 0:
                answers.append((frame, self._look(frame)))
                self._wait = self._every
            self._wait -= 1
            return answers
        if self._asked is not None:
            asked, future = self._asked
            if future.done():
                self._asked = None
                answers.append((asked, future.result()))
            elif frame.stamp_s - (self._since[-1] if self._since else asked).stamp_s >= _APART_S:
                self._since = [*self._since[-_KEPT + 1 :], frame]
        self._wait -= 1
        return answers

    def next(self, frame: RgbdFrame) -> None:
        """Give the worker its next frame, if it is free and it is time; after the answers have been used."""
        if self._worker is not None and self._asked is None and self._wait <= 0:
            self._asked, self._since, self._wait = (frame, self._worker.submit(self._look, frame)), [], self._every

    def since(self, stamp_s: float) -> tuple[RgbdFrame, ...]:
        """Frames kept since then, oldest first."""
        return tuple(frame for frame in self._since if frame.stamp_s > stamp_s)

    def found(self) -> None:
        """The object is tracked: ask at once when it is lost again, and drop an answer that is still to come."""
        self._wait = 0
        self._asked, self._since = None, []

    def cancel(self) -> None:
        """Start anew."""
        self.found()

    def _look(self, frame: RgbdFrame) -> FloatArray:
        poses = []
        for one in self._estimator.estimate(frame, self._number, None, _PIECES):
            poses.append(one.camera_from_object[None])
            poses.append(np.asarray(one.others, np.float64).reshape(-1, 4, 4)[:_OTHERS])
        return np.concatenate(poses) if poses else np.zeros((0, 4, 4))
