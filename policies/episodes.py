"""Episodes on disk: the header, and the writer of one HDF5 file per episode.

Layout of ``episode_000123.h5`` (L control steps, M frames of a sensor, T instants of history, A action entries)::

    attributes      header (JSON), timing (JSON, may be absent: latencies and skew as they were measured),
                    checksums (JSON: dataset or attribute -> crc32), complete (written last)
    time_s          float64 [L]      the moment of each control step on the rig's clock
    action          float32 [L, A]   the label: what the expert asked for
    action_sent     float32 [L, A]   what the robot was sent after its limits
    obs/<sensor>/<field>   [M, ...]  every frame that was seen, once, oldest first
    obs/<sensor>/stamp_s   float64 [M]   true capture time of each frame
    obs/<sensor>/valid     uint8 [M]     0 = the frame was dropped or corrupt; its fields are zero
    rows/<sensor>/frame    int32 [L, T]  which frames were on view at each step; -1 = none had come yet
    rows/<sensor>/age_s    float32 [L, T]
    rows/<sensor>/valid    uint8 [L, T]  0 = absent, dropped, corrupt or too old at that step

Frames are stored once and pointed at, so a slow sensor is not repeated, a fast one loses nothing, and the
observation that the policy will see is rebuilt bit for bit whatever the rates, delays and dropouts were. For a sensor
at the control rate without history, frame i is simply the frame of step i. Datasets are contiguous and uncompressed,
so that a reader maps them into memory instead of copying them.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from sensors.action import ActionSpec
from sensors.errors import DataError, SpecError
from sensors.observation import MAX_AGE_S, Observation, Stream
from sensors.spec import Json, check_array, check_keys, space_from_json, space_to_json
from sensors.timeline import TimingReport

FORMAT = 1
MOST_OF_A_STATE = 256  # numbers in a field of a sensor that may be interpolated; more is a picture
_PREFIX, _SUFFIX, _TEMPORARY = "episode_", ".h5", ".tmp-"


@dataclass(frozen=True, eq=False)
class EpisodeHeader:
    """What has to be known to read an episode, and where it came from.

    Attributes:
        sensor_spaces: sensor -> space of one frame.
        history: sensor -> T.
        rates_hz: sensor -> measurements per second.
        action: the meaning of the label.
        seed: the environment's seed.
        env: resolved config of the environment, plain JSON data.
        expert: who acted.
        success: whether the task was solved; set when the episode is finished.
    """

    sensor_spaces: Mapping[str, spaces.Dict]
    history: Mapping[str, int]
    rates_hz: Mapping[str, float]
    action: ActionSpec
    seed: int
    env: Json
    expert: str = ""
    success: bool = False

    def to_json(self) -> Json:
        """Plain JSON data."""
        return {
            "format": FORMAT,
            "sensor_spaces": {name: space_to_json(space) for name, space in self.sensor_spaces.items()},
            "history": dict(self.history),
            "rates_hz": dict(self.rates_hz),
            "action": self.action.to_json(),
            "seed": self.seed,
            "env": self.env,
            "expert": self.expert,
            "success": self.success,
        }

    @staticmethod
    def from_json(data: Json) -> EpisodeHeader:
        """The inverse of :meth:`to_json`.

        Raises:
            SpecError: written by another version of the format.
        """
        if data.get("format") != FORMAT:
            raise SpecError(
                "episode header", f"format {FORMAT}", repr(data.get("format")), "Convert or record it again."
            )
        sensor_spaces = {}
        for name, part in data["sensor_spaces"].items():
            space = space_from_json(part)
            if not isinstance(space, spaces.Dict):
                raise SpecError(
                    f"episode header, sensor '{name}'", "a Dict space", type(space).__name__, "Record it again."
                )
            sensor_spaces[name] = space
        return EpisodeHeader(
            sensor_spaces=sensor_spaces,
            history={name: int(steps) for name, steps in data["history"].items()},
            rates_hz={name: float(rate) for name, rate in data["rates_hz"].items()},
            action=ActionSpec.from_json(data["action"]),
            seed=int(data["seed"]),
            env=data["env"],
            expert=data["expert"],
            success=bool(data["success"]),
        )


def episode_path(folder: str | Path, number: int) -> Path:
    """Where episode ``number`` of a folder is or will be."""
    return Path(folder) / f"{_PREFIX}{number:06d}{_SUFFIX}"


def list_episodes(folder: str | Path) -> list[Path]:
    """The finished episode files of a folder in order of their number; none if there is no such folder."""
    return sorted(Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"))


def remove_leftovers(folder: str | Path) -> int:
    """Delete the unfinished files of writers that were killed; returns how many. Call before any writer is at work."""
    leftovers = list(Path(folder).glob(f"{_TEMPORARY}{_PREFIX}*"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


class EpisodeWriter:
    """Collects one episode in memory and puts it on disk whole or not at all.

    Args:
        folder: made if it is missing.
        number: the file's number; a finished file of that number is replaced.
        header: everything but ``success``.
    """

    def __init__(self, folder: str | Path, number: int, header: EpisodeHeader) -> None:
        self._path = episode_path(folder, number)
        self._header = header
        self._time_s: list[float] = []
        self._action: list[NDArray[np.float32]] = []
        self._action_sent: list[NDArray[np.float32]] = []
        self._sensors = {name: _SensorLog(name, space) for name, space in header.sensor_spaces.items()}

    def __len__(self) -> int:
        """L, control steps so far."""
        return len(self._time_s)

    def add(self, observation: Observation, action: ArrayLike, action_sent: ArrayLike) -> None:
        """One control step: what was seen, what the expert asked for, and what was sent to the robot.

        Args:
            observation: all sensors of the header, at a later moment than the step before.
            action: float [A], the label, in the header's action spec.
            action_sent: float [A], after limits (``info["action_sent"]``).

        Raises:
            SpecError: other sensors, fields or shapes than the header's; a label that is not finite; time went back.
        """
        where = f"EpisodeWriter, step {len(self)}"
        check_keys(where, observation.streams, self._sensors)
        if self._time_s and observation.now_s <= self._time_s[-1]:
            raise SpecError(
                where, f"a moment after {self._time_s[-1]} s", f"{observation.now_s} s", "Add steps in order."
            )
        sent = np.asarray(action_sent, np.float32)
        if sent.shape != self._header.action.space.shape:
            raise SpecError(
                where,
                f"action_sent of shape {self._header.action.space.shape}",
                f"{sent.shape}",
                "Pass info['action_sent'].",
            )
        label = self._header.action.check(np.asarray(action))
        for name, log in self._sensors.items():
            log.add(observation.streams[name], observation.now_s, self._header.history[name])
        self._time_s.append(observation.now_s)
        self._action.append(label.copy())
        self._action_sent.append(sent.copy())

    def finish(self, success: bool, timing: TimingReport | None = None) -> Path:
        """Write the file beside its place, checksum it, and rename it into place.

        Args:
            success: whether the task was solved.
            timing: the rig's ``timing_report()`` at the episode's end, if it is to be kept.

        Raises:
            DataError: no step was added, the disk is full, or the folder cannot be written. Nothing is left behind,
                and files that were there before are untouched.
        """
        where = str(self._path)
        if not self._time_s:
            raise DataError(where, "at least one control step", "an empty episode", "Call add() before finish().")
        arrays: dict[str, NDArray[Any]] = {
            "time_s": np.asarray(self._time_s),
            "action": np.stack(self._action),
            "action_sent": np.stack(self._action_sent),
        }
        for name, log in self._sensors.items():
            arrays |= log.arrays(name)
        texts = {"header": json.dumps(self._header.to_json() | {"success": bool(success)})}
        if timing is not None:
            texts["timing"] = json.dumps(timing.to_json())
        temporary = self._path.with_name(f"{_TEMPORARY}{self._path.name}-{os.getpid()}")
        image = _image(texts, arrays)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(image)
                file.flush()
                os.fsync(file.fileno())  # the rename must not reach the disk before the data do
            os.replace(temporary, self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise DataError(
                where,
                f"room for {len(image) / 1e6:.1f} MB",
                "a full disk" if full else f"{type(error).__name__}: {error}",
                "Free space or choose another folder, then start again: finished episodes are kept.",
            ) from error
        return self._path


def crc32(array: NDArray[Any]) -> int:
    """Checksum of an array's bytes, without copying a contiguous one."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _image(texts: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an HDF5 file with these attributes and datasets.

    The file is put together in memory: HDF5 itself, caught by a full disk half way, ends the process with a
    segmentation fault when it closes the file, and with it everything that was not saved yet.
    """
    # "v110" stores metadata with checksums and allows attributes beyond 64 kB; the alignment keeps mapped arrays fast.
    with h5py.File(
        "image",
        "w",
        driver="core",
        backing_store=False,
        libver=("v110", "v110"),
        alignment_threshold=1024,
        alignment_interval=64,
    ) as file:
        checksums = {}
        for name, array in arrays.items():
            whole = np.ascontiguousarray(array)
            file.create_dataset(name, data=whole)
            checksums[name] = crc32(whole)
        for name, text in texts.items():
            checksums[name] = zlib.crc32(text.encode())
            file.attrs[name] = text
        file.attrs["checksums"] = json.dumps(checksums)
        file.attrs["complete"] = True
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _same_state(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two frames of one capture time are one. Pictures are never interpolated, so they are not compared."""
    return all(value.size > MOST_OF_A_STATE or np.array_equal(value, other[field]) for field, value in one.items())


