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

from perceive.metrics.pose_fast import PoseErrors, hull_corners
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
from perceive.metrics.pose_vsd import DELTA_M, TAUS, Drawn, VisibleSurface
from perceive.pose.raster import Box, MeshRenderer
from sensors.errors import DataError
from sensors.geometry import FloatArray

SHARES = np.arange(0.05, 0.51, 0.05)  # thresholds of VSD, and of MSSD in diameters
PIXELS = np.arange(5.0, 51.0, 5.0)  # thresholds of MSPD at a width of 640 pixels
MILLIMETRES = np.arange(2.0, 21.0, 2.0)
ADD_SHARE = 0.1  # of the diameter
AUC_M = 0.1
LEAST_VISIBLE = 0.1  # instances that show less of themselves are neither asked for nor punished (BOP 2024)
_TOGETHER = 32  # pictures that are in memory at once
MOST_ESTIMATES = 100  # per picture (BOP 2024)


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
    surfaces = _surface_errors(dataset, groups, threads, delta_m)
    hits: dict[int, FloatArray] = {}
    near: dict[int, list[float]] = {}
    targets: dict[int, int] = {}
    for group, pair, surface in zip(groups, pairs, surfaces, strict=True):
        diameter = errors[group.number].model.diameter_m
        stack = [
            np.repeat(surface, len(SHARES), axis=0),
            np.repeat(pair[:1] / diameter, len(SHARES), axis=0),
            np.repeat(pair[1:2], len(PIXELS), axis=0),
            pair[2:3] / diameter,
            pair[3:4],
        ]
        limits = np.concatenate([np.tile(SHARES, len(TAUS)), SHARES, PIXELS, [ADD_SHARE, AUC_M]])
        found = match(np.concatenate(stack), limits, group.valid)
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


def _surface_errors(dataset: ScoredDataset, groups: Sequence[Group], threads: int, delta_m: float) -> list[FloatArray]:
    """VSD [T, E, G] of each group; the depth of a picture is read once, each pose is rendered once."""
    out: list[FloatArray] = [np.zeros((len(TAUS), *group.shape)) for group in groups]
    pictures: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        if min(group.shape):
            pictures.setdefault(group.key, []).append(i)
    renderers = {n: MeshRenderer(dataset.models[n], threads) for n in sorted({group.number for group in groups})}
    corners = {number: hull_corners(renderer.model.vertices_m) for number, renderer in renderers.items()}
    keys = list(pictures)
    for start in range(0, len(keys), _TOGETHER):
        surfaces: dict[int, VisibleSurface] = {}
        for key in keys[start : start + _TOGETHER]:
            depth, lens = dataset.depth_m(key), dataset.intrinsics_px(key)
            for i in pictures[key]:
                number = groups[i].number
                surfaces[i] = VisibleSurface(renderers[number], depth, lens, delta_m=delta_m, corners_m=corners[number])
        drawn = _drawn(dataset, groups, surfaces, renderers)
        for i, surface in surfaces.items():
            group = groups[i]
            for there, pose in enumerate(group.truth):
                if not group.valid[there]:
                    out[i][:, :, there] = np.inf  # may not be found
                    continue
                truth = surface.truth(pose, drawn[i, len(group.estimate) + there])
                for here, estimate in enumerate(group.estimate):
                    out[i][:, here, there] = surface.vsd(estimate, truth, drawn[i, here])
    return out


def _drawn(
    dataset: ScoredDataset,
    groups: Sequence[Group],
    surfaces: Mapping[int, VisibleSurface],
    renderers: Mapping[int, MeshRenderer],
) -> dict[tuple[int, int], Drawn]:
    """(group, which of its estimates and then of its truths) -> its picture; those of one object are cast together."""
    out: dict[tuple[int, int], Drawn] = {}
    wanted: dict[int, list[tuple[tuple[int, int], Box, FloatArray, FloatArray]]] = {}
    for i, surface in surfaces.items():
        group = groups[i]
        lens = np.asarray(dataset.intrinsics_px(group.key), np.float64)
        asked = np.concatenate([np.ones(len(group.estimate), bool), group.valid])
        for which, pose in enumerate(np.concatenate([group.estimate, group.truth])):
            box = surface.box(pose) if asked[which] else None
            if box is None:
                out[i, which] = None, np.zeros((0, 0))
            else:
                wanted.setdefault(group.number, []).append(((i, which), box, pose, lens))
    for number, some in wanted.items():
        names, boxes, poses, lenses = zip(*some, strict=True)
        depths = renderers[number].depths(np.stack(poses), np.stack(lenses), boxes)
        out.update({name: (box, depth) for name, box, depth in zip(names, boxes, depths, strict=True)})
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
