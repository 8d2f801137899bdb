"""Kinds of faults, for :class:`sensors.faulty.Faulty`. All chance comes from the rig's seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
from gymnasium import spaces

from sensors.errors import SensorLost, SpecError, nearest
from sensors.faulty import Fault, Items, When
from sensors.frames import Frame
from sensors.geometry import axis_angle_to_matrix
from sensors.timeline import EPSILON_S


@final
class Drop(Fault):
    """Frames are lost. A polled sensor shows a gap, a live one nothing."""

    def __init__(self, when: When | None = None) -> None:
        self._when = when or When(probability=0.1)
        self._rng = np.random.default_rng(0)

    def check(self, space: spaces.Dict) -> None:
        """Fits every sensor."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng

    def process(self, since_s: float, items: Items) -> Items:
        """None in the place of lost frames."""
        lost = self._rng.random(len(items)) < self._when.probability
        active = self._when.covers(since_s)
        return [None if active and gone else item for item, gone in zip(items, lost, strict=True)]


@final
class Freeze(Fault):
    """The sensor goes on sending what it sent when the fault began.

    Args:
        when: its probability is that of the whole episode.
        fresh_stamps: the repeated frames carry new stamps, as of a camera whose driver hangs but whose bus does not:
            the case that no staleness bound can notice.
    """

    def __init__(self, when: When | None = None, fresh_stamps: bool = True) -> None:
        self._when = when or When()
        self._fresh_stamps = fresh_stamps
        self._acts = True
        self._last: Frame | None = None

    def check(self, space: spaces.Dict) -> None:
        """Fits every sensor."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._acts = bool(rng.random() < self._when.probability)
        self._last = None

    def process(self, since_s: float, items: Items) -> Items:
        """Copies of the frame before the fault."""
        if not (self._acts and self._when.covers(since_s)):
            self._last = next((item for item in reversed(items) if item is not None), self._last)
            return items
        out: Items = []
        for item in items:
            if self._last is None:
                self._last = item  # it froze on its first frame
            if item is None or self._last is None:
                out.append(None)
            else:
                out.append(replace(self._last, stamp_s=item.stamp_s) if self._fresh_stamps else self._last)
        return out


@final
class Delay(Fault):
    """Frames come late, still with the stamp of their capture.

    Args:
        seconds: how late.
        jitter_s: standard deviation of a further delay; its absolute value is added.
        when: which frames.
    """

    def __init__(self, seconds: float, jitter_s: float = 0.0, when: When | None = None) -> None:
        if seconds < 0 or jitter_s < 0:
            raise SpecError("Delay", "seconds and jitter_s >= 0", f"{seconds}, {jitter_s}", "Correct them.")
        self._seconds, self._jitter_s = seconds, jitter_s
        self._when = when or When()
        self._rng = np.random.default_rng(0)
        self._waiting: list[tuple[float, Frame | None]] = []

    def check(self, space: spaces.Dict) -> None:
        """Fits every sensor."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self._waiting = []

    def process(self, since_s: float, items: Items) -> Items:
        """Those whose time has come, in the order of that time."""
        for item in items:
            chosen, extra_s = self._rng.random() < self._when.probability, abs(self._rng.normal()) * self._jitter_s
            late = chosen and self._when.covers(since_s)
            self._waiting.append((since_s + (self._seconds + extra_s) * late, item))
        due = sorted((pair for pair in self._waiting if pair[0] <= since_s + EPSILON_S), key=lambda pair: pair[0])
        self._waiting = [pair for pair in self._waiting if pair[0] > since_s + EPSILON_S]
        return [item for _, item in due]


@final
class Reorder(Fault):
    """A frame comes after the one that was captured after it."""

    def __init__(self, when: When | None = None) -> None:
        self._when = when or When(probability=0.1)
        self._rng = np.random.default_rng(0)
        self._held: Frame | None = None

    def check(self, space: spaces.Dict) -> None:
        """Fits every sensor."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self._held = None

    def process(self, since_s: float, items: Items) -> Items:
        """All frames; some of them one place later."""
        out: Items = []
        for item in items:
            chosen = self._rng.random() < self._when.probability and self._when.covers(since_s)
            if self._held is not None:
                out += [item, self._held]
                self._held = None
            elif chosen and item is not None:
                self._held = item
            else:
                out.append(item)
        return out


@final
class Corrupt(Fault):
    """Numbers of a frame are garbage: NaN in floats, random values in integers.

    Args:
        share: part of each field's numbers.
        fields: which fields; none = all of pictures and measurements, but no pose and no intrinsics.
        when: which frames.
    """

    def __init__(self, share: float = 0.2, fields: Sequence[str] = (), when: When | None = None) -> None:
        if not 0 < share <= 1:
            raise SpecError("Corrupt.share", "a part in (0, 1]", str(share), "Correct it.")
        self._share = share
        self._fields = tuple(fields)
        self._when = when or When(probability=0.1)
        self._rng = np.random.default_rng(0)

    def check(self, space: spaces.Dict) -> None:
        """Every field must be one of the sensor's."""
        _check_fields("Corrupt.fields", self._fields, space)

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng

    def process(self, since_s: float, items: Items) -> Items:
        """The frames, some with garbage."""
        return [self._spoiled(item) if item is not None and self._chosen(since_s) else item for item in items]

    def _chosen(self, since_s: float) -> bool:
        return bool(self._rng.random() < self._when.probability) and self._when.covers(since_s)

    def _spoiled(self, frame: Frame) -> Frame:
        changes: dict[str, Any] = {}
        for name, value in frame.arrays().items():
            if name not in (self._fields or _measured(frame)):
                continue
            bad = self._rng.random(value.shape) < self._share
            if value.dtype.kind == "f":
                changes[name] = np.where(bad, np.nan, value).astype(value.dtype)
            else:
                limits = np.iinfo(value.dtype)
                garbage = self._rng.integers(limits.min, limits.max, value.shape, value.dtype, endpoint=True)
                changes[name] = np.where(bad, garbage, value)
        return replace(frame, **changes)


