"""Rate, delay, jitter, dropout, history: what a frame's age is, and that reading changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from sensors.alignment import align
from sensors.errors import SpecError
from sensors.observation import MAX_AGE_S, Stream
from sensors.rig import SensorRig
from sensors.spec import box
from sensors.timeline import EPSILON_S, FUTURE_S, Quantiles, Spread, Timeline, Timing
from tests.benchmarks.bench_skew import SPACE, TimeFrame
from tests.fake_world import FakeWorld
from tests.sensors.clock_sensor import PHYSICS_HZ, ClockFrame, ClockSensor, ramp
from tests.sensors.test_alignment import RULE, every, live, playing, rig_of, seen_at


def _rig(timing: Timing, **faults: Any) -> tuple[SensorRig, FakeWorld, ClockSensor]:
    world, sensor = FakeWorld(), ClockSensor(timing, **faults)
    rig = SensorRig({"clock": sensor})
    rig.open(world)
    return rig, world, sensor


def _frame(stamp_s: float, clock_s: float | None = None) -> ClockFrame:
    return ClockFrame(stamp_s=stamp_s, clock_s=np.array([stamp_s if clock_s is None else clock_s]), noise=np.zeros(1))


def _timeline(timing: Timing, seed: int = 0, start_s: float = 0.0) -> Timeline:
    timeline = Timeline("clock", timing, ClockSensor(timing).space)
    timeline.reset(start_s, np.random.default_rng(seed))
    return timeline


@pytest.mark.parametrize(
    ("rate_hz", "delay_s"),
    [(12.0, 0.0), (12.0, 0.04), (30.0, 0.04), (60.0, 0.1), (240.0, 0.0), (240.0, 0.0125), (10.0, 0.25), (24.0, 1 / 24)],
)
def test_ramp_every_age_lies_within_one_period_of_the_delay(rate_hz: float, delay_s: float) -> None:
    rig, world, sensor = _rig(Timing(rate_hz=rate_hz, delay_s=delay_s))
    for now_s, observation in ramp(rig, world, seconds=2.0):
        stream = observation.streams["clock"]
        if now_s < delay_s - EPSILON_S:
            assert not stream.valid[0]
            assert stream.age_s[0] == np.float32(MAX_AGE_S)
            continue
        assert stream.valid[0]
        true_age = now_s - stream.data["clock_s"][0, 0]  # by the world's own clock
        assert delay_s - EPSILON_S <= true_age < delay_s + 1 / rate_hz - EPSILON_S
        assert stream.age_s[0] == pytest.approx(true_age, abs=1e-6)
    assert sensor.reads == round(2.0 * rate_hz) + 1


def test_a_rate_that_does_not_divide_the_physics_rate_is_late_by_less_than_one_step() -> None:
    rig, world, sensor = _rig(Timing(rate_hz=50.0))
    for now_s, observation in ramp(rig, world, seconds=2.0):
        true_age = now_s - observation.streams["clock"].data["clock_s"][0, 0]
        assert 0 <= true_age < 1 / 50 + 1 / PHYSICS_HZ
    assert sensor.reads == 101


def test_a_slow_loop_reads_once_per_call_and_does_not_catch_up() -> None:
    timeline = _timeline(Timing(rate_hz=100.0, history=3))
    for now_s in (0.0, 0.055, 0.11):
        assert timeline.next_due_s <= now_s
        timeline.push(now_s, _frame(now_s))
        assert now_s < timeline.next_due_s <= now_s + 0.01 + EPSILON_S
    np.testing.assert_allclose(timeline.stream(0.11).data["clock_s"][:, 0], [0.0, 0.055, 0.11])


def test_reading_changes_nothing() -> None:
    rig, world, _ = _rig(Timing(rate_hz=30.0, delay_s=0.05, jitter_s=0.02, dropout=0.2, history=4))
    other, other_world, _ = _rig(Timing(rate_hz=30.0, delay_s=0.05, jitter_s=0.02, dropout=0.2, history=4))
    other.reset(0.0, 5)
    for step in range(200):
        other_world.now_s = step / PHYSICS_HZ
        other.tick(other_world.now_s)
    rig.reset(0.0, 5)
    for step in range(200):
        world.now_s = step / PHYSICS_HZ
        rig.tick(world.now_s)
        rig.tick(world.now_s)  # nothing is due any more
        for _ in range(3):
            rig.observe(world.now_s)
    _assert_same(rig.observe(world.now_s).streams["clock"], other.observe(world.now_s).streams["clock"])
    _assert_same(rig.observe(world.now_s).streams["clock"], rig.observe(world.now_s).streams["clock"])


def _assert_same(one: Stream, other: Stream) -> None:
    np.testing.assert_array_equal(one.age_s, other.age_s)
    np.testing.assert_array_equal(one.valid, other.valid)
    for field, value in one.data.items():
        np.testing.assert_array_equal(value, other.data[field])


def test_history_is_oldest_first_and_starts_absent() -> None:
    rig, world, _ = _rig(Timing(rate_hz=12.0, history=3))
    seen = [observation.streams["clock"] for _, observation in ramp(rig, world, seconds=0.5)]
    np.testing.assert_array_equal(seen[0].valid, [False, False, True])
    np.testing.assert_array_equal(seen[0].age_s, np.float32([MAX_AGE_S, MAX_AGE_S, 0.0]))
    np.testing.assert_allclose(seen[-1].data["clock_s"][:, 0], [4 / 12, 5 / 12, 6 / 12])
    np.testing.assert_allclose(seen[-1].age_s, [2 / 12, 1 / 12, 0.0], atol=1e-6)


def test_a_sensor_with_nothing_to_give_leaves_a_gap_not_a_copy() -> None:
    rig, world, _ = _rig(Timing(rate_hz=10.0, history=2), fails=(0.3,))
    seen = {round(now_s, 4): observation.streams["clock"] for now_s, observation in ramp(rig, world, seconds=0.5)}
    gap = seen[0.35]
    np.testing.assert_array_equal(gap.valid, [True, False])
    np.testing.assert_allclose(gap.data["clock_s"][:, 0], [0.2, 0.0], atol=1e-6)
    np.testing.assert_allclose(gap.age_s, [0.15, 0.05], atol=1e-6)
    np.testing.assert_array_equal(seen[0.45].valid, [False, True])
    assert rig.counts == {"clock": {"dropped": 1, "corrupt": 0}}


def test_dropout_loses_its_share_of_frames_and_never_repeats_one() -> None:
    rig, world, _ = _rig(Timing(rate_hz=240.0, dropout=0.3))
    seen = [observation.streams["clock"] for _, observation in ramp(rig, world, seconds=5.0)]
    clocks = [float(stream.data["clock_s"][0, 0]) for stream in seen if stream.valid[0]]
    assert len(clocks) == len(set(clocks)), "a frame was shown in the place of a lost one"
    assert rig.counts["clock"]["dropped"] == len(seen) - len(clocks)
    assert rig.counts["clock"]["dropped"] / len(seen) == pytest.approx(0.3, abs=0.04)  # 3 standard deviations


def test_dropout_one_loses_everything() -> None:
    rig, world, _ = _rig(Timing(rate_hz=12.0, dropout=1.0))
    assert not any(observation.streams["clock"].valid.any() for _, observation in ramp(rig, world, seconds=1.0))


def test_a_frame_with_nan_is_masked_and_counted() -> None:
    rig, world, _ = _rig(Timing(rate_hz=10.0), corrupts=(0.2, 0.3))
    seen = {round(now_s, 4): observation.streams["clock"] for now_s, observation in ramp(rig, world, seconds=0.5)}
    for moment in (0.2, 0.3):
        assert not seen[moment].valid[0]
        assert seen[moment].data["clock_s"][0, 0] == 0.0
    assert seen[0.1].valid[0]
    assert seen[0.4].valid[0]
    assert rig.counts == {"clock": {"dropped": 0, "corrupt": 2}}
    rig.reset(0.0, 0)
    assert rig.counts == {"clock": {"dropped": 0, "corrupt": 0}}


def test_a_stale_frame_is_not_valid() -> None:
    timeline = _timeline(Timing(rate_hz=10.0, max_age_s=0.25))
    timeline.push(0.0, _frame(0.0))
    assert timeline.stream(0.25).valid[0]
    stale = timeline.stream(0.26)
    assert not stale.valid[0]
    assert stale.age_s[0] == pytest.approx(0.26)  # its age is still told
    assert not stale.data["clock_s"].any()


def test_a_late_frame_takes_its_place_by_capture_time() -> None:
    """Jitter makes frame 1 visible after frame 2: then it appears before frame 2, never as the newest."""
    timing = Timing(rate_hz=10.0, delay_s=0.01, jitter_s=0.2, history=3, max_age_s=10.0)
    for seed in range(200):
        extra = _extras(seed, 3, timing.jitter_s)
        arrival = [0.01 + k / 10 + e for k, e in enumerate(extra)]
        if arrival[2] < arrival[1] - 0.05 and arrival[0] < arrival[2]:
            break
    timeline = _timeline(timing, seed)
    for k in range(3):
        timeline.push(k / 10, _frame(k / 10))
    overtaken = timeline.stream(max(arrival[2], 0.2) + 1e-3)
    np.testing.assert_allclose(overtaken.data["clock_s"][:, 0], [0.0, 0.0, 0.2])
    np.testing.assert_array_equal(overtaken.valid, [False, True, True])
    complete = timeline.stream(arrival[1] + 1e-3)
    np.testing.assert_allclose(complete.data["clock_s"][:, 0], [0.0, 0.1, 0.2])
    assert complete.valid.all()


def test_a_driver_that_delivers_out_of_order_is_put_in_order() -> None:
    timeline = _timeline(Timing(rate_hz=10.0, history=2))
    for now_s, stamp_s in ((1.0, 1.0), (1.1, 0.9), (1.2, 1.15)):
        timeline.push(now_s, _frame(stamp_s))
    np.testing.assert_allclose(timeline.stream(1.2).data["clock_s"][:, 0], [1.0, 1.15])


def _extras(seed: int, count: int, jitter_s: float) -> list[float]:
    """The extra delays that a timeline with this seed draws: one uniform number, then one normal, per frame."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        rng.random()
        out.append(abs(rng.normal()) * jitter_s)
    return out


