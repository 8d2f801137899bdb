"""Episode: one recorded episode, checked when opened and mapped into memory, never copied."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from policies.episodes import EpisodeHeader, crc32
from sensors.errors import DataError, PerceiveError
from sensors.observation import Observation, Stream
from sensors.timeline import TimingReport

Verify = Literal["full", "quick"]
_FIX = "Delete the file and collect that episode again, or open the folder with on_bad='skip'."


@dataclass(frozen=True)
class _Place:
    """Where one dataset lies in the file."""

    offset: int | None  # None = nothing stored, the dataset is empty
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Episode:
    """One episode file (layout: :mod:`policies.episodes`).

    ``header`` is an :class:`~policies.episodes.EpisodeHeader`; ``timing`` the rig's latencies and skew as they were
    measured (:class:`~sensors.timeline.TimingReport`), None in files that were written without.

    Args:
        path: the file.
        verify: ``"full"`` compares every byte with its checksum (about 4 GB per CPU-second); ``"quick"`` trusts the
            data and checks only that the file is complete.

    Raises:
        DataError: the file is missing, truncated, corrupt, or not an episode.
    """

    def __init__(self, path: str | Path, verify: Verify = "full") -> None:
        self.path = Path(path)
        texts, checksums, self._places = _index(self.path)
        self._map: NDArray[np.uint8] | None = None
        for name in ("header", *(("timing",) if "timing" in checksums else ())):
            if zlib.crc32(texts.get(name, "").encode(errors="surrogateescape")) != checksums.get(name):
                raise DataError(str(self.path), f"an intact {name}", "a checksum that differs", _FIX)
        try:
            self.header = EpisodeHeader.from_json(json.loads(texts["header"]))
            self.timing = TimingReport.from_json(json.loads(texts["timing"])) if "timing" in checksums else None
        except PerceiveError as error:
            raise DataError(str(self.path), error.expected, error.got, error.fix) from error
        self._check_layout()
        if verify == "full":
            for name, place in self._places.items():
                if crc32(self._array(name)) != checksums.get(name):
                    raise DataError(
                        f"{self.path}, '{name}'", "the bytes that were written", f"others ({place.nbytes} bytes)", _FIX
                    )

    def __len__(self) -> int:
        """L, control steps."""
        return self._places["time_s"].shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}  # a worker maps the file anew

    @property
    def time_s(self) -> NDArray[np.float64]:
        """float64 [L], the moment of each step on the rig's clock."""
        return self._array("time_s")

    @property
    def action(self) -> NDArray[np.float32]:
        """float32 [L, A], the label."""
        return self._array("action")

    @property
    def action_sent(self) -> NDArray[np.float32]:
        """float32 [L, A], what the robot was sent."""
        return self._array("action_sent")

    def frames(self, sensor: str, field: str) -> NDArray[Any]:
        """[M, ...] of one field, every frame once; ``stamp_s`` and ``valid`` are fields too."""
        return self._array(f"obs/{sensor}/{field}")

    def rows(self, sensor: str) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
        """Frame index (-1 = none yet), age_s and valid, each [L, T]: what was on view at every step."""
        name = f"rows/{sensor}"
        return self._array(f"{name}/frame"), self._array(f"{name}/age_s"), self._array(f"{name}/valid").astype(bool)

    def observation(self, row: int) -> Observation:
        """The observation of one step, bit for bit as it was recorded."""
        streams = {}
        for sensor, space in self.header.sensor_spaces.items():
            index, age_s, valid = (part[row] for part in self.rows(sensor))
            data = {}
            for field, box in space.spaces.items():
                value = np.zeros((len(index), *(box.shape or ())), box.dtype)
                value[valid] = self.frames(sensor, field)[index[valid]]
                data[field] = value
            streams[sensor] = Stream(data, age_s.copy(), valid)
        return Observation(float(self.time_s[row]), streams)

    def _array(self, name: str) -> NDArray[Any]:
        place = self._places[name]
        if place.offset is None:
            return np.zeros(place.shape, place.dtype)
        if self._map is None:
            self._map = np.asarray(np.memmap(self.path, np.uint8, "r"))
        return self._map[place.offset : place.offset + place.nbytes].view(place.dtype).reshape(place.shape)

    def _check_layout(self) -> None:
        size = self.path.stat().st_size
        expected = {"time_s", "action", "action_sent"}
        for sensor, space in self.header.sensor_spaces.items():
            expected |= {f"obs/{sensor}/{field}" for field in (*space.spaces, "stamp_s", "valid")}
            expected |= {f"rows/{sensor}/{part}" for part in ("frame", "age_s", "valid")}
        if missing := sorted(expected - set(self._places)):
            raise DataError(str(self.path), f"the dataset '{missing[0]}'", f"{len(self._places)} others", _FIX)
        for name, place in self._places.items():
            if place.offset is not None and place.offset + place.nbytes > size:
                raise DataError(
                    f"{self.path}, '{name}'", f"{place.offset + place.nbytes} bytes", f"a file of {size}", _FIX
                )


def _index(path: Path) -> tuple[dict[str, str], Mapping[str, int], dict[str, _Place]]:
    """Header and other texts, checksums, and where each dataset lies."""
    if not path.is_file():
        raise DataError(str(path), "an episode file", "no such file", "Check the folder's name.")
    places: dict[str, _Place] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            if item.chunks is not None:
                raise DataError(
                    f"{path}, '{name}'", "a contiguous dataset", "a chunked one", "Write it with EpisodeWriter."
                )
            places[name] = _Place(item.id.get_offset() if item.size else None, item.shape, item.dtype)

    try:
        with h5py.File(path, "r") as file:
            if not file.attrs.get("complete", False):
                raise DataError(str(path), "a finished episode", "one whose writer was interrupted", _FIX)
            texts = {"header": str(file.attrs["header"])}
            if "timing" in file.attrs:
                texts["timing"] = str(file.attrs["timing"])
            checksums = json.loads(str(file.attrs["checksums"]))
            file.visititems(note)
        if not isinstance(checksums, dict):
            raise ValueError("no table of checksums")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, PerceiveError):
            raise
        raise DataError(str(path), "a whole episode file", f"a truncated or damaged one ({error})", _FIX) from error
    return texts, checksums, places
