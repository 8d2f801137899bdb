"""SafetyLimiter: what stands between a policy and a robot. It limits and flags first, and stops last."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from policies.runtime.freshness import Freshness
from policies.runtime.limits import SafetyLimits, workspace_of
from policies.runtime.motion import Columns, clipped, distance, orthonormal, towards, turn_angle, turned_towards
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SafetyStop, SpecError, WiringError, nearest
from sensors.observation import Observation

# Speeds are kept to a hair below their limit, so that rounding to float32 cannot lift them over it.
_HAIR = 1 - 1e-5
# Periods of motion that can be saved up; above 1, so that a loop's jitter does not slow the robot down.
_MOST_CREDIT = 1.25


@dataclass(frozen=True, eq=False)
class Limited:
    """What may be sent.

    Attributes:
        action: the command, inside all limits.
        flags: what had to be changed: ``workspace``, ``speed``, ``turn_rate``, ``bounds``, ``lead``, ``rotation`` (it
            defined none), ``outside`` (the arm is outside the workspace), ``not_finite``, ``shape``,
            ``stale:<sensor>``, ``frozen`` (observations have stopped).
        hold: whether the robot is told to stay where it is.
        stop: why the robot has to be stopped now; None = it need not.
    """

    action: Action
    flags: tuple[str, ...]
    hold: bool
    stop: str | None


@dataclass(frozen=True)
class _Measured:
    """The newest sound proprioception, on the robot's clock."""

    stamp_s: float
    position: Sequence[float]
    columns: Columns
    joints: Sequence[float]
    gripper: float  # -1 closed .. 1 open


