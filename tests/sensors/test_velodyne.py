"""Velodyne packets of a scene with a formula, encoded from the manual: points, times, turns and whatever else comes."""

from __future__ import annotations

import functools
import itertools
import math
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import LidarFrame
from sensors.live import LiveSensor, Mount, wait_for
from sensors.packets import PcapSource, UdpSource
from sensors.sweep import Sweep
from sensors.timeline import Timing
from sensors.velodyne import Velodyne, VelodyneDecoder
from tests.sensors.packet_scene import (
    DUAL,
    LAST,
    STRONGEST,
    Scene,
    Sender,
    Told,
    pcap,
    truth,
    udp_frame,
    vlp16_packets,
)

SCENE = Scene()
TURN_S = 0.05  # 1200 rpm
# The azimuth of a block is told in 0.01 degrees, and the library rounds that of each shot to 0.01 degrees again.
ANGLE_RAD = math.radians(0.005 + 0.005 + 0.002)
HALF_RANGE_M = 0.001  # of 2 mm


@functools.cache
def packets(mode: int = STRONGEST, count: int = 80, start_s: float = 3599.95) -> tuple[Told, ...]:
    """Two whole turns (about 38 packets each) behind the cut at 180 degrees, over the top of an hour."""
    return tuple(vlp16_packets(SCENE, count, mode=mode, start_s=start_s, azimuth_deg=170.0, rpm=1200.0))


def decoder(cut_deg: float = 180.0) -> VelodyneDecoder:
    return VelodyneDecoder("VLP16", cut_deg, 0.0, 200.0)


def feed(told: Sequence[Told | bytes], into: VelodyneDecoder, arrived_s: float = 0.0) -> list[Sweep]:
    for packet in told:
        into.feed(packet if isinstance(packet, bytes) else packet.payload, arrived_s)
    return list(iter(into.take, None))


def restamped(payload: bytes, stamp_us: int) -> bytes:
    return payload[:1200] + struct.pack("<I", stamp_us % 3_600_000_000) + payload[1204:]


def check_truth(sweep: Sweep, told: Sequence[Told]) -> None:
    """Every point is where and when its shot was, to within what the format can say; no shot of the turn is missing."""
    xyz_m, times_s, intensity = (part for part in truth(told))
    first = int(np.searchsorted(times_s, sweep.time_s[0] - 1.1e-6))
    turn = slice(first, first + len(sweep.time_s))
    assert np.abs(sweep.time_s - times_s[turn]).max() < 0.51e-6  # stamps are told in microseconds
    off_m = np.linalg.norm(sweep.xyz_m - xyz_m[turn], axis=1)
    assert (off_m < HALF_RANGE_M + ANGLE_RAD * np.linalg.norm(xyz_m[turn], axis=1)).all(), off_m.max()
    np.testing.assert_allclose(sweep.intensity, intensity[turn], atol=1e-6)
    assert (np.diff(sweep.time_s) >= 0).all()


@pytest.mark.parametrize("mode", [STRONGEST, LAST, DUAL])
def test_a_turn_is_the_scene(mode: int) -> None:
    told = packets(mode, 160 if mode == DUAL else 80)
    into = decoder()
    sweeps = feed(told, into)
    assert len(sweeps) == 2
    assert into.counts == {**dict.fromkeys(into.counts, 0), "partial": 1}  # what was before the first cut
    for sweep in sweeps:
        check_truth(sweep, told)
        surface_m = HALF_RANGE_M + ANGLE_RAD * np.linalg.norm(sweep.xyz_m, axis=1)
        assert (SCENE.off_surface_m(sweep.xyz_m) < surface_m).all()
        shots = TURN_S / 55.296e-6 * 16
        on_ball = np.abs(np.linalg.norm(sweep.xyz_m - SCENE.ball_m, axis=1) - SCENE.ball_radius_m) < 0.005
        assert bool(on_ball.sum() > 500) == (mode != LAST)  # what is behind the ball is the last return
        returns = shots + (on_ball.sum() if mode == DUAL else 0)
        assert len(sweep.time_s) == pytest.approx(returns, abs=48)


def test_x_is_forward_y_left_z_up() -> None:
    """The turn begins at azimuth 180, behind the sensor, and goes on clockwise: left, in front, right."""
    sweep = feed(packets(), decoder())[0]
    for quarter, axis, sign in ((1, 1, 1), (2, 0, 1), (3, 1, -1)):
        then = np.abs(sweep.time_s - sweep.start_s - quarter * TURN_S / 4) < TURN_S / 720
        points = sweep.xyz_m[then]
        assert (sign * points[:, axis] > 2.0).all()
        assert (np.abs(points[:, 1 - axis]) < 0.5).all()
        assert points[:, 2].max() > 0.5 > 0.0 > points[:, 2].min()


