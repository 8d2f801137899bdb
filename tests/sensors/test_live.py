"""LiveSensor over a device that the test plays: every frame once, lost cables, a mount that moves."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import pytest
from gymnasium import spaces

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import Frame
from sensors.geometry import FloatArray, axis_angle_to_matrix, invert, pose, rotation_angle_rad
from sensors.live import Captured, Device, LiveSensor, Mount, wait_for
from sensors.rig import SensorRig
from sensors.spec import box
from sensors.timeline import Timing
from tests.fake_world import FakeWorld

LIVE = Timing(rate_hz=100.0, live=True, max_age_s=0.5)


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberFrame(Frame):
    """number float64 [1]; base_from_sensor [4, 4]."""

    number: FloatArray
    base_from_sensor: FloatArray


@final
class PlayedDevice(Device):
    """Gives what the test puts into it; an exception is raised instead."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[Captured | Exception] = queue.Queue()
        self.present = True
        self.opened = self.closed = 0

    @property
    def space(self) -> spaces.Dict:
        return spaces.Dict(
            {"number": box(-1e9, 1e9, (1,), np.float64), "base_from_sensor": box(-1e3, 1e3, (4, 4), np.float64)}
        )

    @property
    def counts(self) -> dict[str, int]:
        return {"broken": 7}

    def open(self) -> None:
        if not self.present:
            raise SensorError("PlayedDevice", "a device", "none", "Plug it in.")
        self.opened += 1

    def wait(self, timeout_s: float) -> Captured | None:
        try:
            item = self.inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1

    def give(self, number: float, stamp_s: float, *, device_clock: bool = False, arrived_s: float = 0.0) -> None:
        frame = NumberFrame(stamp_s=stamp_s, number=np.array([number]), base_from_sensor=pose((0.0, 0.0, 0.01)))
        self.inbox.put(Captured(frame, arrived_s or host_now_s(), device_clock))

    def unplug(self) -> None:
        self.present = False
        self.inbox.put(SensorLost("PlayedDevice", "a device", "an unplugged one", "Plug it in."))


@pytest.fixture
def device() -> PlayedDevice:
    return PlayedDevice()


@pytest.fixture
def sensor(device: PlayedDevice) -> Iterator[LiveSensor]:
    built = LiveSensor(device=device, timing=LIVE, mount=Mount(position_m=(1.0, 0.0, 0.0)), retry_s=0.01)
    yield built
    built.close()


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.002)


def lost(sensor: LiveSensor) -> bool:
    try:
        sensor.read(host_now_s())
    except SensorLost:
        return True
    return False


def test_every_frame_comes_once_and_in_order(sensor: LiveSensor, device: PlayedDevice) -> None:
    sensor.open(None)
    for number in range(50):
        device.give(number, 10.0 + number)
    frames = [wait_for(sensor, 20.0) for _ in range(50)]
    assert [frame.arrays()["number"][0] for frame in frames] == list(range(50))
    assert [frame.stamp_s for frame in frames] == [10.0 + number for number in range(50)]
    assert sensor.read(host_now_s()) is None
    np.testing.assert_allclose(frames[0].arrays()["base_from_sensor"][:3, 3], [1.0, 0.0, 0.01])  # on its mount


def test_device_stamps_come_onto_the_hosts_clock(device: PlayedDevice) -> None:
    sensor = LiveSensor(device=device, timing=LIVE, latency_s=0.004)
    sensor.open(None)
    for k in range(100):  # the device's clock is 5000 s ahead; arrival takes 4 ms, now and then 30
        captured_s = 100.0 + k * 0.01
        delay_s = 0.03 if k % 7 == 3 else 0.004
        device.give(k, captured_s + 5000.0, device_clock=True, arrived_s=captured_s + delay_s)
    frames = [wait_for(sensor, 20.0) for _ in range(100)]
    error_s = [frame.stamp_s - (100.0 + k * 0.01) for k, frame in enumerate(frames)]
    assert np.abs(error_s).max() < 1e-6
    sensor.close()


