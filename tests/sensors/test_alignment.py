"""An aligned rig: all is from one moment, says truly from when, and is masked rather than passed off as newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.alignment import Alignment, align
from sensors.base import Sensor
from sensors.observation import Stream
from sensors.rig import SensorRig
from sensors.timeline import Timeline, Timing
from tests.benchmarks.bench_skew import SPACE, PlayedSensor, TimeFrame
from tests.fake_world import FakeWorld
from tests.sensors.clock_sensor import ClockSensor, ramp

RULE = Alignment(window_s=0.3, tolerance_s=0.02)
OFFSETS = {"first": -0.015, "middle": 0.0, "last": 0.015}


def live(rate_hz: float, *, state: bool = False, history: int = 1, max_age_s: float = 1.0) -> Timing:
    return Timing(rate_hz=rate_hz, live=True, interpolate=state, history=history, max_age_s=max_age_s)


Given = Sequence[tuple[float, float | None]]  # arrived, captured; None = the device was away


def every(rate_hz: float, latency_s: float, seconds: float, lost: Sequence[int] = ()) -> list[tuple[float, float]]:
    return [(k / rate_hz + latency_s, k / rate_hz) for k in range(int(seconds * rate_hz)) if k not in lost]


def playing(timing: Timing, given: Given, shows: Callable[[float], float] = float) -> PlayedSensor:
    """A live sensor that shows its own capture time, or a function of it."""
    frames = [None if s is None else TimeFrame(stamp_s=s, time_s=np.array([shows(s)])) for _, s in given]
    return PlayedSensor(timing, frames, [arrived_s for arrived_s, _ in given])


def rig_of(sensors: Mapping[str, Sensor], alignment: Alignment | None = RULE) -> SensorRig:
    rig = SensorRig(sensors, alignment)
    rig.open(None)
    rig.reset(0.0, 0)
    return rig


def seen_at(rig: SensorRig, now_s: float) -> dict[str, Stream]:
    rig.tick(now_s)
    return dict(rig.observe(now_s).streams)


def shown(stream: Stream, row: int = -1) -> float | None:
    """The true time of what is shown; None = masked."""
    return float(stream.data["time_s"][row, 0]) if stream.valid[row] else None


# ------------------------------------------------------------------------------------------------------------- ages


@pytest.mark.parametrize("slow_s", [0.0, 0.05, 0.1])
@pytest.mark.parametrize(("camera_hz", "state_hz"), [(30.0, 240.0), (12.0, 60.0), (24.0, 20.0)])
def test_ramp_what_is_shown_is_from_now_minus_its_age(camera_hz: float, state_hz: float, slow_s: float) -> None:
    """The world reports its own time, so an interpolated state must read exactly its reference."""
    world = FakeWorld()
    sensors = {
        "camera": ClockSensor(Timing(camera_hz, delay_s=slow_s)),
        "other": ClockSensor(Timing(60.0, delay_s=0.02, jitter_s=0.01, dropout=0.1)),
        "state": ClockSensor(Timing(state_hz, delay_s=0.004, jitter_s=0.002, dropout=0.1, interpolate=True)),
    }
    rig = SensorRig(sensors, Alignment(window_s=0.4))
    rig.open(world)
    together = exact = 0
    for now_s, observation in ramp(rig, world, seconds=4.0):
        streams = observation.streams
        for stream in streams.values():
            if stream.valid[0]:
                assert stream.data["clock_s"][0, 0] == pytest.approx(now_s - stream.age_s[0], abs=1e-6)
        if streams["camera"].valid[0]:
            age_s = float(streams["camera"].age_s[0])
            assert slow_s - 1e-6 <= age_s < 0.4 + 1e-6
        if all(stream.valid[0] for stream in streams.values()):
            together += 1
            times = {name: float(stream.data["clock_s"][0, 0]) for name, stream in streams.items()}
            assert max(times.values()) - min(times.values()) <= 2 * 0.02
            exact += min(abs(times["state"] - times[name]) for name in ("camera", "other")) < 1e-6
    assert together > 0.9 * 4.0 * 240
    if slow_s:  # otherwise the newest picture is often newer than the newest state
        assert exact > 0.95 * together
    assert rig.timing_report().skew_s.p99_s <= 0.02


def test_observing_changes_nothing() -> None:
    sensors = lambda: {  # noqa: E731  # twice the same
        "camera": playing(live(30.0, history=2), every(30.0, 0.08, 3.0, lost=(11, 40, 41))),
        "state": playing(live(200.0, state=True, history=3), every(200.0, 0.01, 3.0)),
    }
    often, seldom = rig_of(sensors()), rig_of(sensors())
    for now_s in np.arange(0.0, 2.9, 0.013).tolist():
        often.tick(now_s)
        seldom.tick(now_s)
        first, second = often.observe(now_s), often.observe(now_s)
        for name, stream in first.streams.items():
            _assert_same(stream, second.streams[name])
    for name, stream in seldom.observe(now_s).streams.items():
        _assert_same(stream, first.streams[name])
    assert often.timing_report().skew_s.count > 200
    assert seldom.timing_report().latency_s == often.timing_report().latency_s


def _assert_same(one: Stream, other: Stream) -> None:
    np.testing.assert_array_equal(one.age_s, other.age_s)
    np.testing.assert_array_equal(one.valid, other.valid)
    for field, value in one.data.items():
        np.testing.assert_array_equal(value, other.data[field])


# ------------------------------------------------------------------------------------------------------- what is chosen


def test_the_newest_of_each_is_from_other_times_and_aligned_it_is_not() -> None:
    sensors = {
        "slow": playing(live(30.0), every(30.0, 0.08, 3.0)),
        "fast": playing(live(60.0), every(60.0, 0.01, 3.0)),
        "state": playing(live(1000.0, state=True), every(1000.0, 0.005, 3.0)),
    }
    for rule, low_s, high_s in ((None, 0.05, 0.12), (RULE, 0.0, 1e-9)):
        rig = rig_of(sensors, rule)
        for now_s in np.arange(0.5, 2.9, 0.017).tolist():
            times = [shown(stream) for stream in seen_at(rig, now_s).values()]
            assert None not in times
            assert low_s <= max(times) - min(times) <= high_s  # type: ignore[type-var, operator]


def test_where_a_frame_was_lost_the_bundle_before_is_shown() -> None:
    """Frame 32 of the fast camera is lost, which fitted frame 16 of the slow one; both are shown as of frame 15."""
    for lost, expected in (((), 16 / 30), ((32,), 15 / 30)):
        rig = rig_of(
            {
                "slow": playing(live(30.0), every(30.0, 0.05, 3.0)),
                "fast": playing(live(60.0), every(60.0, 0.01, 3.0, lost)),
            },
            Alignment(window_s=0.3, tolerance_s=0.005),
        )
        streams = seen_at(rig, 16 / 30 + 0.055)
        assert [shown(stream) for stream in streams.values()] == pytest.approx([expected, expected])
        assert streams["slow"].age_s[0] == pytest.approx(16 / 30 + 0.055 - expected, abs=1e-6)


def test_a_sensor_that_lost_too_much_is_masked_alone_and_tells_its_age() -> None:
    rig = rig_of(
        {
            "dying": playing(live(30.0), every(30.0, 0.01, 1.0)),  # its last frame is of 29 / 30 s
            "camera": playing(live(30.0), every(30.0, 0.01, 3.0)),
            "state": playing(live(100.0, state=True), every(100.0, 0.01, 3.0)),
        }
    )
    held = seen_at(rig, 1.2)
    assert [shown(stream) for stream in held.values()] == pytest.approx([29 / 30] * 3)
    gone = seen_at(rig, 1.5)
    assert not gone["dying"].valid[0]
    assert not gone["dying"].data["time_s"].any()
    assert gone["dying"].age_s[0] == pytest.approx(1.5 - 29 / 30, abs=1e-6)
    assert shown(gone["camera"]) == shown(gone["state"]) == pytest.approx(44 / 30)
    assert rig.timing_report().complete == 1


def test_nothing_is_held_back_for_a_frame_that_is_too_old_to_be_shown() -> None:
    rig = rig_of(
        {
            "dying": playing(live(30.0, max_age_s=0.1), every(30.0, 0.01, 1.0)),
            "camera": playing(live(30.0), every(30.0, 0.01, 3.0)),
        }
    )
    assert [shown(stream) for stream in seen_at(rig, 1.06).values()] == pytest.approx([29 / 30] * 2)
    assert [shown(stream) for stream in seen_at(rig, 1.15).values()] == [None, pytest.approx(34 / 30)]


def test_nothing_is_shown_beyond_its_own_greatest_age() -> None:
    rig = rig_of(
        {
            "camera": playing(live(30.0, max_age_s=0.5), every(30.0, 0.01, 1.0)),
            "state": playing(live(100.0, state=True, max_age_s=0.1), every(100.0, 0.01, 1.0)),
        }
    )
    for now_s in np.arange(0.9, 1.7, 0.01).tolist():
        for name, limit_s in (("camera", 0.5), ("state", 0.1)):
            stream = seen_at(rig, now_s)[name]
            if stream.valid[0]:
                assert now_s - float(shown(stream) or 0.0) <= limit_s + 2e-6
    assert not any(stream.valid[0] for stream in seen_at(rig, 1.7).values())


def test_a_slow_sensor_is_shown_until_it_is_too_old() -> None:
    """One frame a second: the window hides it only where there is something in it."""
    rig = rig_of({"slow": playing(live(1.0, max_age_s=2.0), every(1.0, 0.1, 3.0))})
    for now_s, expected in ((0.2, 0.0), (1.05, 0.0), (1.15, 1.0), (2.0, 1.0), (3.9, 2.0), (4.1, None)):
        assert shown(seen_at(rig, now_s)["slow"]) == expected, now_s
    two = {"one": every(1.0, 0.1, 3.0), "two": [(a + 0.5, c + 0.5) for a, c in every(1.0, 0.1, 3.0)]}
    rig = rig_of({name: playing(live(1.0, max_age_s=2.0), given) for name, given in two.items()})
    assert [shown(stream) for stream in seen_at(rig, 2.05).values()] == [None, 1.5], "one of them, not two times as one"


def test_states_without_pictures_are_shown_at_the_newest_moment_that_all_of_them_know() -> None:
    rig = rig_of(
        {
            "late": playing(live(50.0, state=True), every(50.0, 0.06, 2.0)),
            "fast": playing(live(1000.0, state=True), every(1000.0, 0.003, 2.0)),
        }
    )
    streams = seen_at(rig, 1.5)
    assert shown(streams["late"]) == shown(streams["fast"]) == pytest.approx(1.44)


def test_a_state_is_never_extrapolated() -> None:
    """Its newest reading is 15 ms before the picture: it is shown as it is, with its own age, or masked."""
    for tolerance_s, expected in ((0.02, 0.985), (0.01, None)):
        rig = rig_of(
            {
                "camera": playing(live(1.0), [(1.01, 1.0)]),
                "state": playing(live(100.0, state=True), [(k / 1000, k / 1000) for k in range(0, 986, 5)]),
            },
            Alignment(tolerance_s=tolerance_s),
        )
        streams = seen_at(rig, 1.02)
        assert shown(streams["camera"]) == 1.0
        assert shown(streams["state"]) == expected
        assert streams["state"].age_s[0] == pytest.approx(0.035, abs=1e-6)


def test_a_state_is_not_interpolated_over_a_long_gap() -> None:
    for gap_s, valid in ((0.049, True), (0.2, False)):
        before = [(k / 1000, k / 1000) for k in range(1000)]
        after = [(1.5, k / 1000) for k in range(1000 + round(1000 * gap_s), 1400)]
        camera_s = 1.0 + gap_s / 2
        rig = rig_of(
            {
                "camera": playing(live(30.0), [(1.5, camera_s)]),
                "state": playing(live(1000.0, state=True), before + after),
            },
            Alignment(window_s=0.6),
        )
        stream = seen_at(rig, 1.5)["state"]
        assert bool(stream.valid[0]) is valid
        assert shown(stream) == (pytest.approx(camera_s) if valid else None)


def test_before_shows_no_picture_from_after_the_reference() -> None:
    """Three cameras; the state stands at the reference. Two are within 16 ms of any one, but not both before it."""
    for before, cameras in ((False, 3), (True, 2)):
        given = {name: [(a + off_s, c + off_s) for a, c in every(30.0, 0.04, 3.0)] for name, off_s in OFFSETS.items()}
        sensors = {name: playing(live(30.0), frames) for name, frames in given.items()}
        sensors["state"] = playing(live(500.0, state=True), every(500.0, 0.0, 3.0))
        rig = rig_of(sensors, Alignment(tolerance_s=0.016, before=before))
        times = [time_s for s in seen_at(rig, 2.01).values() if (time_s := shown(s)) is not None]
        assert len(times) == cameras + 1
        assert (max(times) > times[-1] + 1e-6) is not before


def test_history_is_of_captures_for_pictures_and_of_a_grid_for_states() -> None:
    rig = rig_of(
        {
            "camera": playing(live(10.0, history=3), every(10.0, 0.02, 3.0, lost=(8,))),
            "state": playing(live(50.0, state=True, history=3), [(k / 50 + 0.013, k / 50 + 0.003) for k in range(99)]),
        }
    )
    streams = seen_at(rig, 1.05)
    assert [shown(streams["camera"], row) for row in range(3)] == pytest.approx([0.7, 0.9, 1.0])
    assert [shown(streams["state"], row) for row in range(3)] == pytest.approx([0.96, 0.98, 1.0])
    np.testing.assert_allclose(streams["state"].age_s, [0.09, 0.07, 0.05], atol=1e-6)


@given(
    seed=st.integers(0, 2**31),
    window_s=st.floats(0.05, 0.5),
    tolerance_s=st.floats(0.0, 0.05),
    eagerness=st.sampled_from([0.0, 0.1, 1.0]),
    before=st.booleans(),
)
@settings(max_examples=150)
def test_no_other_reference_would_have_been_better(
    seed: int, window_s: float, tolerance_s: float, eagerness: float, before: bool
) -> None:
    """Against a search through everything that was ever seen, by the rule as it is written down."""
    rng = np.random.default_rng(seed)
    rule = Alignment(window_s, tolerance_s, 0.05, eagerness, before)
    now_s = 2.0
    timelines, truth = {}, {}
    for index in range(rng.integers(1, 4)):
        rate_hz, state = float(rng.choice([12.0, 30.0, 61.0])), bool(rng.random() < 0.3)
        stamps = np.arange(int(1.9 * rate_hz)) / rate_hz + rng.random() / rate_hz
        stamps = stamps[rng.random(len(stamps)) > 0.2]
        stamps = stamps[stamps < now_s - rng.choice([0.0, 0.08, 0.2])]
        timeline = Timeline(str(index), live(rate_hz, state=state), SPACE, 10.0)
        timeline.reset(0.0, rng)
        for stamp_s in stamps.tolist():
            timeline.push(now_s, TimeFrame(stamp_s=stamp_s, time_s=np.array([stamp_s])))
        timelines[str(index)] = timeline
        truth[str(index)] = (stamps[stamps >= now_s - 1.0], state, max(0.05, 2.5 / rate_hz))

    def time_shown(name: str, moment_s: float) -> float | None:
        stamps, state, gap_s = truth[name]
        if len(stamps) == 0:
            return None
        below, above = stamps[stamps <= moment_s], stamps[stamps >= moment_s]
        if state and len(below) and len(above) and above[0] - below[-1] <= gap_s:
            return moment_s
        legal = stamps[stamps <= moment_s] if before else stamps
        legal = legal[np.abs(legal - moment_s) <= tolerance_s]
        return float(legal[np.argmin(np.abs(legal - moment_s))]) if len(legal) else None

    def cost(moment_s: float) -> tuple[int, float]:
        times = [t for name in truth if (t := time_shown(name, moment_s)) is not None]
        return -len(times), max(times) - min(times) + eagerness * (now_s - moment_s)

    pictures = [s for stamps, state, _ in truth.values() if not state for s in stamps if s >= now_s - window_s]
    states = [stamps[-1] for stamps, _, _ in truth.values() if len(stamps) and stamps[-1] >= now_s - window_s]
    last = [max((stamps[-1] for stamps, _, _ in truth.values() if len(stamps)), default=None)]
    candidates = [float(s) for s in (pictures or states or last) if s is not None]
    streams = align(timelines, rule, now_s)
    if not candidates:
        assert not any(stream.valid[0] for stream in streams.values())
        return
    best = min(cost(moment_s) for moment_s in candidates)
    good = [moment_s for moment_s in candidates if cost(moment_s) <= (best[0], best[1] + 1e-9)]
    got = {name: shown(stream) for name, stream in streams.items()}
    wanted = [{name: time_shown(name, moment_s) for name in truth} for moment_s in good]
    assert any(_close(got, other) for other in wanted), (got, wanted)


def _close(one: Mapping[str, float | None], other: Mapping[str, float | None]) -> bool:
    return all(
        (a is None) == (b is None) and (a is None or b is None or abs(a - b) < 1e-6)
        for a, b in ((one[name], other[name]) for name in one)
    )
