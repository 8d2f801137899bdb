"""How well points are labelled: confusion matrix, intersection over union, accuracy.

Intersection over union of a class is ``TP / (TP + FP + FN)`` over all points of a data set, as the benchmarks count it
(ScanNet, S3DIS, SemanticKITTI, nuScenes): not the mean over clouds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sensors.errors import SpecError

_ROWS = 1 << 22  # points counted at a time


def confusion(pred: ArrayLike, truth: ArrayLike, classes: int, ignore: int = -1) -> NDArray[np.int64]:
    """How many points of each true class were given each label, int64 [S, S]: row = truth, column = guess.

    Args:
        pred: whole numbers [...], 0 to S - 1 wherever the truth is not to be ignored.
        truth: whole numbers [...], of the same shape; ``ignore`` = not known, not counted.
        classes: S.
        ignore: the true label that does not count.

    Raises:
        SpecError: shapes that differ, numbers that are not whole, an index that is no class, or no class at all.
    """
    if classes < 1:
        raise SpecError("confusion.classes", "at least 1", repr(classes), "Correct it.")
    guess, true = np.asarray(pred), np.asarray(truth)
    if guess.shape != true.shape:
        raise SpecError("confusion", "pred and truth of one shape", f"{guess.shape} and {true.shape}", "Reshape them.")
    for name, values in (("pred", guess), ("truth", true)):
        if values.size and values.dtype.kind not in "iu":
            raise SpecError(f"confusion.{name}", "whole numbers", str(values.dtype), "Give indices of classes.")
    guess, true = guess.ravel(), true.ravel()
    total = np.zeros(classes * classes, np.int64)
    for start in range(0, true.size, _ROWS):
        some = true[start : start + _ROWS]
        known = some != ignore
        rows, columns = (part[known].astype(np.int64) for part in (some, guess[start : start + _ROWS]))
        for name, values in (("truth", rows), ("pred", columns)):
            if values.size and (values.min() < 0 or values.max() >= classes):
                got = f"from {values.min()} to {values.max()}"
                fix = f"Give indices of classes; {ignore} in truth where it is not known."
                raise SpecError(f"confusion.{name}", f"0 to {classes - 1}", got, fix)
        total += np.bincount(rows * classes + columns, minlength=classes * classes)
    return total.reshape(classes, classes)


@final
@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a confusion matrix says. Matrices of parts of a data set may be added.

    Attributes:
        confusion: int64 [S, S], row = truth, column = guess.

    Raises:
        SpecError: not a square of counts.
    """

    confusion: NDArray[np.int64]

    def __post_init__(self) -> None:
        given = np.asarray(self.confusion)
        square = given.ndim == 2 and given.shape[0] == given.shape[1] >= 1
        if not square or given.dtype.kind not in "iu" or int(given.min()) < 0:
            raise SpecError("Segmentation.confusion", "counts [S, S]", f"{given.dtype} {given.shape}", "Correct it.")

    @staticmethod
    def of(matrices: Iterable[NDArray[np.int64]]) -> Segmentation:
        """The sum of one or more matrices.

        Raises:
            SpecError: none, or of different numbers of classes.
        """
        parts = [np.asarray(part) for part in matrices]
        shapes = {part.shape for part in parts}
        if len(shapes) != 1:
            raise SpecError("Segmentation.of", "matrices [S, S] of one S", f"shapes {sorted(shapes)}", "Correct them.")
        return Segmentation(np.sum(parts, axis=0))

    @property
    def points(self) -> int:
        """How many points were counted."""
        return int(self.confusion.sum())

    @property
    def iou(self) -> NDArray[np.float64]:
        """Of each class [S]; NaN of a class that is neither in the truth nor in the guesses."""
        hit = np.diag(self.confusion)
        return _share(hit, self.confusion.sum(0) + self.confusion.sum(1) - hit)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of each class's points that were found [S]; NaN of a class that is not in the truth."""
        return _share(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of each class's guesses that are right [S]; NaN of a class that was never guessed."""
        return _share(np.diag(self.confusion), self.confusion.sum(0))

    @property
    def mean_iou(self) -> float:
        """Over the classes that have one; NaN without points."""
        return _mean(self.iou)

    @property
    def accuracy(self) -> float:
        """Share of all points that is right; NaN without points."""
        return float(np.trace(self.confusion)) / self.points if self.points else float("nan")

    @property
    def mean_accuracy(self) -> float:
        """Mean recall over the classes that are in the truth; NaN without points."""
        return _mean(self.recall)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
