"""Scores of a whole file of pose estimates as the BOP challenges of 2019 (recall) and 2024 (precision) define them.

One process, no OpenGL, all thresholds at once. Whatever decides between equals is fixed: equal scores keep the order
of the rows, of equally visible instances the earlier counts, of equal errors the earlier instance is taken.

Example::

    dataset = PoseDataset("bop/lmo")
    scores = score_bop19(dataset, read_results("method_lmo-test.csv"))
    print(scores.ar, scores.table())

Papers: T. Hodan et al., "BOP Challenge 2020 on 6D Object Localization", ECCV workshops 2020; V. N. Nguyen et al., "BOP
Challenge 2024 on Model-Based and Model-Free 6D Object Pose Estimation", 2025; Y. Xiang et al., "PoseCNN", RSS 2018
(area under the curve of ADD(-S)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.metrics.pose_fast import PoseErrors
from perceive.metrics.pose_groups import (
    Group,
    ScoredDataset,
    ScoredRow,
    detection_groups,
    localisation_groups,
    mean_time_s,
    pair_errors,
)
from perceive.metrics.pose_matching import area_under_recall, average_precision, by_score, match
from perceive.metrics.pose_surfaces import surface_errors
from perceive.metrics.pose_vsd import DELTA_M, TAUS
from sensors.errors import DataError
from sensors.geometry import FloatArray

SHARES = np.arange(0.05, 0.51, 0.05)  # thresholds of VSD, and of MSSD in diameters
PIXELS = np.arange(5.0, 51.0, 5.0)  # thresholds of MSPD at a width of 640 pixels
MILLIMETRES = np.arange(2.0, 21.0, 2.0)
ADD_SHARE = 0.1  # of the diameter
AUC_M = 0.1
LEAST_VISIBLE = 0.1  # instances that show less of themselves are neither asked for nor punished (BOP 2024)
MOST_ESTIMATES = 100  # per picture (BOP 2024)
_CELLS = 1 << 20  # thresholds x estimates x instances that are matched at a time


@final
@dataclass(frozen=True)
class ObjectRecall:
    """Scores of one object, shares of its targets: see :class:`PoseScores`."""

    number: int
    name: str
    targets: int
    ar: float
    ar_vsd: float
    ar_mssd: float
    ar_mspd: float
    add_recall: float
    add_auc: float


@final
@dataclass(frozen=True, eq=False)
class PoseScores:
    """Recall as BOP 2019 defines it.

    Attributes:
        ar: average recall: the mean of the next three.
        ar_vsd: mean of 100 recalls (10 taus x 10 thresholds).
        ar_mssd: mean of 10 recalls.
        ar_mspd: mean of 10 recalls.
        recall_vsd: float64 [10, 10], tau x threshold.
        recall_mssd: float64 [10].
        recall_mspd: float64 [10].
        add_recall: share of targets with ADD(-S) below a tenth of the diameter. ADD(-S): ADI for objects with
            symmetries, ADD for others.
        add_auc: area under the share of targets with ADD(-S) below x, x from 0 to 10 cm, over 10 cm. Exact; the files
            of PoseCNN count each step from its left end, which is at most one target more.
        targets: how many instances were to be found.
        objects: the same of each object, by number.
        unused: rows that belong to no target.
        time_s: mean seconds per picture; None = not known.
    """

    ar: float
    ar_vsd: float
    ar_mssd: float
    ar_mspd: float
    recall_vsd: FloatArray
    recall_mssd: FloatArray
    recall_mspd: FloatArray
    add_recall: float
    add_auc: float
    targets: int
    objects: Mapping[int, ObjectRecall]
    unused: int
    time_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return _plain(self)

    def table(self) -> str:
        """One line per object, and one of all."""
        names = ("targets", "ar", "ar_vsd", "ar_mssd", "ar_mspd", "add_recall", "add_auc")
        return _table(names, [(one.name, one) for one in self.objects.values()], self)


@final
@dataclass(frozen=True)
class ObjectPrecision:
    """Scores of one object: see :class:`PosePrecision`."""

    number: int
    name: str
    targets: int
    ap: float
    ap_mssd: float
    ap_mspd: float
    ap_mssd_mm: float


@final
@dataclass(frozen=True, eq=False)
class PosePrecision:
    """Precision as BOP 2024 defines it.

    Attributes:
        ap: the mean of the next two.
        ap_mssd: mean over objects and 10 thresholds in diameters (this alone is BOP 2025's).
        ap_mspd: mean over objects and 10 thresholds in pixels.
        ap_mssd_mm: mean over objects and 10 thresholds, 2 to 20 mm.
        targets: how many instances were to be found.
        objects: the same of each object that was to be found, by number.
        unused: rows that were not used: pictures not asked for, objects not there, more than the most per picture.
        time_s: mean seconds per picture; None = not known.
    """

    ap: float
    ap_mssd: float
    ap_mspd: float
    ap_mssd_mm: float
    targets: int
    objects: Mapping[int, ObjectPrecision]
    unused: int
    time_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return _plain(self)

    def table(self) -> str:
        """One line per object, and one of all."""
        names = ("targets", "ap", "ap_mssd", "ap_mspd", "ap_mssd_mm")
        return _table(names, [(one.name, one) for one in self.objects.values()], self)


def score_bop19(
    dataset: ScoredDataset, rows: Sequence[ScoredRow], threads: int = 0, delta_m: float = DELTA_M
) -> PoseScores:
    """Average recall of 6D localisation, and ADD(-S).

    Args:
        dataset: the truth, e.g. a ``PoseDataset``. Depth that is all zero is missing depth: all of an object is visible
            to VSD then.
        rows: the estimates, e.g. of ``read_results``.
        threads: of the ray caster; 0 = all cores.
        delta_m: VSD's tolerance of visibility.

    Raises:
        DataError: no targets, an estimate that is no pose or has no score, times that contradict each other.
    """
    groups, unused = localisation_groups(dataset, rows)
    errors = _calculators(dataset, groups)
    pairs = pair_errors(dataset, groups, errors, with_add=True)
    surfaces = surface_errors(dataset, groups, errors, threads, delta_m)
    hits: dict[int, FloatArray] = {}
    near: dict[int, list[float]] = {}
    targets: dict[int, int] = {}
    limits = np.concatenate([np.tile(SHARES, len(TAUS)), SHARES, PIXELS, [ADD_SHARE, AUC_M]])
    for group, pair, found in zip(groups, pairs, _matched(groups, pairs, surfaces, errors, limits), strict=True):
        hits[group.number] = hits.get(group.number, np.zeros(len(limits))) + (found >= 0).sum(1)
        by_add = found[-1]
        near.setdefault(group.number, []).extend(pair[3][by_add >= 0, by_add[by_add >= 0]].tolist())
        targets[group.number] = targets.get(group.number, 0) + int(group.valid.sum())
    total = sum(targets.values())
    if not total:
        raise DataError("score_bop19", "targets that the pictures hold", "none", "Check the split and its targets.")
    recalls = sum(hits.values(), np.zeros(len(limits))) / total
    each = {}
    for number in sorted(targets):
        count = max(targets[number], 1)
        ar = _averages(hits[number] / count)
        auc = area_under_recall(near[number], targets[number], AUC_M)
        name = errors[number].model.name
        share = float(hits[number][-2] / count)
        each[number] = ObjectRecall(number, name, targets[number], float(np.mean(ar)), *ar, share, auc)
    ar = _averages(recalls)
    split = len(TAUS) * len(SHARES)
    return PoseScores(
        float(np.mean(ar)),
        *ar,
        recalls[:split].reshape(len(TAUS), len(SHARES)),
        recalls[split : split + len(SHARES)],
        recalls[split + len(SHARES) : -2],
        float(recalls[-2]),
        area_under_recall([value for some in near.values() for value in some], total, AUC_M),
        total,
        each,
        unused,
        mean_time_s(rows),
    )


def score_bop24(dataset: ScoredDataset, rows: Sequence[ScoredRow], most: int = MOST_ESTIMATES) -> PosePrecision:
    """Average precision of 6D detection.

    Args:
        dataset: the truth. All instances in the pictures of ``detection_views`` take part; those visible by less than
            10 % need not be found, and estimates that found one are dropped.
        rows: the estimates, of all objects.
        most: how many estimates of a picture are looked at, by score (200 for XYZ-IBD).

    Raises:
        DataError: nothing is to be found, an estimate that is no pose or has no score, times that contradict.
    """
    groups, unused = detection_groups(dataset, rows, most)
    errors = _calculators(dataset, groups)
    limits = np.concatenate([SHARES, PIXELS, MILLIMETRES])
    score: dict[int, list[FloatArray]] = {}
    right: dict[int, list[FloatArray]] = {}
    dropped: dict[int, list[FloatArray]] = {}
    targets: dict[int, int] = {}
    for group, pair in zip(groups, pair_errors(dataset, groups, errors, with_add=False), strict=True):
        kinds = np.stack([pair[0] / errors[group.number].model.diameter_m, pair[1], 1e3 * pair[0]])
        found = match(np.repeat(kinds, 10, axis=0), limits)
        hidden = (group.visible_share >= 0.0) & (group.visible_share < LEAST_VISIBLE)
        lost = (found >= 0) & np.append(hidden, False)[found]  # -1 takes the last, which is False
        score.setdefault(group.number, []).append(group.score)
        right.setdefault(group.number, []).append((found >= 0) & ~lost)
        dropped.setdefault(group.number, []).append(lost)
        targets[group.number] = targets.get(group.number, 0) + int((~hidden).sum())
    each = {}
    for number in sorted(number for number, count in targets.items() if count):
        order = by_score(np.concatenate(score[number]))
        good, lost = (np.concatenate(part[number], axis=1)[:, order] for part in (right, dropped))
        ap = [average_precision(g[~x], targets[number]) for g, x in zip(good, lost, strict=True)]
        mssd, mspd, mm = (float(np.mean(part)) for part in np.split(np.array(ap), 3))
        name = errors[number].model.name
        each[number] = ObjectPrecision(number, name, targets[number], (mssd + mspd) / 2, mssd, mspd, mm)
    if not each:
        raise DataError("score_bop24", "pictures with visible objects", "none", "Check the split and its targets.")
    mssd, mspd, mm = (
        float(np.mean([getattr(one, key) for one in each.values()])) for key in ("ap_mssd", "ap_mspd", "ap_mssd_mm")
    )
    return PosePrecision((mssd + mspd) / 2, mssd, mspd, mm, sum(targets.values()), each, unused, mean_time_s(rows))


def _calculators(dataset: ScoredDataset, groups: Sequence[Group]) -> dict[int, PoseErrors]:
    return {number: PoseErrors(dataset.models[number]) for number in sorted({group.number for group in groups})}


def _matched(
    groups: Sequence[Group],
    pairs: Sequence[FloatArray],
    surfaces: Sequence[FloatArray],
    errors: Mapping[int, PoseErrors],
    limits: FloatArray,
) -> list[NDArray[np.int64]]:
    """Which instance each estimate found, int64 [L, E] of each group; groups of one shape are matched together."""
    out: list[NDArray[np.int64]] = [np.zeros((0, 0), np.int64)] * len(groups)
    alike: dict[tuple[int, int], list[int]] = {}
    for i, group in enumerate(groups):
        alike.setdefault(group.shape, []).append(i)
    for shape, every in alike.items():
        size = max(1, _CELLS // max(1, len(limits) * shape[0] * shape[1]))
        for some in (every[start : start + size] for start in range(0, len(every), size)):
            diameter = np.array([errors[groups[i].number].model.diameter_m for i in some])[:, None, None, None]
            surface, pair = np.stack([surfaces[i] for i in some]), np.stack([pairs[i] for i in some])
            stack = [
                np.repeat(surface, len(SHARES), axis=1),
                np.repeat(pair[:, :1] / diameter, len(SHARES), axis=1),
                np.repeat(pair[:, 1:2], len(PIXELS), axis=1),
                pair[:, 2:3] / diameter,
                pair[:, 3:4],
            ]
            valid = np.repeat(np.stack([groups[i].valid for i in some]), len(limits), axis=0)
            values = np.concatenate(stack, axis=1).reshape(len(some) * len(limits), *shape)
            found = match(values, np.tile(limits, len(some)), valid)
            for i, part in zip(some, found.reshape(len(some), len(limits), -1), strict=True):
                out[i] = part
    return out


def _averages(recalls: FloatArray) -> tuple[float, float, float]:
    """AR of VSD, MSSD and MSPD from all recalls."""
    split = len(TAUS) * len(SHARES)
    parts = recalls[:split], recalls[split : split + len(SHARES)], recalls[split + len(SHARES) : -2]
    vsd, mssd, mspd = (float(part.mean()) for part in parts)
    return vsd, mssd, mspd


def _plain(scores: PoseScores | PosePrecision) -> dict[str, Any]:
    objects = {str(number): asdict(one) for number, one in scores.objects.items()}
    return {
        key: objects if key == "objects" else value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in vars(scores).items()
    }


def _table(names: Sequence[str], lines: Sequence[tuple[str, object]], whole: object) -> str:
    width = max([len("object"), *(len(name) for name, _ in lines)])
    rows = ["  ".join([f"{'object':{width}s}", *(f"{name:>10s}" for name in names)])]
    for name, one in [*lines, ("all", whole)]:
        cells = [getattr(one, key) for key in names]
        shown = [f"{cell:10d}" if isinstance(cell, int) else f"{cell:10.4f}" for cell in cells]
        rows.append("  ".join([f"{name:{width}s}", *shown]))
    return "\n".join(rows)
