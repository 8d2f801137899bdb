"""RunSummary: how a run went - cadence, latency, what the safety limiter did, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sensors.spec import Json


@dataclass(frozen=True, eq=False)
class RunSummary:
    """A run of the control loop.

    Attributes:
        ended: ``"duration"``, ``"success"``, ``"interrupt"`` or ``"safety"``.
        reason: for ``"safety"``: why.
        rate_hz: the rate asked for.
        duration_s: from the first tick to the end, on the loop's clock.
        ticks: commands sent.
        missed: ticks left out because the one before was still at work.
        started_late_s: how late each tick began after its deadline.
        busy_s: how long each tick worked.
        policy_s: the policy's part of it, from Observation to Action.
        age_s: age of the newest frame of the slowest required sensor at each tick.
        held: commands that told the robot to stay where it is.
        flags: the limiter's flag -> commands that carried it.
        robot: what the robot reported at the end.
        view: what became of the observations that were shown live; empty = nothing was shown.
    """

    ended: str
    reason: str
    rate_hz: float
    duration_s: float
    ticks: int
    missed: int
    started_late_s: Sequence[float]
    busy_s: Sequence[float]
    policy_s: Sequence[float]
    age_s: Sequence[float]
    held: int
    flags: Mapping[str, int]
    robot: Mapping[str, float | bool | str] = field(default_factory=dict)
    view: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def achieved_hz(self) -> float:
        """Ticks per second; the last one's period counts as well."""
        return self.ticks / self.duration_s if self.duration_s > 0 else 0.0

    def to_json(self) -> Json:
        """Plain data."""
        return {
            "ended": self.ended,
            "reason": self.reason,
            "rate_hz": self.rate_hz,
            "achieved_hz": self.achieved_hz,
            "duration_s": self.duration_s,
            "ticks": self.ticks,
            "missed": self.missed,
            "held": self.held,
            "late_ms": percentiles_ms(self.started_late_s),
            "busy_ms": percentiles_ms(self.busy_s),
            "policy_ms": percentiles_ms(self.policy_s),
            "observation_age_ms": percentiles_ms(self.age_s),
            "flags": dict(sorted(self.flags.items())),
            "robot": dict(self.robot),
            "view": dict(self.view),
        }

    def __str__(self) -> str:
        def row(name: str, values: Sequence[float]) -> str:
            found = percentiles_ms(values)
            return f"  {name:<16} p50 {found['p50']:7.2f} ms   p95 {found['p95']:7.2f} ms   max {found['max']:7.2f} ms"

        flags = ", ".join(f"{name} {count}" for name, count in sorted(self.flags.items())) or "none"
        lines = [
            f"ended by {self.ended}{': ' + self.reason if self.reason else ''} after {self.duration_s:.2f} s",
            f"cadence: {self.ticks} commands at {self.achieved_hz:.2f} of {self.rate_hz:g} Hz, {self.missed} missed",
            row("start of tick", self.started_late_s),
            row("whole tick", self.busy_s),
            row("policy", self.policy_s),
            row("observation age", self.age_s),
            f"safety: {self.held} commands held; flags: {flags}",
        ]
        if self.robot:
            lines.append("robot: " + ", ".join(f"{name} {_word(value)}" for name, value in self.robot.items()))
        if self.view:
            lines.append("view: " + ", ".join(f"{name} {value}" for name, value in self.view.items()))
        return "\n".join(lines)


def percentiles_ms(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and max in milliseconds; zeros for no values."""
    if not values:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0}
    p50, p95, most = np.percentile(np.asarray(values) * 1e3, (50, 95, 100))
    return {"p50": float(p50), "p95": float(p95), "max": float(most)}


def _word(value: float | bool | str) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
