"""What an Ouster LiDAR says of itself: the layout of its packets, and where its beams point.

Packet formats, metadata and the range-to-XYZ formula: Ouster Firmware User Manual 2.x/3.x, chapters "Lidar Data Format"
and "Coordinate Frames and XYZ Calculation".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.errors import SensorError
from sensors.geometry import FloatArray

MM = 1e-3


@dataclass(frozen=True)
class Profile:
    """How a packet is laid out.

    Attributes:
        header: bytes before the columns; 0 = none, and the frame's number stands in each column.
        footer: bytes after them.
        pixel: bytes of one row of a column.
        ranges: where the range of each return stands in it: byte, and byte of its reflectivity.
        bits: width of a range; wider than 16 = it stands in four bytes, else in two.
        unit_mm: what it counts.
    """

    header: int
    footer: int
    pixel: int
    ranges: tuple[tuple[int, int], ...]
    bits: int
    unit_mm: float

    def packet(self, columns: int, rows: int) -> np.dtype[Any]:
        """The whole packet as a dtype: ``columns`` of time_ns, number, (frame, status or status, status), pixels."""
        names, kinds, places = [], [], []
        for number, (distance, reflectivity) in enumerate(self.ranges):
            names += [f"range{number}", f"reflectivity{number}"]
            kinds += ["<u4" if self.bits > 16 else "<u2", "u1"]
            places += [distance, reflectivity]
        pixel = np.dtype({"names": names, "formats": kinds, "offsets": places, "itemsize": self.pixel})
        head: list[Any] = [("time_ns", "<u8"), ("number", "<u2")]
        if self.header:
            column = np.dtype([*head, ("status", "<u2"), ("pixels", pixel, rows)])
            start: list[Any] = [
                ("kind", "<u2"),
                ("frame", "<u2"),
                ("start", "u1", 3),
                ("serial", "u1", 5),
                ("_", f"V{self.header - 12}"),
            ]
        else:
            column = np.dtype([*head, ("frame", "<u2"), ("encoder", "<u4"), ("pixels", pixel, rows), ("status", "<u4")])
            start = []
        return np.dtype([*start, ("columns", column, columns), ("end", f"V{self.footer}")])


PROFILES = {
    "LEGACY": Profile(0, 0, 12, ((0, 4),), 20, 1.0),
    "RNG19_RFL8_SIG16_NIR16": Profile(32, 32, 12, ((0, 4),), 19, 1.0),
    "RNG19_RFL8_SIG16_NIR16_DUAL": Profile(32, 32, 16, ((0, 3), (4, 7)), 19, 1.0),
    "RNG15_RFL8_NIR8": Profile(32, 32, 4, ((0, 2),), 15, 8.0),
}


@dataclass(frozen=True, eq=False)
class OusterMetadata:
    """What is needed of the sensor's metadata.

    Attributes:
        profile: layout of its packets.
        columns: W, columns of a full turn.
        columns_per_packet: of one packet.
        window: bool [W], columns that are sent at all.
        altitude_rad: [H] of each beam, up.
        azimuth_rad: [H] of each beam beside the encoder's angle, clockwise seen from above.
        lidar_from_beam: [4, 4] metres, at encoder angle 0.
        sensor_from_lidar: [4, 4] metres.
        serial: serial number of the sensor; None = unknown.
        start: number of its last start; None = unknown or of no importance.
    """

    profile: Profile
    columns: int
    columns_per_packet: int
    window: NDArray[np.bool_]
    altitude_rad: FloatArray
    azimuth_rad: FloatArray
    lidar_from_beam: FloatArray
    sensor_from_lidar: FloatArray
    serial: int | None
    start: int | None

    @staticmethod
    def parse(text: bytes, where: str, *, of_this_start: bool) -> OusterMetadata:
        """Out of the sensor's JSON: that of /api/v1/sensor/metadata, or the flat one of older firmware.

        Args:
            text: the JSON.
            where: its origin, for messages.
            of_this_start: whether packets of another start of the sensor are to be refused, as its settings may differ.

        Raises:
            SensorError: a field is missing or wrong, or the packet format is none of ``PROFILES``.
        """
        try:
            found = _flat(json.loads(text))
            name = str(found.get("udp_profile_lidar", "LEGACY"))
            if name not in PROFILES:
                raise SensorError(
                    where, f"udp_profile_lidar one of {sorted(PROFILES)}", name, "Set it on the sensor's web page."
                )
            columns, rows = int(found["columns_per_frame"]), int(found["pixels_per_column"])
            per_packet = int(found["columns_per_packet"])
            altitude = np.radians(np.asarray(found["beam_altitude_angles"], dtype=float))
            azimuth = np.radians(np.asarray(found["beam_azimuth_angles"], dtype=float))
            shifted = np.eye(4)
            shifted[0, 3] = float(found.get("lidar_origin_to_beam_origin_mm", 0.0))
            beam = _transform(found.get("beam_to_lidar_transform", shifted))
            lidar = _transform(found["lidar_to_sensor_transform"])
            first, last = (int(edge) for edge in found.get("column_window", (0, columns - 1)))
            serial, start = found.get("prod_sn"), found.get("initialization_id")
            if not (altitude.shape == azimuth.shape == (rows,) and columns > 0 and 0 < per_packet <= columns):
                raise ValueError(f"{rows} rows, {altitude.shape} and {azimuth.shape} angles, {per_packet}/{columns}")
            if not np.isfinite([*altitude, *azimuth, *beam.flat, *lidar.flat]).all():
                raise ValueError("an angle or a transform that is not finite")
            if not (0 <= first < columns and 0 <= last < columns):
                raise ValueError(f"column_window {first}..{last}")
            number = np.arange(columns)
            inside = (first <= number) & (number <= last)
            outside = (last < number) & (number < first)
            return OusterMetadata(
                PROFILES[name], columns, per_packet, inside if first <= last else ~outside, altitude, azimuth, beam,
                lidar, None if serial is None else int(serial), int(start) if of_this_start and start else None,
            )  # fmt: skip
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise SensorError(
                where, "the JSON of /api/v1/sensor/metadata", f"{type(error).__name__}: {error}",
                "Save it anew: curl http://<sensor>/api/v1/sensor/metadata -o metadata.json",
            ) from error  # fmt: skip

    def rays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Unit directions [W, H, 3] and starts [W, H, 3] in the sensor frame: xyz = start + range * direction."""
        encoder = 2.0 * math.pi * (1.0 - np.arange(self.columns)[:, None] / self.columns)
        turn, tilt = (
            encoder - self.azimuth_rad,
            np.broadcast_to(self.altitude_rad, (self.columns, len(self.altitude_rad))),
        )
        direction = np.stack([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), np.sin(tilt)], axis=-1)
        out, up = self.lidar_from_beam[0, 3], self.lidar_from_beam[2, 3]
        beam = np.stack([out * np.cos(encoder), out * np.sin(encoder), np.full_like(encoder, up)], axis=-1)
        start = beam - math.hypot(out, up) * direction  # a range counts from the axis, not from the beam's origin
        rotation, shift = self.sensor_from_lidar[:3, :3], self.sensor_from_lidar[:3, 3]
        return (direction @ rotation.T).astype(np.float32), (start @ rotation.T + shift).astype(np.float32)


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    """The fields that newer firmware keeps in sections, beside those on top."""
    flat = dict(data)
    for section in ("sensor_info", "beam_intrinsics", "lidar_intrinsics", "lidar_data_format", "data_format"):
        flat.update(data.get(section, {}))
    return flat


def _transform(entries: Any) -> FloatArray:
    """[4, 4] of 16 numbers, row by row, its millimetres made metres."""
    matrix = np.asarray(entries, dtype=float).reshape(4, 4).copy()
    matrix[:3, 3] *= MM
    return matrix
