"""Velodyne LiDAR: VLP-16 (Puck), Puck Hi-Res, VLP-32C and HDL-32E, from UDP or a capture.

A packet becomes points in the library ``velodyne-decoder`` (BSD), which knows angles, offsets and firing order of each
model. What is done here is what a stream needs: packets in order and only once, the sensor's clock beyond the hour, and
turns that begin at one azimuth.

Frame: x forward (azimuth 0), y left, z up; origin in the optical centre. The sensor turns clockwise seen from above, so
a point at azimuth 90 degrees has y < 0. Packet format: VLP-16 User Manual, 63-9243 Rev. E, chapters 6 and 9.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter, deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import SensorError, SpecError, nearest
from sensors.geometry import FloatArray
from sensors.live import Captured, Device
from sensors.packets import JumpGuard, PacketSource
from sensors.sweep import LONGEST_SWEEP_S, Sweep, SweepDecoder, SweepReader, lidar_space

PACKET = np.dtype(
    [
        ("blocks", [("flag", "<u2"), ("azimuth", "<u2"), ("returns", "V96")], 12),
        ("stamp_us", "<u4"),
        ("mode", "u1"),
        ("product", "u1"),
    ]
)
FLAG = 0xEEFF
STRONGEST, LAST, DUAL = 0x37, 0x38, 0x39
HOUR_US = 3_600_000_000
LONGEST_GAP_US = 100_000  # a stamp farther ahead is wild, unless the next ones agree with it
DISORDER_US = 20_000  # how late a packet of the present turn may come; a network on a robot is short
STEEPEST = 500  # hundredths of a degree between blocks; 1200 rpm of a VLP-16 are 80
BACKLASH = 50  # hundredths of a degree that the motor may seem to turn backwards


@dataclass(frozen=True)
class _Model:
    """The number in its packets, and how long the shots of one block take."""

    product: int
    block_us: float


MODELS = {
    "VLP16": _Model(0x22, 110.592),
    "PuckHiRes": _Model(0x24, 110.592),
    "VLP32C": _Model(0x28, 55.296),
    "HDL32E": _Model(0x21, 46.08),
}


@final
class Velodyne(Device):
    """A Velodyne LiDAR. Gives one :class:`sensors.frames.LidarFrame` a turn, stamped by the sensor's clock.

    Only whole turns are given. In dual return mode both returns of a shot are points, except where they are one.

    Args:
        source: where its packets come from: :class:`sensors.packets.UdpSource` on port 2368, or a capture.
        model: VLP16, PuckHiRes, VLP32C or HDL32E.
        cut_deg: azimuth at which a turn begins, degrees clockwise from forward, to within one block (0.4 degrees at
            10 turns a second). 180 = behind the sensor, so that what is in front of it is of one turn.
        capacity: N, points of a frame.
        min_range_m: nearer returns are left out (the robot itself).
        max_range_m: farther returns are left out.
        silence_s: without packets for so long, the sensor is away.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        source: PacketSource,
        model: str = "VLP16",
        cut_deg: float = 180.0,
        capacity: int = 32768,
        min_range_m: float = 0.0,
        max_range_m: float = 200.0,
        silence_s: float = 1.0,
    ) -> None:
        if model not in MODELS:
            raise SpecError("Velodyne.model", f"one of {sorted(MODELS)}", repr(model), nearest(model, MODELS))
        if not 0 <= min_range_m < max_range_m or not math.isfinite(cut_deg):
            got = f"{min_range_m}, {max_range_m}, {cut_deg}"
            raise SpecError("Velodyne", "0 <= min_range_m < max_range_m, a finite cut_deg", got, "Correct them.")
        self._reader = SweepReader(source, capacity, silence_s)
        self._model = model
        self._cut_deg = cut_deg
        self._capacity = capacity
        self._range_m = (min_range_m, max_range_m)

    @property
    def space(self) -> spaces.Dict:
        """xyz_m, intensity, offset_s, count, base_from_lidar; see :class:`sensors.frames.LidarFrame`."""
        return lidar_space(self._capacity, self._range_m[1])

    @property
    def counts(self) -> dict[str, int]:
        """See :class:`VelodyneDecoder`, the source, and ``overflowed`` points."""
        return self._reader.counts

    def open(self) -> None:
        """Listen, and wait for the first packet.

        Raises:
            SensorError: the library is missing, the port is taken, or no packet of this model comes.
        """
        decoder = VelodyneDecoder(self._model, self._cut_deg, *self._range_m)
        self._reader.open(
            decoder,
            "Check power and cable, and that it sends to this host and port (its web page); look for a firewall.",
        )

    def wait(self, timeout_s: float) -> Captured | None:
        return self._reader.wait(timeout_s)

    def close(self) -> None:
        self._reader.close()