@pytest.mark.parametrize(
    ("model", "product", "block_us", "unit_m"),
    [
        ("VLP16", 0x22, 110.592, 0.002),
        ("PuckHiRes", 0x24, 110.592, 0.002),
        ("VLP32C", 0x28, 55.296, 0.004),
        ("HDL32E", 0x21, 46.08, 0.002),
    ],
)
def test_every_model_sees_the_inside_of_a_ball(model: str, product: int, block_us: float, unit_m: float) -> None:
    """All returns at one range: all points that far away, all around, at the model's own speed."""
    into = VelodyneDecoder(model, 180.0, 0.0, 200.0)
    block, data = 0, b""
    while block * block_us < 0.16e6:  # three turns
        azimuth = round(17000 + 36000 * block * block_us * 1e-6 / TURN_S) % 36000
        data += struct.pack("<HH", 0xEEFF, azimuth) + struct.pack("<HB", 2500, 100) * 32
        block += 1
        if block % 12 == 0:
            into.feed(data + struct.pack("<IBB", round((block - 12) * block_us), STRONGEST, product), 0.0)
            data = b""
    sweeps = list(iter(into.take, None))
    assert len(sweeps) == 3
    for sweep in sweeps:
        assert (
            np.abs(np.linalg.norm(sweep.xyz_m, axis=1) - 2500 * unit_m).max() < 0.012
        )  # beams start beside the centre
        assert sweep.time_s[-1] - sweep.start_s == pytest.approx(TURN_S, abs=0.0003)
        assert len(sweep.time_s) == pytest.approx(32 * TURN_S * 1e6 / block_us, abs=64)
        middle = sweep.xyz_m[np.abs(sweep.time_s - sweep.start_s - TURN_S / 2) < 0.0003]
        assert middle[:, 0].mean() > 4.0  # from behind clockwise: half a turn later it looks forward
    assert into.counts["malformed"] == 0


@pytest.mark.parametrize("cut_deg", [180.0, 0.0, 359.9, -77.0])
def test_a_turn_begins_at_the_cut(cut_deg: float) -> None:
    told = packets(count=120)
    sweeps = feed(told, decoder(cut_deg))
    assert len(sweeps) >= 2
    for sweep in sweeps:
        x, y, _ = sweep.xyz_m.T
        turned = (np.degrees(np.arctan2(-y, x)) - cut_deg) % 360
        assert turned[0] < 0.85  # one block: 0.8 degrees at this speed
        assert (turned[-1] + 180) % 360 - 180 == pytest.approx(0.0, abs=0.85)
        assert sweep.time_s[-1] - sweep.start_s == pytest.approx(TURN_S, abs=0.0003)
    for before, after in itertools.pairwise(sweeps):  # nothing lies between them, nothing in both
        assert after.time_s[0] - before.time_s[-1] < 25e-6
        assert after.start_s > before.time_s[-1]


def test_time_goes_on_beyond_the_hour() -> None:
    first, second = feed(packets(), decoder())
    assert first.start_s < 3600.0 < first.time_s[-1] + 0.01 < second.time_s[-1]
    assert second.start_s - first.start_s == pytest.approx(TURN_S, abs=0.0002)
    told_us = [struct.unpack("<I", packet.payload[1200:1204])[0] for packet in packets()]
    assert told_us[-1] < 60_000 < 3_599_000_000 < told_us[0]  # the sensor's own number began anew


@pytest.mark.parametrize("mode", [STRONGEST, DUAL])
def test_arrival_is_that_of_the_least_delayed_packet(mode: int) -> None:
    into, rng = decoder(), np.random.default_rng(1)
    shots_s = (6 if mode == DUAL else 12) * 110.592e-6
    for number, packet in enumerate(packets(mode, 160 if mode == DUAL else 80)):
        delay_s = 0.0004 if number == 20 else rng.uniform(0.002, 0.05)
        into.feed(packet.payload, packet.time_s + shots_s + 777.0 + delay_s)
    first, second = into.take(), into.take()
    assert first is not None
    assert second is not None
    assert first.ahead_s == pytest.approx(777.0004, abs=1e-6)
    assert 777.002 < second.ahead_s < 777.01


# ------------------------------------------------------------------------------------------------- disorder and damage


def test_order_and_repetition_change_nothing() -> None:
    clean = feed(packets(), decoder())
    rng = np.random.default_rng(2)
    shuffled = list(packets())
    for at in (5, 20, 30, 50):  # neighbours within a turn change places
        shuffled[at], shuffled[at + 1] = shuffled[at + 1], shuffled[at]
    for at in sorted(rng.integers(3, 75, 10), reverse=True):
        shuffled.insert(at + 1, shuffled[at])
    into = decoder()
    mixed = feed(shuffled, into)
    assert into.counts["duplicate"] == 10
    assert into.counts["out_of_order"] == 4
    assert into.counts["lost"] == into.counts["malformed"] == 0
    for one, other in zip(clean, mixed, strict=True):
        np.testing.assert_array_equal(one.xyz_m, other.xyz_m)
        np.testing.assert_array_equal(one.time_s, other.time_s)


