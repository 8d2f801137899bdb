"""How well guessed 3D boxes fit the true ones: average precision and the errors of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.metrics.polygons import COLUMNS, FloatArray, checked_boxes
from perceive.metrics.polygons import iou_3d as iou_3d  # what belongs to boxes is found here
from perceive.metrics.polygons import iou_bev as iou_bev
from sensors.errors import SpecError

DISTANCES_M = (0.5, 1.0, 2.0, 4.0)
_RECALL = np.linspace(0.0, 1.0, 101)
_LEAST = 0.1  # recall and precision below it are noise (nuScenes)
_MEASURES = ("distance", "iou_3d", "iou_bev")


@final
@dataclass(frozen=True, eq=False)
class GuessedBoxes:
    """What was guessed in one scene.

    Attributes:
        boxes: [N, 7 or 9]: centre, size, yaw, and the velocity along x and y if it is known.
        score: [N].
        label: integers [N].

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """

    boxes: NDArray[np.floating[Any]]
    score: NDArray[np.floating[Any]]
    label: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        count = len(checked_boxes("GuessedBoxes.boxes", self.boxes))
        _check_rows("GuessedBoxes", count, score=self.score, label=self.label)
        if not np.isfinite(self.score).all():
            raise SpecError("GuessedBoxes.score", "finite scores", "NaN or infinity", "Leave such boxes out.")


@final
@dataclass(frozen=True, eq=False)
class TrueBoxes:
    """What is in one scene.

    Attributes:
        boxes: [M, 7 or 9], as of :class:`GuessedBoxes`; a velocity of NaN is not known.
        label: integers [M]; below 0 = of a class that is not known, which is then ignored by all classes.
        ignored: bool [M], boxes that need not be found (few points lie on them), and may be.

    Raises:
        SpecError: shapes that do not fit, or numbers that are not finite.
    """

    boxes: NDArray[np.floating[Any]]
    label: NDArray[np.integer[Any]]
    ignored: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(checked_boxes("TrueBoxes.boxes", self.boxes))
        _check_rows("TrueBoxes", count, label=self.label, ignored=self.ignored)


@final
@dataclass(frozen=True, eq=False)
class BoxErrors:
    """Mean errors of what was found, one per class [S]: NaN where there is nothing to find, 1 where nothing was found.

    Attributes:
        translation_m: distance of the centres as seen from above.
        scale: 1 - IoU after both were put at one place, turned alike.
        orientation_rad: smallest difference of yaw.
        velocity_m_s: length of the difference; NaN where no velocity is known.
    """

    translation_m: FloatArray
    scale: FloatArray
    orientation_rad: FloatArray
    velocity_m_s: FloatArray


@final
@dataclass(frozen=True, eq=False)
class BoxPrecision:
    """Average precision of S classes at T thresholds.

    Attributes:
        average: [S, T]; NaN where there is nothing to find.
        recall: [S, T], share of what is there that was found at all; NaN as above.
        truths: int64 [S], how many boxes are to be found.
        thresholds: T of them.
        mean: over the classes that are there and all thresholds; NaN where there is none.
    """

    average: FloatArray
    recall: FloatArray
    truths: NDArray[np.int64]
    thresholds: tuple[float, ...]
    mean: float


def average_precision(
    guesses: Sequence[GuessedBoxes],
    truths: Sequence[TrueBoxes],
    classes: int,
    by: str = "distance",
    thresholds: Sequence[float] = DISTANCES_M,
) -> BoxPrecision:
    """Average precision per class.

    Guesses of all scenes are gone through from the highest score on, of equals in their order; each takes the best true
    box of its scene and class that is not yet taken, if that is good enough: strictly nearer than a threshold in
    metres, or with an IoU of at least a threshold. Each true box is taken once; a second guess at it is wrong. A guess
    that only fits an ignored box counts as neither right nor wrong.

    By ``"distance"`` of centres as seen from above, as nuScenes (Caesar et al., CVPR 2020): precision is read, linearly
    between guesses, at the recalls 0.11, 0.12, ... 1, and what is above 0.1 of it is averaged, so that 1 is perfect. By
    ``"iou_3d"`` or ``"iou_bev"``, as KITTI and Waymo but at all recalls: the area under the curve after each precision
    was raised to the highest at any higher recall.

    Args:
        guesses: one per scene.
        truths: one per scene, in the same order.
        classes: S; labels are 0 to S - 1.
        by: see above.
        thresholds: T of them, metres or IoU.

    Raises:
        SpecError: lists of different length, a label that is no class, or unknown or impossible thresholds.
    """
    _check_scenes(guesses, truths, classes)
    limits = tuple(float(limit) for limit in thresholds)
    if by not in _MEASURES:
        raise SpecError("average_precision, by", f"one of {list(_MEASURES)}", repr(by), "Choose one.")
    if not limits or not all(0 < limit < (np.inf if by == "distance" else 1.0 + 1e-12) for limit in limits):
        raise SpecError("average_precision, thresholds", "metres > 0, or IoU in (0, 1]", f"{limits}", "Correct them.")
    average, recall = np.full((classes, len(limits)), np.nan), np.full((classes, len(limits)), np.nan)
    count = np.zeros(classes, np.int64)
    for label in range(classes):
        scenes = [_Scene.of(guess, truth, label, by) for guess, truth in zip(guesses, truths, strict=True)]
        count[label] = sum(int(scene.counted.sum()) for scene in scenes)
        if count[label] == 0:
            continue
        for column, limit in enumerate(limits):
            found = _match(scenes, limit)
            right = found.right.cumsum()
            precision, reached = right / np.arange(1, len(right) + 1), right / count[label]
            recall[label, column] = reached[-1] if len(reached) else 0.0
            area = _nuscenes_area if by == "distance" else _area
            average[label, column] = area(reached, precision)
    there = count > 0
    mean = float(average[there].mean()) if there.any() else float("nan")
    return BoxPrecision(average, recall, count, limits, mean)


def true_positive_errors(
    guesses: Sequence[GuessedBoxes],
    truths: Sequence[TrueBoxes],
    classes: int,
    within_m: float = 2.0,
    period_rad: Sequence[float] | None = None,
) -> BoxErrors:
    """Errors of the boxes that were found, as nuScenes defines them (Caesar et al., CVPR 2020).

    Boxes are matched by distance as in :func:`average_precision`. At each recall of 0.11, 0.12, ... that was reached,
    the mean error of the guesses so far is read, linearly between them; these are averaged.

    Args:
        guesses: one per scene.
        truths: one per scene.
        classes: S.
        within_m: largest distance of a match.
        period_rad: [S], by how much a box of each class may be turned and still looks the same; 0 = by any angle, and
            its orientation error is NaN. None = a whole turn for all.

    Raises:
        SpecError: as of :func:`average_precision`.
    """
    _check_scenes(guesses, truths, classes)
    periods = np.full(classes, 2 * np.pi) if period_rad is None else np.asarray(period_rad, np.float64)
    if periods.shape != (classes,) or not np.isfinite(periods).all() or (periods < 0).any() or not within_m > 0:
        got = f"period_rad {periods.tolist()}, within_m {within_m}"
        raise SpecError("true_positive_errors", f"{classes} angles >= 0 and a distance > 0", got, "Correct them.")
    errors = np.full((4, classes), np.nan)
    for label in range(classes):
        scenes = [_Scene.of(guess, truth, label, "distance") for guess, truth in zip(guesses, truths, strict=True)]
        count = sum(int(scene.counted.sum()) for scene in scenes)
        if count == 0:
            continue
        found = _match(scenes, within_m)
        one, other = found.guessed[found.right], found.true[found.right]
        of_box = [
            np.hypot(*(one - other)[:, :2].T),
            1.0 - _aligned_iou(one, other),
            _turn_rad(one[:, 6] - other[:, 6], float(periods[label])),
            np.hypot(*(one - other)[:, 7:9].T),
        ]
        errors[:, label] = [_mean_over_recall(value, count) for value in of_box]
        if periods[label] == 0:
            errors[2, label] = np.nan
    return BoxErrors(*errors)


# -- matching -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Scene:
    """One class in one scene: what was guessed, what is there, and how well each fits (the less the better)."""

    guessed: FloatArray  # [N, 9]
    score: FloatArray  # [N]
    true: FloatArray  # [M, 9]
    counted: NDArray[np.bool_]  # [M]
    misfit: FloatArray  # [N, M]
    strict: bool

    @staticmethod
    def of(guess: GuessedBoxes, truth: TrueBoxes, label: int, by: str) -> _Scene:
        mine = np.asarray(guess.label) == label
        theirs = (np.asarray(truth.label) == label) | (np.asarray(truth.label) < 0)
        guessed, true = _nine(guess.boxes)[mine], _nine(truth.boxes)[theirs]
        counted = ~np.asarray(truth.ignored)[theirs] & (np.asarray(truth.label)[theirs] == label)
        if by == "distance":
            misfit = np.hypot(*(guessed[:, None, :2] - true[None, :, :2]).transpose(2, 0, 1))
        else:
            misfit = -(iou_3d if by == "iou_3d" else iou_bev)(guessed, true)
        score = np.asarray(guess.score, np.float64)[mine]
        return _Scene(guessed, score, true, counted, misfit, by == "distance")


@dataclass(frozen=True, eq=False)
class _Found:
    """Guesses of all scenes from the highest score on, without those that only fit an ignored box."""

    right: NDArray[np.bool_]  # [N]
    guessed: FloatArray  # [N, 9]
    true: FloatArray  # [N, 9]; of the wrong ones, anything


def _match(scenes: Sequence[_Scene], limit: float) -> _Found:
    score = np.concatenate([scene.score for scene in scenes])
    where = [(number, row) for number, scene in enumerate(scenes) for row in range(len(scene.score))]
    # A perfect overlap may come out a rounding error below 1.
    fits = [scene.misfit < limit if scene.strict else scene.misfit <= 1e-9 - limit for scene in scenes]
    free = [scene.counted.copy() for scene in scenes]
    right, guessed, true = [], [], []
    for index in np.argsort(-score, kind="stable"):
        number, row = where[index]
        scene, good = scenes[number], fits[number][row]
        open_ = np.flatnonzero(good & free[number])
        if len(open_):
            best = open_[scene.misfit[row, open_].argmin()]
            free[number][best] = False
            true.append(scene.true[best])
        elif (good & ~scene.counted).any():
            continue
        else:
            true.append(np.zeros(9))
        right.append(len(open_) > 0)
        guessed.append(scene.guessed[row])
    rows = (len(right), 9)
    return _Found(np.array(right, bool), np.array(guessed, float).reshape(rows), np.array(true, float).reshape(rows))


# -- curves ---------------------------------------------------------------------------------------------------------


def _nuscenes_area(recall: FloatArray, precision: FloatArray) -> float:
    if len(recall) == 0:
        return 0.0
    read = np.interp(_RECALL, recall, precision, right=0.0)[round(100 * _LEAST) + 1 :]
    return float(np.maximum(read - _LEAST, 0.0).mean() / (1.0 - _LEAST))


def _area(recall: FloatArray, precision: FloatArray) -> float:
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * highest).sum())


def _mean_over_recall(error: FloatArray, count: int) -> float:
    """The mean, over recalls, of the mean error [K] of what was found up to there; errors of NaN are not known."""
    known = np.isfinite(error)
    if len(error) and not known.any():
        return float("nan")
    grid = _RECALL[round(100 * _LEAST) + 1 :]
    grid = grid[grid <= len(error) / count + 1e-9]
    if len(grid) == 0:
        return 1.0
    far = np.where(known, error, 0.0).cumsum() / np.maximum(known.cumsum(), 1)
    far = far[known.argmax() :]  # before the first that is known there is no mean
    reached = np.arange(1, len(error) + 1)[known.argmax() :] / count
    return float(np.interp(grid, reached, far).mean())


# -- boxes ----------------------------------------------------------------------------------------------------------


def _aligned_iou(one: FloatArray, other: FloatArray) -> FloatArray:
    shared = np.minimum(one[:, 3:6], other[:, 3:6]).prod(axis=1)
    union = one[:, 3:6].prod(axis=1) + other[:, 3:6].prod(axis=1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _turn_rad(angle: FloatArray, period: float) -> FloatArray:
    if period == 0:
        return np.zeros_like(angle)
    rest = np.mod(angle, period)
    return np.minimum(rest, period - rest)


def _nine(boxes: NDArray[np.floating[Any]]) -> FloatArray:
    """Boxes [N, 9], a velocity that was not given as NaN."""
    rows = np.asarray(boxes, np.float64)
    if rows.shape[1] >= 9:
        return rows[:, :9]
    return np.concatenate([rows[:, :COLUMNS], np.full((len(rows), 2), np.nan)], axis=1)


def _check_rows(where: str, count: int, **columns: NDArray[Any]) -> None:
    for name, value in columns.items():
        if np.shape(value) != (count,):
            raise SpecError(f"{where}.{name}", f"shape [{count}]", f"{list(np.shape(value))}", "One for each box.")


def _check_scenes(guesses: Sequence[GuessedBoxes], truths: Sequence[TrueBoxes], classes: int) -> None:
    if len(guesses) != len(truths) or not guesses or classes < 1:
        got = f"{len(guesses)} and {len(truths)} scenes, {classes} classes"
        raise SpecError(
            "boxes", "guesses and truths of the same scenes, at least one, of >= 1 classes", got, "Correct."
        )
    labels = [(np.asarray(each.label), 0) for each in guesses] + [(np.asarray(each.label), -1) for each in truths]
    for label, low in labels:
        if len(label) and (label.min() < low or label.max() >= classes):
            got = f"{label.min()} to {label.max()}"
            raise SpecError("boxes, label", f"{low} to {classes - 1}", got, "Correct the labels.")
