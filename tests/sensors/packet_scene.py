"""True-format LiDAR packets of a scene that has a formula: what a decoder must give is known point by point.

Written from the makers' manuals with ``struct`` and loops, and on purpose nothing like the decoders: these start from
azimuths and tables, this starts from rays in the sensor's frame (x forward, y left, z up) and the moment of each shot.
"""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.clock import host_now_s
from sensors.geometry import FloatArray
from sensors.packets import UdpSource


@dataclass(frozen=True)
class Scene:
    """A floor, four walls and a ball, in the sensor's frame, metres."""

    wall_x_m: float = 7.0
    wall_y_m: float = 5.0
    floor_m: float = -1.2
    ball_m: tuple[float, float, float] = (3.0, 1.0, 0.2)
    ball_radius_m: float = 0.8

    def hits_m(self, origin_m: FloatArray, direction: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Metres along each ray [N, 3] (unit length) to the first surface, and to what is behind the ball."""
        behind = np.full(len(direction), np.inf)
        planes = ((0, self.wall_x_m), (0, -self.wall_x_m), (1, self.wall_y_m), (1, -self.wall_y_m), (2, self.floor_m))
        for axis, level in planes:
            with np.errstate(divide="ignore", invalid="ignore"):
                along = (level - origin_m[:, axis]) / direction[:, axis]
            behind = np.where(along > 1e-9, np.minimum(behind, along), behind)
        to_ball = np.asarray(self.ball_m) - origin_m
        nearest = (to_ball * direction).sum(1)
        under_root = self.ball_radius_m**2 - ((to_ball**2).sum(1) - nearest**2)
        ball = np.where((under_root > 0) & (nearest > 0), nearest - np.sqrt(np.maximum(under_root, 0)), np.inf)
        return np.minimum(behind, ball), behind

    def off_surface_m(self, xyz_m: NDArray[Any]) -> FloatArray:
        """How far each point [N, 3] is from the nearest surface."""
        x, y, z = np.asarray(xyz_m, dtype=float).T
        ball = np.abs(np.linalg.norm(np.asarray(xyz_m, dtype=float) - self.ball_m, axis=1) - self.ball_radius_m)
        walls = np.minimum(np.abs(self.wall_x_m - np.abs(x)), np.abs(self.wall_y_m - np.abs(y)))
        return np.asarray(np.minimum(np.minimum(walls, np.abs(z - self.floor_m)), ball))


@dataclass(frozen=True, eq=False)
class Told:
    """One packet, and the returns in it in the order of firing.

    Attributes:
        payload: its bytes.
        time_s: of its first shot, device clock, unrounded.
        xyz_m: [n, 3] where each return really was, sensor frame.
        times_s: [n] when it was fired, unrounded.
        intensity: [n].
    """

    payload: bytes
    time_s: float
    xyz_m: FloatArray
    times_s: FloatArray
    intensity: FloatArray


def truth(told: Sequence[Told]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """All returns of packets in a row: xyz_m, times_s, intensity."""
    parts = [(packet.xyz_m, packet.times_s, packet.intensity) for packet in told]
    xyz_m, times_s, intensity = (np.concatenate(part) for part in zip(*parts, strict=True))
    return xyz_m, times_s, intensity


# ----------------------------------------------------------------------------------------------------- Velodyne VLP-16
# VLP-16 User Manual 63-9243 Rev. E: chapter 6 (frame, timing), 9 (packets, laser table). Elevation, vertical offset:
VLP16_LASERS = (
    (-15, 11.2), (1, -0.7), (-13, 9.7), (3, -2.2), (-11, 8.1), (5, -3.7), (-9, 6.6), (7, -5.1),
    (-7, 5.1), (9, -6.6), (-5, 3.7), (11, -8.1), (-3, 2.2), (13, -9.7), (-1, 0.7), (15, -11.2),
)  # fmt: skip
STRONGEST, LAST, DUAL = 0x37, 0x38, 0x39


def vlp16_packets(
    scene: Scene,
    count: int,
    *,
    start_s: float = 100.0,
    azimuth_deg: float = 0.0,
    rpm: float = 600.0,
    mode: int = STRONGEST,
    product: int = 0x22,
) -> list[Told]:
    """Packets in a row; ``start_s`` counts from the top of an hour, ``azimuth_deg`` is that of the first shot.

    In dual mode the last return lies behind the ball and the strongest one is the ball.
    """
    blocks_in = 6 if mode == DUAL else 12
    told = []
    for number in range(count):
        begin_s = start_s + number * blocks_in * 2 * 55.296e-6
        shot = [(block, k) for block in range(blocks_in) for k in range(32)]
        time_s = np.array(
            [begin_s + block * 110.592e-6 + (k // 16) * 55.296e-6 + k % 16 * 2.304e-6 for block, k in shot]
        )
        tilt, up_mm = np.array([VLP16_LASERS[k % 16] for _, k in shot]).T
        tilt, turn = np.radians(tilt), np.radians(azimuth_deg + 6.0 * rpm * (time_s - start_s))
        # It turns clockwise seen from above: towards -y.
        ray = np.stack([np.cos(tilt) * np.cos(turn), -np.cos(tilt) * np.sin(turn), np.sin(tilt)], axis=1)
        origin = np.stack([0.0 * up_mm, 0.0 * up_mm, up_mm / 1000], axis=1)
        first_m, last_m = scene.hits_m(origin, ray)
        payload = b""
        kept: list[tuple[FloatArray, float, float]] = []
        for block in range(blocks_in):
            azimuth = (azimuth_deg + 6.0 * rpm * (begin_s + block * 110.592e-6 - start_s)) % 360.0
            head = b"\xff\xee" + struct.pack("<H", round(azimuth * 100) % 36000)
            strongest, last = head, head
            for k in range(32):
                n = 32 * block + k
                bright = 40 + 5 * (k % 16)
                two = last_m[n] > first_m[n]
                far = 10 if two else bright
                strongest += struct.pack("<HB", round(first_m[n] / 0.002), bright)
                last += struct.pack("<HB", round(last_m[n] / 0.002), far)
                if mode == LAST or (mode == DUAL and two):
                    kept.append((origin[n] + last_m[n] * ray[n], time_s[n], far / 255))
                if mode != LAST:
                    kept.append((origin[n] + first_m[n] * ray[n], time_s[n], bright / 255))
            payload += {STRONGEST: strongest, LAST: last, DUAL: last + strongest}[mode]
        payload += struct.pack("<IBB", round(begin_s * 1e6) % 3_600_000_000, mode, product)
        told.append(Told(payload, begin_s, *_columns(kept)))
    return told


def _columns(returns: list[tuple[FloatArray, float, float]]) -> tuple[FloatArray, FloatArray, FloatArray]:
    xyz_m, times_s, intensity = ([one[part] for one in returns] for part in range(3))
    return np.array(xyz_m).reshape(-1, 3), np.array(times_s), np.array(intensity)


# -------------------------------------------------------------------------------------------------------------- Ouster
# Firmware User Manual: packet layouts of "Lidar Data Format", geometry of "Coordinate Frames and XYZ Calculation".


@dataclass(frozen=True)
class OusterModel:
    """A small Ouster: like an OS1 of an early series, whose beams are staggered, but with fewer of them."""

    profile: str = "RNG19_RFL8_SIG16_NIR16"
    rows: int = 16
    columns: int = 512
    per_packet: int = 16
    window: tuple[int, int] = (0, 511)
    hz: float = 10.0
    serial: int = 122_201_000_817
    start: int = 5_431_292
    beam_out_mm: float = 15.806
    lidar_up_mm: float = 36.18

    def altitude_deg(self, row: int) -> float:
        """Of a beam, up."""
        return 20.0 - 40.0 * row / (self.rows - 1) + 0.01 * row

    def azimuth_deg(self, row: int) -> float:
        """Of a beam, beside the encoder."""
        return (4.23, 1.41, -1.41, -4.23)[row % 4] + 0.003 * row

    def metadata(self, **changes: Any) -> dict[str, Any]:
        """What the sensor answers to /api/v1/sensor/metadata, as far as it matters."""
        out, up = self.beam_out_mm, self.lidar_up_mm
        intrinsics = {
            "beam_altitude_angles": [self.altitude_deg(row) for row in range(self.rows)],
            "beam_azimuth_angles": [self.azimuth_deg(row) for row in range(self.rows)],
            "beam_to_lidar_transform": [1, 0, 0, out, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
            "lidar_origin_to_beam_origin_mm": out,
        }
        layout = {
            "columns_per_frame": self.columns,
            "columns_per_packet": self.per_packet,
            "pixels_per_column": self.rows,
            "pixel_shift_by_row": [round(self.azimuth_deg(row) * self.columns / 360) for row in range(self.rows)],
            "column_window": list(self.window),
            "udp_profile_lidar": self.profile,
            "udp_profile_imu": "LEGACY",
        }
        return {
            "sensor_info": {"prod_line": "OS-1-16", "prod_sn": str(self.serial), "initialization_id": self.start},
            "beam_intrinsics": intrinsics,
            "lidar_intrinsics": {"lidar_to_sensor_transform": [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, up, 0, 0, 0, 1]},
            "lidar_data_format": layout,
            "config_params": {"lidar_mode": f"{self.columns}x{self.hz:.0f}", "udp_port_lidar": 7502},
            **changes,
        }

    def packets(self, scene: Scene, frame: int, start_ns: int) -> list[Told]:
        """One turn. The last return lies behind the ball."""
        n, told = self.beam_out_mm / 1000, []
        first, last = self.window
        for begin in range(0, self.columns, self.per_packet):
            body, returns = b"", []
            for number in range(begin, begin + self.per_packet):
                sent = first <= number <= last if first <= last else not (last < number < first)
                time_ns = start_ns + round(number * 1e9 / (self.hz * self.columns))
                column, seen = self._column(scene, number, time_ns, n)
                frame_there = (
                    b"" if self.profile != "LEGACY" else struct.pack("<HI", frame, number * 90112 // self.columns)
                )
                if self.profile == "LEGACY":
                    body += struct.pack("<QH", time_ns, number) + frame_there + column
                    body += struct.pack("<I", 0xFFFFFFFF if sent else 0)
                else:
                    body += struct.pack("<QHH", time_ns, number, int(sent)) + column
                returns += seen if sent else []
            if self.profile != "LEGACY":
                head = struct.pack("<HH", 1, frame % 65536) + struct.pack("<Q", self.start)[:3]
                body = head + struct.pack("<Q", self.serial)[:5] + bytes(20) + body + bytes(32)
            told.append(Told(body, (start_ns + begin * 1e9 / (self.hz * self.columns)) * 1e-9, *_columns(returns)))
        return told

    def _column(
        self, scene: Scene, number: int, time_ns: int, n: float
    ) -> tuple[bytes, list[tuple[FloatArray, float, float]]]:
        encoder = 2 * math.pi * (1 - number / self.columns)
        turn = encoder - np.radians([self.azimuth_deg(row) for row in range(self.rows)])
        tilt = np.radians([self.altitude_deg(row) for row in range(self.rows)])
        # In the lidar's frame, then turned by half a turn and lifted into the sensor's.
        origin = np.array([-n * math.cos(encoder), -n * math.sin(encoder), self.lidar_up_mm / 1000])
        ray = np.stack([-np.cos(turn) * np.cos(tilt), -np.sin(turn) * np.cos(tilt), np.sin(tilt)], axis=1)
        near_m, far_m = scene.hits_m(np.broadcast_to(origin, ray.shape), ray)
        pixels, near, far = b"", [], []
        for row in range(self.rows):
            first_mm, last_mm = round(1000 * (near_m[row] + n)), round(1000 * (far_m[row] + n))
            bright = (30 + 10 * row) % 256
            two = last_mm > first_mm
            if self.profile == "RNG19_RFL8_SIG16_NIR16_DUAL":
                word = struct.pack("<I", first_mm | bright << 24) + struct.pack("<I", (last_mm | 9 << 24) if two else 0)
                pixels += word + struct.pack("<HHHH", 700, 600, 500, 0)
            elif self.profile == "RNG15_RFL8_NIR8":
                pixels += struct.pack("<HBB", round(1000 * (near_m[row] + n) / 8), bright, 77)
            elif self.profile == "LEGACY":
                pixels += struct.pack("<IBBHHH", first_mm | 0x5 << 28, bright, 0, 700, 500, 0)
            else:
                pixels += struct.pack("<IBBHHH", first_mm | 0x15 << 19, bright, 0, 700, 500, 0)
            near.append((origin + near_m[row] * ray[row], time_ns * 1e-9, bright / 255))
            if two and self.profile == "RNG19_RFL8_SIG16_NIR16_DUAL":
                far.append((origin + far_m[row] * ray[row], time_ns * 1e-9, 9 / 255))
        return pixels, near + far


# ------------------------------------------------------------------------------------------------- captures and senders


def udp_frame(payload: bytes, port: int, *, sender: str = "192.168.1.201", vlan: int | None = None) -> bytes:
    """An Ethernet frame around one UDP datagram."""
    datagram = struct.pack(">HHHH", 443, port, 8 + len(payload), 0) + payload
    return ethernet(ip_packet(datagram, sender=sender), vlan)


def ip_packet(body: bytes, *, sender: str = "192.168.1.201", number: int = 1, at: int = 0, more: bool = False) -> bytes:
    """An IPv4 packet, or the fragment of one that stands ``at`` (a multiple of 8)."""
    flags = (0x2000 if more else 0) | at // 8
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), number % 65536, flags, 64, 17, 0)
    return head + socket.inet_aton(sender) + socket.inet_aton("192.168.1.77") + body


def ip_fragments(payload: bytes, port: int, number: int, mtu: int = 1500) -> list[bytes]:
    """A datagram that is too long for a frame, as the IPv4 packets that carry it."""
    datagram = struct.pack(">HHHH", 443, port, 8 + len(payload), 0) + payload
    step = (mtu - 20) // 8 * 8
    cuts = range(0, len(datagram), step)
    return [ip_packet(datagram[at : at + step], number=number, at=at, more=at + step < len(datagram)) for at in cuts]


def ethernet(packet: bytes, vlan: int | None = None) -> bytes:
    """A frame around an IPv4 packet, padded to the least length as Ethernet does."""
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return (b"\x02\x00\x00\x00\x00\x01" + b"\x60\x76\x88\x00\x00\x01" + tag + b"\x08\x00" + packet).ljust(60, b"\0")


def pcap(frames: Iterable[tuple[float, bytes]], *, link: int = 1, order: str = "<", nano: bool = False) -> bytes:
    """A classic capture file of (seconds since 1970, frame)."""
    data = struct.pack(order + "IHHIIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    ticks = 10**9 if nano else 10**6
    for time_s, frame in frames:
        whole = round(time_s * ticks)
        data += struct.pack(order + "IIII", whole // ticks, whole % ticks, len(frame), len(frame)) + frame
    return data


def pcapng(
    frames: Iterable[tuple[float, bytes, int]], *, links: Sequence[int] = (1,), order: str = "<", offset_s: int = 0
) -> bytes:
    """A pcapng file of (seconds since 1970, frame, number of its interface), with nanosecond stamps.

    The stamps count from ``offset_s``, as the interfaces tell.
    """
    data = _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    for link in links:
        options = struct.pack(order + "HHB3x", 9, 1, 9) + struct.pack(order + "HHq", 14, 8, offset_s)
        options += struct.pack(order + "HH", 0, 0)
        data += _block(order, 1, struct.pack(order + "HHI", link, 0, 0) + options)
    for time_s, frame, interface in frames:
        stamp = round((time_s - offset_s) * 1e9)
        head = struct.pack(order + "IIIII", interface, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
        data += _block(order, 6, head + frame + bytes(-len(frame) % 4))
    return data


def _block(order: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


class Sender:
    """Sends packets to a port of this host once that is open, at the moments that they tell (or, busy, later).

    Args:
        source: whose port, opened by somebody else.
        told: the packets.
    """

    def __init__(self, source: UdpSource, told: Sequence[Told]) -> None:
        self.begun_s = math.nan  # host clock of the first packet's moment
        self.late_s: list[float] = []  # of each
        self._source = source
        self._told = told
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._source.port:
            time.sleep(0.001)
        self.begun_s = host_now_s()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in self._told:
                due_s = self.begun_s + packet.time_s - self._told[0].time_s
                time.sleep(max(due_s - host_now_s(), 0.0))
                self.late_s.append(host_now_s() - due_s)
                sender.sendto(packet.payload, ("127.0.0.1", self._source.port))