@given(
    st.integers(0, 2**31),
    st.sampled_from([5.0, 12.0, 30.0]),
    st.sampled_from([0.0, 0.03, 0.3]),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.integers(1, 4),
)
def test_forgetting_old_frames_is_never_seen(
    seed: int, rate_hz: float, delay_s: float, jitter_s: float, history: int
) -> None:
    """Against a model that remembers everything: visible frames, in the order of capture, the last T of them."""
    timing = Timing(rate_hz=rate_hz, delay_s=delay_s, jitter_s=jitter_s, history=history, max_age_s=100.0)
    timeline, extra = _timeline(timing, seed), _extras(seed, 40, jitter_s)
    for k in range(40):
        timeline.push(k / rate_hz, _frame(k / rate_hz, clock_s=k + 1))
        for now_s in (k / rate_hz, (k + 0.5) / rate_hz):
            there = [i for i in range(k + 1) if i / rate_hz + delay_s + extra[i] <= now_s + EPSILON_S][-history:]
            expected = [0] * (history - len(there)) + [i + 1 for i in there]
            np.testing.assert_array_equal(timeline.stream(now_s).data["clock_s"][:, 0], expected)


def test_memory_is_bounded_by_what_is_still_under_way() -> None:
    timeline = _timeline(Timing(rate_hz=100.0, delay_s=0.1, jitter_s=0.01, history=2))
    for k in range(2000):
        timeline.push(k / 100, _frame(k / 100))
    assert len(timeline._instants) < 25


