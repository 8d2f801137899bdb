"""Step: what turns one cloud into another; Trace: which point became which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.cloud import PointCloud
from sensors.errors import SpecError

GONE = -1


@dataclass(frozen=True, eq=False)
class Trace:
    """How the N points that went into a step, and the M that came out of it, belong together.

    Attributes:
        step: name of the step.
        inverse: int64 [N], the output point that an input point became; -1 = it was removed.
        index: int64 [M], the input point that stands for an output point (one of several where points were merged).
        found: what the step found out, by a name that its class states.
    """

    step: str
    inverse: NDArray[np.int64]
    index: NDArray[np.int64]
    found: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def given(self) -> int:
        """N."""
        return len(self.inverse)

    @property
    def left(self) -> int:
        """M."""
        return len(self.index)

    @property
    def removed(self) -> int:
        """How many points became nothing."""
        return int(np.count_nonzero(self.inverse == GONE))

    @property
    def merged(self) -> int:
        """How many points were lost by becoming one with another."""
        return self.given - self.removed - self.left

    def back(self, values: NDArray[Any], fill: float | bool | None = None) -> NDArray[Any]:
        """Values of the output points [M, ...] at the input points [N, ...].

        Args:
            values: one row for each output point.
            fill: what removed points get; None = NaN for floats, -1 for signed integers, False for bool.

        Raises:
            SpecError: not M rows, or no ``fill`` for a kind of numbers that has no usual one.
        """
        values = np.asarray(values)
        if values.ndim == 0 or len(values) != self.left:
            raise SpecError(
                f"back through '{self.step}'",
                f"one row for each of {self.left} points",
                f"shape {list(values.shape)}",
                "Pass the values of the points that came out.",
            )
        out = np.full((self.given, *values.shape[1:]), _fill_of(values, fill, self.step), dtype=values.dtype)
        kept = self.inverse != GONE
        out[kept] = values[self.inverse[kept]]
        return out

    def then(self, after: Trace) -> Trace:
        """This step and another that was given its output, as one.

        Raises:
            SpecError: the other was given something else.
        """
        if after.given != self.left:
            raise SpecError(
                f"'{after.step}' after '{self.step}'", f"{self.left} points", f"{after.given}", "Join traces in order."
            )
        return Trace(f"{self.step}, {after.step}", after.back_index(self.inverse), self.index[after.index])

    def back_index(self, before: NDArray[np.int64]) -> NDArray[np.int64]:
        """What became of points, int64 [...], that were input points ``before`` (int64 [...], -1 = removed earlier)."""
        out = np.full(before.shape, GONE, dtype=np.int64)
        kept = before != GONE
        out[kept] = self.inverse[before[kept]]
        return out


class Step(ABC):
    """One step of preprocessing. Its numbers are fixed when it is built, and the same cloud gives the same result."""

    @abstractmethod
    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        """The new cloud, and which point became which.

        Raises:
            SpecError: a coordinate is NaN or infinite; ``Finite`` removes such points.
        """


def keep(cloud: PointCloud, mask: NDArray[np.bool_], step: str, **found: NDArray[Any]) -> tuple[PointCloud, Trace]:
    """The points of a cloud that a mask [N] keeps, in their order."""
    index = np.flatnonzero(mask)
    inverse = np.full(len(cloud), GONE, dtype=np.int64)
    inverse[index] = np.arange(len(index))
    return cloud.take(index), Trace(step, inverse, index, found)


def unchanged(cloud: PointCloud, step: str, **found: NDArray[Any]) -> Trace:
    """The trace of a step that keeps every point."""
    every = np.arange(len(cloud))
    return Trace(step, every, every, found)


def require_finite(cloud: PointCloud, step: str) -> None:
    """Refuse coordinates that no step can work with.

    Raises:
        SpecError: a coordinate is NaN or infinite.
    """
    bad = len(cloud) - int(np.count_nonzero(cloud.finite()))
    if bad:
        raise SpecError(step, "finite coordinates", f"{bad} of {len(cloud)} points without", "Put Finite() before it.")


def require(holds: bool, where: str, expected: str, got: object) -> None:
    """Refuse an argument.

    Raises:
        SpecError: it does not hold.
    """
    if not holds:
        raise SpecError(where, expected, repr(got), "Correct it.")


def _fill_of(values: NDArray[Any], fill: float | bool | None, step: str) -> float | bool:
    """The fill, checked to be a value of that kind; floats take any."""
    usual: dict[str, float | bool] = {"f": np.nan, "i": -1, "b": False}
    chosen = usual.get(values.dtype.kind) if fill is None else fill
    if chosen is not None:
        if values.dtype.kind not in "iub":
            return chosen
        try:
            if np.array(chosen, dtype=values.dtype) == chosen:
                return chosen
        except (ValueError, OverflowError):
            pass  # NaN, or a number beyond the range
    raise SpecError(
        f"back through '{step}'", f"a fill that is a value of {values.dtype}", repr(fill), "Pass fill=... of that kind."
    )
