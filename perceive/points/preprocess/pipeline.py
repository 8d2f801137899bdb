"""Pipeline: steps one after another, and the way back from what comes out to every point that went in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.finite import Finite
from perceive.points.preprocess.step import GONE, Step, Trace, unchanged
from sensors.errors import SpecError, nearest


@dataclass(frozen=True)
class StepReport:
    """What one step did: ``given`` = ``removed`` + ``merged`` + ``left`` points."""

    step: str
    given: int
    removed: int
    merged: int
    left: int


@dataclass(frozen=True, eq=False)
class Processed:
    """What a pipeline made of a cloud of N points.

    Attributes:
        cloud: M points.
        traces: of each step, in order.
        whole: of all steps together.
        removed_by: int64 [N], number of the step in ``traces`` that removed a point; -1 = it is still there.
    """

    cloud: PointCloud
    traces: tuple[Trace, ...]
    whole: Trace
    removed_by: NDArray[np.int64]

    def back(self, values: NDArray[Any], fill: float | bool | None = None) -> NDArray[Any]:
        """Values of the points that came out [M, ...] at all that went in [N, ...]; see :meth:`Trace.back`."""
        return self.whole.back(values, fill)

    def found(self, step: str) -> Mapping[str, NDArray[Any]]:
        """What the first step of a name found out.

        Raises:
            SpecError: no step has that name.
        """
        for trace in self.traces:
            if trace.step == step:
                return trace.found
        names = [trace.step for trace in self.traces]
        raise SpecError("Processed.found", f"one of {names}", repr(step), nearest(step, names))

    def report(self) -> tuple[StepReport, ...]:
        """What each step did."""
        return tuple(StepReport(t.step, t.given, t.removed, t.merged, t.left) for t in self.traces)

    def table(self) -> str:
        """The report as text, a line for each step."""
        lines = [f"{'step':24s}{'given':>9s}{'removed':>9s}{'merged':>9s}{'left':>9s}"]
        lines += [f"{r.step:24s}{r.given:9d}{r.removed:9d}{r.merged:9d}{r.left:9d}" for r in self.report()]
        return "\n".join(lines)


@final
class Pipeline:
    """Steps in order. Points without a place are removed first, by a ``Finite`` of its own unless one is given there.

    Args:
        steps: the first of them gets the cloud.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        given = tuple(steps)
        self.steps: tuple[Step, ...] = given if given and isinstance(given[0], Finite) else (Finite(), *given)

    def __call__(self, cloud: PointCloud) -> Processed:
        """The cloud after all steps, and the way back."""
        whole = unchanged(cloud, "start")
        removed_by = np.full(len(cloud), -1, dtype=np.int64)
        traces: list[Trace] = []
        for number, step in enumerate(self.steps):
            cloud, trace = step(cloud)
            before = whole.inverse
            whole = whole.then(trace)
            removed_by[(before != GONE) & (whole.inverse == GONE)] = number
            traces.append(trace)
        return Processed(cloud, tuple(traces), whole, removed_by)