def test_a_packet_whose_azimuth_jumps_is_left_out() -> None:
    """At the edge of a limited field of view; the library would take the jump for speed, and turn points by degrees."""
    told = packets()
    jumping = bytearray(told[20].payload)
    for block in range(6, 12):
        (azimuth,) = struct.unpack_from("<H", jumping, 100 * block + 2)
        struct.pack_into("<H", jumping, 100 * block + 2, (azimuth + 9000) % 36000)
    into = decoder()
    sweeps = feed([*told[:20], bytes(jumping), *told[21:]], into)
    assert (into.counts["malformed"], into.counts["lost"]) == (1, 1)
    assert (SCENE.off_surface_m(sweeps[0].xyz_m) < 0.004).all()


def test_a_packet_of_a_finished_turn_is_late() -> None:
    into = decoder()
    told = packets()
    feed([*told[:45], told[30], *told[45:]], into)
    assert into.counts["late"] == 1


@pytest.mark.parametrize("missing", [range(20, 25), range(25, 50), range(20, 62), range(3, 70)])
def test_lost_packets_are_counted_and_join_no_two_turns(missing: range) -> None:
    told = [packet for number, packet in enumerate(packets(count=120)) if number not in missing]
    into = decoder()
    sweeps = feed(told, into)
    assert into.counts["lost"] == len(missing)
    assert len(sweeps) >= 1
    for sweep in sweeps:
        assert sweep.time_s[-1] - sweep.start_s < TURN_S * 1.01
        assert (SCENE.off_surface_m(sweep.xyz_m) < 0.004).all()


def test_one_wild_stamp_is_dropped_and_a_new_clock_is_taken_over() -> None:
    told = packets(count=120)
    into = decoder()
    wild = restamped(told[20].payload, 1_234_567_890)
    sweeps = feed([*told[:20], wild, *told[21:]], into)
    assert (into.counts["wild"], into.counts["lost"], into.counts["partial"]) == (1, 1, 1)
    assert len(sweeps) == 3
    into = decoder()
    set_anew = [restamped(packet.payload, 500_000_000 + 1327 * number) for number, packet in enumerate(told[20:])]
    sweeps = feed([*told[:20], *set_anew], into)
    assert into.counts["wild"] == 3
    assert len(sweeps) >= 1
    assert all(sweep.start_s % 3600.0 == pytest.approx(500.05, abs=0.1) for sweep in sweeps)


def test_no_turn_without_turning() -> None:
    payload, into = packets()[0].payload, decoder()
    for number in range(3000):
        into.feed(restamped(payload, 10_000_000 + 1327 * number), 0.0)
    assert into.take() is None
    assert into.counts["partial"] >= 3
    assert len(into._turn.stamps) < 800  # nothing piles up


def damaged(payload: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.integers(4)
    if kind == 0:
        return payload[: rng.integers(len(payload))]
    if kind == 1:
        return bytes(rng.integers(0, 256, rng.integers(0, 1400), dtype=np.uint8))
    changed = bytearray(payload)
    for at in rng.integers(0, len(payload), rng.integers(1, 4)):
        changed[at] = rng.integers(256)
    return bytes(changed)


def test_30000_damaged_packets_do_no_harm() -> None:
    rng, into, told = np.random.default_rng(3), decoder(), packets()
    for number in range(30_000):
        stamped = restamped(told[number % 38].payload, 100_000_000 + 1327 * number)
        into.feed(damaged(stamped, rng), 0.0)
        while (sweep := into.take()) is not None:
            assert np.isfinite(sweep.xyz_m).all()
    assert into.counts["malformed"] > 15_000
    told = packets(count=120)
    check_truth(_moved(feed(told, into)[-1], told), told)


def _moved(sweep: Sweep, told: Sequence[Told]) -> Sweep:
    """The hour that a decoder counts from is its own."""
    hours = round((sweep.start_s - told[0].time_s) / 3600.0) * 3600.0
    return Sweep(sweep.xyz_m, sweep.intensity, sweep.time_s - hours, sweep.start_s - hours, sweep.ahead_s)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.binary(max_size=1300), st.tuples(st.integers(0, 1205), st.integers(0, 255))), max_size=12))
