"""FrameStore: of one episode, only the frames that samples look at, small and mapped from disk.

A cache: one file per episode, in a folder beside the episodes, that may be deleted at any time. Its name holds a hash
of what it was made of and for: the episode's own checksums, the frames, the sensors and their history. So a file is
used again as long as nothing changed, and the pictures of the episode are not read again; when anything did change,
another file is made. One that is damaged is made again, with a warning.

Layout of ``episode_000123-<hash>.h5`` (N samples, M frames of a sensor, T instants of history; contiguous datasets)::

    attributes      key (JSON), checksums (JSON: dataset -> crc32), complete (written last)
    obs/<sensor>/<field>   [M, ...]     every frame that a sample looks at, once; depth_m as uint16 (see depth.py)
    rows/<sensor>/frame    int32 [N, T] which of them were on view at the start of each sample; -1 = none
    rows/<sensor>/age_s    float32 [N, T]
    rows/<sensor>/valid    uint8 [N, T]
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policies.episode_file import Episode, Verify
from policies.episodes import crc32
from policies.keyframes.depth import depth_quantum_m, pack
from sensors.errors import DataError

FORMAT = 1
FOLDER = "keyframes"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a store holds.

    Attributes:
        rows: the frames of the episode that samples start from, rising.
        history: sensor -> T, of the sensors that are kept.
    """

    rows: tuple[int, ...]
    history: Mapping[str, int]


@dataclass(frozen=True)
class _Place:
    """Where one dataset lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class FrameStore:
    """Named arrays, mapped from a file (and mapped anew in a copy in another process) or held in memory.

    Args:
        arrays: what is held in memory.
        path: the file that is mapped.
        places: dataset -> where it lies in the file.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        path: Path | None = None,
        places: Mapping[str, _Place] | None = None,
    ) -> None:
        self.path = path
        self._arrays = dict(arrays)
        self._places = dict(places or {})
        self._map: NDArray[np.uint8] | None = None

    @staticmethod
    def of_file(path: Path, key: str, verify: Verify) -> FrameStore:
        """Map a file.

        Raises:
            DataError: it is truncated, damaged or was made for another key.
        """
        fix = "It is made again."
        places: dict[str, _Place] = {}

        def note(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                places[name] = _Place(item.id.get_offset() if item.size else 0, item.shape, item.dtype)

        try:
            with h5py.File(path, "r") as file:
                if not file.attrs.get("complete", False) or str(file.attrs["key"]) != key:
                    raise DataError(str(path), "a whole store of these frames", "another or an unfinished one", fix)
                checksums: dict[str, int] = dict(json.loads(str(file.attrs["checksums"])))
                file.visititems(note)
            end = max(place.offset + place.nbytes for place in places.values())
            if checksums.keys() != places.keys() or end > path.stat().st_size:
                raise DataError(str(path), f"{len(checksums)} datasets", f"{len(places)}, or parts of them", fix)
            store = FrameStore({}, path, places)
            for name in places if verify == "full" else ():
                if crc32(store.array(name)) != checksums[name]:
                    raise DataError(f"{path}, '{name}'", "the bytes that were written", "others", fix)
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(str(path), "a whole store", f"a truncated or damaged one ({error})", fix) from error
        return store

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        parts: list[_Place] | list[NDArray[Any]] = list(self._places.values()) or list(self._arrays.values())
        return sum(part.nbytes for part in parts)

    def array(self, name: str) -> NDArray[Any]:
        """One array; read-only where it is mapped."""
        if self.path is None:
            return self._arrays[name]
        if self._map is None:
            self._map = np.asarray(np.memmap(self.path, np.uint8, "r"))
        place = self._places[name]
        return self._map[place.offset : place.offset + place.nbytes].view(place.dtype).reshape(place.shape)


def frame_store(episode: Episode, wanted: Wanted, folder: Path, verify: Verify) -> FrameStore:
    """The store of an episode: from the cache, or made and put there.

    Args:
        episode: opened; its pictures are read only if the store has to be made, and are checked first then.
        wanted: what it is to hold.
        folder: of the cache. One that cannot be written costs a warning, and the frames are held in memory.
        verify: ``"full"`` compares every byte with its checksum, of the cache or, when it is made, of the episode.

    Raises:
        DataError: the episode is damaged.
    """
    key = _key(episode, wanted)
    path = folder / f"{episode.path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.h5"
    if path.is_file():
        try:
            return FrameStore.of_file(path, key, verify)
        except DataError as error:
            _LOG.warning("keyframe cache: %s", error)
    checked = Episode(episode.path, verify)
    arrays = _collected(checked, wanted)
    try:
        _write(path, key, arrays)
    except OSError as error:
        _LOG.warning("keyframe cache: '%s' is not written (%s); %s is held in memory", path, error, episode.path.name)
        return FrameStore(arrays)
    return FrameStore.of_file(path, key, "quick")


def _key(episode: Episode, wanted: Wanted) -> str:
    with h5py.File(episode.path, "r") as file:  # Episode has found it whole; its checksums stand for its content
        checksums = json.loads(str(file.attrs["checksums"]))
    return json.dumps(
        {"format": FORMAT, "episode": checksums, "rows": wanted.rows, "history": dict(wanted.history)}, sort_keys=True
    )


def _collected(episode: Episode, wanted: Wanted) -> dict[str, NDArray[Any]]:
    rows = np.array(wanted.rows, np.int64)
    out: dict[str, NDArray[Any]] = {}
    for name, steps in wanted.history.items():
        index, age_s, valid = (part[rows, -steps:] for part in episode.rows(name))
        used = np.unique(index[valid])
        place = np.full(max(int(index.max(initial=-1)), 0) + 2, -1, np.int32)  # the last entry is what -1 selects
        place[used] = np.arange(len(used))
        out[f"rows/{name}/frame"] = np.where(valid, place[index], np.int32(-1))
        out[f"rows/{name}/age_s"] = age_s
        out[f"rows/{name}/valid"] = valid.astype(np.uint8)
        for field, space in episode.header.sensor_spaces[name].spaces.items():
            frames = episode.frames(name, field)[used]
            quantum_m = depth_quantum_m(field, space) if isinstance(space, spaces.Box) else None
            out[f"obs/{name}/{field}"] = frames if quantum_m is None else pack(frames, quantum_m)
    return {name: np.ascontiguousarray(array) for name, array in out.items()}


def _write(path: Path, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the file beside its place and rename it there.

    It is put together in memory, since HDF5 that meets a full disk ends the process (see policies.episodes).
    """
    with h5py.File(
        "image", "w", driver="core", backing_store=False, libver=("v110", "v110"),
        alignment_threshold=1024, alignment_interval=64,
    ) as file:  # fmt: skip
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs["key"] = key
        file.attrs["checksums"] = json.dumps({name: crc32(array) for name, array in arrays.items()})
        file.attrs["complete"] = True
        file.flush()
        image: bytes = file.id.get_file_image()
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as out:
            out.write(image)
            out.flush()
            os.fsync(out.fileno())  # the rename must not reach the disk before the data do
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
