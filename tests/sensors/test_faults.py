"""Faults around a clock sensor, a camera and a live device: what comes through, and what a rig makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sensors.camera import RgbdCamera
from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.faults import Corrupt, Delay, Disconnect, Drop, Freeze, Miscalibrate, Noise, Reorder
from sensors.faulty import Fault, Faulty, When
from sensors.frames import RgbdFrame
from sensors.live import LiveSensor
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.fake_world import FakeWorld
from tests.sensors.clock_sensor import ClockSensor, ramp
from tests.sensors.test_live import LIVE, PlayedDevice, eventually

TEN = Timing(rate_hz=10.0, max_age_s=10.0)


def shown(
    faults: Sequence[Fault], seconds: float = 20.0, timing: Timing = TEN, seed: int = 0
) -> list[tuple[float, ...]]:
    """(now, age, valid, clock) of a faulty clock sensor after every physics step."""
    world = FakeWorld()
    rig = SensorRig({"clock": Faulty(ClockSensor(timing), faults)})
    rig.open(world)
    out = []
    for now_s, observation in ramp(rig, world, seconds, seed):
        stream = observation.streams["clock"]
        out.append((now_s, float(stream.age_s[-1]), float(stream.valid[-1]), float(stream.data["clock_s"][-1, 0])))
    rig.close()
    return out


def test_without_faults_nothing_changes() -> None:
    world, plain, wrapped = FakeWorld(), ClockSensor(TEN), Faulty(ClockSensor(TEN), [])
    rig = SensorRig({"clock": plain})
    rig.open(world)
    expected = [seen.streams["clock"] for _, seen in ramp(rig, world, 3.0)]
    rig = SensorRig({"clock": wrapped})
    rig.open(world)
    for one, (_, seen) in zip(expected, ramp(rig, world, 3.0), strict=True):
        other = seen.streams["clock"]
        np.testing.assert_array_equal(one.data["noise"], other.data["noise"])
        np.testing.assert_array_equal(one.age_s, other.age_s)


def test_the_sensor_inside_draws_what_it_draws_without_faults() -> None:
    camera = {"timing": TEN, "position_m": (0.5, 0.0, 1.0), "quaternion_xyzw": (1, 0, 0, 0)}
    pictures = []
    for sensor in (
        RgbdCamera(**camera),
        Faulty(RgbdCamera(**camera), [Noise({"depth_m": 0.0}), Drop(When(probability=0))]),
    ):
        sensor.open(FakeWorld())
        sensor.reset(np.random.default_rng(3))
        frame = sensor.read(0.0)
        assert isinstance(frame, RgbdFrame)
        pictures.append(frame)
    np.testing.assert_array_equal(pictures[0].rgb, pictures[1].rgb)
    np.testing.assert_array_equal(pictures[0].depth_m, pictures[1].depth_m)


def test_drop_loses_the_stated_share_and_shows_gaps() -> None:
    rows = shown([Drop(When(probability=0.3))], seconds=100.0)
    valid = np.array([row[2] for row in rows])
    assert 0.25 < 1 - valid.mean() < 0.35
    for now_s, age_s, good, clock_s in rows:
        if good:
            assert clock_s == pytest.approx(now_s - age_s, abs=1e-5)  # what is shown is not of another time


def test_freeze_repeats_the_last_frame_from_before() -> None:
    lying = shown([Freeze(When(start_s=2.0, stop_s=4.0))], seconds=6.0)
    for now_s, age_s, good, clock_s in lying:
        assert good
        assert age_s < 0.1
        frozen = 2.0 <= now_s < 4.0
        assert clock_s == pytest.approx(1.9 if frozen else now_s - age_s, abs=1e-5)
    honest = shown([Freeze(When(start_s=2.0, stop_s=4.0), fresh_stamps=False)], seconds=6.0)
    for now_s, age_s, _, clock_s in honest:
        assert clock_s == pytest.approx(now_s - age_s, abs=1e-5)
    assert max(age_s for _, age_s, _, _ in honest) == pytest.approx(2.1, abs=0.01)


@pytest.mark.parametrize("late_s", [0.05, 0.1, 0.37])
def test_delay_makes_frames_old_and_never_lies_or_masks(late_s: float) -> None:
    rows = [row for row in shown([Delay(late_s)]) if row[0] > 1.0]
    assert all(good for _, _, good, _ in rows)
    age = np.array([row[1] for row in rows])
    assert age.min() >= late_s - 1e-6
    assert age.max() < late_s + 0.1 + 0.1 + 1e-6  # a poll later, and a period
    for now_s, age_s, _, clock_s in rows:
        assert clock_s == pytest.approx(now_s - age_s, abs=1e-5)


def test_delay_beyond_the_staleness_bound_is_masked() -> None:
    rows = shown([Delay(0.5)], timing=Timing(rate_hz=10.0, max_age_s=0.3))
    assert not any(good for _, _, good, _ in rows)


def test_reordered_frames_are_sorted_by_capture() -> None:
    rows = shown([Reorder(When(probability=0.5))])
    ages = np.array([row[1] for row in rows])
    assert ages.max() > 0.15  # control: some did come late
    stamps = [now_s - age_s for now_s, age_s, _, _ in rows]
    assert (np.diff(stamps) > -1e-5).all()


def test_corrupt_frames_are_masked_and_counted() -> None:
    world = FakeWorld()
    rig = SensorRig({"clock": Faulty(ClockSensor(TEN), [Corrupt(share=1.0, when=When(probability=0.4))])})
    rig.open(world)
    seen = ramp(rig, world, 100.0)
    assert 0.33 < rig.counts["clock"]["corrupt"] / 1001 < 0.47
    assert all(np.isfinite(o.streams["clock"].data["clock_s"]).all() for _, o in seen)
    spoiled = Faulty(
        RgbdCamera(timing=TEN, position_m=(0.5, 0, 1.0), quaternion_xyzw=(1, 0, 0, 0)), [Corrupt(0.3, ["rgb"], When())]
    )
    spoiled.open(world)
    spoiled.reset(np.random.default_rng(0))
    frame = spoiled.read(0.0)
    assert isinstance(frame, RgbdFrame)
    assert np.isfinite(frame.depth_m).all()
    assert len(np.unique(frame.rgb)) > 200


def test_noise_has_the_stated_size_and_keeps_holes() -> None:
    sensor = Faulty(
        RgbdCamera(timing=TEN, position_m=(0.5, 0.0, 1.0), quaternion_xyzw=(1, 0, 0, 0), depth_noise=0.0, far_m=0.99),
        [Noise({"depth_m": 0.01})],
    )
    sensor.open(FakeWorld(box_middle_m=(0.5, 0.0, 0.2), box_size_m=(0.4, 0.4, 0.1)))
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.0)
    assert isinstance(frame, RgbdFrame)
    holes = frame.depth_m == 0
    assert 0.1 < holes.mean() < 0.99  # the table is beyond the range
    assert np.std(frame.depth_m[~holes]) == pytest.approx(0.01, rel=0.1)


def test_disconnect_masks_and_comes_back() -> None:
    for now_s, age_s, good, clock_s in shown([Disconnect(When(start_s=1.0, stop_s=2.0))], seconds=4.0):
        assert bool(good) is not (1.0 <= now_s < 2.0), now_s
        if good:
            assert clock_s == pytest.approx(now_s - age_s, abs=1e-5)


def test_faults_fit_a_live_device() -> None:
    device = PlayedDevice()
    sensor = Faulty(LiveSensor(device=device, timing=LIVE), [Drop(When(probability=0.5))])
    rig = SensorRig({"it": sensor})
    rig.open(None)
    rig.reset(host_now_s(), 0)
    for number in range(400):
        device.give(number, host_now_s())
    eventually(device.inbox.empty)
    seen: list[float] = []
    for _ in range(1000):
        try:
            frame = sensor.read(host_now_s())
        except SensorLost:  # pragma: no cover
            pytest.fail("a lost frame of a live sensor is no news")
        if frame is None and len(seen) > 100 and not device.inbox.qsize():
            break
        if frame is not None:
            seen.append(float(frame.arrays()["number"][0]))
    assert 150 < len(seen) < 250
    assert seen == sorted(seen)
    rig.close()


def test_the_same_seed_gives_the_same_faults() -> None:
    def faults() -> list[Fault]:
        return [Drop(When(probability=0.3)), Delay(0.1, jitter_s=0.1), Corrupt(1.0)]

    assert shown(faults(), seed=4) == shown(faults(), seed=4)
    assert shown(faults(), seed=4) != shown(faults(), seed=5)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(SpecError, match=r"Noise.std.*'depth'.*'clock_s'|Known"):
        Faulty(ClockSensor(TEN), [Noise({"depth": 0.1})])
    with pytest.raises(SpecError, match=r"Corrupt.fields"):
        Faulty(ClockSensor(TEN), [Corrupt(fields=["rgb"])])
    for wrong in ({"start_s": 2.0, "stop_s": 1.0}, {"probability": 1.5}):
        with pytest.raises(SpecError, match="When"):
            When(**wrong)
    with pytest.raises(SpecError, match="Delay"):
        Delay(-0.1)
    with pytest.raises(SensorError):
        Faulty(ClockSensor(TEN), []).read(0.0)


def test_a_miscalibrated_camera_sees_the_same_and_says_another_place() -> None:
    def frames(faults: Sequence[Fault]) -> list[dict[str, NDArray[Any]]]:
        camera = RgbdCamera(width=8, height=6, fov_y_deg=50.0, position_m=(0.5, 0.0, 1.0), timing=TEN, depth_noise=0.0)
        rig = SensorRig({"front": Faulty(camera, faults)})
        rig.open(FakeWorld())
        out = []
        for seed in (1, 1, 2):
            rig.reset(0.0, seed)
            for tick in range(3):
                rig.tick(tick / 10)
            data = rig.observe(0.2).streams["front"].data
            out.append({field: value[-1] for field, value in data.items()})
        rig.close()
        return out

    clean, wrong = frames([]), frames([Miscalibrate(0.03, 4.0)])
    errors = []
    for before, after in zip(clean, wrong, strict=True):
        np.testing.assert_array_equal(before["depth_m"], after["depth_m"])
        error = np.linalg.inv(before["base_from_camera"]) @ after["base_from_camera"]
        assert np.linalg.norm(error[:3, 3]) == pytest.approx(0.03, rel=1e-5)
        assert np.rad2deg(np.arccos((np.trace(error[:3, :3]) - 1) / 2)) == pytest.approx(4.0, rel=1e-3)
        errors.append(error)
    np.testing.assert_allclose(errors[0], errors[1])
    assert np.abs(errors[0] - errors[2]).max() > 1e-3


def test_a_sensor_without_a_place_cannot_be_miscalibrated() -> None:
    with pytest.raises(SpecError, match="base_from"):
        Faulty(ClockSensor(TEN), [Miscalibrate()])
