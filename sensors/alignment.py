"""Alignment: showing what all sensors of a rig saw at one moment of capture.

Sensors have rates, phases and latencies of their own. Showing of each what came last pairs the joints of now with a
picture of a tenth of a second ago. With an alignment, a rig looks back for a *reference*, a moment of capture at which
a good bundle exists, and shows every sensor at it:

- The reference is the capture time of a frame that cannot be interpolated (a picture, a sweep), at most ``window_s``
  old. That of which the most sensors have something is taken; among these, the one with the least skew plus
  ``eagerness`` times its age: a slightly older bundle is preferred to a much worse one, and of equal ones the newest.
- Of a sensor with pictures, the frame captured nearest to the reference is shown (with ``before``: the last one until
  then), if it lies within ``tolerance_s``. If that frame was lost, an older reference at which no sensor lacks one is
  found by the same rule; if there is none in the window, the sensor is masked.
- A sensor whose ``Timing.interpolate`` is set is shown *at* the reference, between the two frames around it, if these
  are no further apart than ``max_gap_s`` or two and a half periods; lost frames in between do no harm. It is never
  extrapolated: where no frame follows, it is treated like a picture.
- History: pictures show the T - 1 frames before the one that was chosen, states the moments k / rate_hz before the
  reference.

Nothing is made younger than it is. ``age_s`` is now minus the capture of what is shown; of an interpolated state, now
minus the reference. A frame older than its sensor's ``max_age_s`` is ``valid=False``, as without alignment; a masked
sensor still tells the age of the frame that was nearest. If no sensor has anything within the window, the newest
capture of all is the reference, so that a slow sensor is not hidden.

A sensor whose latency plus period exceeds the window is hidden whenever others are seen; choose the window as the
greatest latency plus two periods (one frame may be lost) of the slowest sensor. Two free-running cameras lie up to half
a period of the faster one apart, whatever is chosen; a tolerance below that masks one of them now and then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.errors import SpecError
from sensors.frames import Frame
from sensors.geometry import interpolate_pose
from sensors.observation import Stream
from sensors.timeline import EPSILON_S, Instant, Timeline, Timing, captured_at

GAP_PERIODS = 2.5  # between frames around one that was lost


@dataclass(frozen=True)
class Alignment:
    """How a rig aligns what it shows (the rule: :mod:`sensors.alignment`).

    Attributes:
        window_s: greatest age of the reference.
        tolerance_s: greatest difference between a frame's capture and the reference.
        max_gap_s: greatest difference between two frames that are interpolated.
        eagerness: seconds of skew that one second of age is worth; 0 = the least skew, whatever its age.
        before: show no picture that was captured after the reference.
    """

    window_s: float = 0.25
    tolerance_s: float = 0.02
    max_gap_s: float = 0.05
    eagerness: float = 0.1
    before: bool = False

    def __post_init__(self) -> None:
        legal = {
            "window_s": 0 < self.window_s < np.inf,
            "tolerance_s": 0 <= self.tolerance_s < np.inf,
            "max_gap_s": 0 <= self.max_gap_s < np.inf,
            "eagerness": 0 <= self.eagerness < np.inf,
        }
        for name, good in legal.items():
            if not good:
                raise SpecError(f"Alignment.{name}", "a legal value", repr(getattr(self, name)), "Correct it.")


def keep_s(alignment: Alignment | None, timing: Timing) -> float:
    """How far back a sensor's frames may be asked for; 0 without alignment."""
    if alignment is None:
        return 0.0
    history_s = timing.history / timing.rate_hz if timing.interpolate else 0.0
    return alignment.window_s + alignment.tolerance_s + max_gap_s(alignment, timing) + history_s


def max_gap_s(alignment: Alignment, timing: Timing) -> float:
    """Greatest difference between two frames of a sensor that are interpolated."""
    return max(alignment.max_gap_s, GAP_PERIODS / timing.rate_hz)


def align(timelines: Mapping[str, Timeline], alignment: Alignment, now_s: float) -> dict[str, Stream]:
    """What every sensor shows at the best reference that is visible at ``now_s``. Changes nothing."""
    tracks = {name: _Track(timeline, alignment, now_s) for name, timeline in timelines.items()}
    reference_s = _choose(tracks.values(), alignment, now_s)
    if reference_s is None:
        return {name: timeline.stream(now_s) for name, timeline in timelines.items()}
    return {name: timelines[name].show(track.rows(reference_s), now_s) for name, track in tracks.items()}


def between(first: Frame, second: Frame, stamp_s: float) -> Frame:
    """The frame at a moment between two frames of one sensor.

    Poses ``a_from_b`` [4, 4] go along the shortest turn, quaternions [..., 4] (``quaternion`` in their name) by
    spherical interpolation (Shoemake, 1985), everything else linearly.
    """
    share = (stamp_s - first.stamp_s) / (second.stamp_s - first.stamp_s)
    changes: dict[str, Any] = {}
    for field in fields(first):
        if field.name == "stamp_s":
            continue
        start, end = np.asarray(getattr(first, field.name)), np.asarray(getattr(second, field.name))
        if "_from_" in field.name and start.shape == (4, 4):
            value = interpolate_pose(start, end, share)
        elif "quaternion" in field.name and start.shape[-1:] == (4,):
            value = _slerp(start, end, share)
        else:
            value = start + share * (end.astype(float) - start)
        changes[field.name] = value.astype(start.dtype, copy=False)
    return replace(first, stamp_s=stamp_s, **changes)


