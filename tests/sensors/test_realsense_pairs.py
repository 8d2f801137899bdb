"""Depth and colour of one instant, and its time; through the SDK's own sensors and syncer."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.clock import host_now_s
from sensors.frames import RgbdFrame
from sensors.realsense_pairs import WAITING, Pairs, Shot
from sensors.realsense_twin import TwinPort
from tests.sensors.realsense_scene import (
    CAMERA,
    LENS,
    PERIOD_S,
    SMALL,
    camera_at,
    give,
    give_colour,
    give_depth,
    numbers,
    taken,
)

pytest.importorskip("pyrealsense2", reason="the extra 'realsense' is not installed")


@pytest.fixture
def port() -> TwinPort:
    return TwinPort()


@settings(max_examples=15)
@given(
    lost=st.sets(st.tuples(st.sampled_from(["depth", "colour"]), st.integers(0, 19)), max_size=14),
    late=st.integers(-3, 3),
    skew=st.floats(-0.45, 0.45),
)
def test_every_pair_is_of_one_instant_and_none_is_forgotten(lost: set[tuple[str, int]], late: int, skew: float) -> None:
    """One stream comes up to three pictures after the other, is exposed beside it, and pictures of both are missing."""
    port = TwinPort()
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    seen: list[tuple[int, int]] = []
    for step in range(-3, 30):
        for stream, number, exposed in (("depth", step - max(late, 0), 0.0), ("colour", step + min(late, 0), skew)):
            if number < 0 or (stream, number) in lost:
                continue
            (give_depth if stream == "depth" else give_colour)(twin, number, 100.0 + (number + exposed) * PERIOD_S)
            while (captured := device.wait(0.0)) is not None:
                assert isinstance(captured.frame, RgbdFrame)
                seen.append(numbers(captured.frame))
    expected = [n for n in range(20) if not {("depth", n), ("colour", n)} & lost]
    assert [pair for pair in seen if pair[0] < 20] == [(n, n) for n in expected]
    counts = device.counts
    for stream in ("depth", "colour"):
        inner = {n for s, n in lost if s == stream and n > min(set(range(30)) - {m for t, m in lost if t == stream})}
        assert counts[f"missing_{stream}"] == len(inner)
    device.close()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(["depth", "colour"]), st.integers(0, 12)), max_size=40))
def test_no_order_of_arrival_mixes_instants(arrivals: list[tuple[str, int]]) -> None:
    port = TwinPort()
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    seen: list[tuple[int, int]] = []
    for stream, number in arrivals:
        (give_depth if stream == "depth" else give_colour)(twin, number, 100.0 + number * PERIOD_S)
        while (captured := device.wait(0.0)) is not None:
            assert isinstance(captured.frame, RgbdFrame)
            seen.append(numbers(captured.frame))
    device.close()
    assert all(depth == colour for depth, colour in seen)
    assert seen == sorted(set(seen)), "pairs come once, in order"
    counts = device.counts
    held = len(arrivals) - 2 * len(seen) - counts["unpaired_depth"] - counts["unpaired_colour"]
    assert held >= 0, "no picture is counted twice"


@given(
    st.lists(st.tuples(st.sampled_from(["depth", "colour"]), st.integers(0, 12)), max_size=60),
    st.floats(-0.4, 0.4),
)
def test_pairs_are_in_order_and_every_picture_is_counted_once(arrivals: list[tuple[str, int]], skew: float) -> None:
    """Arrivals worse than the SDK would let through: late ones, old ones, and the same one again."""
    pairs = Pairs(fps=30)
    seen: list[tuple[int, int]] = []
    for stream, number in arrivals:
        stamp_s = (number + skew * (stream == "colour")) * PERIOD_S
        pair = pairs.add(stream, Shot(None, number, stamp_s, stamp_s, True, 0.0))
        if pair is not None:
            seen.append((pair[0].number, pair[1].number))
    assert all(depth == colour for depth, colour in seen)
    assert all(late[0] > early[0] for early, late in itertools.pairwise(seen))
    unpaired = pairs.counts["unpaired_depth"] + pairs.counts["unpaired_colour"]
    waiting = len(arrivals) - 2 * len(seen) - unpaired
    newest = seen[-1][0] if seen else -1
    assert waiting <= 2 * WAITING
    after = {(s, n) for s, n in arrivals if n > newest}
    assert waiting <= len(after), "what is older than a pair is not kept"
    for stream in ("depth", "colour"):
        come = [n for s, n in arrivals if s == stream]
        # Every number between the first one and the highest that did not come; those before the first are not known.
        gaps = set(range(come[0], max(come))) - set(come) if come else set()
        assert pairs.counts[f"missing_{stream}"] >= 0
        if len(come) == len(set(come)) and come == sorted(come):
            assert pairs.counts[f"missing_{stream}"] == len(gaps)


def test_pictures_of_two_clocks_are_no_pair(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    give_depth(twin, 0, 100.0)
    give_colour(twin, 0, 100.0, clock="system_time")
    assert device.wait(0.1) is None
    device.close()


def test_a_fast_depth_stream_gives_the_picture_nearest_to_the_colour(port: TwinPort) -> None:
    fast = replace(SMALL, fps=90)
    twin = port.plug(replace(CAMERA, depth=replace(LENS, mode=fast)))
    device = camera_at(port, depth=fast)
    device.open()
    seen = []
    for n in range(12):
        give_depth(twin, n, 100.0 + n / 90)
        if n % 3 == 1:
            give_colour(twin, n, 100.001 + n / 90)
        while (captured := device.wait(0.0)) is not None:
            assert isinstance(captured.frame, RgbdFrame)
            seen.append(numbers(captured.frame))
    assert seen == [(n, n) for n in (1, 4, 7, 10)]
    device.close()


@pytest.mark.parametrize(
    ("metadata", "earlier_s"),
    [
        ({}, 0.0),
        ({"actual_exposure": 8000}, 0.004),
        ({"sensor_timestamp": 123_456_000, "actual_exposure": 8000}, 0.000789),  # against the frame's own stamp
        ({"sensor_timestamp": 5_000_000, "frame_timestamp": 5_012_345}, 0.012345),
        ({"sensor_timestamp": 2**32 - 100, "frame_timestamp": 200}, 0.0003),  # the counter wrapped in between
        ({"sensor_timestamp": 9_000_000, "actual_exposure": 2000}, 0.001),  # a broken stamp is not believed
    ],
)
def test_the_stamp_is_the_middle_of_the_exposure(port: TwinPort, metadata: dict[str, int], earlier_s: float) -> None:
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    give_depth(twin, 0, 123.456789)
    give_colour(twin, 0, 123.456789, metadata=metadata)
    before_s = host_now_s()
    captured, frame = taken(device)
    assert captured.device_clock
    assert frame.stamp_s == pytest.approx(123.456789 - earlier_s, abs=1e-6)
    assert before_s <= captured.arrived_s <= host_now_s()
    device.close()


def test_the_devices_clock_wraps_unnoticed(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    wrap_s = 2**32 * 1e-6
    stamps_s = [wrap_s + (n - 2.4) * PERIOD_S for n in range(20)]
    seen = []
    for n, stamp_s in enumerate(stamps_s):  # around the wrap, the SDK's syncer holds pictures back for a period
        give_depth(twin, n, stamp_s % wrap_s)
        give_colour(twin, n, (stamp_s + 0.4 * PERIOD_S) % wrap_s)  # the colour's wraps one pair earlier
        while (captured := device.wait(0.0)) is not None:
            assert isinstance(captured.frame, RgbdFrame)
            seen.append(captured.frame)
    assert [numbers(frame) for frame in seen] == [(n, n) for n in range(20)]
    np.testing.assert_allclose([f.stamp_s for f in seen], np.array(stamps_s) + 0.4 * PERIOD_S, rtol=0, atol=1e-6)
    device.close()


@pytest.mark.parametrize("clock", ["global_time", "system_time"])
def test_host_stamps_come_onto_the_host_clock(port: TwinPort, clock: str) -> None:
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    captured_s = time.time() - 0.05
    host_s = host_now_s() - 0.05
    give(twin, 0, captured_s, clock=clock)
    captured, frame = taken(device)
    assert not captured.device_clock
    assert frame.stamp_s == pytest.approx(host_s, abs=2e-3)  # as well as two clocks can be read one after the other
    assert device.counts["host_stamps"] == 1
    device.close()