@final
class Noise(Fault):
    """Normal noise on chosen fields, on top of what the sensor has.

    Args:
        std: field -> standard deviation in the field's unit. Values stay within the bounds of the sensor's space, and
            the zeros of ``depth_m`` (no measurement) stay zeros.
        when: which frames.
    """

    def __init__(self, std: Mapping[str, float], when: When | None = None) -> None:
        self._std = dict(std)
        self._when = when or When()
        self._rng = np.random.default_rng(0)
        self._bounds: dict[str, spaces.Box] = {}

    def check(self, space: spaces.Dict) -> None:
        """Every field must be one of the sensor's."""
        _check_fields("Noise.std", self._std, space)
        self._bounds = {name: box for name in self._std if isinstance(box := space[name], spaces.Box)}

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng

    def process(self, since_s: float, items: Items) -> Items:
        """The frames with noise."""
        out: Items = []
        for item in items:
            chosen = self._rng.random() < self._when.probability and self._when.covers(since_s)
            out.append(item if item is None or not chosen else self._noisy(item))
        return out

    def _noisy(self, frame: Frame) -> Frame:
        changes: dict[str, Any] = {}
        for name, std in self._std.items():
            value, box = frame.arrays()[name], self._bounds[name]
            noisy = np.clip(value + std * self._rng.standard_normal(value.shape), box.low, box.high)
            noisy = np.rint(noisy) if value.dtype.kind in "iu" else noisy
            changes[name] = np.where((name == "depth_m") & (value == 0), value, noisy).astype(value.dtype)
        return replace(frame, **changes)


@final
class Disconnect(Fault):
    """The sensor is away for a while, as if its cable was pulled. The probability is that of the whole episode."""

    def __init__(self, when: When | None = None) -> None:
        self._when = when or When()
        self._acts = True

    def check(self, space: spaces.Dict) -> None:
        """Fits every sensor."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._acts = bool(rng.random() < self._when.probability)

    def process(self, since_s: float, items: Items) -> Items:
        """Nothing, loudly, while it is away."""
        if self._acts and self._when.covers(since_s):
            raise SensorLost("Disconnect", "the sensor", "an injected fault", "It comes back when the fault is over.")
        return items


@final
class Miscalibrate(Fault):
    """The sensor is believed to be elsewhere than it is, by the same error for a whole episode.

    Only the frames' ``base_from_...`` fields change, as with extrinsics that were measured badly or a mount that was
    pushed since; what is seen stays what is seen from the true place.

    Args:
        shift_m: length of the displacement, in a random direction.
        turn_deg: angle of the turn about a random axis.
    """

    def __init__(self, shift_m: float = 0.01, turn_deg: float = 2.0) -> None:
        if shift_m < 0 or turn_deg < 0:
            raise SpecError("Miscalibrate", "shift_m and turn_deg >= 0", f"{shift_m}, {turn_deg}", "Correct them.")
        self._shift_m, self._turn_rad = shift_m, np.deg2rad(turn_deg)
        self._error = np.eye(4)

    def check(self, space: spaces.Dict) -> None:
        """Fits sensors whose frames say where they are."""
        if not any(name.startswith("base_from_") for name in space.spaces):
            got = f"{sorted(space.spaces)}"
            raise SpecError("Miscalibrate", "a sensor with a base_from_... field", got, "Use it on a camera.")

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the error of this episode."""
        where, axis = (vector / np.linalg.norm(vector) for vector in rng.standard_normal((2, 3)))
        self._error[:3, :3] = axis_angle_to_matrix(axis * self._turn_rad)
        self._error[:3, 3] = where * self._shift_m

    def process(self, since_s: float, items: Items) -> Items:
        """The frames with wrong extrinsics."""
        return [item if item is None else self._moved(item) for item in items]

    def _moved(self, frame: Frame) -> Frame:
        poses = {name: value for name, value in frame.arrays().items() if name.startswith("base_from_")}
        changes: dict[str, Any] = {name: value @ self._error for name, value in poses.items()}
        return replace(frame, **changes)


def _check_fields(where: str, names: Iterable[str], space: spaces.Dict) -> None:
    for name in names:
        if name not in space.spaces:
            raise SpecError(where, f"fields of the sensor {sorted(space.spaces)}", f"'{name}'", nearest(name, space))


def _measured(frame: Frame) -> list[str]:
    """What is measured, and not known from elsewhere."""
    known = ("intrinsics_px", "size_m", "count", "offset_s")
    return [name for name in frame.arrays() if name not in known and not name.startswith("base_from_")]