def test_anything_may_come(changes: list[bytes | tuple[int, int]]) -> None:
    into = decoder()
    for number, change in enumerate(changes):
        payload = bytearray(packets()[number].payload)
        if isinstance(change, tuple):
            payload[change[0]] = change[1]
        into.feed(change if isinstance(change, bytes) else bytes(payload), 0.0)
    told = packets(count=120)
    check_truth(_moved(feed(told, into)[-1], told), told)


# --------------------------------------------------------------------------------------------------------- the device


def live(device: Velodyne) -> LiveSensor:
    timing = Timing(rate_hz=20.0, live=True)
    return LiveSensor(device=device, timing=timing, mount=Mount(position_m=(0.0, 0.0, 0.5)), capacity=8)


def test_over_udp_as_a_live_sensor() -> None:
    source = UdpSource(port=0, host="127.0.0.1")
    device = Velodyne(source=source, silence_s=10.0)
    sensor = live(device)
    sender = Sender(source, packets())
    sensor.open(None)
    frames = [wait_for(sensor, 20.0) for _ in range(2)]
    sender.join()
    sensor.close()
    assert device.counts["malformed"] == device.counts["lost"] == device.counts["dropped"] == 0
    for frame, sweep in zip(frames, feed(packets(), decoder()), strict=True):
        assert isinstance(frame, LidarFrame)
        (count,) = frame.count
        assert count == len(sweep.time_s)
        np.testing.assert_array_equal(frame.xyz_m[:count], sweep.xyz_m)
        assert not frame.xyz_m[count:].any()
        np.testing.assert_allclose(frame.offset_s[:count], sweep.time_s - sweep.start_s, atol=1e-8)
        # It came in at the moment of its first shot, or later if the sender was late; then not later than the latest.
        on_time_s = sender.begun_s + sweep.start_s - packets()[0].time_s
        assert -0.0015 < frame.stamp_s - on_time_s < max(sender.late_s) + 0.005
        assert device.space.contains(
            {name: value.astype(device.space[name].dtype) for name, value in frame.arrays().items()}
        )
        np.testing.assert_array_equal(frame.base_from_lidar[:3, 3], [0.0, 0.0, 0.5])


def test_a_capture_gives_the_same_points(tmp_path: Path) -> None:
    path = tmp_path / "turns.pcap"
    path.write_bytes(pcap((1.7e9 + packet.time_s, udp_frame(packet.payload, 2368)) for packet in packets()))
    device = Velodyne(source=PcapSource(path=str(path), port=2368, real_time=False))
    device.open()
    for sweep in feed(packets(), decoder()):
        captured = device.wait(5.0)
        assert captured is not None
        assert isinstance(captured.frame, LidarFrame)
        np.testing.assert_array_equal(captured.frame.xyz_m[: len(sweep.time_s)], sweep.xyz_m)
        assert captured.frame.stamp_s == pytest.approx(sweep.start_s, abs=1e-6)
    assert device.wait(0.01) is None  # the file is at its end: that is silence, but not a loss
    device.close()


def test_a_small_frame_takes_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "turns.pcap"
    path.write_bytes(pcap((1.7e9 + packet.time_s, udp_frame(packet.payload, 2368)) for packet in packets()))
    device = Velodyne(source=PcapSource(path=str(path), real_time=False), capacity=1000, min_range_m=3.0)
    device.open()
    captured = device.wait(5.0)
    assert captured is not None
    assert isinstance(captured.frame, LidarFrame)
    assert captured.frame.count == [1000]
    assert device.counts["overflowed"] > 1000
    assert np.linalg.norm(captured.frame.xyz_m, axis=1).min() > 2.98
    device.close()


def test_what_cannot_work_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Velodyne(source=UdpSource(port=0, host="127.0.0.1"), silence_s=0.05)
    with pytest.raises(SensorError, match=r"no packet.*web page"):
        silent.open()
    source = UdpSource(port=0, host="127.0.0.1")
    other = Velodyne(source=source, silence_s=0.5)
    sender = Sender(source, vlp16_packets(SCENE, 5, product=0x28))
    with pytest.raises(SensorError, match=r"packets of VLP32C \(0x28\), not of a VLP16"):
        other.open()
    sender.join()
    with pytest.raises(SpecError, match="Did you mean 'VLP16'"):
        Velodyne(source=source, model="VLP-16")
    with pytest.raises(SensorError, match="an open LiDAR"):
        silent.wait(0.01)
    monkeypatch.setitem(sys.modules, "velodyne_decoder", None)
    with pytest.raises(SensorError, match=r"pip install .perceive\[lidar\]"):
        silent.open()


def test_silence_is_a_loss() -> None:
    source = UdpSource(port=0, host="127.0.0.1")
    device = Velodyne(source=source, silence_s=0.1)
    sender = Sender(source, packets()[:5])
    device.open()
    with pytest.raises(SensorLost, match="silence"):
        device.wait(20.0)
    sender.join()
    device.close()
    device.close()
