"""Recorder: every frame that the sensors of a rig give, into one MCAP file, by a thread of its own.

    with Recorder("drive.mcap") as recorder:
        rig = SensorRig(recorder.tap({"front": front, "joints": joints}))
        ...                       # open, reset, tick: as without a recorder

Messages bear two times in nanoseconds since 1970 (UTC): ``publish_time`` is that of capture, ``log_time`` that at
which the rig read the frame. Both come from the rig's clock and one offset, which the file keeps. All messages of a
frame bear the same times and sequence number; numbers count frames that were dropped, too, so a gap shows.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, final

from sensors.base import Sensor
from sensors.clock import host_now_s
from sensors.errors import DataError, SpecError
from sensors.frames import Frame
from sensors.recording.clock import RecordingClock
from sensors.recording.encoder import Coding
from sensors.recording.mcap_file import McapFile
from sensors.recording.tap import Tap
from sensors.spec import space_to_json

LOG = logging.getLogger(__name__)
FORMAT = 1
HEADER, SENSOR, CLOSING = "perceive.recording", "perceive.sensor", "perceive.closing"  # names of metadata records
FRAME_BYTES = 1024  # what a frame takes in the queue besides its arrays, about
IDLE_S = 0.1  # how long the thread sleeps when nothing comes
CATCH_UP_S = 0.005


@dataclass
class SensorCounts:
    """What became of a sensor's frames.

    Attributes:
        written: frames in the file.
        dropped: frames lost because the queue was full, or after the disk failed.
        unwritable: frames that have no form in the file (a dtype such as complex or object, a stamp that is NaN).
        bytes: bytes of their messages, before the chunks' compression.
    """

    written: int = 0
    dropped: int = 0
    unwritable: int = 0
    bytes: int = 0


@dataclass(frozen=True, eq=False)
class _Item:
    name: str
    sequence: int
    frame: Frame
    stamp_s: float
    read_s: float
    size: int


@dataclass
class _Queue:
    items: deque[_Item] = field(default_factory=deque)
    size: int = 0
    most: int = 0  # the largest size so far


@final
class Recorder:
    """Writes a recording.

    Whoever reads the sensors is never kept waiting: when the disk is too slow, frames are dropped and counted.

    Args:
        path: the file; it must not exist yet.
        coding: how pictures are written.
        rig_now_s: the rig's clock; simulated environments have one of their own.
        chunk_s: frames are written to the file in chunks of at most so long; what a crash loses. They reach the
            system's memory, which survives the end of this process by whatever cause, not a loss of power.
        queue_bytes: the most memory for frames that wait.
        about: further plain JSON data for the file's header (a config, a seed).

    Raises:
        DataError: the file exists or cannot be written.
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        coding: Coding | None = None,
        rig_now_s: Callable[[], float] = host_now_s,
        chunk_s: float = 0.5,
        queue_bytes: int = 256_000_000,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 < chunk_s < math.inf or queue_bytes < 1:
            raise SpecError("Recorder", "chunk_s > 0, queue_bytes >= 1", f"{chunk_s}, {queue_bytes}", "Correct them.")
        self.path = Path(path)
        self._coding = coding or Coding()
        self._chunk_s = chunk_s
        self._queue_bytes = queue_bytes
        self._clock = RecordingClock.begin(rig_now_s)
        self._file = McapFile(self.path, self._coding)
        header = {"format": FORMAT, "utc_offset_ns": self._clock.utc_offset_ns, "coding": asdict(self._coding)}
        self._file.add_metadata(HEADER, {k: json.dumps(v) for k, v in {**header, "about": about or {}}.items()})
        self._taps: dict[str, Tap] = {}
        self._counts: dict[str, SensorCounts] = {}
        self._sequences: dict[str, int] = {}
        self._shift_s = 0.0
        self._last_s = -math.inf
        self._queue = _Queue()
        self._news = threading.Condition()
        self._ending = False
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> dict[str, SensorCounts]:
        """Sensor -> what became of its frames so far."""
        with self._news:
            return {name: SensorCounts(**asdict(count)) for name, count in self._counts.items()}

    @property
    def pending(self) -> int:
        """Frames that wait to be written."""
        return len(self._queue.items)

    @property
    def most_queued_bytes(self) -> int:
        """The most memory that waiting frames took so far."""
        return self._queue.most

    @property
    def size_bytes(self) -> int:
        """Size of the file so far."""
        return self._file.size_bytes

    @property
    def failure(self) -> BaseException | None:
        """What keeps it from writing, e.g. a full disk; frames are dropped since. ``close`` raises it."""
        return self._failure

    def tap(self, sensors: Mapping[str, Sensor]) -> dict[str, Sensor]:
        """The same sensors, each with a tap: what is read of them is recorded under its name.

        Raises:
            SpecError: a name is empty, has a ``/`` or was tapped before.
        """
        found: dict[str, Sensor] = {}
        for name, sensor in sensors.items():
            if not name or "/" in name or name in self._taps:
                raise SpecError("Recorder.tap", "new names without '/'", repr(name), "Rename the sensor.")
            timing = json.dumps(asdict(sensor.timing))
            space = json.dumps(space_to_json(sensor.space))
            self._file.add_metadata(SENSOR, {"name": name, "space": space, "timing": timing})
            with self._news:
                self._counts[name] = SensorCounts()
                self._sequences[name] = 0
            self._taps[name] = found[name] = Tap(sensor, name, self.put)
        return found

    def put(self, name: str, frame: Frame, read_s: float) -> bool:
        """Record a frame of a tapped sensor; returns at once, and False if it was dropped.

        Args:
            name: of the sensor.
            frame: as it was read; it must not be changed afterwards.
            read_s: when it was read, on the rig's clock.
        """
        size = FRAME_BYTES + sum(value.nbytes for value in frame.arrays().values())
        with self._news:
            sequence = self._sequences[name]
            self._sequences[name] += 1
            queue = self._queue
            if self._ending or self._failure is not None or queue.size + size > self._queue_bytes:
                self._counts[name].dropped += 1
                return False
            shift_s = self._shift_s
            self._last_s = max(self._last_s, read_s + shift_s)
            queue.items.append(_Item(name, sequence, frame, frame.stamp_s + shift_s, read_s + shift_s, size))
            queue.size += size
            queue.most = max(queue.most, queue.size)
            # No notify: waking the thread for each of a thousand frames a second costs more than its short sleeps.
        return True

    def catch_up(self) -> None:
        """Wait until half of the queue is free. For simulations, which can wait for the disk; devices cannot."""
        while self._queue.size > self._queue_bytes / 2 and self._failure is None:
            time.sleep(CATCH_UP_S)

    def restart_clock(self, gap_s: float = 1.0) -> None:
        """From here on the rig's clock counts from 0 again (a new episode): later times are moved behind those so far.

        Args:
            gap_s: seconds between the last frame and the new 0.
        """
        with self._news:
            if self._last_s > -math.inf:
                self._shift_s = self._last_s + gap_s

    def close(self, closing: Mapping[str, Any] | None = None) -> None:
        """Write what waits and the index. May be called twice.

        Args:
            closing: further plain JSON data to keep, e.g. the rig's counts.

        Raises:
            DataError: the disk failed; what had been written until then can be read.
        """
        if self._closed:
            return
        self._closed = True
        with self._news:
            self._ending = True
            self._news.notify()
        self._thread.join()
        told = {"counts": {k: asdict(v) for k, v in self.counts.items()}, **(closing or {})}
        told["sensors"] = {name: tap.statistics() for name, tap in self._taps.items()}
        try:
            if self._failure is None:
                self._file.add_metadata(CLOSING, {key: json.dumps(value) for key, value in told.items()})
                self._file.finish()
        except OSError as error:
            self._failure = error
        finally:
            self._file.close()
        if self._failure is not None:
            fix = "Free space; what was written until then can be read."
            raise DataError(f"recording '{self.path}'", "a file that can be written", repr(self._failure), fix)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            chunk_ends_s = math.inf
            while True:
                with self._news:
                    item = self._queue.items.popleft() if self._queue.items else None
                    if item is None and self._ending:
                        break
                    if item is None:
                        self._news.wait(min(IDLE_S, max(chunk_ends_s - time.monotonic(), 0.0)))
                if item is not None:
                    self._write(item)
                    chunk_ends_s = min(chunk_ends_s, time.monotonic() + self._chunk_s)
                # By the clock on the wall, as a crash counts; by the frames' own, as the one who replays them does.
                if time.monotonic() >= chunk_ends_s or self._file.is_chunk_full(self._chunk_s):
                    self._file.flush()
                    chunk_ends_s = math.inf
            self._file.flush()
        except BaseException as error:  # told by `failure` and `close`; the robot goes on
            self._failure = error
            LOG.exception("recording '%s' failed; frames are dropped from here on", self.path)
            with self._news:
                for left in self._queue.items:
                    self._counts[left.name].dropped += 1
                self._queue.items.clear()

    def _write(self, item: _Item) -> None:
        count = self._counts[item.name]
        try:
            capture_ns, read_ns = self._clock.to_ns(item.stamp_s), self._clock.to_ns(item.read_s)
            written = self._file.add(item.name, item.frame, item.sequence, item.stamp_s, capture_ns, read_ns)
        except OSError:
            raise
        except Exception as error:  # one frame that is not as it should be must not end the recording of all others
            if not count.unwritable:
                LOG.warning("frames of '%s' are not recorded: %s", item.name, error)
            count.unwritable += 1
        else:
            count.written += 1
            count.bytes += written
        with self._news:
            self._queue.size -= item.size


def free_path(folder: str | Path, stem: str = "recording") -> Path:
    """The first of ``stem.mcap``, ``stem_1.mcap`` ... that does not exist in a folder, which is made."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    taken = set(os.listdir(folder))
    number = 0
    while (name := f"{stem}_{number}.mcap" if number else f"{stem}.mcap") in taken:
        number += 1
    return folder / name
