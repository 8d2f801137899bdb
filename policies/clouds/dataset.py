"""CloudDataset: a folder of labelled point clouds as training batches, held in memory as far as it fits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from perceive.batch import Batch, BatchStream
from perceive.model_base import Model
from perceive.normalize import FieldStats
from perceive.points.files.cloud import LabelledCloud
from perceive.points.files.collate import CloudBatch
from perceive.points.files.folder import AUTO, CloudFolder
from policies.clouds.compact import FIELDS, CompactCloud, compact, filled, joined
from policies.clouds.names import Names, check_heads
from sensors.errors import DataError, SpecError, nearest
from sensors.spec import Json, box

_LOG = logging.getLogger(__name__)
_REACH_M = 1e6  # bound of the declared space; one for all data sets, so that models of one serve another
_GB = 1e9
NEEDS = tuple(name for name in FIELDS if name != "xyz_m")
_IN_ORDER = ("semantic_kitti", "nuscenes")  # neighbours in these layouts show nearly the same
# Field of a frame -> field of a cloud.
_OF_FRAME = {"points": {"rgb": "rgb"}, "lidar": {"intensity": "intensity", "offset_s": "time_s"}}


@dataclass(frozen=True)
class CloudsHeader:
    """What is known of where the clouds come from; see :class:`policies.training_data.Recorded`."""

    sensor_spaces: dict[str, spaces.Dict]
    history: dict[str, int]
    env: Json


@final
class CloudDataset:
    """Every cloud of a folder is one sample: what a sensor would have measured, and all that is labelled.

    The frame that the cloud is in counts as the base frame. A frame holds the fields of PointFrame or LidarFrame that
    every cloud has; ``base_from_lidar`` is the identity. Of clouds with more than P points, P are chosen by a generator
    of (seed, index), so a sample is always the same; an augmentation may drop more. What is not labelled in some of the
    clouds is -1 there; normals, boxes and measured fields that some of the clouds lack are left out of all, which is
    logged. May be pickled.

    Args:
        folder: in any of the layouts of :class:`perceive.points.files.folder.CloudFolder`, or a single file.
        layout: one of them, or "auto".
        split: as CloudFolder's.
        learning_map: as CloudFolder's.
        sweeps: as CloudFolder's.
        sensor: what the stream is called.
        kind: "points" (PointFrame) or "lidar" (LidarFrame).
        points: P.
        classes: names that points' and clouds' numbers are to follow; of others, points and clouds become -1. None = as
            the files have it. Where files have numbers without names, these are their names.
        box_classes: the same of boxes; of others, boxes are left out.
        needs: fields out of :data:`NEEDS` that every cloud must have.
        least_points: boxes on which fewer points were measured are left out; where that is not known, they stay. (Heads
            may have a limit of their own, below which a box is neither asked for nor wrong.)
        seed: of the choice of points.
        cache_gb: memory for clouds, in 10^9 bytes; those that do not fit are read whenever they are asked for.
        verify: "full" reads every cloud once now; "quick" only what fits into the cache, and what is bad among the rest
            is an error in the middle of a training.
        on_bad: what to do with a cloud that is damaged, empty or lacks what is needed: "raise", or "skip" it, log a
            warning and list it in :attr:`skipped`.
        limit: use the first so many clouds only.

    Attributes:
        classes: names of the numbers in ``semantic`` and ``label``; () = they have none.
        parts: names of ``part``.
        box_classes: names of ``box_label``.
        skipped: what was wrong with clouds that are left out.
        cached: how many clouds are held in memory.

    Raises:
        DataError: no usable cloud, a bad one with ``on_bad="raise"``, or clouds whose classes differ.
        SpecError: an argument out of its range.
    """

    def __init__(
        self,
        folder: str | Path,
        layout: str = AUTO,
        split: str | None = None,
        learning_map: str | None = None,
        sweeps: int = 1,
        sensor: str = "cloud",
        kind: Literal["points", "lidar"] = "points",
        points: int = 8192,
        classes: Sequence[str] | None = None,
        box_classes: Sequence[str] | None = None,
        needs: Sequence[str] = (),
        least_points: int = 0,
        seed: int = 0,
        cache_gb: float = 4.0,
        verify: Literal["full", "quick"] = "full",
        on_bad: Literal["raise", "skip"] = "raise",
        limit: int | None = None,
    ) -> None:
        _check_arguments(kind, points, needs, least_points, seed, cache_gb, verify, on_bad, limit)
        self.folder = Path(folder)
        self.skipped: list[str] = []
        self._source = CloudFolder(folder, layout, split, learning_map, sweeps, points)
        self._sensor, self._kind, self._points, self._seed = sensor, kind, points, seed
        self._needs, self._least_points = tuple(needs), least_points
        self._names = Names(str(folder), classes, box_classes)
        self._kept: dict[int, CompactCloud] = {}
        self._numbers: list[int] = []  # of the usable clouds in the source
        counts = dict.fromkeys(FIELDS, 0)
        for number, cloud in self._usable(cache_gb, verify, on_bad, limit):
            self._numbers.append(number)
            for name in counts if cloud is not None else ():
                counts[name] += cloud is not None and cloud.has(name)
        self.cached = len(self._kept)
        self._fields = self._shared(counts)
        self.classes, self.parts, self.box_classes = self._names.classes, self._names.parts, self._names.box_classes
        self.sensor_spaces = {sensor: self._space()}
        self.history = {sensor: 1}
        self.action_spec = None
        self.header = CloudsHeader(self.sensor_spaces, self.history, {})

    def __len__(self) -> int:
        """Number of clouds."""
        return len(self._numbers)

    def batch(self, indices: ArrayLike) -> tuple[Batch, CloudBatch]:
        """The clouds at ``indices`` [B].

        Returns:
            One stream [B, 1, P, ...] of age 0, filled up with zeros beyond its ``count``; and the same points in the
            same places with their labels, the boxes filled up to the largest number in the batch.

        Raises:
            DataError: a cloud that is not in memory cannot be read any more.
            SpecError: no index, or one out of range.
        """
        chosen = np.atleast_1d(np.asarray(indices, np.int64))
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(self):
            raise SpecError("CloudDataset.batch", f"indices from 0 to {len(self) - 1}", f"{chosen[:5]}", "Correct.")
        clouds = [self._cloud(index) for index in chosen.tolist()]
        rows = [self._rows(index, len(cloud)) for index, cloud in zip(chosen.tolist(), clouds, strict=True)]
        target, counts = joined(clouds, rows, self._points, self._fields)
        data = {"xyz_m": target.xyz_m.unsqueeze(1), "count": counts[:, None, None]}
        for field, name in _OF_FRAME[self._kind].items():
            if name in self._fields:
                data[field] = torch.from_numpy(filled(clouds, rows, self._points, name)).unsqueeze(1)
        size = len(chosen)
        if self._kind == "lidar":
            data["base_from_lidar"] = torch.eye(4).repeat(size, 1, 1, 1)
        # Its own memory: whoever changes the stream must not change the target.
        data["xyz_m"] = data["xyz_m"].clone()
        stream = BatchStream(data, torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool))
        return Batch({self._sensor: stream}), target

    def split(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of clouds for training and for validation, about ``fraction`` of them, at least one if > 0.

        Of layouts in which clouds follow each other in time a run of neighbours is held back, of others any clouds.
        """
        count = len(self)
        held = min(max(round(fraction * count), 1), count - 1) if fraction > 0 else 0
        rng, order = np.random.default_rng(seed), np.arange(count)
        if self._source.layout in _IN_ORDER:
            order = np.roll(order, -int(rng.integers(count)))
        else:
            order = rng.permutation(count)
        return np.sort(order[held:]), np.sort(order[:held])

    def stats(self) -> dict[str, FieldStats]:
        """None: metres, colours from 0 to 255 and intensities from 0 to 1 have natural scales."""
        return {}

    def check_classes(self, model: Model, heads: Sequence[str]) -> None:
        """Raise unless the classes of a model's heads are those of the clouds, name by name.

        Args:
            model: whose config names the classes of its heads.
            heads: to be trained.

        Raises:
            WiringError: names or their order differ.
        """
        check_heads(str(self.folder), model, heads, self.classes, self.box_classes)

    def _usable(
        self, cache_gb: float, verify: str, on_bad: str, limit: int | None
    ) -> Iterator[tuple[int, CompactCloud | None]]:
        """Numbers of the clouds that can be used, and the clouds where they were read."""
        left, total = cache_gb * _GB, len(self._source)
        for number in range(total if limit is None else min(limit, total)):
            if left <= 0 and verify == "quick" and self._numbers:
                yield number, None
                continue
            try:
                cloud = self._read(number)
            except DataError as error:
                if on_bad == "raise":
                    raise
                self.skipped.append(str(error))
                _LOG.warning("skipped a cloud: %s", error)
                continue
            left -= cloud.bytes
            if left > 0:
                self._kept[number] = cloud
            yield number, cloud
        if not self._numbers:
            got = f"{total} clouds, none of them usable" if total else "none"
            raise DataError(str(self.folder), "at least one cloud", got, "Check the path, or see what was skipped.")

    def _read(self, number: int) -> CompactCloud:
        """A cloud from disk, checked."""
        name = self._source.source.names[number]
        where = f"cloud '{name}' in '{self.folder}'"
        try:
            cloud = self._source[number]
        except SpecError as error:  # arrays that a reader took from a file do not fit together
            raise DataError(where, error.expected, error.got, error.fix) from error
        if not len(cloud):
            raise DataError(where, "at least one point", "an empty cloud", "Remove it, or skip what is bad.")
        missing = [field for field in self._needs if not _is_known(cloud, field)]
        if missing:
            raise DataError(where, f"{', '.join(self._needs)}", f"no {missing}", "Label it, or skip what is bad.")
        return compact(self._names.renumbered(cloud, where), self._least_points)

    def _cloud(self, index: int) -> CompactCloud:
        number = self._numbers[index]
        return self._kept[number] if number in self._kept else self._read(number)

    def _rows(self, index: int, count: int) -> NDArray[np.intp] | None:
        """Which points of a cloud are taken, in their order; None = all."""
        if count <= self._points:
            return None
        rng = np.random.default_rng([self._seed, self._numbers[index]])
        return np.sort(rng.permutation(count)[: self._points])

    def _shared(self, counts: dict[str, int]) -> frozenset[str]:
        """Which fields batches have, out of how many clouds have them."""
        most, fields = max(counts.values()), set()
        for name, count in counts.items():
            if count == most or (count and FIELDS[name].fills):
                fields.add(name)
            elif count:
                _LOG.warning("'%s' is left out: %d of %d clouds have it", name, count, most)
        return frozenset(fields)

    def _space(self) -> spaces.Dict:
        """As that of the sensors, of the fields that are there."""
        count = self._points
        known = {
            "xyz_m": box(-_REACH_M, _REACH_M, (count, 3)),
            "rgb": box(0, 255, (count, 3), np.uint8),
            "intensity": box(0.0, 1.0, (count,)),
            "offset_s": box(-_REACH_M, _REACH_M, (count,)),
            "count": box(0, count, (1,), np.int64),
            "base_from_lidar": box(-_REACH_M, _REACH_M, (4, 4)),
        }
        there = {"xyz_m", "count"} | {field for field, name in _OF_FRAME[self._kind].items() if name in self._fields}
        if self._kind == "lidar":
            there.add("base_from_lidar")
        return spaces.Dict({name: space for name, space in known.items() if name in there})