def _slerp(start: NDArray[Any], end: NDArray[Any], share: float) -> NDArray[Any]:
    dot = (start * end).sum(-1, keepdims=True)
    end = np.where(dot < 0, -end, end)  # q and -q are one rotation; the shorter way
    angle = np.arccos(np.clip(np.abs(dot), 0.0, 1.0))
    # sin(s a) / sin(a), which is s where a is 0.
    first, second = (s * np.sinc(s * angle / np.pi) / np.sinc(angle / np.pi) for s in (1 - share, share))
    mixed = first * start + second * end
    unit: NDArray[Any] = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    return unit


def _choose(tracks: Iterable[_Track], alignment: Alignment, now_s: float) -> float | None:
    """The reference; None = nothing can be seen."""
    present = [track for track in tracks if track.stamps_s]
    if not present:
        return None
    start_s = now_s - alignment.window_s
    found = {s for track in present if not track.interpolate for s in track.stamps_s if s >= start_s}
    # Without pictures: the newest of each state. Without anything in the window: the newest of all.
    found = found or {track.stamps_s[-1] for track in present if track.stamps_s[-1] >= start_s}
    found = found or {max(track.stamps_s[-1] for track in present)}
    best, best_missing, best_cost = None, len(present), np.inf
    for reference_s in sorted(found, reverse=True):
        age_cost = alignment.eagerness * (now_s - reference_s)
        if best is not None and not best_missing and age_cost >= best_cost:
            break  # the rest is older still
        shown = [track.shown_s(reference_s) for track in present]
        seen = [stamp_s for stamp_s in shown if stamp_s is not None]
        missing = len(shown) - len(seen)
        cost = max(seen, default=reference_s) - min(seen, default=reference_s) + age_cost
        if (missing, cost) < (best_missing, best_cost):
            best, best_missing, best_cost = reference_s, missing, cost
    return best


class _Track:
    """One sensor's visible instants, to be looked up by moment."""

    def __init__(self, timeline: Timeline, alignment: Alignment, now_s: float) -> None:
        self.interpolate = timeline.timing.interpolate
        self._period_s = 1 / timeline.timing.rate_hz
        self._history = timeline.timing.history
        self._alignment = alignment
        self._max_gap_s = max_gap_s(alignment, timeline.timing)
        self._seen = timeline.seen(now_s)
        oldest_s = now_s - timeline.timing.max_age_s - EPSILON_S
        self._sound = [i for i in self._seen if i.frame is not None and i.stamp_s >= oldest_s]
        self.stamps_s = [instant.stamp_s for instant in self._sound]

    def shown_s(self, moment_s: float) -> float | None:
        """The capture time of what would be shown at a moment; None = nothing."""
        place, later = self._find(moment_s)
        return None if place is None else moment_s if later else self.stamps_s[place]

    def rows(self, moment_s: float) -> list[Instant | None]:
        """What to show at a moment, with its history, oldest first."""
        newest = self._at(moment_s)
        if self.interpolate:
            earlier = [self._at(moment_s - k * self._period_s) for k in range(self._history - 1, 0, -1)]
            return [*earlier, newest or self._masked(moment_s)]
        before_s = moment_s if newest is None else newest.stamp_s
        place = bisect_left(self._seen, before_s, key=captured_at)
        first = max(place - self._history + 1, 0)
        return [*self._seen[first:place], newest or self._masked(moment_s)]

    def _at(self, moment_s: float) -> Instant | None:
        place, later = self._find(moment_s)
        if place is None:
            return None
        instant = self._sound[place]
        if not later:
            return instant
        first, second = instant.frame, self._sound[place + 1].frame
        assert first is not None, "sound instants have frames"
        assert second is not None, "sound instants have frames"
        return Instant(moment_s, instant.visible_s, between(first, second, moment_s))

    def _find(self, moment_s: float) -> tuple[int | None, bool]:
        """The sound instant to show, and whether it is to be interpolated with the next one."""
        stamps_s = self.stamps_s
        after = bisect_left(stamps_s, moment_s)
        if after < len(stamps_s) and stamps_s[after] - moment_s < 1e-9:
            return after, False
        bracketed = 0 < after < len(stamps_s)
        if self.interpolate and bracketed and stamps_s[after] - stamps_s[after - 1] <= self._max_gap_s:
            return after - 1, True
        near = [after - 1] if after else []
        if after < len(stamps_s) and not self._alignment.before:
            near.append(after)
        place = min(near, key=lambda i: abs(stamps_s[i] - moment_s), default=None)
        if place is None or abs(stamps_s[place] - moment_s) > self._alignment.tolerance_s:
            return None, False
        return place, False

    def _masked(self, moment_s: float) -> Instant | None:
        """A gap with the age of the instant nearest to a moment."""
        nearest = min(self._seen, key=lambda instant: abs(instant.stamp_s - moment_s), default=None)
        return None if nearest is None else Instant(nearest.stamp_s, nearest.visible_s, None)