@final
class SafetyLimiter:
    """Makes any action safe to send.

    What it guarantees of every action that :meth:`limit` returns, whatever goes in: finite; inside the action spec's
    bounds; the tool point in the workspace and the joints inside their limits; no further from what was sent before
    than the speed limits allow in the time since, and never further than in one period; a hold when a required sensor
    is stale, the action is not finite or the observations have stopped coming, and a wish to stop when that has lasted
    for ``stop_after_s``.

    Args:
        spec: of the actions that are sent.
        limits: the bounds.

    Raises:
        SpecError: no workspace is given for actions whose spec has none, or none is left of it; or actions that are
            whole moves (key poses).
    """

    def __init__(self, spec: ActionSpec, limits: SafetyLimits) -> None:
        if spec.mode is ActionMode.KEY_POSE:
            raise SpecError(
                "SafetyLimiter", "commands for one period each", "key poses, each of them a whole move",
                "Let a KeyPosePolicy with follow=true lead the tool there, period by period.",
            )  # fmt: skip
        self._spec = spec
        self._limits = limits
        self._step_m = limits.linear_m_s * spec.period_s * _HAIR
        self._step_rad = limits.angular_rad_s * spec.period_s * _HAIR
        self._step_joint = limits.joint_rad_s * spec.period_s * _HAIR
        self._full_m = limits.full_step_m or limits.linear_m_s * spec.period_s
        self._full_rad = limits.full_step_rad or limits.angular_rad_s * spec.period_s
        self._box = workspace_of(spec, limits)
        self._freshness = Freshness(limits.required, limits.max_age_s)
        self._low: list[float] = spec.space.low.tolist()
        self._high: list[float] = spec.space.high.tolist()
        if spec.mode is ActionMode.JOINT_POSITION:
            joints = range(*spec.part("position_rad").indices(spec.size))
            for index in joints:
                self._low[index] += limits.joint_margin_rad
                self._high[index] -= limits.joint_margin_rad
        self.counts: Counter[str] = Counter()  # flag -> commands that carried it, since reset
        self._last: list[float] | None = None  # what was sent last; of a delta, only the gripper counts
        self._flight: list[list[float]] = []  # steps in metres that the newest measurement may not show yet, for deltas
        self._measured: _Measured | None = None
        self._held_since_s: float | None = None
        self._sent_s = 0.0
        self._credit = 1.0  # periods of motion that may be used up by the next command
        self._share = 1.0  # of a period's motion that the present command may use

    @property
    def spec(self) -> ActionSpec:
        """Of the actions that are sent."""
        return self._spec

    def reset(self, observation: Observation, now_s: float) -> None:
        """Start from where the robot stands.

        Args:
            observation: a first one in which proprioception and all required sensors are there.
            now_s: now, on the loop's clock.

        Raises:
            WiringError: a sensor that is needed is not in the observation at all.
            SafetyStop: it is there but does not answer.
        """
        needed = dict.fromkeys((*self._limits.required, self._limits.proprioception))
        for name in needed:
            if name not in observation.streams:
                fix = f"{nearest(name, observation.streams)} Correct SafetyLimits.required or the rig."
                raise WiringError("SafetyLimiter", f"the sensor '{name}'", f"{sorted(observation.streams)}", fix)
        self._forget(now_s)
        stale = self._look(observation, now_s)
        if stale or self._measured is None:
            got = ", ".join(stale) or f"no frame of '{self._limits.proprioception}'"
            raise SafetyStop(
                "SafetyLimiter.reset", f"fresh frames of {list(needed)}", got, "Check that these sensors run."
            )
        self._last = self._standing(self._measured)

    def limit(self, action: Action, observation: Observation, now_s: float) -> Limited:
        """The action that may be sent instead of ``action``. Call it once a period, with ``now_s`` of the loop's clock.

        Raises:
            SafetyStop: :meth:`reset` was not called.
        """
        if self._last is None:
            raise SafetyStop("SafetyLimiter.limit", "a limiter that was reset", "a new one", "Call reset() first.")
        flags = self._look(observation, now_s)
        self._take_credit(now_s)
        values = np.asarray(action.values)
        if values.shape != self._spec.space.shape:
            flags.append("shape")
        elif not np.isfinite(values).all():
            flags.append("not_finite")
        wanted = None if flags else self._bounded(values.tolist(), flags)
        hold = wanted is None
        sent = np.asarray(self._holding() if wanted is None else wanted, np.float32)
        np.clip(sent, self._spec.space.low, self._spec.space.high, out=sent)
        self._last = sent.tolist()
        if self._spec.mode is ActionMode.EE_DELTA:
            self._flight.append([v * self._full_m for v in self._last[self._spec.part("position")]])
        self.counts.update(flags)
        return Limited(Action(sent, self._spec), tuple(flags), hold, self._verdict(hold, flags, now_s))

    def _forget(self, now_s: float) -> None:
        self.counts.clear()
        self._last, self._measured, self._held_since_s = None, None, None
        self._flight = []
        self._sent_s, self._credit = now_s, 1.0
        self._freshness.reset(now_s)

    def _take_credit(self, now_s: float) -> None:
        """How much of a period's motion is allowed: two commands in quick succession share one period's."""
        passed = max(now_s - self._sent_s, 0.0) / self._spec.period_s
        self._credit = min(self._credit + passed, _MOST_CREDIT)
        self._share = min(self._credit, 1.0)
        self._credit -= self._share
        self._sent_s = now_s

    # -- seeing -------------------------------------------------------------------------------------------------------

    def _look(self, observation: Observation, now_s: float) -> list[str]:
        """Take in the observation; the flags of what is stale."""
        flags = self._freshness.look(observation, now_s)
        self._measure(observation)
        return flags

    def _measure(self, observation: Observation) -> None:
        stream = observation.streams.get(self._limits.proprioception)
        if stream is None or not stream.valid[-1]:
            return
        stamp_s = observation.now_s - float(stream.age_s[-1])
        if self._measured is not None and stamp_s <= self._measured.stamp_s:
            return
        tool = stream.data["base_from_tool"][-1].tolist()
        columns = orthonormal([tool[0][0], tool[1][0], tool[2][0], tool[0][1], tool[1][1], tool[2][1]])
        position, joints = [row[3] for row in tool[:3]], stream.data["position_rad"][-1].tolist()
        gripper = float(stream.data["gripper_m"][-1][0])
        if columns is None or not all(map(math.isfinite, (*position, *joints, gripper))):
            return
        share = min(max(2 * gripper / self._limits.gripper_open_m - 1, -1.0), 1.0)
        self._measured = _Measured(stamp_s, position, columns, joints, share)
        # The step sent last may only be under way when this was measured; those before it were done.
        self._flight = self._flight[-1:]

    # -- limiting -----------------------------------------------------------------------------------------------------

    def _bounded(self, wanted: list[float], flags: list[str]) -> list[float] | None:
        """The command inside all limits, or None to hold; adds to ``flags``."""
        assert self._last is not None
        out = clipped(wanted, self._low, self._high)
        mode = self._spec.mode
        if mode is ActionMode.EE_POSE:
            self._bound_pose(wanted, out, flags)
        else:
            if out != wanted:
                flags.append("bounds")
            if mode is ActionMode.EE_DELTA:
                self._bound_delta(out, flags)
            elif self._bound_joints(out, flags):
                return None
        return out

    def _bound_pose(self, wanted: list[float], out: list[float], flags: list[str]) -> None:
        limits, last, measured = self._limits, self._last, self._measured
        assert last is not None
        part = self._spec.part("position_m")
        before = last[part]
        aim = clipped(wanted[part], *self._box)
        if aim != wanted[part]:
            flags.append("workspace")
        # What was sent before lies in the box, and so does every point between the two.
        position = towards(before, aim, self._step_m * self._share)
        if position != aim:
            flags.append("speed")
        if measured is not None:
            ahead = distance(position, measured.position)
            if ahead > limits.lead_m and ahead > distance(before, measured.position):
                position = before
                flags.append("lead")
        out[part] = clipped(position, *self._box)
        if "gripper" in self._spec.parts and out[self._spec.part("gripper")] != wanted[self._spec.part("gripper")]:
            flags.append("bounds")
        if "rotation_6d" not in self._spec.parts:
            return
        part = self._spec.part("rotation_6d")
        held, aimed = orthonormal(last[part]), orthonormal(wanted[part])
        assert held is not None
        if aimed is None:
            flags.append("rotation")
            aimed = held
        turned = turned_towards(held, aimed, self._step_rad * self._share)
        if turned is not aimed:
            flags.append("turn_rate")
        if measured is not None:
            ahead = turn_angle(measured.columns, turned)
            if ahead > limits.lead_rad and ahead > turn_angle(measured.columns, held):
                turned = held
                flags.append("lead")
        out[part] = turned

    def _bound_delta(self, out: list[float], flags: list[str]) -> None:
        part = self._spec.part("position")
        step = towards((0.0, 0.0, 0.0), [v * self._full_m for v in out[part]], self._step_m * self._share)
        if step != [v * self._full_m for v in out[part]]:
            flags.append("speed")
        measured = self._measured
        if measured is not None:
            inside = []
            for axis, (length, low, high) in enumerate(zip(step, *self._box, strict=True)):
                # Any of the steps under way may be done or not yet; outside, only the way back is open.
                lowest = measured.position[axis] + sum(min(sent[axis], 0.0) for sent in self._flight)
                highest = measured.position[axis] + sum(max(sent[axis], 0.0) for sent in self._flight)
                inside.append(min(max(length, min(low - lowest, 0.0)), max(high - highest, 0.0)))
            if inside != step:
                step = inside
                flags.append("workspace")
        out[part] = [v / self._full_m for v in step]
        if "rotation" in self._spec.parts:
            part = self._spec.part("rotation")
            asked = [v * self._full_rad for v in out[part]]
            turn = towards((0.0, 0.0, 0.0), asked, self._step_rad * self._share)
            if turn != asked:
                flags.append("turn_rate")
                out[part] = [v / self._full_rad for v in turn]

    def _bound_joints(self, out: list[float], flags: list[str]) -> bool:
        """Limit joint positions in place; whether to hold instead."""
        part, last, measured = self._spec.part("position_rad"), self._last, self._measured
        assert last is not None
        before, aim = last[part], out[part]
        change = max(abs(a - b) for a, b in zip(aim, before, strict=True))
        most = self._step_joint * self._share
        if change > most:
            # All joints by the same share, so that the arm keeps its direction.
            share = most / change
            aim = [b + (a - b) * share for a, b in zip(aim, before, strict=True)]
            flags.append("speed")
        if measured is not None:
            lead = self._limits.lead_joint_rad
            for index, (a, b, here) in enumerate(zip(aim, before, measured.joints, strict=True)):
                if abs(a - here) > lead and abs(a - here) > abs(b - here):
                    aim[index] = b
                    if "lead" not in flags:
                        flags.append("lead")
            if any(not low <= x <= high for x, low, high in zip(measured.position, *self._box, strict=True)):
                flags.append("outside")
                return True
        out[part] = aim
        return False

    # -- holding and stopping -----------------------------------------------------------------------------------------

    def _holding(self) -> list[float]:
        """The command that keeps the robot where it is."""
        assert self._last is not None
        out = list(self._last)
        if self._spec.mode is ActionMode.EE_DELTA:
            for name in ("position", "rotation"):
                if name in self._spec.parts:
                    part = self._spec.part(name)
                    out[part] = [0.0] * len(out[part])
        return out

    def _standing(self, measured: _Measured) -> list[float]:
        """The command that the robot obeys already, as it stands."""
        out = [0.0] * self._spec.size
        values = {
            "position_m": clipped(measured.position, *self._box),
            "rotation_6d": list(measured.columns),
            "position_rad": list(measured.joints),
            "gripper": [measured.gripper],
        }
        for name, value in values.items():
            if name in self._spec.parts:
                part = self._spec.part(name)
                out[part] = clipped(value, self._low[part], self._high[part])
        return out

    def _verdict(self, hold: bool, flags: list[str], now_s: float) -> str | None:
        if not hold:
            self._held_since_s = None
            return None
        if self._held_since_s is None:
            self._held_since_s = now_s
        held_s = now_s - self._held_since_s
        return f"held for {held_s:.2f} s ({', '.join(flags)})" if held_s >= self._limits.stop_after_s else None
