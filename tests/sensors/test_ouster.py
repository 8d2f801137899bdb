"""Ouster packets of a scene with a formula, encoded from the manual: points, times, turns, metadata."""

from __future__ import annotations

import functools
import json
import random
import struct
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import LidarFrame
from sensors.live import LiveSensor, Mount, wait_for
from sensors.ouster import Ouster, OusterDecoder
from sensors.ouster_format import PROFILES, OusterMetadata
from sensors.packets import PcapSource, UdpSource
from sensors.sweep import Sweep
from sensors.timeline import Timing
from tests.sensors.packet_scene import OusterModel, Scene, Sender, Told, ethernet, ip_fragments, pcap, truth

SCENE = Scene()
BEGIN_NS = 1_700_000_000_123_456_789  # a sensor that is set by PTP counts from 1970
TURN_NS = 100_000_000
SINGLE = "RNG19_RFL8_SIG16_NIR16"


@functools.cache
def turns(profile: str = SINGLE, count: int = 2, window: tuple[int, int] = (0, 511)) -> tuple[Told, ...]:
    """Turns in a row, the first with number 65535."""
    model = OusterModel(profile=profile, window=window)
    every = [model.packets(SCENE, (65535 + k) % 65536, BEGIN_NS + k * TURN_NS) for k in range(count)]
    return tuple(packet for turn in every for packet in turn)


def metadata(of_this_start: bool = True, profile: str = SINGLE, **changes: Any) -> OusterMetadata:
    model = OusterModel(profile=profile, **changes)
    return OusterMetadata.parse(json.dumps(model.metadata()).encode(), "test", of_this_start=of_this_start)


def decoder(profile: str = SINGLE, **changes: Any) -> OusterDecoder:
    return OusterDecoder(metadata(profile=profile, **changes), 0.0)


def feed(told: Sequence[Told | bytes], into: OusterDecoder) -> list[Sweep]:
    for packet in told:
        into.feed(packet if isinstance(packet, bytes) else packet.payload, 0.0)
    return list(iter(into.take, None))


