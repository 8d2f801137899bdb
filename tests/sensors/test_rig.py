"""The rig: noise by seed and name only, sensors switched off, errors, and what it measured of its own timing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from policies.episode_file import Episode
from policies.episodes import EpisodeHeader, EpisodeWriter
from sensors.alignment import Alignment, between
from sensors.errors import DataError, SensorError, SpecError
from sensors.frames import Frame, JointFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, pose, rotation_angle_rad
from sensors.observation import MAX_AGE_S, Observation
from sensors.rig import SensorRig
from sensors.spec import box
from sensors.timeline import Quantiles, Timeline, Timing, TimingReport
from tests.fake_world import FakeWorld
from tests.policies.point_env import SPEC
from tests.sensors.clock_sensor import ClockSensor, ramp
from tests.sensors.test_alignment import every, live, playing, rig_of, seen_at

TIMING = Timing(rate_hz=24.0, delay_s=0.02, jitter_s=0.01, dropout=0.2, history=2)


def _noise(names: tuple[str, ...], seed: Any = 7, disabled: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
    """Name -> everything that a sensor showed in one second: noise, validity and age."""
    world = FakeWorld()
    rig = SensorRig({name: ClockSensor(TIMING) for name in names})
    rig.open(world)
    rig.disable(disabled)
    seen: list[Observation] = [observation for _, observation in ramp(rig, world, 1.0, seed)]
    return {
        name: np.concatenate(
            [
                np.concatenate([o.streams[name].data["noise"].ravel(), o.streams[name].age_s, o.streams[name].valid])
                for o in seen
            ]
        )
        for name in names
    }


def test_same_seed_same_noise_and_another_seed_another() -> None:
    first = _noise(("a", "b"))
    for name, value in _noise(("a", "b")).items():
        np.testing.assert_array_equal(value, first[name])
    for name, value in _noise(("a", "b"), seed=8).items():
        assert not np.array_equal(value, first[name])


def test_sensors_have_noise_of_their_own() -> None:
    noise = _noise(("a", "b", "ab", "ba"))
    values = [value.tobytes() for value in noise.values()]
    assert len(set(values)) == 4


def test_noise_does_not_depend_on_the_other_sensors() -> None:
    alone = _noise(("b",))["b"]
    np.testing.assert_array_equal(_noise(("a", "b"))["b"], alone)
    np.testing.assert_array_equal(_noise(("b", "c", "d"))["b"], alone)
    np.testing.assert_array_equal(_noise(("a", "b"), disabled=frozenset({"a"}))["b"], alone)


def test_seed_sequences_spawned_from_one_parent_differ() -> None:
    first, second = np.random.SeedSequence(3).spawn(2)
    assert not np.array_equal(_noise(("a",), first)["a"], _noise(("a",), second)["a"])
    np.testing.assert_array_equal(_noise(("a",), np.random.SeedSequence(3))["a"], _noise(("a",), 3)["a"])
    np.testing.assert_array_equal(_noise(("a",), first)["a"], _noise(("a",), first)["a"])  # the seed is not used up


def test_a_disabled_sensor_is_not_read_and_shows_nothing() -> None:
    world, on, off = FakeWorld(), ClockSensor(Timing(rate_hz=12.0)), ClockSensor(Timing(rate_hz=12.0))
    rig = SensorRig({"on": on, "off": off})
    rig.open(world)
    rig.disable(frozenset({"off"}))
    for _, observation in ramp(rig, world, 0.5):
        assert not observation.streams["off"].valid.any()
        assert not observation.streams["off"].data["clock_s"].any()
        assert observation.streams["on"].valid.all()
        assert rig.space.contains(observation.to_dict())
    assert (on.reads, off.reads) == (7, 0)
    rig.disable(frozenset())
    assert all(observation.streams["off"].valid.all() for _, observation in ramp(rig, world, 0.5))


def test_names_are_checked() -> None:
    rig = SensorRig({"front": ClockSensor(Timing(rate_hz=12.0))})
    with pytest.raises(SpecError, match="Did you mean 'front'"):
        rig.disable(frozenset({"frnt"}))
    for bad in ("", "a/b"):
        with pytest.raises(SpecError, match="Rename"):
            SensorRig({bad: ClockSensor(Timing(rate_hz=12.0))})


def test_opening_half_way_closes_what_was_open() -> None:
    class _Broken(ClockSensor):  # type: ignore[misc]  # only here: a fault is put into a final class
        def open(self, world: Any) -> None:
            raise SensorError("sensor 'second'", "a device", "nothing", "Plug it in.")

    first, second = ClockSensor(TIMING), _Broken(TIMING)
    rig = SensorRig({"first": first, "second": second})
    with pytest.raises(SensorError, match="Plug it in"):
        rig.open(FakeWorld())
    assert first.closed == 1
    with pytest.raises(SensorError, match="Call open"):
        rig.reset(0.0, 0)


def test_a_closed_rig_refuses_and_closes_twice() -> None:
    rig = SensorRig({"a": ClockSensor(TIMING)})
    with pytest.raises(SensorError, match="Call open"):
        rig.reset(0.0, 0)
    rig.open(FakeWorld())
    rig.reset(0.0, 0)
    rig.close()
    rig.close()
    with pytest.raises(SensorError):
        rig.reset(0.0, 0)


def test_the_empty_rig_is_legal() -> None:
    rig = SensorRig({})
    rig.open(FakeWorld())
    rig.reset(0.0, 0)
    rig.tick(0.0)
    assert rig.observe(0.0).to_dict() == {}
    assert rig.next_due_s == float("inf")


def test_next_due_is_the_earliest() -> None:
    world = FakeWorld()
    rig = SensorRig({"slow": ClockSensor(Timing(rate_hz=2.0)), "fast": ClockSensor(Timing(rate_hz=10.0))})
    rig.open(world)
    rig.reset(1.0, 0)
    assert rig.next_due_s == 1.0
    rig.tick(1.0)
    assert rig.next_due_s == pytest.approx(1.1)
    assert rig.rates_hz == {"slow": 2.0, "fast": 10.0}


def test_latency_and_skew_are_those_of_the_sensors() -> None:
    world = FakeWorld()
    rig = SensorRig(
        {
            "fast": ClockSensor(Timing(rate_hz=240.0, delay_s=0.0125)),
            "slow": ClockSensor(Timing(rate_hz=12.0, delay_s=0.1, dropout=0.2)),
        }
    )
    rig.open(world)
    shown = [o for _, o in ramp(rig, world, seconds=5.0) if all(s.valid[0] for s in o.streams.values())]
    report = rig.timing_report()
    assert report.latency_s["fast"] == Quantiles(1201, *[pytest.approx(0.0125, rel=0.01)] * 3)
    assert report.latency_s["slow"].p50_s == pytest.approx(0.1, rel=0.01)
    assert report.latency_s["slow"].count == 61 - report.dropped["slow"]
    assert report.dropped == {"fast": 0, "slow": rig.counts["slow"]["dropped"]}
    assert report.corrupt == {"fast": 0, "slow": 0}
    skews = [abs(float(o.streams["slow"].age_s[0] - o.streams["fast"].age_s[0])) for o in shown]
    assert report.complete == len(shown) > 500
    # Where one sensor alone is valid, nothing is apart.
    alone = sum(o.streams["fast"].valid[0] for _, o in ramp(rig, world, seconds=5.0)) - len(shown)
    skews += [0.0] * int(alone)
    assert report.skew_s.count == len(skews)
    assert report.skew_s.p50_s == pytest.approx(np.quantile(skews, 0.5, method="inverted_cdf"), rel=0.011)
    assert report.skew_s.p99_s == pytest.approx(np.quantile(skews, 0.99, method="inverted_cdf"), rel=0.011)
    assert report.skew_s.max_s == pytest.approx(max(skews), abs=1e-6)
    assert not report.aligned
    assert "latency slow" in str(report)


def test_the_report_begins_anew_with_each_episode_and_counts_a_moment_once() -> None:
    world = FakeWorld()
    rig = SensorRig({"a": ClockSensor(Timing(rate_hz=12.0)), "b": ClockSensor(Timing(rate_hz=12.0))})
    rig.open(world)
    ramp(rig, world, seconds=1.0)
    rig.reset(0.0, 0)
    empty = rig.timing_report()
    assert (empty.complete, empty.skew_s) == (0, Quantiles(0, 0.0, 0.0, 0.0))
    assert empty.latency_s["a"].count == 0
    rig.tick(0.0)
    for _ in range(3):
        rig.observe(0.0)
    assert rig.timing_report().complete == rig.timing_report().skew_s.count == 1
    rig.disable(frozenset({"b"}))
    world.now_s = 1.0
    rig.tick(1.0)
    rig.observe(1.0)
    assert rig.timing_report().complete == 2, "an unplugged sensor is not awaited"


def test_a_report_goes_through_json() -> None:
    world = FakeWorld()
    rig = SensorRig({"a": ClockSensor(TIMING), "b": ClockSensor(Timing(rate_hz=12.0))})
    rig.open(world)
    ramp(rig, world, seconds=1.0)
    report = rig.timing_report()
    data = json.loads(json.dumps(report.to_json()))
    assert TimingReport.from_json(data) == report
    with pytest.raises(SpecError, match="TimingReport"):
        TimingReport.from_json(data | {"skew_s": 3})
    with pytest.raises(SpecError, match="latency_s"):
        TimingReport.from_json({})


def record(folder: Path, *, keep: bool) -> tuple[Path, list[Observation], TimingReport]:
    """An episode of an aligned rig whose state comes late and out of order, so that moments are interpolated anew."""
    rng = np.random.default_rng(0)
    late = sorted((captured_s + rng.exponential(0.02), captured_s) for _, captured_s in every(100.0, 0.0, 3.0))
    rig = rig_of(
        {
            "camera": playing(live(10.0, history=2), every(10.0, 0.02, 3.0, lost=(7, 8))),
            "state": playing(live(100.0, state=True, history=2), late, lambda s: np.sin(500 * s)),
        }
    )
    writer = EpisodeWriter(folder, 0, EpisodeHeader(rig.sensor_spaces, rig.history, rig.rates_hz, SPEC, 0, {}))
    seen = []
    for now_s in np.arange(0.0, 2.9, 0.0137).tolist():
        rig.tick(now_s)
        seen.append(rig.observe(now_s))
        writer.add(seen[-1], np.zeros(10), np.zeros(10))
    return writer.finish(True, rig.timing_report() if keep else None), seen, rig.timing_report()


def test_an_aligned_episode_comes_back_bit_for_bit_with_its_timing(tmp_path: Path) -> None:
    path, seen, report = record(tmp_path, keep=True)
    episode = Episode(path)
    assert episode.timing == report
    assert report.aligned
    assert report.latency_s["camera"].p50_s == pytest.approx(0.02, abs=0.014)
    for row, observation in enumerate(seen):
        values = observation.to_dict()
        for name, value in episode.observation(row).to_dict().items():
            np.testing.assert_array_equal(value, values[name], err_msg=f"step {row}, {name}")


def test_an_episode_without_timing_says_so_and_a_damaged_one_is_found(tmp_path: Path) -> None:
    path, _, _ = record(tmp_path, keep=False)
    assert Episode(path).timing is None
    path, _, _ = record(tmp_path, keep=True)
    with h5py.File(path, "a") as file:
        file.attrs["timing"] = str(file.attrs["timing"]).replace("1", "2")
    with pytest.raises(DataError, match="an intact timing"):
        Episode(path)
    with h5py.File(path, "a") as file:
        del file.attrs["timing"]
    with pytest.raises(DataError, match="an intact timing"):
        Episode(path)


def test_live_latency_is_until_the_rig_could_show_it() -> None:
    rig = rig_of({"camera": playing(live(10.0), every(10.0, 0.03, 3.0))}, None)
    for now_s in np.arange(0.0, 2.9, 0.05).tolist():
        seen_at(rig, now_s)
    latency = rig.timing_report().latency_s["camera"]
    assert latency.p50_s == pytest.approx(0.05, rel=0.011), "it came 30 ms after its capture and was read 20 ms later"


@given(share=st.floats(0, 1), seed=st.integers(0, 2**31), angle_rad=st.floats(0, 3.1))
def test_between_two_frames(share: float, seed: int, angle_rad: float) -> None:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    start, end = pose(rng.normal(size=3), rng.normal(size=4)), pose(rng.normal(size=3))
    end[:3, :3] = start[:3, :3] @ axis_angle_to_matrix(angle_rad * axis)

    def frame(stamp_s: float, base_from_tool: FloatArray, values: FloatArray) -> JointFrame:
        return JointFrame(
            stamp_s=stamp_s, position_rad=values.astype(np.float32), velocity_rad_s=values, gripper_m=np.ones(1),
            base_from_tool=base_from_tool,
        )  # fmt: skip

    first, second = rng.normal(size=7), rng.normal(size=7)
    mixed = between(frame(5.0, start, first), frame(6.0, end, second), 5.0 + share)
    assert isinstance(mixed, JointFrame)
    share = mixed.stamp_s - 5.0  # as a float has it
    np.testing.assert_allclose(mixed.velocity_rad_s, (1 - share) * first + share * second, atol=1e-12)
    assert mixed.position_rad.dtype == np.float32
    np.testing.assert_allclose(mixed.base_from_tool[:3, 3], (1 - share) * start[:3, 3] + share * end[:3, 3], atol=1e-9)
    turned = rotation_angle_rad(start[:3, :3], mixed.base_from_tool[:3, :3])
    assert turned == pytest.approx(share * angle_rad, abs=1e-6)
    left = rotation_angle_rad(mixed.base_from_tool[:3, :3], end[:3, :3])
    assert left == pytest.approx((1 - share) * angle_rad, abs=1e-6)


@dataclass(frozen=True, eq=False, kw_only=True)
class TurnFrame(Frame):
    """quaternion_xyzw float [4]."""

    quaternion_xyzw: FloatArray


@given(share=st.floats(0, 1), angle_rad=st.floats(0, 3.1), flip=st.booleans())
def test_quaternions_turn_evenly_and_the_short_way(share: float, angle_rad: float, flip: bool) -> None:
    end = np.array([0.0, np.sin(angle_rad / 2), 0.0, np.cos(angle_rad / 2)]) * (-1 if flip else 1)
    one = TurnFrame(stamp_s=0.0, quaternion_xyzw=np.array([0.0, 0.0, 0.0, 1.0]))
    mixed = between(one, TurnFrame(stamp_s=1.0, quaternion_xyzw=end), share)
    expected = [0.0, np.sin(share * angle_rad / 2), 0.0, np.cos(share * angle_rad / 2)]
    sign = np.sign(mixed.arrays()["quaternion_xyzw"] @ expected)
    np.testing.assert_allclose(sign * mixed.arrays()["quaternion_xyzw"], expected, atol=1e-9)


def test_what_cannot_be_interpolated_is_refused_when_the_rig_is_built() -> None:
    space = spaces.Dict({"rgb": box(0, 255, (4, 4, 3), np.uint8)})
    with pytest.raises(SpecError, match=r"sensor 'front', timing.interpolate.*'rgb': uint8.*interpolate: false"):
        Timeline("front", Timing(30.0, interpolate=True), space)


@pytest.mark.parametrize(
    "wrong",
    [{"window_s": 0.0}, {"tolerance_s": -0.1}, {"max_gap_s": float("nan")}, {"eagerness": -1.0}, {"window_s": np.inf}],
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=f"Alignment.{next(iter(wrong))}"):
        Alignment(**wrong)  # type: ignore[arg-type]


def test_gaps_unplugged_sensors_and_empty_rigs() -> None:
    camera = playing(live(30.0), every(30.0, 0.01, 1.0))
    lost = playing(live(30.0), [(0.2, None), (0.5, None)])
    rig = rig_of({"camera": camera, "lost": lost, "never": playing(live(30.0), [])})
    first = rig.observe(0.0)
    assert rig.space.contains(first.to_dict())
    assert not any(stream.valid.any() for stream in first.streams.values())
    streams = seen_at(rig, 0.5)
    assert streams["camera"].valid[0]
    assert not streams["lost"].valid[0]
    assert streams["never"].age_s[0] == np.float32(MAX_AGE_S)
    rig.disable(frozenset({"camera"}))
    assert not seen_at(rig, 2.0)["camera"].valid[0]
    assert rig_of({}).observe(1.0).to_dict() == {}
