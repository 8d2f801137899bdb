"""Timing of sensors, all in seconds: what is asked for, when frames can be seen, and what was measured."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from gymnasium import spaces

from sensors.errors import SpecError
from sensors.frames import Frame
from sensors.observation import MAX_AGE_S, Stream
from sensors.spec import Json, check_array, check_keys

EPSILON_S = 1e-6  # far below any sensor period, far above the rounding of sums of physics steps
FUTURE_S = 0.05  # a frame stamped further ahead of its own arrival than this was not captured when it says
LEAST_S, STEP = 1e-6, math.log(1.02)  # bins of Spread: the first one's end, and the logarithm of their growth


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
        interpolate: the sensor measures a state that changes steadily (joints, wrench, pose), so that an aligned rig
            may show it between two frames: vectors linear, poses along the shortest turn. Every field must be a float.
    """

    rate_hz: float
    delay_s: float = 0.0
    jitter_s: float = 0.0
    dropout: float = 0.0
    history: int = 1
    max_age_s: float = 1.0
    live: bool = False
    gaps: bool = True
    interpolate: bool = False

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


@dataclass(frozen=True)
class Quantiles:
    """Of ``count`` numbers in seconds: median, 99 % quantile and the greatest; 0 of none."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float


@final
class Spread:
    """Quantiles of many numbers >= 0, in seconds, in a fixed amount of memory.

    Counted in bins that grow by 2 %, so that a quantile is right to within 1 % (and 1 microsecond); the greatest number
    is exact.
    """

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}  # there are 1500 from a microsecond to the age of a frame that never came
        self._count = 0
        self._max_s = 0.0

    def add(self, value_s: float) -> None:
        """Count one number; less than 0 counts as 0."""
        place = math.ceil(math.log(value_s / LEAST_S) / STEP) if value_s > LEAST_S else 0
        self._bins[place] = self._bins.get(place, 0) + 1
        self._count += 1
        self._max_s = max(self._max_s, value_s)

    def quantiles(self) -> Quantiles:
        """What is known of them."""
        return Quantiles(self._count, self._quantile(0.5), self._quantile(0.99), self._max_s)

    def _quantile(self, share: float) -> float:
        rank, seen = math.ceil(share * self._count), 0
        for place in sorted(self._bins):
            seen += self._bins[place]
            if seen >= rank:
                return min(LEAST_S * math.exp(STEP * (place - 0.5)), self._max_s) if place else 0.0
        return 0.0


@dataclass(frozen=True)
class TimingReport:
    """What a rig measured of its sensors' timing since its last reset.

    Attributes:
        latency_s: sensor -> from the capture of its frames (on the host's clock) until the rig could show them. Of a
            live sensor this is when it was read, at the first tick after the data arrived.
        skew_s: of each moment that was observed, how far apart the newest captures lie that were shown as valid; a
            state that was interpolated counts with the moment that it was interpolated at.
        dropped: sensor -> frames lost.
        corrupt: sensor -> frames masked.
        complete: moments observed at which every sensor that was not unplugged was valid.
        aligned: whether the rig aligned what it showed.
    """

    latency_s: Mapping[str, Quantiles]
    skew_s: Quantiles
    dropped: Mapping[str, int]
    corrupt: Mapping[str, int]
    complete: int
    aligned: bool

    def to_json(self) -> Json:
        """Plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Json) -> TimingReport:
        """The inverse of :meth:`to_json`.

        Raises:
            SpecError: the data were not written by :meth:`to_json`.
        """
        try:
            latency_s = {str(name): Quantiles(**part) for name, part in data["latency_s"].items()}
            dropped, corrupt = ({str(k): int(v) for k, v in data[key].items()} for key in ("dropped", "corrupt"))
            skew_s, complete, aligned = Quantiles(**data["skew_s"]), int(data["complete"]), bool(data["aligned"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            raise SpecError("TimingReport", "what to_json() gives", got, "Record it again.") from None
        return TimingReport(latency_s, skew_s, dropped, corrupt, complete, aligned)

    def __str__(self) -> str:
        rows = [f"{'':16s} {'count':>8s} {'p50 ms':>9s} {'p99 ms':>9s} {'max ms':>9s}"]
        named = {**{f"latency {name}": part for name, part in self.latency_s.items()}, "skew": self.skew_s}
        rows += [
            f"{name:16s} {q.count:8d} {1e3 * q.p50_s:9.2f} {1e3 * q.p99_s:9.2f} {1e3 * q.max_s:9.2f}"
            for name, q in named.items()
        ]
        return "\n".join(rows)


@dataclass(frozen=True, eq=False)
class Instant:
    """One measurement: when it was captured, from when on it can be seen, and the frame; None = a gap."""

    stamp_s: float
    visible_s: float
    frame: Frame | None


def captured_at(instant: Instant) -> float:
    """The key by which instants are in order."""
    return instant.stamp_s


class Timeline:
    """The frames of one sensor, made visible after their delay; a dropped frame is a gap, never a copy.

    Args:
        name: the sensor's name, for errors.
        timing: rate, delay, dropout, history.
        space: the sensor's frame space.
        keep_s: how far back frames are kept besides the T newest, for a rig that looks back (sensors.alignment).

    Raises:
        SpecError: ``timing.interpolate``, and a field that cannot be.
    """

    def __init__(self, name: str, timing: Timing, space: spaces.Dict, keep_s: float = 0.0) -> None:
        self._name = name
        self._timing = timing
        self._boxes: dict[str, spaces.Box] = {k: v for k, v in space.spaces.items() if isinstance(v, spaces.Box)}
        if timing.interpolate:
            for field, part in self._boxes.items():
                if np.dtype(part.dtype).kind != "f":
                    raise SpecError(
                        f"sensor '{name}', timing.interpolate", "fields of floats only", f"'{field}': {part.dtype}",
                        "Set interpolate: false; pictures and counts have no values in between.",
                    )  # fmt: skip
        self._keep_s = keep_s
        self._instants: list[Instant] = []  # in the order of capture
        self._latency_s = 0.0  # how old the newest frame was when it was read; 0 in simulation
        self._rng = np.random.default_rng(0)
        self._next_due_s = 0.0
        self.corrupt = 0  # frames masked since reset because they held NaN or infinity, or were stamped in the future
        self.dropped = 0  # frames lost since reset
        self.latency = Spread()  # seconds from the capture of each frame until it could be seen, since reset

    @property
    def timing(self) -> Timing:
        """What was asked for."""
        return self._timing

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
        self.latency = Spread()

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
        # Otherwise one wild stamp would be the newest frame until its time has come. NaN is caught as well.
        believed = frame is None or frame.stamp_s <= now_s + FUTURE_S
        if frame is not None and believed:
            self._latency_s = max(now_s - frame.stamp_s, 0.0)
        # A gap takes the stamp that its frame would have had, so that it does not overtake the frames after it.
        stamp_s = now_s - self._latency_s if frame is None or not believed else frame.stamp_s
        # Both draws happen for every frame, so that one setting does not shift the noise of the other.
        lost, extra_s = self._rng.random() < timing.dropout, abs(self._rng.normal()) * timing.jitter_s
        visible_s = now_s if timing.live else stamp_s + timing.delay_s + extra_s
        if lost or frame is None:
            self.dropped += 1
            frame = None
        elif not (self._sound(frame) and believed):
            self.corrupt += 1
            frame = None
        else:
            self.latency.add(visible_s - stamp_s)
        instants = self._instants
        if not instants or instants[-1].stamp_s <= stamp_s:
            instants.append(Instant(stamp_s, visible_s, frame))
        else:
            insort(instants, Instant(stamp_s, visible_s, frame), key=captured_at)
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        instants, history = self._instants, self._timing.history
        old = len(instants)
        if self._keep_s:
            if instants[0].stamp_s >= now_s - 1.5 * self._keep_s:
                return  # forgotten a third at a time: looking through all of them costs more than keeping some
            old = bisect_left(instants, now_s - self._keep_s, key=captured_at)
        # What was captured before the T newest visible instants can never be among them again. Jitter may make a later
        # frame visible first, so this is not the same as keeping a fixed number.
        visible = [i for i, instant in enumerate(instants) if instant.visible_s <= now_s + EPSILON_S]
        if len(visible) > history:
            del instants[: min(visible[-history], old)]

    def seen(self, now_s: float) -> list[Instant]:
        """All instants that are visible at ``now_s`` and not forgotten, in the order of capture."""
        return [instant for instant in self._instants if instant.visible_s <= now_s + EPSILON_S]

    def stream(self, now_s: float) -> Stream:
        """The T instants captured last among those visible at ``now_s``, oldest first.

        Calling it again changes nothing. ``now_s`` is not before the last push.
        """
        return self.show(self.seen(now_s)[-self._timing.history :], now_s)

    def show(self, instants: Sequence[Instant | None], now_s: float) -> Stream:
        """The last T of these instants as a stream; None and what is missing at the beginning never came."""
        timing = self._timing
        steps = timing.history
        data: dict[str, Any] = {k: np.zeros((steps, *b.shape), b.dtype) for k, b in self._boxes.items()}
        age_s = np.full(steps, MAX_AGE_S, np.float32)
        valid = np.zeros(steps, bool)
        for row, instant in enumerate(instants, start=steps - len(instants)):
            if instant is None:
                continue
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
