"""Ouster LiDAR (OS0, OS1, OS2, OSDome): its packets decoded from what the sensor says of itself, from UDP or a capture.

Frame: the sensor frame of the manual, x forward (away from the connector), y left, z up, origin in the middle of the
base. Packet formats and geometry: :mod:`sensors.ouster_format`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from pathlib import Path
from typing import Any, final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import SensorError, SpecError
from sensors.live import Captured, Device
from sensors.ouster_format import MM, OusterMetadata
from sensors.packets import JumpGuard, PacketSource
from sensors.sweep import LONGEST_SWEEP_S, Sweep, SweepDecoder, SweepReader, lidar_space
from sensors.web_page import http_get

MAX_RANGE_M = 530.0  # 19 bits of millimetres
LONGEST_NS = int(LONGEST_SWEEP_S * 1e9)


@final
class Ouster(Device):
    """An Ouster LiDAR. Gives one :class:`sensors.frames.LidarFrame` a turn, stamped by the sensor's clock.

    The intensity is the calibrated reflectivity. Points come in the order of their columns; ``pixel_shift_by_row`` of
    the metadata, which arranges them as a picture, is not needed for points.

    Args:
        source: where its packets come from: :class:`sensors.packets.UdpSource` on port 7502, or a capture.
        metadata: file with the sensor's JSON; None = ask the sensor.
        host: address of the sensor, to be asked; needed without a file.
        http_port: port of its web page.
        http_timeout_s: how long it may take to answer.
        capacity: N, points of a frame; at least rows times columns times returns.
        min_range_m: nearer returns are left out (the robot itself).
        silence_s: without packets for so long, the sensor is away.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        source: PacketSource,
        metadata: str | None = None,
        host: str | None = None,
        http_port: int = 80,
        http_timeout_s: float = 2.0,
        capacity: int = 65536,
        min_range_m: float = 0.0,
        silence_s: float = 1.0,
    ) -> None:
        if metadata is None and host is None:
            raise SpecError("Ouster", "metadata (a file) or host (the sensor)", "neither", "Give one of them.")
        if min_range_m < 0 or http_timeout_s <= 0:
            got = f"{min_range_m}, {http_timeout_s}"
            raise SpecError("Ouster", "min_range_m >= 0, http_timeout_s > 0", got, "Correct them.")
        self._reader = SweepReader(source, capacity, silence_s)
        self._metadata = metadata
        self._host = host
        self._http = (http_port, http_timeout_s)
        self._capacity = capacity
        self._min_range_m = min_range_m

    @property
    def space(self) -> spaces.Dict:
        """xyz_m, intensity, offset_s, count, base_from_lidar; see :class:`sensors.frames.LidarFrame`."""
        return lidar_space(self._capacity, MAX_RANGE_M)

    @property
    def counts(self) -> dict[str, int]:
        """See :class:`OusterDecoder`, the source, and ``overflowed`` points."""
        return self._reader.counts

    def open(self) -> None:
        """Read the metadata, listen, and wait for the first packet.

        Raises:
            SensorError: no or wrong metadata, a capacity too small, or no packet of this sensor comes.
        """
        metadata = self._read_metadata()
        points = metadata.columns * len(metadata.altitude_rad) * len(metadata.profile.ranges)
        if points > self._capacity:
            got = f"capacity {self._capacity}"
            raise SensorError("Ouster", f"room for the {points} points of a turn", got, f"Set capacity: {points}.")
        self._reader.open(
            OusterDecoder(metadata, self._min_range_m),
            "Check power and cable, and udp_dest and udp_port_lidar on the sensor's page; metadata from a file have "
            "to be of this sensor in its present mode; a firewall may also keep its packets away.",
        )

    def wait(self, timeout_s: float) -> Captured | None:
        return self._reader.wait(timeout_s)

    def close(self) -> None:
        self._reader.close()

    def _read_metadata(self) -> OusterMetadata:
        if self._metadata is not None:
            try:
                text = Path(self._metadata).read_bytes()
            except OSError as error:
                raise SensorError(
                    f"Ouster metadata '{self._metadata}'", "a file", str(error),
                    "Save it: curl http://<sensor>/api/v1/sensor/metadata -o metadata.json",
                ) from error  # fmt: skip
            return OusterMetadata.parse(text, f"Ouster metadata '{self._metadata}'", of_this_start=False)
        assert self._host is not None
        port, timeout_s = self._http
        text = http_get(self._host, port, "/api/v1/sensor/metadata", timeout_s)
        return OusterMetadata.parse(text, f"Ouster metadata of {self._host}", of_this_start=True)


