"""Discovery: the frames of a dense demonstration at which its key poses are reached.

The heuristic is that of PerAct (Shridhar et al., CoRL 2022), after James and Davison ("Q-attention", RA-L 2022): a key
pose is where the gripper opens or closes, where all joints stand still while the gripper does nothing, and the last
frame; of two adjacent last ones the earlier is dropped. What is ours, since demonstrations here are slower sampled and
key poses are carried out as "go there, then move the fingers":

- *The frame of a gripper change* is the one at which the fingers have settled after the command, or the last at which
  the hand still stood there, if it left earlier: its pose is where the gripper acted, its command what it did there.
- *Standing still* is slow joints and a tool that has not moved since the frame before. A position-controlled arm slows
  down at the end of every control period, just when it is sampled, so its joint velocities alone look like a stop.
- *A standstill is one key pose*, however long, and a short stir in it that leads nowhere does not make it two.
- *Arriving and acting are one*: a standstill at the pose of a gripper change, before or after it, is part of it.
- *The end* does not swallow a gripper change that happened elsewhere, even if it is adjacent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, rotation_angle_rad
from sensors.spec import Json

UNCHANGED_BEFORE, UNCHANGED_AFTER = 2, 1  # frames around a stop in which the gripper is commanded nothing (PerAct)
_START, _STOP, _CHANGE, _END = range(4)


@dataclass(frozen=True)
class DiscoverySettings:
    """When a frame is a keyframe.

    Attributes:
        velocity_rad_s: below this every joint is slow (0.1 in PerAct).
        still_m_s: below this the tool stands, from one frame to the next.
        still_rad_s: below this it does not turn.
        refractory_s: a stir as short as this, from which the tool is back where it was, does not end a standstill
            (PerAct: 4 frames at 20 Hz).
        merge_m: poses nearer than this,
        merge_rad: and turned by less than this, are one key pose.
        moved_m: the fingers have reacted to a command once the opening differs by this.
        settled_m_s: and have settled when it changes more slowly than this.
        settle_s: fingers that have not reacted by then were there already.
        flicker_s: a command taken back within this time, before the fingers settled, is none.

    Raises:
        SpecError: a value that is not positive.
    """

    velocity_rad_s: float = 0.1
    still_m_s: float = 0.02
    still_rad_s: float = 0.1
    refractory_s: float = 0.2
    merge_m: float = 0.005
    merge_rad: float = 0.035
    moved_m: float = 0.002
    settled_m_s: float = 0.015
    settle_s: float = 1.0
    flicker_s: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise SpecError(f"DiscoverySettings, {field.name}", "a number > 0", repr(value), "Correct it.")

    def to_json(self) -> Json:
        """Plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Json) -> DiscoverySettings:
        """The inverse of :meth:`to_json`."""
        return DiscoverySettings(**{name: float(value) for name, value in data.items()})


@dataclass(frozen=True, eq=False)
class Trace:
    """What discovery looks at: one demonstration of T frames at a constant rate.

    Attributes:
        velocity_rad_s: float [T, J] of the arm's joints.
        base_from_tool: float [T, 4, 4].
        opening_m: float [T], measured distance between the fingers.
        command: float [T], what the gripper was told: -1 closed to 1 open.
        rate_hz: frames per second.

    Raises:
        DataError: fewer than two frames, lengths that differ, or numbers that are not finite.
    """

    velocity_rad_s: FloatArray
    base_from_tool: FloatArray
    opening_m: FloatArray
    command: FloatArray
    rate_hz: float

    def __post_init__(self) -> None:
        where, length = "a demonstration", len(self.command)
        if length < 2:
            raise DataError(where, "at least 2 frames", str(length), "Leave it out, or record it again.")
        shapes = [self.velocity_rad_s.shape[:1], self.base_from_tool.shape, self.opening_m.shape, self.command.shape]
        if shapes != [(length,), (length, 4, 4), (length,), (length,)] or self.velocity_rad_s.ndim != 2:
            expected = "velocity [T, J], base_from_tool [T, 4, 4], opening [T] and command [T]"
            raise DataError(where, expected, str([self.velocity_rad_s.shape, *shapes[1:]]), "Record it again.")
        for name in ("velocity_rad_s", "base_from_tool", "opening_m", "command"):
            if not np.isfinite(getattr(self, name)).all():
                raise DataError(where, f"a finite {name}", "NaN or infinity", "Leave it out, or record it again.")

    def __len__(self) -> int:
        """T."""
        return len(self.command)

    def frames(self, duration_s: float) -> int:
        """A duration in whole frames, at least one."""
        return max(round(duration_s * self.rate_hz), 1)


def discover(
    velocity_rad_s: ArrayLike,
    base_from_tool: ArrayLike,
    opening_m: ArrayLike,
    command: ArrayLike,
    rate_hz: float,
    settings: DiscoverySettings | None = None,
) -> NDArray[np.int64]:
    """Keyframes of one demonstration.

    Args:
        velocity_rad_s: [T, J] of the arm's joints.
        base_from_tool: [T, 4, 4].
        opening_m: [T], measured distance between the fingers.
        command: [T], what the gripper was told: -1 closed to 1 open.
        rate_hz: frames per second.
        settings: None = the defaults.

    Returns:
        int64 [K], rising; the last is T - 1. Frame 0 is never one: it is where the demonstration starts.

    Raises:
        DataError: fewer than two frames, lengths that differ, or numbers that are not finite.
    """
    velocity, poses = np.asarray(velocity_rad_s, np.float64), np.asarray(base_from_tool, np.float64)
    opening, told = np.asarray(opening_m, np.float64), np.asarray(command, np.float64)
    return discover_in(Trace(velocity, poses, opening, told, rate_hz), settings or DiscoverySettings())