@final
class VelodyneDecoder(SweepDecoder):
    """Packets to turns.

    Counts: ``malformed`` (no packet of this model; or its azimuth jumps, as at the edge of a limited field of view,
    where the library would turn points by degrees), ``duplicate``, ``out_of_order`` (older than the newest one, used),
    ``late`` (too old; not used unless ten in a row agree), ``wild`` (its clock is far off; not used unless three in a
    row agree), ``lost`` (packets missing by the clock, in gaps below 0.1 s), ``partial`` (turns dropped as they have no
    beginning, or no end).

    Args:
        model: a key of ``MODELS``.
        cut_deg: see :class:`Velodyne`.
        min_range_m: see there.
        max_range_m: see there.

    Raises:
        SensorError: ``velodyne-decoder`` is not installed.
    """

    def __init__(self, model: str, cut_deg: float, min_range_m: float, max_range_m: float) -> None:
        self._library = _library()
        self._packets = self._library.ScanDecoder(
            self._library.Config(
                model=self._library.Model[model],
                min_range=min_range_m,
                max_range=max_range_m,
                min_angle=0,
                max_angle=360,
            )
        )
        self._model = MODELS[model]
        self._name = model
        self._cut = round(cut_deg * 100) % 36000
        self._counts = Counter(malformed=0, duplicate=0, out_of_order=0, late=0, wild=0, lost=0, partial=0)
        self._refusal = ""
        self._finished: deque[Sweep] = deque()
        self._guard = JumpGuard(reach=100_000)
        self._behind = JumpGuard(reach=100_000, agree=10)  # what is only late comes one by one
        self._newest_us: int | None = None  # unwrapped: does not begin anew with the hour
        self._last_angle = 0  # from the cut, hundredths of a degree
        self._turn = _Turn(whole=False, start_us=0.0)

    @property
    def counts(self) -> dict[str, int]:
        """See the class."""
        return dict(self._counts)

    @property
    def refusal(self) -> str:
        return self._refusal

    def take(self) -> Sweep | None:
        return self._finished.popleft() if self._finished else None

    def feed(self, payload: bytes, arrived_s: float) -> bool:
        packet = self._checked(payload)
        if packet is None:
            self._counts["malformed"] += 1
            return False
        dual = int(packet["mode"]) == DUAL
        firings = 6 if dual else 12
        length_us = firings * self._model.block_us
        stamp_us = self._placed(int(packet["stamp_us"]), length_us)
        if stamp_us is None:
            return True
        points = self._points(payload, stamp_us)
        angles = (packet["blocks"]["azimuth"].astype(np.int64) - self._cut) % 36000
        angles = angles[::2] if dual else angles
        ahead_s = arrived_s - (stamp_us + length_us) * 1e-6
        if stamp_us < (self._newest_us or 0):
            self._counts["out_of_order"] += 1
            self._turn.add(stamp_us, points, ahead_s)
            return True
        begins = self._cut_at(angles, stamp_us)
        self._newest_us, self._last_angle = stamp_us, int(angles[-1])
        if begins is None:
            self._turn.add(stamp_us, points, ahead_s)
            if stamp_us - self._turn.start_us > LONGEST_SWEEP_S * 1e6:
                self._drop_turn()
            return True
        start_us = stamp_us + begins * self._model.block_us
        before = points.time_us < start_us - 0.01
        self._turn.add(stamp_us, points.where(before), ahead_s)
        self._end_turn(start_us)
        self._turn.add(stamp_us, points.where(~before), ahead_s)
        return True

    def _checked(self, payload: bytes) -> NDArray[Any] | None:
        """The packet's fields; None = it is none of this model."""
        if len(payload) != PACKET.itemsize:
            self._refusal = f"{len(payload)} bytes instead of {PACKET.itemsize}"
            return None
        packet = np.frombuffer(payload, PACKET)[0]
        if packet["product"] != self._model.product:
            known = {model.product: name for name, model in MODELS.items()}
            got = known.get(int(packet["product"]), "another product")
            self._refusal = f"packets of {got} (0x{packet['product']:02x}), not of a {self._name}"
            return None
        azimuths = packet["blocks"]["azimuth"].astype(np.int64)
        steps = (np.diff(azimuths) + BACKLASH) % 36000
        sound = (
            (packet["blocks"]["flag"] == FLAG).all()
            and (azimuths < 36000).all()
            and (steps < STEEPEST).all()
            and packet["mode"] in (STRONGEST, LAST, DUAL)
            and packet["stamp_us"] < HOUR_US
        )
        if not sound:
            self._refusal = "a damaged packet"
            return None
        return packet  # type: ignore[no-any-return]  # one record of the array

    def _placed(self, stamp_us: int, length_us: float) -> int | None:
        """The packet's time, unwrapped; None = it is not to be used."""
        if self._newest_us is None:
            self._newest_us = stamp_us
            self._turn = _Turn(whole=False, start_us=stamp_us)
            return stamp_us
        step_us = (stamp_us - self._newest_us + HOUR_US // 2) % HOUR_US - HOUR_US // 2
        whole_us = self._newest_us + step_us
        if whole_us in self._turn.stamps:
            self._counts["duplicate"] += 1
            return None
        if -DISORDER_US < step_us < 0 and whole_us >= self._turn.start_us:
            self._counts["lost"] -= int(self._counts["lost"] > 0)  # it was counted when its successor came
            return whole_us
        if 0 < step_us <= LONGEST_GAP_US:
            self._counts["lost"] += max(round(step_us / length_us) - 1, 0)
        else:
            late = -LONGEST_GAP_US < step_us < 0
            self._counts["late" if late else "wild"] += 1
            if not (self._behind if late else self._guard).believes(whole_us):
                return None
            self._drop_turn()  # its clock was set, it was silent for long, or what was believed before was wild
            self._newest_us = self._turn.start_us = whole_us
        self._guard.settle()
        self._behind.settle()
        return whole_us

    def _cut_at(self, angles: NDArray[np.int64], stamp_us: int) -> int | None:
        """Number of the firing that a new turn begins with; None = none does."""
        assert self._newest_us is not None
        backwards = np.diff(np.concatenate([[self._last_angle], angles])) < -18000
        if not self._turn.stamps:
            backwards[0] = False  # nothing came before
        elif stamp_us > self._newest_us:
            passed_s = (stamp_us - self._newest_us) * 1e-6
            per_s = ((angles[-1] - angles[0]) % 36000) / ((len(angles) - 1) * self._model.block_us * 1e-6)
            turned = passed_s * per_s
            if turned > 18000:  # packets are missing: the cut may lie among them
                backwards[0] = self._last_angle + turned >= 36000
        return int(np.argmax(backwards)) if backwards.any() else None

    def _points(self, payload: bytes, stamp_us: int) -> _Points:
        one = self._library.PacketVector()
        one.append(self._library.VelodynePacket(0.0, payload))
        _, table = self._packets.decode(one)
        # The library counts time from the packet's first shot if the packet is all there is.
        return _Points(table[:, :3], table[:, 3] / np.float32(255.0), stamp_us + table[:, 4].astype(float) * 1e6)

    def _end_turn(self, start_us: float) -> None:
        if self._turn.whole:
            self._finished.append(self._turn.sweep())
        else:
            self._counts["partial"] += 1
        self._turn = _Turn(whole=True, start_us=start_us)

    def _drop_turn(self) -> None:
        self._counts["partial"] += 1
        self._turn = _Turn(whole=False, start_us=self._newest_us or 0)


@dataclass(frozen=True, eq=False)
class _Points:
    xyz_m: NDArray[np.float32]
    intensity: NDArray[np.float32]
    time_us: FloatArray

    def where(self, chosen: NDArray[np.bool_]) -> _Points:
        return _Points(self.xyz_m[chosen], self.intensity[chosen], self.time_us[chosen])


class _Turn:
    """The turn that is being put together."""

    def __init__(self, whole: bool, start_us: float) -> None:
        self.whole = whole
        self.start_us = start_us
        self.stamps: set[int] = set()
        self._points: list[_Points] = []
        self._ahead_s = math.inf

    def add(self, stamp_us: int, points: _Points, ahead_s: float) -> None:
        self.stamps.add(stamp_us)
        self._points.append(points)
        self._ahead_s = min(self._ahead_s, ahead_s)

    def sweep(self) -> Sweep:
        time_us = np.concatenate([part.time_us for part in self._points])
        order = np.argsort(time_us, kind="stable")
        return Sweep(
            xyz_m=np.concatenate([part.xyz_m for part in self._points])[order],
            intensity=np.concatenate([part.intensity for part in self._points])[order],
            time_s=time_us[order] * 1e-6,
            start_s=self.start_us * 1e-6,
            ahead_s=self._ahead_s,
        )


def _library() -> ModuleType:
    try:
        return importlib.import_module("velodyne_decoder")  # ships no types
    except ImportError as error:
        raise SensorError(
            "Velodyne", "the package velodyne-decoder", str(error), 'Install it: pip install "perceive[lidar]"'
        ) from error