@final
class OusterDecoder(SweepDecoder):
    """Packets to turns. A turn is given once all its columns are there, or when one of the next comes.

    Counts: ``malformed``, ``foreign_sensor`` (another serial number or start), ``duplicate`` and ``invalid`` columns,
    ``late`` packets (of a turn that was given; not used unless ten in a row agree), ``wild`` ones (a turn or time far
    off; not used unless three in a row agree), ``missing`` columns, ``partial`` turns (dropped: their beginning was not
    received).

    Args:
        metadata: of the sensor.
        min_range_m: nearer returns are left out.
    """

    def __init__(self, metadata: OusterMetadata, min_range_m: float) -> None:
        self._metadata = metadata
        self._min_range_m = min_range_m
        self._packet = metadata.profile.packet(metadata.columns_per_packet, len(metadata.altitude_rad))
        self._rays = metadata.rays()
        self._counts = Counter(
            malformed=0, foreign_sensor=0, duplicate=0, invalid=0, late=0, wild=0, missing=0, partial=0
        )
        self._refusal = ""
        self._finished: deque[Sweep] = deque()
        self._guard = JumpGuard(reach=1)
        self._behind = JumpGuard(reach=1, agree=10)  # what is only late comes one by one
        self._turn: _Turn | None = None
        self._given = (-1, 0)  # number and time of the last turn that was given

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
        read = self._checked(payload)
        if read is None:
            return False
        frame, columns = read
        valid = columns[(columns["status"] & 1).astype(bool)]
        self._counts["invalid"] += len(columns) - len(valid)
        if not len(valid):
            return True
        turn = self._turn_of(frame, int(valid["time_ns"][0]))
        if turn is None:
            return True
        self._counts["duplicate"] += turn.add(valid, arrived_s)
        if turn.complete:
            self._give(turn)
        return True

    def _checked(self, payload: bytes) -> tuple[int, NDArray[Any]] | None:
        """Number of the turn, and the columns; None = no packet of this sensor."""
        if len(payload) != self._packet.itemsize:
            self._counts["malformed"] += 1
            self._refusal = f"{len(payload)} bytes instead of {self._packet.itemsize}"
            return None
        packet = np.frombuffer(payload, self._packet)[0]
        columns = packet["columns"]
        valid = columns[(columns["status"] & 1).astype(bool)]
        frame = int(packet["frame"]) if self._metadata.profile.header else int(columns["frame"][0])
        if self._metadata.profile.header:
            for field, known in (("serial", self._metadata.serial), ("start", self._metadata.start)):
                told = int.from_bytes(packet[field].tobytes(), "little")
                if known is not None and told != known:
                    self._counts["foreign_sensor"] += 1
                    self._refusal = f"packets with {field} {told}, not {known}"
                    return None
            sound = packet["kind"] == 1
        else:
            sound = (valid["frame"] == frame).all()
        times = valid["time_ns"].astype(np.int64)
        sound = (
            sound
            and (valid["number"] < self._metadata.columns).all()
            and (np.diff(valid["number"].astype(np.int64)) > 0).all()
            and (np.diff(times) > 0).all()
            and (not len(times) or (times[0] >= 0 and times[-1] - times[0] < LONGEST_NS))
        )
        if not sound:
            self._counts["malformed"] += 1
            self._refusal = "a damaged packet"
            return None
        return frame, columns

    def _turn_of(self, frame: int, time_ns: int) -> _Turn | None:
        """The turn that a packet belongs to, begun if it is a new one; None = the packet is not to be used."""
        turn = self._turn
        newest, newest_ns = self._given if turn is None else (turn.frame, turn.time_ns)
        if newest < 0:
            return self._begin(frame, time_ns, first=True)
        step = (frame - newest + (1 << 15)) % (1 << 16) - (1 << 15)
        near = abs(time_ns - newest_ns) < LONGEST_NS
        if near and turn is not None and step == 0:
            self._guard.settle()
            self._behind.settle()
            return turn
        if near and 0 < step <= 3:
            self._guard.settle()
            self._behind.settle()
            if turn is not None:
                self._give(turn)
            return self._begin(frame, time_ns, first=False)
        late = near and -3 <= step <= 0
        self._counts["late" if late else "wild"] += 1
        if not (self._behind if late else self._guard).believes(frame):
            return None
        self._guard.settle()
        self._behind.settle()
        self._counts["partial"] += turn is not None
        return self._begin(frame, time_ns, first=True)

    def _begin(self, frame: int, time_ns: int, *, first: bool) -> _Turn:
        self._turn = _Turn(self._metadata, frame, time_ns, first)
        return self._turn

    def _give(self, turn: _Turn) -> None:
        self._turn, self._given = None, (turn.frame, turn.time_ns)
        missing = turn.missing
        if missing and turn.first:
            self._counts["partial"] += 1
            return
        self._counts["missing"] += missing
        numbers = np.flatnonzero(turn.seen)
        numbers = numbers[np.argsort(turn.times_ns[numbers], kind="stable")]
        range_m = turn.ranges[numbers].astype(np.float32) * np.float32(self._metadata.profile.unit_mm * MM)
        there = (range_m > 0) & (range_m >= self._min_range_m)
        direction, start = (part[numbers][:, None] for part in self._rays)  # [n, 1, H, 3] against [n, R, H]
        xyz_m = (start + range_m[..., None] * direction)[there]
        times_ns = np.broadcast_to(turn.times_ns[numbers][:, None, None], there.shape)[there]
        self._finished.append(
            Sweep(
                xyz_m=xyz_m,
                intensity=turn.reflectivities[numbers][there].astype(np.float32) / np.float32(255.0),
                time_s=times_ns * 1e-9,
                start_s=float(turn.times_ns[numbers[0]] * 1e-9),
                ahead_s=turn.ahead_s,
            )
        )