def check_truth(sweep: Sweep, told: Sequence[Told], half_range_m: float = 0.0005) -> None:
    xyz_m, times_s, intensity = truth(told)
    order = np.lexsort((np.arange(len(times_s)), times_s))
    begin = int(np.searchsorted(times_s[order], sweep.start_s - 1e-5))
    order = order[begin : begin + len(sweep.time_s)]
    assert np.abs(sweep.time_s - times_s[order]).max() < 5e-7  # what a float holds of seconds since 1970
    assert np.linalg.norm(sweep.xyz_m - xyz_m[order], axis=1).max() < half_range_m * 1.002
    np.testing.assert_allclose(sweep.intensity, intensity[order], atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- the points


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_turn_is_the_scene(profile: str) -> None:
    half_m = 0.004 if profile == "RNG15_RFL8_NIR8" else 0.0005
    told = turns(profile)
    into = decoder(profile)
    first, second = feed(told, into)
    check_truth(first, told[:32], half_m)
    check_truth(second, told[32:], half_m)
    assert (SCENE.off_surface_m(first.xyz_m) < half_m * 1.002).all()
    behind = int((first.intensity == np.float32(9 / 255)).sum())  # the second return, behind the ball
    assert bool(behind > 200) == profile.endswith("DUAL")
    assert len(first.time_s) == 16 * 512 + behind
    assert second.start_s - first.start_s == pytest.approx(0.1, abs=1e-6)
    assert set(into.counts.values()) == {0}


def test_x_is_forward_y_left_z_up() -> None:
    """A turn begins at the connector, behind the sensor, and goes on clockwise: left, in front, right."""
    (sweep,) = feed(turns(count=1), decoder())
    for quarter, axis, sign in ((0, 0, -1), (1, 1, 1), (2, 0, 1), (3, 1, -1)):
        points = sweep.xyz_m[np.abs(sweep.time_s - sweep.start_s - quarter * 0.025) < 0.0003]
        assert len(points)
        assert (sign * points[:, axis] > 2.0).all()
        assert (np.abs(points[:, 1 - axis]) < 0.8).all()
        assert points[:, 2].max() > 1.0 > 0.0 > points[:, 2].min()


def test_near_returns_are_left_out_and_no_return_is_no_point() -> None:
    told = turns(count=1)
    into = OusterDecoder(metadata(), 4.0)
    (sweep,) = feed(told, into)
    ranges_m = np.linalg.norm(truth(told)[0] - [0.0, 0.0, 0.03618], axis=1)
    assert len(sweep.time_s) == pytest.approx((ranges_m >= 4.0).sum(), abs=60)
    assert np.linalg.norm(sweep.xyz_m, axis=1).min() > 3.9
    dark = bytearray(told[3].payload)
    for column in range(16):
        at = 32 + column * (12 + 16 * 12) + 12
        dark[at : at + 3] = b"\0\0" + bytes([dark[at + 2] & 0xF8])  # the topmost beam saw nothing
    (sweep,) = feed([*told[:3], bytes(dark), *told[4:]], decoder())
    assert len(sweep.time_s) == 16 * 512 - 16


@pytest.mark.parametrize("window", [(100, 300), (400, 99)])
def test_a_window_is_a_whole_turn(window: tuple[int, int]) -> None:
    told = turns(window=window)
    into = decoder(window=window)
    sweeps = feed(told, into)
    assert len(sweeps) == 2
    columns = (window[1] - window[0]) % 512 + 1
    assert len(sweeps[0].time_s) == 16 * columns
    check_truth(sweeps[0], told[:32])
    assert into.counts["missing"] == into.counts["partial"] == 0
    assert into.counts["invalid"] == 2 * (512 - columns)


def test_arrival_is_that_of_the_least_delayed_packet() -> None:
    into, rng = decoder(), np.random.default_rng(1)
    for number, packet in enumerate(turns(count=1)):
        delay_s = 0.0004 if number == 20 else rng.uniform(0.002, 0.05)
        into.feed(packet.payload, packet.time_s + 15 * 0.1 / 512 - 1_699_000_000.0 + delay_s)
    sweep = into.take()
    assert sweep is not None
    assert sweep.ahead_s == pytest.approx(-1_699_000_000.0 + 0.0004, abs=1e-6)


# ------------------------------------------------------------------------------------------------- disorder and damage


def test_order_and_repetition_change_nothing() -> None:
    told = list(turns())
    clean = feed(told, decoder())
    rng = random.Random(1)
    first, second = told[:32], told[32:]
    rng.shuffle(first)
    rng.shuffle(second)
    into = decoder()
    mixed = feed([*first[:20], first[5], *first[20:], first[3], *second[:9], second[8], *second[9:]], into)
    assert into.counts["duplicate"] == 32  # columns
    assert into.counts["late"] == 1  # the turn was given already
    for one, other in zip(clean, mixed, strict=True):
        np.testing.assert_array_equal(one.xyz_m, other.xyz_m)
        np.testing.assert_array_equal(one.time_s, other.time_s)


def test_missing_columns_are_counted_and_the_turn_is_given() -> None:
    told = turns(count=3)
    into = decoder()
    sweeps = feed([*told[:40], *told[43:64], *told[64:]], into)
    assert [len(sweep.time_s) for sweep in sweeps] == [16 * 512, 16 * (512 - 48), 16 * 512]
    assert into.counts["missing"] == 48
    rest = np.concatenate([truth(told[32:40])[0], truth(told[43:64])[0]])
    assert np.abs(sweeps[1].xyz_m - rest).max() < 0.0006
    assert into.counts["partial"] == 0


def test_a_turn_without_its_beginning_is_dropped() -> None:
    into = decoder()
    (sweep,) = feed(turns()[5:], into)
    check_truth(sweep, turns()[32:])
    assert into.counts["partial"] == 1


def test_a_sensor_that_started_anew_is_taken_over() -> None:
    again = OusterModel().packets(SCENE, 3, 5_000_000_000)
    into = decoder()
    sweeps = feed([*turns(count=1), *again, *OusterModel().packets(SCENE, 4, 5_100_000_000)], into)
    assert into.counts["wild"] == 3
    assert len(sweeps) == 2  # the third packet is believed, so the turn lacks two
    assert sweeps[1].start_s == pytest.approx(5.1, abs=1e-6)


def test_another_sensor_on_the_same_port_is_not_mixed_in() -> None:
    other = OusterModel(serial=5).packets(Scene(wall_x_m=2.0), 65535, BEGIN_NS)
    restarted = OusterModel(start=6).packets(Scene(wall_x_m=2.0), 65535, BEGIN_NS)
    mixed = [packet for three in zip(other, restarted, turns(count=1), strict=True) for packet in three]
    into = decoder()
    (sweep,) = feed(mixed, into)
    check_truth(sweep, turns(count=1))
    assert into.counts["foreign_sensor"] == 64
    into = OusterDecoder(metadata(of_this_start=False), 0.0)  # from a file: of any start of this sensor
    assert len(feed(restarted, into)) == 1


def damaged(payload: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.integers(4)
    if kind == 0:
        return payload[: rng.integers(len(payload))]
    if kind == 1:
        return bytes(rng.integers(0, 256, rng.choice([len(payload), 100]), dtype=np.uint8))
    changed = bytearray(payload)
    for _ in range(rng.integers(1, 4)):  # half of them in the header and the first column's
        changed[rng.integers(44 if rng.random() < 0.5 else len(payload))] = rng.integers(256)
    return bytes(changed)


def later(payload: bytes, profile: str, turns_later: int) -> bytes:
    """The same packet, but of a later turn."""
    data = bytearray(payload)
    head, size = (0, 212) if profile == "LEGACY" else (32, 204)
    for begin in range(head, head + 16 * size, size):
        (time_ns,) = struct.unpack_from("<Q", data, begin)
        struct.pack_into("<Q", data, begin, time_ns + turns_later * TURN_NS)
    for at in range(10, 16 * size, size) if profile == "LEGACY" else (2,):
        (frame,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<H", data, at, (frame + turns_later) % 65536)
    return bytes(data)


@pytest.mark.parametrize("profile", [SINGLE, "LEGACY"])
def test_20000_damaged_packets_do_no_harm(profile: str) -> None:
    rng, into, told = np.random.default_rng(3), decoder(profile), turns(profile, 1)
    given = 0
    for number in range(20_000):
        payload = later(told[number % 32].payload, profile, number // 32)
        into.feed(damaged(payload, rng), 0.0)
        while (sweep := into.take()) is not None:
            given += 1
            assert np.isfinite(sweep.xyz_m).all()
            assert 0.0 <= sweep.time_s[-1] - sweep.start_s < 2.0
    assert into.counts["malformed"] > 8000
    assert given > 400  # of 625: half of their packets are whole
    clean = [later(packet.payload, profile, 625 + k) for k in range(2) for packet in told]
    sweep = feed(clean, into)[-1]
    np.testing.assert_array_equal(sweep.xyz_m, feed(told, decoder(profile))[0].xyz_m)


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=100), st.tuples(st.integers(0, 3327), st.integers(0, 255))), max_size=12))
def test_anything_may_come(changes: list[bytes | tuple[int, int]]) -> None:
    into = decoder()
    for number, change in enumerate(changes):
        payload = bytearray(turns()[number].payload)
        if isinstance(change, tuple):
            payload[change[0]] = change[1]
        into.feed(change if isinstance(change, bytes) else bytes(payload), 0.0)
    told = turns(count=3)
    check_truth(feed(told, into)[-1], told)


