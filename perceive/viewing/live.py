"""What the sensors see while a robot runs: a worker thread that shows observations, and never holds up who offers them.

Offering is an append to a short queue; what the worker does not come to is dropped and counted. A viewer that hangs,
raises or cannot be opened costs pictures, not ticks.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, final

import numpy as np

from perceive.viewing.film import write_png
from perceive.viewing.rerun_log import log_observation, open_recording
from perceive.viewing.storyboard import Storyboard
from sensors.errors import SpecError
from sensors.observation import Observation, Stream

_LOG = logging.getLogger(__name__)
QUEUE = 2  # observations that wait; more would only be shown late
PATIENCE_S = 3.0  # how long the end of a run waits for the viewer
PICTURE_EVERY_S = 1.0
HISTORY = 120  # observations in a picture's curves
WHOLE = 8  # earlier pictures whose images are kept, for scales and views that stand still
SMALL = 64  # numbers of a field that are kept throughout the history
PICTURE_FILE, LOG_FILE = "live.png", "live.rrd"
Target = Literal["rerun", "rrd", "png"]


class LiveSink(ABC):
    """Where observations are shown. Used by one thread only, the worker's; its methods may take their time or fail."""

    @property
    @abstractmethod
    def shown(self) -> int:
        """Observations that have been shown."""

    @abstractmethod
    def write(self, observation: Observation) -> None:
        """Show an observation, or keep it for the next picture."""

    @abstractmethod
    def close(self) -> None:
        """Show what is still to be shown, and let go."""


@final
class RerunSink(LiveSink):
    """Rerun's window, or a file that it opens. Needs the extra ``viewer``.

    Args:
        name: of the recording.
        file: ends in ``.rrd``; None opens the window.

    Raises:
        SensorError: rerun-sdk is not installed.
    """

    def __init__(self, name: str, file: Path | None) -> None:
        self._rerun, self._recording = open_recording(name, file)
        self._shown = 0

    @property
    def shown(self) -> int:
        return self._shown

    def write(self, observation: Observation) -> None:
        log_observation(self._rerun, self._recording, observation)
        self._shown += 1

    def close(self) -> None:
        self._recording.flush()
        self._recording.disconnect()