class _Turn:
    """The turn that is being put together: ``ranges`` and ``reflectivities`` [W, R, H], ``times_ns`` [W]."""

    def __init__(self, metadata: OusterMetadata, frame: int, time_ns: int, first: bool) -> None:
        self.frame = frame
        self.time_ns = time_ns
        self.first = first  # since the decoder began, so it may lack its beginning for a good reason
        self.ahead_s = math.inf
        returns = len(metadata.profile.ranges)
        self.seen = np.zeros(metadata.columns, bool)
        self.times_ns = np.zeros(metadata.columns, np.int64)
        self.ranges = np.zeros((metadata.columns, returns, len(metadata.altitude_rad)), np.uint32)
        self.reflectivities = np.zeros(self.ranges.shape, np.uint8)
        self._window = metadata.window
        self._mask = (1 << metadata.profile.bits) - 1
        self._left = int(metadata.window.sum())

    @property
    def complete(self) -> bool:
        return self._left == 0

    @property
    def missing(self) -> int:
        return self._left

    def add(self, columns: NDArray[Any], arrived_s: float) -> int:
        """Take the columns that were not there yet; how many were."""
        fresh = columns[~self.seen[columns["number"]]]
        numbers = fresh["number"]
        self.seen[numbers] = True
        self.times_ns[numbers] = fresh["time_ns"]
        for number in range(self.ranges.shape[1]):
            self.ranges[numbers, number] = fresh["pixels"][f"range{number}"] & self._mask
            self.reflectivities[numbers, number] = fresh["pixels"][f"reflectivity{number}"]
        self._left -= int(self._window[numbers].sum())
        self.ahead_s = min(self.ahead_s, arrived_s - float(columns["time_ns"][-1]) * 1e-9)
        return len(columns) - len(fresh)
