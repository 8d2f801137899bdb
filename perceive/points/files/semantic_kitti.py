"""SemanticKITTI: a class and an instance for each point of KITTI's odometry sweeps.

Paper: J. Behley et al., "SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR Sequences", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.files.cloud import UNLABELLED, LabelledCloud, cloud_of
from perceive.points.files.source import CloudSource, found, read_rows, read_text
from sensors.errors import DataError

_LOW_BITS = 0xFFFF  # of a label: the class; the rest is the instance
_FIX = "Use the semantic-kitti.yaml that comes with the data set's tools."


@dataclass(frozen=True, eq=False)
class LearningMap:
    """From the classes in the files to those that are learned.

    Attributes:
        number: int64 [65536], class in the file -> class here; -1 = ignored.
        known: bool [65536], whether the map says anything about it.
        classes: names of the classes here.
    """

    number: NDArray[np.int64]
    known: NDArray[np.bool_]
    classes: tuple[str, ...]


def read_learning_map(path: str | Path) -> LearningMap:
    """The map in a YAML file with ``labels``, ``learning_map``, ``learning_map_inv`` and ``learning_ignore``.

    Classes that are to be ignored become -1, the others are counted from 0 in their order.

    Raises:
        DataError: the file is no such file.
    """
    import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

    path = Path(path)
    try:
        content = yaml.safe_load(read_text(path))
        learned: dict[int, int] = {int(raw): int(to) for raw, to in content["learning_map"].items()}
        ignored = {int(number) for number, yes in content["learning_ignore"].items() if yes}
        kept = [number for number in sorted(set(learned.values())) if number not in ignored]
        names = tuple(str(content["labels"][content["learning_map_inv"][number]]) for number in kept)
        if not all(0 <= raw <= _LOW_BITS for raw in learned):
            raise ValueError("a class beyond 16 bits")
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise DataError(str(path), "labels, learning_map, learning_map_inv and learning_ignore", got, _FIX) from error
    number, known = np.full(_LOW_BITS + 1, UNLABELLED, np.int64), np.zeros(_LOW_BITS + 1, bool)
    for raw, to in learned.items():
        known[raw] = True
        number[raw] = kept.index(to) if to in kept else UNLABELLED
    return LearningMap(number, known, names)


@final
class SemanticKittiFolder(CloudSource):
    """Sequences of the data: ``<root>/sequences/<NN>/velodyne``, ``labels`` where there are any, ``times.txt``.

    Clouds are in the frame "velodyne": x forwards, y left, z up. An instance's number is its whole label, class and
    all, since the files count instances for each class anew.

    Args:
        root: the folder that holds "sequences".
        sequences: which, by name ("00"); None = all that are there.
        learning_map: a YAML file, see :func:`read_learning_map`; None = classes stay as they are in the files, and
            nothing but 0 ("unlabeled") is ignored.

    Raises:
        DataError: there is no sweep, or the map cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        sequences: Sequence[str] | None = None,
        learning_map: str | Path | None = None,
    ) -> None:
        self._root = Path(root) / "sequences"
        chosen = sorted(path.name for path in self._root.glob("*")) if sequences is None else list(sequences)
        self._map = None if learning_map is None else read_learning_map(learning_map)
        self._names: list[str] = []
        for sequence in chosen:
            own = sorted(path.stem for path in (self._root / sequence / "velodyne").glob("*.bin"))
            if sequences is not None:
                found(self._root / sequence / "velodyne", "sweeps (*.bin)", own)
            self._names += [f"{sequence}/{name}" for name in own]
        found(self._root, "sequences with sweeps (*/velodyne/*.bin)", self._names)
        self._times: Mapping[str, FloatTimes] = {sequence: _times(self._root / sequence) for sequence in chosen}

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def read(self, number: int) -> LabelledCloud:
        sequence, name = self._names[number].split("/")
        path = self._root / sequence / "velodyne" / f"{name}.bin"
        rows = read_rows(path, "<f4", 4)
        known: dict[str, Any] = {"intensity": rows[:, 3], "name": str(path)}
        times = self._times[sequence]
        if name.isdigit() and int(name) < len(times):
            known["stamp_s"] = float(times[int(name)])
        labels = self._root / sequence / "labels" / f"{name}.label"
        if labels.is_file():
            known |= self._labels(labels, len(rows))
        return cloud_of(rows[:, :3], "velodyne", **known)

    def _labels(self, path: Path, count: int) -> dict[str, Any]:
        raw = read_rows(path, "<u4", 1)[:, 0].astype(np.int64)
        if len(raw) != count:
            raise DataError(str(path), f"{count} labels, one for each point", str(len(raw)), "Copy the pair again.")
        kind = raw & _LOW_BITS
        instance = np.where(raw >> 16 > 0, raw, UNLABELLED)
        if self._map is None:
            return {"semantic": np.where(kind == 0, UNLABELLED, kind), "instance": instance}
        strange = np.unique(kind[~self._map.known[kind]])
        if len(strange):
            raise DataError(str(path), "classes that the learning map names", f"{strange[:5].tolist()}", _FIX)
        return {"semantic": self._map.number[kind], "instance": instance, "classes": self._map.classes}


FloatTimes = NDArray[np.float64]


def _times(folder: Path) -> FloatTimes:
    """Seconds of each sweep of a sequence; empty where the file is missing."""
    path = folder / "times.txt"
    if not path.is_file():
        return np.zeros(0)
    try:
        return np.array([float(word) for word in read_text(path).split()])
    except ValueError as error:
        raise DataError(str(path), "a number of seconds per line", str(error), "Copy the file again.") from error