# ---------------------------------------------------------------------------------------------------------- the device


@pytest.fixture
def web_page() -> Iterator[tuple[int, list[str], dict[str, Any]]]:
    """A sensor's web page: its port, the paths that were asked for, and what it answers."""
    asked: list[str] = []
    content = OusterModel().metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/api/v1/sensor/metadata" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield int(server.server_address[1]), asked, content
    server.shutdown()
    server.server_close()


def test_over_udp_as_a_live_sensor(web_page: tuple[int, list[str], dict[str, Any]]) -> None:
    port, asked, _ = web_page
    source = UdpSource(port=0, host="127.0.0.1")
    device = Ouster(source=source, host="127.0.0.1", http_port=port, capacity=8192, silence_s=10.0)
    mount = Mount(position_m=(0.0, 0.0, 0.5))
    sensor = LiveSensor(device=device, timing=Timing(rate_hz=10.0, live=True), mount=mount, capacity=8)
    sender = Sender(source, turns())
    sensor.open(None)
    frames = [wait_for(sensor, 20.0) for _ in range(2)]
    sender.join()
    sensor.close()
    assert asked == ["/api/v1/sensor/metadata"]
    assert set(device.counts.values()) == {0}
    for frame, sweep in zip(frames, feed(turns(), decoder()), strict=True):
        assert isinstance(frame, LidarFrame)
        assert frame.count == [8192]
        np.testing.assert_array_equal(frame.xyz_m, sweep.xyz_m)
        np.testing.assert_allclose(frame.offset_s, sweep.time_s - sweep.start_s, atol=1e-8)
        on_time_s = sender.begun_s + sweep.start_s - turns()[0].time_s
        assert -0.0035 < frame.stamp_s - on_time_s < max(sender.late_s) + 0.005  # less than a packet's columns take
        assert device.space.contains(
            {name: value.astype(device.space[name].dtype) for name, value in frame.arrays().items()}
        )
        np.testing.assert_array_equal(frame.base_from_lidar[:3, 3], [0.0, 0.0, 0.5])


