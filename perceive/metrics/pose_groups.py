"""Estimates beside the truth, one group per picture and object, and their errors: what all pose scores begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from perceive.metrics.pose_fast import PoseErrors
from perceive.metrics.pose_matching import by_score
from perceive.pose.model import ObjectModel
from sensors.errors import DataError
from sensors.geometry import FloatArray


class TrueInstance(Protocol):
    """An object in a picture, e.g. ``perceive.pose.files.Instance``."""

    @property
    def number(self) -> int: ...
    @property
    def camera_from_object(self) -> FloatArray: ...
    @property
    def visible_share(self) -> float: ...


class PoseTarget(Protocol):
    """What is to be found in a picture, e.g. ``perceive.pose.files.Target``."""

    @property
    def key(self) -> Any: ...
    @property
    def number(self) -> int: ...
    @property
    def count(self) -> int: ...


class ScoredRow(Protocol):
    """One estimate, e.g. ``perceive.pose.files.PoseRow``; a time below 0 is not known."""

    @property
    def key(self) -> Any: ...
    @property
    def number(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def camera_from_object(self) -> FloatArray: ...
    @property
    def time_s(self) -> float: ...


class ScoredDataset(Protocol):
    """What scores need of a data set, e.g. ``perceive.pose.files.PoseDataset``; keys name pictures."""

    @property
    def models(self) -> Mapping[int, ObjectModel]: ...
    def truth(self, key: Any) -> Sequence[TrueInstance]: ...
    def depth_m(self, key: Any) -> NDArray[np.floating[Any]]: ...
    def intrinsics_px(self, key: Any) -> FloatArray: ...
    def size_px(self, key: Any) -> tuple[int, int]: ...
    def targets(self) -> Sequence[PoseTarget]: ...
    def detection_views(self) -> Sequence[Any]: ...


@final
@dataclass(frozen=True, eq=False)
class Group:
    """One object in one picture.

    Attributes:
        key: the picture.
        number: the object.
        score: float64 [E], falling.
        estimate: float64 [E, 4, 4].
        truth: float64 [G, 4, 4], all instances of the object in the picture.
        visible_share: float64 [G].
        valid: bool [G], which are to be found.
    """

    key: Any
    number: int
    score: FloatArray
    estimate: FloatArray
    truth: FloatArray
    visible_share: FloatArray
    valid: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """E and G."""
        return len(self.estimate), len(self.truth)


def localisation_groups(dataset: ScoredDataset, rows: Iterable[ScoredRow]) -> tuple[list[Group], int]:
    """Groups of BOP 2019, in the order of the targets, and how many rows belong to no target.

    As many estimates as the target counts are kept, those of the best score (equal scores: the earlier row). As many
    instances as it counts are valid, the most visible (equally visible: the earlier instance).

    Raises:
        DataError: a row, target or instance that cannot be used; see :func:`_collect` and :func:`_group`.
    """
    targets = list(dataset.targets())
    found = _collect(rows)
    groups, total = [], sum(len(some) for some in found.values())
    for target in targets:
        here = found.pop((target.key, target.number), [])
        total -= len(here)
        groups.append(_group(dataset, target.key, target.number, here, target.count))
    return groups, total


def detection_groups(dataset: ScoredDataset, rows: Iterable[ScoredRow], most: int) -> tuple[list[Group], int]:
    """Groups of BOP 2024, in the order of the pictures, and how many rows are not used.

    Of each picture the ``most`` estimates of the best score are kept, over all objects. Objects that are not in a
    picture at all make no group there: the benchmark does not count their estimates.

    Raises:
        DataError: as :func:`localisation_groups`.
    """
    pictures: dict[Any, list[ScoredRow]] = {}
    total = 0
    for (key, _), some in _collect(rows).items():
        pictures.setdefault(key, []).extend(row for _, row in some)
        total += len(some)
    groups = []
    for key in dataset.detection_views():
        here = pictures.get(key, [])
        kept = [here[i] for i in by_score([row.score for row in here], most)]
        for number in dict.fromkeys(one.number for one in dataset.truth(key)):
            mine = [(0, row) for row in kept if row.number == number]
            total -= len(mine)
            groups.append(_group(dataset, key, number, mine, None))
    return groups, total


def mean_time_s(rows: Sequence[ScoredRow]) -> float | None:
    """Mean seconds per picture; None if they are not known for all.

    Raises:
        DataError: two rows of one picture state different times.
    """
    times: dict[Any, float] = {}
    for row in rows:
        if abs(times.setdefault(row.key, row.time_s) - row.time_s) > 1e-3:
            got = f"{times[row.key]:g} and {row.time_s:g} s"
            raise DataError(f"estimates of {row.key}", "one time per picture", got, "State the time of the picture.")
    known = bool(times) and min(times.values()) >= 0.0
    return float(np.mean(list(times.values()))) if known else None


def pair_errors(
    dataset: ScoredDataset, groups: Sequence[Group], errors: Mapping[int, PoseErrors], with_add: bool
) -> list[FloatArray]:
    """Errors [K, E, G] of each group: MSSD (m, infinite if a diameter apart), MSPD (px at a width of 640).

    With ``with_add`` also ADD(-S) with the same shortcut, and without it, metres: K is 4 then, else 2.
    """
    out: list[FloatArray] = [np.zeros((4 if with_add else 2, *group.shape)) for group in groups]
    for number, calculator in errors.items():
        mine = [i for i, group in enumerate(groups) if group.number == number and min(group.shape)]
        if not mine:
            continue
        estimate = np.concatenate([np.repeat(groups[i].estimate, groups[i].shape[1], axis=0) for i in mine])
        truth = np.concatenate([np.tile(groups[i].truth, (groups[i].shape[0], 1, 1)) for i in mine])
        pairs = [groups[i].shape[0] * groups[i].shape[1] for i in mine]
        lens = np.repeat(np.stack([dataset.intrinsics_px(groups[i].key) for i in mine]), pairs, axis=0)
        width = np.repeat([dataset.size_px(groups[i].key)[1] for i in mine], pairs)
        far = calculator.far(estimate, truth)
        values = np.full((4 if with_add else 2, len(truth)), np.inf)
        values[0, ~far] = calculator.mssd(estimate[~far], truth[~far])
        values[1] = calculator.mspd(estimate, truth, lens) * (640.0 / width)
        if with_add:
            values[3] = calculator.add_or_adi(estimate, truth)
            values[2] = np.where(far, np.inf, values[3])
        for i, part in zip(mine, np.split(values, np.cumsum(pairs)[:-1], axis=1), strict=True):
            out[i] = part.reshape(-1, *groups[i].shape)
    return out


def _collect(rows: Iterable[ScoredRow]) -> dict[tuple[Any, int], list[tuple[int, ScoredRow]]]:
    """Rows by picture and object, in their order.

    Raises:
        DataError: a pose that is not rigid and finite, or a score that is NaN.
    """
    found: dict[tuple[Any, int], list[tuple[int, ScoredRow]]] = {}
    for place, row in enumerate(rows):
        pose = np.asarray(row.camera_from_object, np.float64)
        fine = pose.shape == (4, 4) and bool(np.isfinite(pose).all())
        if not fine or not (np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)) <= 1e-3).all():
            got = np.array2string(pose, precision=4)
            raise DataError(f"estimate {place} ({row.key})", "a rigid pose [4, 4]", got, "Leave such an estimate out.")
        if np.isnan(row.score):
            raise DataError(f"estimate {place} ({row.key})", "a score", "NaN", "Give every estimate a score.")
        found.setdefault((row.key, row.number), []).append((place, row))
    return found


def _group(
    dataset: ScoredDataset, key: Any, number: int, rows: Sequence[tuple[int, ScoredRow]], count: int | None
) -> Group:
    """One group; ``count`` = how many estimates and instances of it take part, None = all.

    Raises:
        DataError: an object without a model.
    """
    if number not in dataset.models:
        known = sorted(dataset.models)
        raise DataError(f"truth of {key}", f"objects that have a model: {known}", str(number), "Add its model.")
    instances = [one for one in dataset.truth(key) if one.number == number]
    share = np.array([one.visible_share for one in instances], np.float64)
    valid = np.ones(len(instances), np.bool_)
    if count is not None:
        valid[:] = False
        valid[np.argsort(-share, kind="stable")[:count]] = True
    kept = [rows[i][1] for i in by_score([row.score for _, row in rows], count)]
    return Group(
        key,
        number,
        np.array([row.score for row in kept], np.float64),
        np.array([row.camera_from_object for row in kept], np.float64).reshape(-1, 4, 4),
        np.array([one.camera_from_object for one in instances], np.float64).reshape(-1, 4, 4),
        share,
        valid,
    )