def discover_in(trace: Trace, settings: DiscoverySettings) -> NDArray[np.int64]:
    """:func:`discover` for a checked trace."""
    opened = gripper_states(trace, settings)
    step_m, still = _motion(trace, settings)
    found = dict.fromkeys(_stops(trace, opened, still, settings), _STOP)
    found |= dict.fromkeys(_changes(trace, opened, step_m, still, settings), _CHANGE)
    return _merged(trace, {**found, len(trace) - 1: _END}, settings)


def gripper_states(trace: Trace, settings: DiscoverySettings) -> NDArray[np.bool_]:
    """bool [T], whether the gripper is to be open, without commands that were taken back before they took effect."""
    opened = trace.command > 0
    edges = _edges(opened)
    for begin, end in pairwise(edges):
        short = end - begin <= trace.frames(settings.flicker_s)
        if short and opened[begin] != opened[begin - 1] and _settled(trace, begin, end, settings) is None:
            opened[begin:end] = opened[begin - 1]
    return opened


def same_place(first: FloatArray, second: FloatArray, near_m: float, near_rad: float) -> bool:
    """Whether two poses [4, 4] differ by less than a distance and by less than an angle."""
    if np.linalg.norm(first[:3, 3] - second[:3, 3]) >= near_m:
        return False
    return float(rotation_angle_rad(first[:3, :3], second[:3, :3])) < near_rad


def _edges(opened: NDArray[np.bool_]) -> list[int]:
    """The frames at which the state is another than before."""
    return [int(t) for t in np.flatnonzero(opened[1:] != opened[:-1]) + 1]


def _motion(trace: Trace, settings: DiscoverySettings) -> tuple[FloatArray, NDArray[np.bool_]]:
    """How far the tool came since the frame before, metres [T], and where the robot stands still [T]."""
    poses = trace.base_from_tool
    step_m, step_rad = np.zeros(len(trace)), np.zeros(len(trace))
    step_m[1:] = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1)
    step_rad[1:] = rotation_angle_rad(poses[:-1, :3, :3], poses[1:, :3, :3])
    slow = (np.abs(trace.velocity_rad_s) < settings.velocity_rad_s).all(-1)
    stands = (step_m * trace.rate_hz < settings.still_m_s) & (step_rad * trace.rate_hz < settings.still_rad_s)
    return step_m, slow & stands


def _stops(trace: Trace, opened: NDArray[np.bool_], still: NDArray[np.bool_], settings: DiscoverySettings) -> list[int]:
    """The first frame of every standstill but the one at the start, with the gripper unchanged around it."""
    found, last, waiting = [], -1, False
    for t in np.flatnonzero(still[:-1]).tolist():
        again = last >= 0 and t - last <= trace.frames(settings.refractory_s)
        if t - last > 1 and not (again and _merge(trace, last, t, settings)):
            waiting = True
        window = opened[max(t - UNCHANGED_BEFORE, 0) : t + UNCHANGED_AFTER + 1]
        if waiting and (window == opened[t]).all():
            found.append(t)
            waiting = False
        last = t
    return found


def _changes(
    trace: Trace,
    opened: NDArray[np.bool_],
    step_m: FloatArray,
    still: NDArray[np.bool_],
    settings: DiscoverySettings,
) -> list[int]:
    """One frame for every change of the gripper."""
    edges = _edges(opened)
    found = []
    for begin, end in pairwise([*edges, len(trace)]):
        settled = _settled(trace, begin, end, settings)
        last = min(begin + trace.frames(settings.settle_s), end - 1) if settled is None else settled
        standing = (begin + np.flatnonzero(still[begin : last + 1])).tolist()
        if standing:
            found.append(max(t for t in standing if _merge(trace, standing[0], t, settings)))
        else:  # a hand that acts in passing: where it was slowest
            found.append(begin + int(np.argmin(step_m[begin : last + 1])))
    return found


def _settled(trace: Trace, begin: int, end: int, settings: DiscoverySettings) -> int | None:
    """The first frame before ``end`` at which the fingers, told something new at ``begin``, have moved and rest."""
    opening_m = trace.opening_m
    for t in range(begin + 1, end):
        ahead_m = opening_m[min(t + 1, len(trace) - 1)] - opening_m[t]
        moved = abs(opening_m[t] - opening_m[begin]) > settings.moved_m
        if moved and abs(ahead_m) * trace.rate_hz < settings.settled_m_s:
            return t
    return None


def _merge(trace: Trace, first: int, second: int, settings: DiscoverySettings) -> bool:
    return same_place(trace.base_from_tool[first], trace.base_from_tool[second], settings.merge_m, settings.merge_rad)


def _merged(trace: Trace, found: dict[int, int], settings: DiscoverySettings) -> NDArray[np.int64]:
    """The candidates (frame -> kind) without those that are part of a neighbour."""
    kept, kinds = [0], [_START]
    for t in sorted(found):
        kind, near = found[t], _merge(trace, kept[-1], t, settings)
        if kind == _STOP and near:
            continue
        before = kinds[-1]
        arrival = kind == _CHANGE and before == _STOP and near
        ending = kind == _END and ((before == _STOP and (near or t - kept[-1] == 1)) or (before == _CHANGE and near))
        if arrival or ending:
            kept.pop()
            kinds.pop()
        kept.append(t)
        kinds.append(kind)
    return np.array(kept[1:], np.int64)