class _SensorLog:
    """The frames of one sensor, each kept once, and which of them were on view at each step."""

    def __init__(self, name: str, space: spaces.Dict) -> None:
        self._name = name
        self._boxes = {k: v for k, v in space.spaces.items() if isinstance(v, spaces.Box)}
        self._frames: list[dict[str, NDArray[Any]] | None] = []
        self._stamps_s: list[float] = []
        self._rows: list[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]] = []

    def add(self, stream: Stream, now_s: float, history: int) -> None:
        where = f"sensor '{self._name}'"
        check_keys(where, stream.data, self._boxes)
        if stream.age_s.shape != (history,) or stream.valid.shape != (history,):
            raise SpecError(
                where,
                f"{history} instants",
                f"age {stream.age_s.shape}, valid {stream.valid.shape}",
                "Match the header.",
            )
        for field, value in stream.data.items():
            check_array(f"{where}, field '{field}'", value[0], self._boxes[field])
        index = np.full(history, -1, np.int32)
        for step in range(history):
            age_s = float(stream.age_s[step])
            if age_s < MAX_AGE_S:
                shown = {k: v[step].copy() for k, v in stream.data.items()} if stream.valid[step] else None
                index[step] = self._find_or_keep(now_s - age_s, shown, 1e-6 + 2e-7 * age_s, 4 * history + 8)
        self._rows.append((index, stream.age_s.astype(np.float32), stream.valid.astype(bool)))

    def _find_or_keep(
        self, stamp_s: float, frame: dict[str, NDArray[Any]] | None, tolerance_s: float, back: int
    ) -> int:
        # An age travels as float32, so the same capture comes back with a stamp that differs by its rounding.
        for index in range(len(self._stamps_s) - 1, max(len(self._stamps_s) - back, 0) - 1, -1):
            if abs(self._stamps_s[index] - stamp_s) <= tolerance_s:
                kept = self._frames[index]
                if kept is None:
                    self._frames[index] = frame
                elif frame is not None and not _same_state(kept, frame):
                    continue  # an aligned rig interpolated it anew, after a reading that came late
                return index
        self._stamps_s.append(stamp_s)
        self._frames.append(frame)
        return len(self._stamps_s) - 1

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Dataset name -> array; frames in order of capture, even where delays made them arrive out of order."""
        order = np.argsort(np.asarray(self._stamps_s, np.float64), kind="stable")
        place = np.full(len(order) + 1, -1, np.int32)
        place[order] = np.arange(len(order))  # the last entry stays -1 and is what index -1 selects
        out: dict[str, NDArray[Any]] = {}
        frames = [self._frames[i] for i in order]
        for field, box in self._boxes.items():
            data = np.zeros((len(frames), *box.shape), box.dtype)
            for row, frame in enumerate(frames):
                if frame is not None:
                    data[row] = frame[field]
            out[f"obs/{name}/{field}"] = data
        out[f"obs/{name}/stamp_s"] = np.asarray(self._stamps_s, np.float64)[order]
        out[f"obs/{name}/valid"] = np.asarray([frame is not None for frame in frames], np.uint8)
        out[f"rows/{name}/frame"] = place[np.stack([row[0] for row in self._rows])]
        out[f"rows/{name}/age_s"] = np.stack([row[1] for row in self._rows])
        out[f"rows/{name}/valid"] = np.stack([row[2] for row in self._rows]).astype(np.uint8)
        return out