@final
class PictureSink(LiveSink):
    """A PNG that is rewritten (beside and renamed), so that any picture viewer that follows a file shows the robot.

    Args:
        file: the picture.
        every_s: least time between two.
        now_s: the clock of that time.
    """

    def __init__(
        self, file: Path, every_s: float = PICTURE_EVERY_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._every_s, self._now_s = file, every_s, now_s
        self._due_s = float("-inf")
        self._past: deque[Observation] = deque(maxlen=HISTORY)
        self._whole: deque[Observation] = deque()  # those of the past that still have their images
        self._newest: Observation | None = None  # not yet shown
        self._shown = 0

    @property
    def shown(self) -> int:
        return self._shown

    def write(self, observation: Observation) -> None:
        if self._newest is not None:
            self._past.append(_light(self._newest))
        self._newest = observation
        if self._now_s() >= self._due_s:
            self._due_s = self._now_s() + self._every_s  # set first: what fails is not tried at every observation
            self._draw(observation)

    def close(self) -> None:
        if self._newest is not None:  # the last picture is of the end
            self._draw(self._newest)

    def _draw(self, observation: Observation) -> None:
        board = Storyboard([*self._past, observation])
        write_png(self._file, board.frame(len(board) - 1))
        self._shown += 1
        self._newest = None
        self._past.append(observation)
        self._whole.append(observation)
        if len(self._whole) > WHOLE:
            oldest = self._whole.popleft()
            self._past = deque((_light(o) if o is oldest else o for o in self._past), maxlen=HISTORY)


@final
class LiveView:
    """Shows observations from a thread of its own; a context in which :meth:`show` may be called.

    Args:
        to: what it is, for the counts.
        open_sink: called by the worker, since a window may take its time to open.
        queue: observations that wait at most; the oldest is dropped for a new one.
        patience_s: how long leaving the context waits for the worker; one that hangs is left behind.

    Raises:
        SpecError: no room in the queue.
    """

    def __init__(
        self, to: str, open_sink: Callable[[], LiveSink], queue: int = QUEUE, patience_s: float = PATIENCE_S
    ) -> None:
        if queue < 1:
            raise SpecError("LiveView.queue", "at least 1", str(queue), "Raise it.")
        self._to, self._open_sink, self._patience_s = to, open_sink, patience_s
        self._queue: deque[Observation] = deque(maxlen=queue)
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="live view", daemon=True)
        self._sink: LiveSink | None = None
        self._offered = self._taken = self._failed = 0
        self._error = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._wake.set()
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._note(f"it did not end within {self._patience_s:g} s and was left behind")

    def show(self, observation: Observation) -> None:
        """Offer an observation; returns at once and never raises. It must not be changed afterwards."""
        self._offered += 1
        self._queue.append(observation)  # atomic; a full queue lets go of its oldest
        self._wake.set()

    def counts(self) -> dict[str, int | str]:
        """What became of the observations; exact once the context has been left.

        ``offered`` is the sum of ``shown``, ``dropped`` (the worker did not come to them), ``failed`` and ``left_out``
        (between two pictures). ``error`` is the first thing that went wrong, if any.
        """
        shown = 0 if self._sink is None else self._sink.shown
        out: dict[str, int | str] = {
            "to": self._to,
            "offered": self._offered,
            "shown": shown,
            "dropped": self._offered - self._taken,
            "failed": self._failed,
            "left_out": self._taken - self._failed - shown,
        }
        return out | ({"error": self._error} if self._error else {})

    def _work(self) -> None:
        try:
            self._sink = sink = self._open_sink()
        except Exception as error:  # whatever a viewer does, the robot runs on
            self._note(_named(error))
            return
        ending = False
        while not ending:
            self._wake.wait()
            self._wake.clear()
            ending = self._ending.is_set()  # asked before the queue is emptied: nothing comes after it
            while self._queue:
                observation = self._queue.popleft()
                self._taken += 1
                try:
                    sink.write(observation)
                except Exception as error:
                    self._failed += 1
                    self._note(_named(error))
        try:
            sink.close()
        except Exception as error:
            self._note(_named(error))

    def _note(self, error: str) -> None:
        if not self._error:  # once; a full disk would fill the screen too
            self._error = error
            _LOG.warning("the live view (%s) does not work: %s", self._to, error)


def live_view(to: Target, folder: str | Path, name: str) -> LiveView:
    """A live view; without rerun-sdk it is the picture, whatever was asked for.

    Args:
        to: rerun (its window), rrd (a file for it in the folder) or png (a picture there, rewritten every second).
        folder: of the files.
        name: of the recording.
    """
    folder = Path(folder)
    if to != "png" and find_spec("rerun") is None:
        _LOG.warning(
            "no rerun-sdk: %s is written instead; pip install 'perceive[viewer]' for view=%s.",
            folder / PICTURE_FILE,
            to,
        )
        to = "png"
    if to == "png":
        return LiveView(to, lambda: PictureSink(folder / PICTURE_FILE))
    return LiveView(to, lambda: RerunSink(name, _free(folder / LOG_FILE) if to == "rrd" else None))


def _free(path: Path) -> Path:
    """The path, or with a number where there is a file already: no recording is written over."""
    tried, number = path, 0
    while tried.exists():
        number += 1
        tried = path.with_stem(f"{path.stem}_{number}")
    return tried


def _named(error: Exception) -> str:
    """Its kind and first line: what follows may be long, and about this machine."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0] if lines else ''}"


def _light(observation: Observation) -> Observation:
    """The newest instant without large arrays; sensors that have one count as not there."""
    streams = {}
    for name, stream in observation.streams.items():
        large = any(value[-1].size > SMALL for value in stream.data.values())
        data = {
            # An array of zeros without memory, of the same shape and kind.
            field: np.broadcast_to(np.zeros((), value.dtype), value[-1:].shape) if large else value[-1:].copy()
            for field, value in stream.data.items()
        }
        valid = np.zeros(1, bool) if large else stream.valid[-1:].copy()
        streams[name] = Stream(data, stream.age_s[-1:].copy(), valid)
    return Observation(observation.now_s, streams)