def _is_known(cloud: LabelledCloud, field: str) -> bool:
    """Whether a cloud has a field, and of labels at least one that is known."""
    value = getattr(cloud, field)
    if value is None or field == "boxes":
        return value is not None
    return not FIELDS[field].fills or bool(np.any(np.asarray(value) >= 0))


def _check_arguments(
    kind: str,
    points: int,
    needs: Sequence[str],
    least_points: int,
    seed: int,
    cache_gb: float,
    verify: str,
    on_bad: str,
    limit: int | None,
) -> None:
    rules = {
        "kind": (kind in _OF_FRAME, kind, f"one of {list(_OF_FRAME)}"),
        "points": (points >= 1, points, "at least 1"),
        "least_points": (least_points >= 0, least_points, "0 or more"),
        "seed": (seed >= 0, seed, "0 or more"),
        "cache_gb": (cache_gb >= 0, cache_gb, "0 or more"),
        "verify": (verify in ("full", "quick"), verify, "'full' or 'quick'"),
        "on_bad": (on_bad in ("raise", "skip"), on_bad, "'raise' or 'skip'"),
        "limit": (limit is None or limit >= 1, limit, "at least 1, or None"),
    }
    for argument, (good, got, expected) in rules.items():
        if not good:
            raise SpecError(f"CloudDataset.{argument}", expected, repr(got), "Correct it.")
    for name in needs:
        if name not in NEEDS:
            raise SpecError("CloudDataset.needs", f"some of {list(NEEDS)}", repr(name), nearest(name, NEEDS))