def test_frames_of_a_device_with_latency_are_not_hidden_by_a_gap() -> None:
    """Hardware: captured 0.15 s before it is read; a read without result stands for the frame of that time."""
    timeline = _timeline(Timing(rate_hz=10.0, history=3))
    for k, delivered in enumerate([True, True, False, True]):
        now_s = 1.0 + k / 10
        timeline.push(now_s, _frame(now_s - 0.15) if delivered else None)
    stream = timeline.stream(1.3)
    np.testing.assert_array_equal(stream.valid, [True, False, True])
    np.testing.assert_allclose(stream.age_s, [0.35, 0.25, 0.15], atol=1e-6)


def test_wrong_frames_are_named() -> None:
    timeline = _timeline(Timing(rate_hz=10.0))
    with pytest.raises(SpecError, match=r"sensor 'clock', field 'clock_s'.*\(1,\).*\(2,\)"):
        timeline.push(0.0, ClockFrame(stamp_s=0.0, clock_s=np.zeros(2), noise=np.zeros(1)))
    other = Timeline("clock", Timing(rate_hz=10.0), spaces.Dict({"clock": box(0, 1, (1,))}))
    with pytest.raises(SpecError, match="clock_s"):
        other.push(0.0, _frame(0.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_hz": 0.0},
        {"rate_hz": float("nan")},
        {"delay_s": -0.1},
        {"jitter_s": -0.1},
        {"dropout": 1.5},
        {"history": 0},
        {"max_age_s": 0.0},
    ],
)
def test_timing_refuses_nonsense(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Timing(**({"rate_hz": 12.0} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("stamp_s", [2.0, 1.0 + 2 * FUTURE_S, float("nan"), float("inf")])
def test_a_frame_from_the_future_is_masked_and_does_not_stay(stamp_s: float) -> None:
    """A wild stamp would otherwise be the newest frame until its time has come, and say that it is fresh."""
    timeline = _timeline(Timing(rate_hz=10.0, live=True, history=2))
    timeline.push(0.95, _frame(0.9))
    timeline.push(1.0, _frame(stamp_s, clock_s=0.95))
    assert timeline.corrupt == 1
    np.testing.assert_array_equal(timeline.stream(1.0).valid, [True, False])
    timeline.push(1.1, _frame(1.05))
    timeline.push(1.2, _frame(1.15))
    np.testing.assert_allclose(timeline.stream(1.2).data["clock_s"][:, 0], [1.05, 1.15])


def test_a_stamp_within_the_error_of_a_clock_map_is_now() -> None:
    timeline = _timeline(Timing(rate_hz=10.0, live=True))
    timeline.push(1.0, _frame(1.0 + 0.5 * FUTURE_S))
    assert timeline.corrupt == 0
    assert timeline.stream(1.0).valid[0]
    assert timeline.stream(1.0).age_s[0] == 0.0


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=300), st.floats(1e-5, 1.0))
def test_quantiles_without_keeping_numbers_are_right_to_one_percent(values: list[float], scale: float) -> None:
    spread, scaled = Spread(), [scale * value for value in values]
    for value in scaled:
        spread.add(value)
    got = spread.quantiles()
    assert (got.count, got.max_s) == (len(values), max(scaled))
    for share, found in ((0.5, got.p50_s), (0.99, got.p99_s)):
        true = sorted(scaled)[max(int(np.ceil(share * len(scaled))) - 1, 0)]
        assert found == pytest.approx(true, rel=0.0101, abs=1e-6)


def test_quantiles_take_a_fixed_amount_of_memory() -> None:
    spread = Spread()
    assert spread.quantiles() == Quantiles(0, 0.0, 0.0, 0.0)
    for value in np.random.default_rng(0).uniform(-3, 6, 50_000):
        spread.add(10.0**value)
    assert len(spread._bins) < 1500
    assert spread.quantiles().p50_s == pytest.approx(10**1.5, rel=0.1)


def test_what_an_aligned_rig_forgets_is_never_missed_and_memory_is_bounded() -> None:
    """A rig that keeps everything shows the same."""
    given_frames = {
        "camera": (live(30.0, history=2), every(30.0, 0.08, 6.0, lost=range(20, 25))),
        "state": (live(500.0, state=True, history=4), every(500.0, 0.01, 6.0, lost=range(900, 1000))),
    }
    rig = rig_of({name: playing(timing, frames) for name, (timing, frames) in given_frames.items()})
    for step, now_s in enumerate(np.arange(0.0, 5.9, 0.021).tolist()):
        streams = seen_at(rig, now_s)
        if step % 7:
            continue
        whole = {name: Timeline(name, timing, SPACE, 1e6) for name, (timing, _) in given_frames.items()}
        for name, (_, frames) in given_frames.items():
            whole[name].reset(0.0, np.random.default_rng(0))
            for _, stamp_s in itertools.takewhile(lambda frame, now_s=now_s: frame[0] <= now_s + 1e-9, frames):
                if stamp_s > now_s - 0.7:
                    whole[name].push(now_s, TimeFrame(stamp_s=stamp_s, time_s=np.array([stamp_s])))
        for name, stream in align(whole, RULE, now_s).items():
            _assert_same(streams[name], stream)
    assert len(rig._timelines["state"]._instants) < 2 * 500 * 0.4
    assert len(rig._timelines["camera"]._instants) < 2 * 30 * 0.4
