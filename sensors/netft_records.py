"""The records that an ATI Net F/T box streams ("RDT"): in order, only once, with sound values; averaged where asked.

ATI Network F/T Sensor System Manual 9620-05-NET FT, chapter 9, and its table of status codes.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from dataclasses import dataclass
from typing import final

import numpy as np

from sensors.geometry import FloatArray
from sensors.packets import JumpGuard

RECORD = struct.Struct(">IIIiiiiii")  # rdt_sequence, ft_sequence, status, Fx Fy Fz Tx Ty Tz
TURNOVER = 1 << 32
THRESHOLD, ANY_ERROR = 1 << 16, 1 << 31  # of the status: a threshold that the user set was passed; one of the errors is


@dataclass(frozen=True, eq=False)
class Load:
    """What acts on the sensor.

    Attributes:
        stamp_s: the sensor's clock: its count of measurements over their rate.
        load: [6] force N and torque Nm; NaN = no sound record.
        arrived_s: host clock when it came in.
    """

    stamp_s: float
    load: FloatArray
    arrived_s: float


@final
class RecordDecoder:
    """Packets to loads. Whatever comes in, nothing raises.

    Counts: ``malformed`` packets, ``lost`` (gaps of rdt_sequence), ``duplicate`` records, ``out_of_order`` ones (not
    used unless ten in a row agree), ``wild`` ones (a sequence far off; not used unless three in a row agree),
    ``status_errors`` and ``out_of_range``.

    Args:
        per_count: [6] newton and newton metre of one count.
        limits: [6] greater loads cannot be.
        internal_hz: how fast ft_sequence counts.
        average: records of one load, which is stamped in their middle.
    """

    def __init__(self, per_count: FloatArray, limits: FloatArray, internal_hz: float, average: int) -> None:
        self._per_count = per_count
        self._limits = limits
        self._internal_hz = internal_hz
        self._average = average
        self._counts = Counter(
            malformed=0, lost=0, duplicate=0, out_of_order=0, wild=0, status_errors=0, out_of_range=0
        )
        self._last_status = 0
        self._guard = JumpGuard(reach=round(internal_hz))
        self._behind = JumpGuard(reach=round(internal_hz), agree=10)  # what is only late comes one by one
        self._rdt: int | None = None
        self._ft = 0  # unwrapped
        self._group: list[tuple[int, FloatArray | None]] = []  # counter, force and torque
        self._ready: deque[Load] = deque()

    @property
    def counts(self) -> dict[str, int]:
        """See the class."""
        return dict(self._counts)

    @property
    def last_status(self) -> int:
        """Of the newest record, bit by bit as in the manual; 0 = all is well."""
        return self._last_status

    def take(self) -> Load | None:
        """The oldest load that was not taken yet."""
        return self._ready.popleft() if self._ready else None

    def feed(self, payload: bytes, arrived_s: float) -> bool:
        """Take a packet of one or more records; whether one of them is of use."""
        if not payload or len(payload) % RECORD.size:
            self._counts["malformed"] += 1
            return False
        used = False
        for rdt, ft, status, *counts in RECORD.iter_unpack(payload):
            if self._in_sequence(rdt, ft):
                used = True
                self._add(status, counts, arrived_s)
        return used

    def _in_sequence(self, rdt: int, ft: int) -> bool:
        if self._rdt is None:
            self._rdt, self._ft = rdt, ft
            return True
        step = (rdt - self._rdt + TURNOVER // 2) % TURNOVER - TURNOVER // 2
        ft_step = (ft - self._ft + TURNOVER // 2) % TURNOVER - TURNOVER // 2
        reach = round(self._internal_hz)  # a second
        # There is no record without a new measurement; half of it leaves room for what a box may do otherwise.
        if 0 < step <= reach and step / 2 <= ft_step <= reach:
            self._counts["lost"] += step - 1
            self._ft += ft_step
        elif step == 0:
            self._counts["duplicate"] += 1
            return False
        else:
            behind = -reach <= step < 0
            self._counts["out_of_order" if behind else "wild"] += 1
            if not (self._behind if behind else self._guard).believes(rdt):
                return False
            self._ft = ft  # it was switched off and on, was silent for long, or what was believed before was wild
            self._group.clear()
        self._guard.settle()
        self._behind.settle()
        self._rdt = rdt
        return True

    def _add(self, status: int, counts: list[int], arrived_s: float) -> None:
        self._last_status = status
        errors = status & ~THRESHOLD
        if errors == ANY_ERROR and status & THRESHOLD:
            errors = 0
        load = np.array(counts, dtype=float) * self._per_count
        good = False
        if errors:
            self._counts["status_errors"] += 1
        elif (np.abs(load) > self._limits).any():
            self._counts["out_of_range"] += 1
        else:
            good = True
        self._group.append((self._ft, load if good else None))
        if len(self._group) < self._average:
            return
        loads_there = [one for _, one in self._group if one is not None]
        mean = np.add.reduce(loads_there) / len(loads_there) if loads_there else np.full(6, np.nan)
        stamp_s = sum(ft for ft, _ in self._group) / len(self._group) / self._internal_hz
        # The frame's stamp lies before its last record by so much, and so does the arrival that belongs to it.
        behind_s = self._group[-1][0] / self._internal_hz - stamp_s
        self._group.clear()
        self._ready.append(Load(stamp_s, mean, arrived_s - behind_s))
