"""Replay: a recording shows what the sensors showed; live at any speed, or step by step, the same at every run."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from sensors.camera import RgbdCamera
from sensors.clock import host_now_s
from sensors.errors import DataError, SensorError, SpecError
from sensors.frames import WrenchFrame
from sensors.joints import JointSensor
from sensors.live import LiveSensor
from sensors.recording.reader import Recording
from sensors.recording.replay import Playback, RecordedDevice, RecordedSensor, replay_rig, replay_timing, stepped_rig
from sensors.recording.writer import Recorder
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.fake_world import FakeWorld
from tests.sensors.recorded_frames import EXACT, assert_same, make_frame, write
from tests.sensors.test_live import eventually

RNG = np.random.default_rng(0)
BEGINNING = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = BEGINNING


STEPS, HZ = 120, 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, np.ndarray]]]:
    """A recording of a world that moves, and what the rig showed at every step of it."""
    path = tmp_path_factory.mktemp("made") / "a.mcap"
    world = FakeWorld()
    sensors = {
        "front": RgbdCamera(
            timing=Timing(rate_hz=12.0, delay_s=0.03, history=2, max_age_s=0.5), width=32, height=24,
            position_m=(1.02, 0.3, 0.72), quaternion_xyzw=(-0.462041, -0.799983, 0.331494, 0.191459),
        ),
        "joints": JointSensor(timing=Timing(rate_hz=120.0, delay_s=0.01, history=3, max_age_s=1e4)),
    }  # fmt: skip
    seen = []
    with Recorder(path, coding=EXACT, rig_now_s=lambda: 0.0) as recorder:
        rig = SensorRig(recorder.tap(sensors))
        rig.open(world)
        rig.reset(0.0, 7)
        for step in range(STEPS):
            world.now_s = step / HZ
            world.base_from_box[0, 3] = 0.5 + 0.001 * step
            world.position_rad = np.sin(np.arange(7) + step / 10)
            rig.tick(world.now_s)
            seen.append(rig.observe(world.now_s).to_dict())
        rig.close()
    return path, seen


def test_step_by_step_a_recording_shows_exactly_what_was_shown(
    made: tuple[Path, list[dict[str, np.ndarray]]],
) -> None:
    path, seen = made
    rig = stepped_rig(path)
    rig.open(None)
    for _ in range(2):  # reset begins again
        rig.reset(0.0, 0)
        for step in range(STEPS):
            rig.tick(step / HZ)
            shown = rig.observe(step / HZ).to_dict()
            assert shown.keys() == seen[step].keys()
            for name, value in seen[step].items():
                np.testing.assert_array_equal(shown[name], value, err_msg=f"step {step}, '{name}'")
    changed = [not np.array_equal(a["front/rgb"], b["front/rgb"]) for a, b in itertools.pairwise(seen)]
    assert sum(changed) >= 8, "the world moved"
    rig.close()
    rig.close()
    with pytest.raises(SensorError, match="an open sensor"):
        RecordedSensor(path, "front").read(0.0)


def test_spaces_and_timings_are_known_before_anything_opens(made: tuple[Path, list[dict[str, np.ndarray]]]) -> None:
    for rig in (stepped_rig(made[0]), replay_rig(made[0])):
        assert set(rig.space.spaces) == made[1][0].keys()
        assert rig.space.contains(rig.observe(0.0).to_dict())
        assert rig.rates_hz == {"front": 12.0, "joints": 120.0}
        assert rig.history == {"front": 2, "joints": 3}


def test_replay_in_real_time_keeps_the_distances_and_ages(tmp_path: Path) -> None:
    given = [(5.0 + 0.05 * k, make_frame(WrenchFrame, RNG, 5.0 + 0.05 * k - 0.02)) for k in range(10)]
    write(tmp_path / "a.mcap", {"first": [(4.9, make_frame(WrenchFrame, RNG, 4.9))], "a": given})
    for speed in (1.0, 5.0):
        device = RecordedDevice(tmp_path / "a.mcap", "a", speed)
        began_s = host_now_s()
        device.open()
        taken = []
        while not device.is_over:
            captured = device.wait(0.01)
            if captured is not None:
                assert host_now_s() >= captured.arrived_s, "it came before it was due"
                taken.append(captured)
        arrived = np.array([captured.arrived_s for captured in taken])
        np.testing.assert_allclose(np.diff(arrived), 0.05 / speed, atol=1e-6)
        assert arrived[0] - began_s >= 0.1 / speed - 1e-6, "the recording's start counts, not the sensor's"
        ages = arrived - np.array([captured.frame.stamp_s for captured in taken])
        np.testing.assert_allclose(ages, 0.02 / speed, atol=1e-6)
        for (_, frame), captured in zip(given, taken, strict=True):
            assert captured.frame.arrays()["force_N"].tobytes() == frame.arrays()["force_N"].tobytes()
        assert device.wait(0.0) is None
        device.close()
        with pytest.raises(SensorError, match="an open recording"):
            device.wait(0.0)
        device.open()
        assert not device.is_over
        device.close()


@pytest.mark.parametrize("speed", [0.0, math.inf])
def test_as_fast_as_possible_gives_every_frame_at_once(tmp_path: Path, speed: float) -> None:
    given = [(100.0 * k, make_frame(WrenchFrame, RNG, 100.0 * k - 0.25)) for k in range(50)]
    write(tmp_path / "a.mcap", {"a": given})
    device = RecordedDevice(tmp_path / "a.mcap", "a", speed)
    device.open()
    taken = [device.wait(0.0) for _ in given]
    assert all(captured is not None and not captured.device_clock for captured in taken)
    ages = [captured.arrived_s - captured.frame.stamp_s for captured in taken if captured is not None]
    np.testing.assert_allclose(ages, 0.25, atol=1e-6)
    assert device.is_over


def test_a_recording_replays_as_live_sensors_in_a_rig(made: tuple[Path, list[dict[str, np.ndarray]]]) -> None:
    path, _ = made
    every = [item.frame.arrays()["position_rad"] for item in Recording(path).frames(["joints"])]
    last = np.array(every[-3:], np.float32)
    rig = replay_rig(path, speed=4.0)
    rig.open(None)
    rig.reset(host_now_s(), 0)

    def is_last() -> bool:
        now_s = host_now_s()
        rig.tick(now_s)
        joints = rig.observe(now_s).streams["joints"]
        return bool(joints.valid[-1]) and np.array_equal(joints.data["position_rad"], last)

    eventually(is_last)
    assert rig.counts["joints"] == {"dropped": 0, "corrupt": 0}
    rig.close()


def test_a_device_of_a_recording_fits_a_live_sensor_with_its_own_timing(tmp_path: Path) -> None:
    frame = make_frame(WrenchFrame, RNG, 0.0)
    write(tmp_path / "a.mcap", {"a": [(0.0, frame)]})
    sensor = LiveSensor(
        device=RecordedDevice(tmp_path / "a.mcap", "a"), timing=Timing(rate_hz=10.0, live=True)
    )  # fmt: skip
    assert sensor.space.contains(frame.arrays())
    sensor.open(None)
    eventually(lambda: bool(sensor._frames))
    back = sensor.read(host_now_s())
    assert back is not None
    np.testing.assert_array_equal(back.arrays()["base_from_sensor"], frame.base_from_sensor)  # no mount but identity
    assert sensor.counts == {"overflowed": 0, "unclocked": 0, "reconnects": 0, "lost_bytes": 0}
    sensor.close()


def test_a_stepped_sensor_gives_each_frame_once_and_in_time(tmp_path: Path) -> None:
    given = [(0.1 * k, make_frame(WrenchFrame, RNG, 0.1 * k - 0.01)) for k in range(10)]
    write(tmp_path / "a.mcap", {"a": given})
    sensor = RecordedSensor(tmp_path / "a.mcap", "a")
    sensor.open(None)
    assert sensor.read(-0.001) is None
    taken = []
    for now_s in (0.05, 0.25, 0.25, 5.0):
        count = 0
        while (frame := sensor.read(now_s)) is not None:
            assert_same(given[len(taken)][1], frame)
            taken.append(frame)
            count += 1
        assert count == {0.05: 1, 0.25: 2 if len(taken) == 3 and count else 0, 5.0: 7}[now_s]
    assert len(taken) == 10


def test_what_cannot_be_replayed_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", {"front": [(0.0, make_frame(WrenchFrame, RNG))]})
    with pytest.raises(SpecError, match="Did you mean 'front'"):
        RecordedDevice(tmp_path / "a.mcap", "frnt")
    with pytest.raises(DataError, match="a file that can be read"):
        RecordedSensor(tmp_path / "b.mcap", "front")
    for speed in (-1.0, math.nan):
        with pytest.raises(SpecError, match=r"Playback\.speed"):
            Playback(speed)
    timing = replay_timing(Timing(rate_hz=5.0, delay_s=0.1, jitter_s=0.1, dropout=0.5, history=4, max_age_s=3.0))
    assert (timing.live, timing.rate_hz, timing.history, timing.max_age_s) == (True, 5.0, 4, 3.0)