def test_a_capture_with_fragments_gives_the_same_points(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps(OusterModel().metadata()))
    frames = [
        (1.7e9 + packet.time_s % 100, ethernet(piece))
        for number, packet in enumerate(turns())
        for piece in ip_fragments(packet.payload, 7502, number)
    ]
    assert len(frames) == 3 * 64
    (tmp_path / "turns.pcap").write_bytes(pcap(frames))
    source = PcapSource(path=str(tmp_path / "turns.pcap"), port=7502, real_time=False)
    device = Ouster(source=source, metadata=str(tmp_path / "meta.json"), capacity=8192)
    device.open()
    for sweep in feed(turns(), decoder()):
        captured = device.wait(5.0)
        assert captured is not None
        assert isinstance(captured.frame, LidarFrame)
        np.testing.assert_array_equal(captured.frame.xyz_m, sweep.xyz_m)
    assert device.wait(0.01) is None
    device.close()


def test_what_cannot_work_is_said(tmp_path: Path, web_page: tuple[int, list[str], dict[str, Any]]) -> None:
    port, _, content = web_page
    source = UdpSource(port=0, host="127.0.0.1")
    with pytest.raises(SpecError, match=r"metadata \(a file\) or host"):
        Ouster(source=source)
    with pytest.raises(SensorError, match=r"curl http.*metadata.json"):
        Ouster(source=source, metadata=str(tmp_path / "none.json")).open()
    with pytest.raises(SensorError, match=r"8192 points.*Set capacity: 8192"):
        Ouster(source=source, host="127.0.0.1", http_port=port, capacity=8000).open()
    with pytest.raises(SensorError, match=r"no packet.*udp_dest"):
        Ouster(source=source, host="127.0.0.1", http_port=port, silence_s=0.05).open()
    content["lidar_data_format"]["udp_profile_lidar"] = "LEGACY"
    sender = Sender(source, turns()[:3])
    with pytest.raises(SensorError, match="3328 bytes instead of 3392"):
        Ouster(source=source, host="127.0.0.1", http_port=port, silence_s=0.5).open()
    sender.join()


def test_a_sensor_that_was_set_up_anew_is_lost_until_it_is_asked_again(
    web_page: tuple[int, list[str], dict[str, Any]],
) -> None:
    port, asked, content = web_page
    source = UdpSource(port=0, host="127.0.0.1")
    device = Ouster(source=source, host="127.0.0.1", http_port=port, silence_s=0.3)
    again = OusterModel(start=77).packets(SCENE, 0, BEGIN_NS + TURN_NS)
    sender = Sender(source, [*turns(count=1)[:3], *again])
    device.open()
    with pytest.raises(SensorLost, match="packets with start 77, not 5431292"):
        device.wait(20.0)
    sender.join()
    device.close()
    content["sensor_info"]["initialization_id"] = 77
    sender = Sender(source, again)
    device.open()
    assert device.wait(20.0) is not None
    sender.join()
    device.close()
    assert len(asked) == 2
