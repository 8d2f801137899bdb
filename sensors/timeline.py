"""Timing of one sensor: rate, delay, dropout and history, all in seconds. Reading changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sensors.errors import SpecError
from sensors.frames import Frame
from sensors.observation import MAX_AGE_S, Stream
from sensors.spec import check_array, check_keys

EPSILON_S = 1e-6  # far below any sensor period, far above the rounding of sums of physics steps


@dataclass(frozen=True)
class Timing:
    """When a sensor measures and when its frames can be seen.

    Attributes:
        rate_hz: measurements per second.
        delay_s: seconds from capture until the frame is visible.
        jitter_s: standard deviation of an extra delay; only its absolute value is added.
        dropout: probability that a frame never arrives.
        history: T, number of instants in an observation.
        max_age_s: a frame older than this is shown as ``valid=False``.
        live: frames come by themselves, at about ``rate_hz``, from a device or a recording. They are visible once they
            arrived, so delay, jitter and dropout are not drawn; and that nothing new came is no gap.
        gaps: whether a read that gives nothing is a gap, a frame that is lost. False = the frame may still come; what
            was seen last stays visible and grows old.
    """

    rate_hz: float
    delay_s: float = 0.0
    jitter_s: float = 0.0
    dropout: float = 0.0
    history: int = 1
    max_age_s: float = 1.0
    live: bool = False
    gaps: bool = True

    def __post_init__(self) -> None:
        legal = {
            "rate_hz": self.rate_hz > 0,
            "delay_s": self.delay_s >= 0 and not (self.live and self.delay_s),
            "jitter_s": self.jitter_s >= 0 and not (self.live and self.jitter_s),
            "dropout": 0 <= self.dropout <= 1 and not (self.live and self.dropout),
            "history": self.history >= 1,
            "max_age_s": self.max_age_s > 0,
        }
        for name, good in legal.items():
            if not good:
                raise SpecError(
                    f"Timing.{name}",
                    "a legal value (see its docstring; live sensors have no drawn delay, jitter or dropout)",
                    repr(getattr(self, name)),
                    "Correct it.",
                )


@dataclass(frozen=True, eq=False)
class _Instant:
    """One measurement: when it was captured, from when on it can be seen, and the frame; None = a gap."""

    stamp_s: float
    visible_s: float
    frame: Frame | None


class Timeline:
    """The frames of one sensor, made visible after their delay; a dropped frame is a gap, never a copy.

    Args:
        name: the sensor's name, for errors.
        timing: rate, delay, dropout, history.
        space: the sensor's frame space.
    """

    def __init__(self, name: str, timing: Timing, space: spaces.Dict) -> None:
        self._name = name
        self._timing = timing
        self._boxes: dict[str, spaces.Box] = {k: v for k, v in space.spaces.items() if isinstance(v, spaces.Box)}
        self._instants: list[_Instant] = []  # in the order of capture
        self._latency_s = 0.0  # how old the newest frame was when it was read; 0 in simulation
        self._rng = np.random.default_rng(0)
        self._next_due_s = 0.0
        self.corrupt = 0  # frames masked since reset because they held NaN or infinity
        self.dropped = 0  # frames lost since reset

    @property
    def next_due_s(self) -> float:
        """When the sensor has to be read next; infinity for a live one, which nobody has to wait for."""
        return math.inf if self._timing.live else self._next_due_s

    def reset(self, now_s: float, rng: np.random.Generator) -> None:
        """Forget everything; the first measurement is due at ``now_s``."""
        self._instants.clear()
        self._latency_s = 0.0
        self._rng = rng
        self._next_due_s = now_s
        self.corrupt = 0
        self.dropped = 0

    def asked(self, now_s: float) -> None:
        """Note that the sensor was read, so that it is due again a period later."""
        while self._next_due_s <= now_s + EPSILON_S:
            self._next_due_s += 1.0 / self._timing.rate_hz

    def push(self, now_s: float, frame: Frame | None) -> None:
        """Take the frame that was read at ``now_s``; None = the sensor had nothing to give, which is a gap.

        Raises:
            SpecError: the frame's fields or shapes are not those of the space.
        """
        timing = self._timing
        self.asked(now_s)
        if frame is not None:
            self._latency_s = max(now_s - frame.stamp_s, 0.0)
        # A gap takes the stamp that its frame would have had, so that it does not overtake the frames after it.
        stamp_s = now_s - self._latency_s if frame is None else frame.stamp_s
        # Both draws happen for every frame, so that one setting does not shift the noise of the other.
        lost, extra_s = self._rng.random() < timing.dropout, abs(self._rng.normal()) * timing.jitter_s
        if lost or frame is None:
            self.dropped += 1
            frame = None
        elif not self._sound(frame):
            self.corrupt += 1
            frame = None
        visible_s = now_s if timing.live else stamp_s + timing.delay_s + extra_s
        self._instants.append(_Instant(stamp_s, visible_s, frame))
        self._instants.sort(key=lambda instant: instant.stamp_s)
        # What was captured before the T newest visible instants can never be among them again. Jitter may make a later
        # frame visible first, so this is not the same as keeping a fixed number.
        visible = [i for i, instant in enumerate(self._instants) if instant.visible_s <= now_s + EPSILON_S]
        if len(visible) > timing.history:
            del self._instants[: visible[-timing.history]]

    def stream(self, now_s: float) -> Stream:
        """The T instants captured last among those visible at ``now_s``, oldest first.

        Calling it again changes nothing. ``now_s`` is not before the last push.
        """
        timing = self._timing
        seen = [instant for instant in self._instants if instant.visible_s <= now_s + EPSILON_S][-timing.history :]
        steps = timing.history
        data: dict[str, Any] = {k: np.zeros((steps, *b.shape), b.dtype) for k, b in self._boxes.items()}
        age_s = np.full(steps, MAX_AGE_S, np.float32)
        valid = np.zeros(steps, bool)
        for row, instant in enumerate(seen, start=steps - len(seen)):
            age, frame = max(now_s - instant.stamp_s, 0.0), instant.frame
            age_s[row] = min(age, MAX_AGE_S)
            if frame is not None and age <= timing.max_age_s + EPSILON_S:
                valid[row] = True
                for field, value in frame.arrays().items():
                    data[field][row] = value
        return Stream(data, age_s, valid)

    def _sound(self, frame: Frame) -> bool:
        arrays = frame.arrays()
        check_keys(f"sensor '{self._name}'", arrays, self._boxes)
        for field, value in arrays.items():
            check_array(f"sensor '{self._name}', field '{field}'", value, self._boxes[field])
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                return False
        return True
