"""EpisodeDataset: a folder of episodes as training batches, mapped from disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from perceive.batch import ActionTarget, Batch, BatchStream, to_tensor
from perceive.normalize import FieldStats
from policies.episode_file import Episode, Verify
from policies.episodes import EpisodeHeader, list_episodes
from policies.schema import difference
from sensors.action import ActionSpec
from sensors.errors import DataError, nearest
from sensors.observation import MAX_AGE_S

_LOG = logging.getLogger(__name__)
_SMALL_BYTES = 1024  # fields up to this size per frame are held in memory, larger ones are read from the mapped file
_STATS_ENTRIES = 64  # float fields up to this many entries per frame (vectors, poses) get statistics


class EpisodeDataset:
    """Every control step of every episode in a folder is one sample: the observation there and the next K labels.

    Pictures stay on disk and are mapped, so that memory does not grow with the dataset; the pages are the system's
    cache. May be pickled; a copy in another process maps the files itself.

    Args:
        folder: holds ``episode_*.h5``.
        chunk: K, action steps per sample, at the control period.
        history: T, for every sensor or by name; None = as recorded. A longer history than recorded is rebuilt from
            the frames' stamps, which needs a sensor not faster than the control rate; a sensor's ``max_age_s`` is not
            recorded, so the frames before the newest are shown whatever their age.
        sensors: names to read; None = all.
        on_bad: what to do with a truncated or corrupt file: ``"raise"``, or ``"skip"`` it, log a warning and list it
            in :attr:`skipped`.
        verify: ``"full"`` checks every byte, ``"quick"`` only completeness.
        limit: use the first ``limit`` episodes only.

    Raises:
        DataError: no usable episode, a bad file with ``on_bad="raise"``, or episodes that differ in sensors, rates or
            action.
    """

    def __init__(
        self,
        folder: str | Path,
        chunk: int = 1,
        history: int | Mapping[str, int] | None = None,
        sensors: Sequence[str] | None = None,
        on_bad: Literal["raise", "skip"] = "raise",
        verify: Verify = "full",
        limit: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.chunk = chunk
        self.skipped: list[str] = []
        self.episodes = self._open(on_bad, verify, limit)
        header = self.episodes[0].header
        for episode in self.episodes[1:]:
            _check_same(episode, header, self.episodes[0].path)
        self.header: EpisodeHeader = header
        names = list(header.sensor_spaces) if sensors is None else list(sensors)
        for name in names:
            if name not in header.sensor_spaces:
                raise DataError(
                    str(self.folder),
                    f"a sensor '{name}'",
                    f"{sorted(header.sensor_spaces)}",
                    nearest(name, header.sensor_spaces),
                )
        self.sensor_spaces: dict[str, spaces.Dict] = {name: header.sensor_spaces[name] for name in names}
        if isinstance(history, Mapping):
            self.history = {name: history.get(name, header.history[name]) for name in names}
        else:
            self.history = {name: history or header.history[name] for name in names}
        self.action_spec: ActionSpec = header.action
        lengths = np.array([len(episode) for episode in self.episodes])
        self._end = np.repeat(np.cumsum(lengths), lengths)  # one past the last row of each row's episode
        self._episode = np.repeat(np.arange(len(lengths)), lengths)
        self._action = np.concatenate([episode.action for episode in self.episodes])
        self._views = {name: _SensorView(self.episodes, name, self.history[name], header) for name in names}

    def __len__(self) -> int:
        """Number of samples, the control steps of all episodes."""
        return len(self._episode)

    def batch(self, indices: ArrayLike) -> tuple[Batch, ActionTarget]:
        """The samples at ``indices`` [B].

        Returns:
            Streams [B, T, ...] (age relative to each sample's own moment, zeros where not valid), and the labels of
            the K control steps from there on, [B, K, A]; beyond the end of an episode the last label is repeated and
            ``valid`` is False.
        """
        chosen = np.asarray(indices, np.int64)
        streams = {name: view.stream(chosen, self._episode[chosen]) for name, view in self._views.items()}
        ahead = chosen[:, None] + np.arange(self.chunk)
        end = self._end[chosen][:, None]
        target = ActionTarget(
            torch.from_numpy(self._action[np.minimum(ahead, end - 1)]),
            torch.from_numpy(ahead < end),
        )
        return Batch(streams), target

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample indices for training and for validation; whole episodes are held back, about ``fraction`` of them.

        At least one episode is held back if ``fraction`` > 0 and there are two or more.
        """
        count = len(self.episodes)
        held = min(max(round(fraction * count), 1), count - 1) if fraction > 0 else 0
        back = np.isin(self._episode, np.random.default_rng(seed).permutation(count)[:held])
        return np.flatnonzero(~back), np.flatnonzero(back)

    def stats(self) -> dict[str, FieldStats]:
        """``"sensor/field"`` -> statistics over all valid frames of every small float field, and ``"action"`` over all
        labels; each array has the field's own shape. Pictures and depth images are left out."""
        out = {"action": _stats([self._action])}
        for name, space in self.sensor_spaces.items():
            for field, box in space.spaces.items():
                if np.dtype(box.dtype).kind == "f" and np.prod(box.shape or ()) <= _STATS_ENTRIES:
                    parts = [e.frames(name, field)[e.frames(name, "valid").astype(bool)] for e in self.episodes]
                    if any(len(part) for part in parts):
                        out[f"{name}/{field}"] = _stats(parts)
        return out

    def _open(self, on_bad: Literal["raise", "skip"], verify: Verify, limit: int | None) -> list[Episode]:
        paths = list_episodes(self.folder)[:limit]
        episodes = []
        for path in paths:
            try:
                episodes.append(Episode(path, verify))
            except DataError as error:
                if on_bad == "raise":
                    raise
                self.skipped.append(str(error))
                _LOG.warning("skipped an episode: %s", error)
        if not episodes:
            got = f"{len(paths)} files, none of them whole" if paths else "no episode file"
            raise DataError(
                str(self.folder), "at least one episode", got, "Run `perceive collect` first, or check the path."
            )
        return episodes


class _SensorView:
    """Reads one sensor of all episodes."""

    def __init__(self, episodes: Sequence[Episode], name: str, steps: int, header: EpisodeHeader) -> None:
        rows = [episode.rows(name) for episode in episodes]
        if steps > header.history[name]:
            period_s = header.action.period_s
            if header.rates_hz[name] * period_s > 1 + 1e-6:
                raise DataError(
                    f"sensor '{name}'",
                    f"a history of at most {header.history[name]} (recorded), as it is faster than the control rate",
                    f"{steps}",
                    "Collect again with the longer history.",
                )
            rows = [_longer(episode, name, row[0], steps) for episode, row in zip(episodes, rows, strict=True)]
        self._index = np.concatenate([row[0][:, -steps:] for row in rows]).astype(np.int64)
        self._age_s = np.concatenate([row[1][:, -steps:] for row in rows])
        self._valid = np.concatenate([row[2][:, -steps:] for row in rows])
        counts = [len(episode.frames(name, "stamp_s")) for episode in episodes]
        self._first = np.cumsum([0, *counts[:-1]])
        self._tables: dict[str, NDArray[Any]] = {}
        self._mapped: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for field, box in header.sensor_spaces[name].spaces.items():
            shape, dtype = tuple(box.shape or ()), np.dtype(box.dtype)
            if np.prod(shape) * dtype.itemsize <= _SMALL_BYTES:
                table = np.concatenate([episode.frames(name, field) for episode in episodes])
                self._tables[field] = table if len(table) else np.zeros((1, *shape), dtype)
            else:
                self._mapped[field] = (shape, dtype)
        self._name = name
        self._episodes = episodes
        # Cached views of the maps: finding them by name would cost more than copying a small picture.
        self._frames: dict[str, list[NDArray[Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_frames": {}}

    def stream(self, rows: NDArray[np.int64], episodes: NDArray[np.int64]) -> BatchStream:
        """Samples at global rows [B], of the given episodes [B]."""
        index, valid = self._index[rows], self._valid[rows]
        data = {}
        for field, table in self._tables.items():
            value = table[np.where(valid, index + self._first[episodes][:, None], 0)]
            value[~valid] = 0
            data[field] = to_tensor(value)
        local, good, owner = index.tolist(), valid.tolist(), episodes.tolist()
        for field, (shape, dtype) in self._mapped.items():
            if field not in self._frames:
                self._frames[field] = [episode.frames(self._name, field) for episode in self._episodes]
            frames = self._frames[field]
            value = np.empty((*index.shape, *shape), dtype)
            for sample, number in enumerate(owner):
                for step, frame in enumerate(local[sample]):
                    value[sample, step] = frames[number][frame] if good[sample][step] else 0
            data[field] = to_tensor(value)
        return BatchStream(data, torch.from_numpy(self._age_s[rows]), torch.from_numpy(valid))


def _longer(
    episode: Episode, name: str, recorded: NDArray[np.int32], steps: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
    """Rows [L, steps] of a history longer than the recorded one: the frames before the newest, in order of capture."""
    index = np.maximum(recorded[:, -1:] - np.arange(steps - 1, -1, -1, dtype=np.int32), -1)
    stamp_s, sound = episode.frames(name, "stamp_s"), episode.frames(name, "valid").astype(bool)
    if not len(stamp_s):
        return index, np.full(index.shape, MAX_AGE_S, np.float32), np.zeros(index.shape, bool)
    age_s = np.where(index >= 0, np.maximum(episode.time_s[:, None] - stamp_s[index], 0.0), MAX_AGE_S)
    # Where the newest frame was on view but too old, so are those before it.
    newest_shown = episode.rows(name)[2][:, -1:] | ~sound[recorded[:, -1:]]
    return index, age_s.astype(np.float32), (index >= 0) & sound[index] & newest_shown


def _check_same(episode: Episode, header: EpisodeHeader, first: Path) -> None:
    where, fix = str(episode.path), "Keep episodes of different rigs in different folders."
    wrong = difference(header.sensor_spaces, episode.header.sensor_spaces)
    if wrong is not None:
        raise DataError(where, f"the sensors of {first.name}: {sorted(header.sensor_spaces)}", wrong, fix)
    for what, expected, got in (
        ("history", header.history, episode.header.history),
        ("rates_hz", header.rates_hz, episode.header.rates_hz),
        ("action", header.action.to_json(), episode.header.action.to_json()),
    ):
        if expected != got:
            raise DataError(
                where, f"{what} {json.dumps(dict(expected))} as in {first.name}", json.dumps(dict(got)), fix
            )


def _stats(parts: Sequence[NDArray[Any]]) -> FieldStats:
    # Merged part by part (Chan et al., 1979), so that the whole field never has to be in memory.
    count, mean, squares = 0, np.zeros(parts[0].shape[1:]), np.zeros(parts[0].shape[1:])
    low, high = np.full(mean.shape, np.inf), np.full(mean.shape, -np.inf)
    for part in parts:
        if not len(part):
            continue
        values = np.asarray(part, np.float64)
        own, shift = len(values), values.mean(0) - mean
        total = count + own
        squares += values.var(0) * own + shift**2 * count * own / total
        mean = mean + shift * own / total
        count = total
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
    return FieldStats(mean, np.sqrt(squares / count), low, high)


def dataset_sensors(folder: str | Path) -> Mapping[str, spaces.Dict]:
    """The sensors of a folder's first episode, without opening the others.

    Raises:
        DataError: no episode, or a damaged one.
    """
    paths = list_episodes(folder)
    if not paths:
        raise DataError(
            str(folder), "at least one episode", "no episode file", "Run `perceive collect` first, or check the path."
        )
    return Episode(paths[0], "quick").header.sensor_spaces
