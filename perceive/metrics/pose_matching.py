"""Which estimate found which instance: the greedy matching of the BOP benchmark, for all thresholds at once.

Example:
    >>> import numpy as np
    >>> from perceive.metrics.pose_matching import match
    >>> errors = np.array([[0.1, 0.3], [0.2, 0.4]])  # two estimates, the better score first; two instances
    >>> match(errors, [0.15, 0.5]).tolist()  # strictly below the threshold
    [[0, -1], [0, 1]]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sensors.errors import DataError, SpecError


def match(errors: ArrayLike, thresholds: ArrayLike, valid: ArrayLike | None = None) -> NDArray[np.int64]:
    """Give each estimate, the best score first, the free instance of least error if that is below the threshold.

    Each instance is found once at most. Of equal errors the first instance is taken. NaN is no match.

    Args:
        errors: [E, G] of E estimates, sorted by falling score, against G instances; or [L, E, G], other errors for
            each threshold.
        thresholds: [L]; an error must be **below**.
        valid: bool [G] or, others for each threshold, [L, G]: instances that may be found; None = all.

    Returns:
        int64 [L, E], the index of the instance of each estimate, or -1.

    Raises:
        SpecError: shapes that do not fit.
    """
    limits, given = np.asarray(thresholds, np.float64), np.asarray(errors, np.float64)
    if limits.ndim != 1 or given.ndim not in (2, 3) or (given.ndim == 3 and len(given) != len(limits)):
        got = f"errors {given.shape}, thresholds {limits.shape}"
        raise SpecError("match", "errors [E, G] or [L, E, G] and thresholds [L]", got, "Stack one error per threshold.")
    levels, (count, instances) = len(limits), given.shape[-2:]
    free = np.ones(instances, np.bool_) if valid is None else np.asarray(valid, np.bool_)
    if free.shape not in ((instances,), (levels, instances)):
        raise SpecError(
            "match.valid", f"bool [{instances}] or [{levels}, {instances}]", f"{free.shape}", "One per instance."
        )
    found = np.full((levels, count), -1, np.int64)
    if not instances:
        return found
    free = np.broadcast_to(free, (levels, instances)).copy()
    every = np.broadcast_to(given, (levels, count, instances))
    rows = np.arange(levels)
    for number in range(count):
        error = np.where(free & ~np.isnan(every[:, number]), every[:, number], np.inf)
        best = error.argmin(1)
        good = error[rows, best] < limits
        found[good, number] = best[good]
        free[rows[good], best[good]] = False
    return found


def by_score(scores: ArrayLike, most: int | None = None) -> NDArray[np.int64]:
    """The order of falling score; equal scores keep the order in which they came. At most ``most`` of them.

    Raises:
        DataError: a score is NaN: it has no place in the order.
    """
    values = np.asarray(scores, np.float64)
    if np.isnan(values).any():
        raise DataError("scores", "numbers", "NaN", "Give every estimate a score, or leave it out.")
    return np.argsort(-values, kind="stable")[:most].astype(np.int64)


def average_precision(found: ArrayLike, targets: int) -> float:
    """101-point interpolated average precision.

    The mean, over the recalls 0, 0.01 ... 1, of the greatest precision at that recall or beyond; 0 where it is never
    reached.

    Args:
        found: bool [E], whether each estimate is right, sorted by falling score.
        targets: how many there are to be found.

    Raises:
        SpecError: nothing is to be found.
    """
    right = np.asarray(found, np.bool_)
    if targets < 1:
        raise SpecError("average_precision", "at least one target", str(targets), "Leave such an object out.")
    if not len(right):
        return 0.0
    hits = right.cumsum()
    recall, precision = hits / float(targets), hits / np.arange(1, len(right) + 1)
    beyond = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(beyond[np.searchsorted(recall, np.linspace(0.0, 1.0, 101), side="left")].mean())


def area_under_recall(errors: ArrayLike, targets: int, limit: float) -> float:
    """The area under "share of targets with an error below x" for x from 0 to ``limit``, over ``limit``; exact.

    Args:
        errors: [E] of what was found; those at or beyond the limit, and what was not found, add nothing.
        targets: how many there are to be found.
        limit: 0.1 m for the "AUC" of ADD and ADD-S (Xiang et al., "PoseCNN", RSS 2018).
    """
    values = np.asarray(errors, np.float64)
    return float(np.clip(1.0 - values / limit, 0.0, None).sum() / targets) if targets else 0.0