def test_an_unplugged_device_is_masked_within_a_tick_and_comes_back(sensor: LiveSensor, device: PlayedDevice) -> None:
    rig = SensorRig({"it": sensor})
    rig.open(None)
    rig.reset(host_now_s(), 0)
    device.give(1, host_now_s())
    eventually(lambda: bool(_shown(rig)[0]))
    assert _shown(rig) == (True, 1.0)
    device.unplug()
    eventually(lambda: not _shown(rig)[0])
    assert rig.counts["it"]["dropped"] > 0
    device.present = True
    eventually(lambda: device.opened == 2)
    device.give(2, host_now_s())
    eventually(lambda: bool(_shown(rig)[0]))
    assert _shown(rig)[1] == 2.0
    assert sensor.counts == {"overflowed": 0, "unclocked": 0, "reconnects": 1, "broken": 7}
    rig.close()


def _shown(rig: SensorRig) -> tuple[bool, float]:
    now_s = host_now_s()
    rig.tick(now_s)
    stream = rig.observe(now_s).streams["it"]
    return bool(stream.valid[-1]), float(stream.data["number"][-1, 0])


def test_nothing_new_is_no_gap_until_it_is_too_old(sensor: LiveSensor, device: PlayedDevice) -> None:
    rig = SensorRig({"it": sensor})
    rig.open(None)
    rig.reset(100.0, 0)
    device.give(3, 100.0)
    eventually(lambda: not device.inbox.qsize() and bool(sensor._frames))
    for now_s, valid in ((100.01, True), (100.3, True), (100.49, True), (100.51, False)):
        rig.tick(now_s)
        assert bool(rig.observe(now_s).streams["it"].valid[-1]) is valid, now_s
    assert rig.counts["it"]["dropped"] == 0
    rig.close()


def test_the_pose_of_a_moving_mount_is_that_of_the_capture(device: PlayedDevice) -> None:
    world = FakeWorld()
    sensor = LiveSensor(device=device, timing=LIVE, mount=Mount(link="tool", position_m=(0.0, 0.0, 0.1)))
    sensor.open(world)
    for now_s, x, turn in ((1.0, 0.0, 0.0), (1.1, 1.0, 0.4)):
        world.base_from_tool = pose((x, 0.0, 0.0))
        world.base_from_tool[:3, :3] = axis_angle_to_matrix([0.0, turn, 0.0])
        assert sensor.read(now_s) is None
    device.give(0, 1.025)
    eventually(lambda: bool(sensor._frames))
    frame = sensor.read(1.1)
    assert frame is not None
    seen = frame.arrays()["base_from_sensor"] @ invert(pose((0.0, 0.0, 0.11)))
    np.testing.assert_allclose(seen[:3, 3], [0.25, 0.0, 0.0], atol=1e-3)
    assert rotation_angle_rad(seen[:3, :3], axis_angle_to_matrix([0.0, 0.1, 0.0])) < 1e-6
    sensor.close()


def test_the_oldest_frames_are_lost_and_counted_when_nobody_reads(device: PlayedDevice) -> None:
    sensor = LiveSensor(device=device, timing=LIVE, capacity=5)
    sensor.open(None)
    for number in range(12):
        device.give(number, float(number))
    eventually(lambda: sensor.counts["overflowed"] == 7)
    assert [wait_for(sensor, 20.0).stamp_s for _ in range(5)] == [7.0, 8.0, 9.0, 10.0, 11.0]
    sensor.close()


def test_what_cannot_work_is_said(sensor: LiveSensor, device: PlayedDevice) -> None:
    with pytest.raises(SensorError, match="an open sensor"):
        sensor.read(0.0)
    device.present = False
    with pytest.raises(SensorError, match="Plug it in"):
        sensor.open(None)
    with pytest.raises(SensorError, match="where link 'hand' is"):
        LiveSensor(device=device, timing=LIVE, mount=Mount(link="hand")).open(None)
    with pytest.raises(SpecError, match="live: true"):
        LiveSensor(device=device, timing=Timing(rate_hz=10.0))
    with pytest.raises(SpecError, match=r"Timing.delay_s.*live"):
        Timing(rate_hz=10.0, live=True, delay_s=0.1)
    device.present = True
    sensor.open(None)
    device.inbox.put(ZeroDivisionError("oops"))
    with pytest.raises(SensorError, match="oops"):
        wait_for(sensor, 20.0)
    other = LiveSensor(device=PlayedDevice(), timing=LIVE)
    other.open(None)
    with pytest.raises(SensorError, match="a frame within"):
        wait_for(other, 0.01)
    other.close()
