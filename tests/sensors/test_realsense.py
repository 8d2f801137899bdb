"""RealSense as a device: found, refused, controlled, unplugged; every picture goes through the real SDK."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perceive.build import build
from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.live import LiveSensor, Mount
from sensors.realsense import RealSense, find
from sensors.realsense_settings import HOLE_FILLINGS, PRESETS, Controls, Filters, Mode
from sensors.realsense_twin import Twin, TwinCamera, TwinPort
from sensors.rig import SensorRig
from sensors.spec import check_array
from sensors.timeline import Timing
from tests.contracts import check_config, check_sensor, config_files, load_plain
from tests.fake_world import FakeWorld
from tests.sensors.realsense_scene import (
    CAMERA,
    LENS,
    PERIOD_S,
    SMALL,
    camera_at,
    eventually,
    give,
    give_colour,
    give_depth,
    is_lost,
    numbers,
    taken,
)

rs = pytest.importorskip("pyrealsense2", reason="the extra 'realsense' is not installed")


@pytest.fixture
def port() -> TwinPort:
    return TwinPort()


def test_cameras_are_found_and_told_apart(port: TwinPort) -> None:
    assert find(port.context) == ()
    one, two = port.plug(CAMERA), port.plug(replace(CAMERA, serial="000000000002"))
    assert sorted(camera.serial for camera in find(port.context)) == ["000000000001", "000000000002"]
    assert {camera.usb for camera in find(port.context)} == {"3.2"}
    with pytest.raises(SensorError, match=r"one camera.*000000000001.*Set 'serial'|one camera.*000000000002"):
        camera_at(port).open()
    with pytest.raises(SensorError, match=r"serial number 7;.*000000000002"):
        camera_at(port, serial="7").open()
    for serial, twin in (("000000000001", one), ("000000000002", two)):
        device = camera_at(port, serial=serial)
        device.open()
        assert device.calibration.serial == serial
        assert device.calibration.firmware == "5.16.0.1"
        give(twin, 5, 1.0)
        assert numbers(taken(device)[1]) == (5, 5)
        device.close()


def test_without_a_camera_or_sdk_it_says_what_helps(port: TwinPort, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SensorError, match=r"a RealSense; got none.*idVendor.*8086.*perceive doctor"):
        camera_at(port).open()
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(SensorError, match=r'pip install "perceive\[realsense\]"'):
        camera_at(port).open()
    assert find() == ()


def test_a_mode_that_the_camera_lacks_is_refused_with_those_it_has(port: TwinPort) -> None:
    port.plug(CAMERA)
    with pytest.raises(SensorError, match=r"depth mode 848x480 at 90 fps; got 64x48 at 30 fps.*USB 3\.2"):
        camera_at(port, depth=Mode(848, 480, 90)).open()


def test_a_camera_in_use_is_refused_and_free_again_after_close(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    first, second = camera_at(port), camera_at(port)
    first.open()
    with pytest.raises(SensorError, match="Close other programs"):
        second.open()
    with pytest.raises(SensorError, match="an open camera"):
        second.wait(0.0)
    give(twin, 1, 1.0)
    assert numbers(taken(first)[1]) == (1, 1), "the first one was disturbed"
    first.close()
    first.close()
    second.open()
    give(twin, 2, 2.0)
    assert numbers(taken(second)[1]) == (2, 2)
    second.close()


def test_settings_that_cannot_be(port: TwinPort) -> None:
    assert set(PRESETS) == set(rs.rs400_visual_preset.__members__)
    with pytest.raises(SpecError, match="Did you mean 'high_accuracy'"):
        Controls(preset="high_acuracy")
    with pytest.raises(SpecError, match="nearest_from_around"):
        Filters(hole_filling="nearest")
    with pytest.raises(SpecError, match="exposure_us"):
        Controls(gain=16.0)
    with pytest.raises(SpecError, match="laser_power_mW"):
        Controls(laser_power_mW=-1.0)
    with pytest.raises(SpecError, match="width"):
        Mode(0, 480, 30)
    with pytest.raises(SpecError, match="min_distance_m < max_distance_m"):
        RealSense(colour=SMALL, depth=SMALL, min_distance_m=2.0, max_distance_m=1.0)
    with pytest.raises(SpecError, match="none with a bag"):
        RealSense(colour=SMALL, depth=SMALL, bag="a.bag", controls=Controls(emitter=False))
    port.plug(CAMERA)
    with pytest.raises(SensorError, match=r"laser_power_mW.*1000.*0 to 360 in steps of 30"):
        camera_at(port, controls=Controls(laser_power_mW=1000.0)).open()


def test_controls_reach_the_camera(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    controls = Controls(
        preset="high_density", emitter=False, laser_power_mW=90.0, exposure_us=5000.0, gain=20.0,
        colour_exposure_us=8000.0, colour_gain=30.0, global_time=False,
    )  # fmt: skip
    wanted = {
        "stereo": {"visual_preset": 4, "emitter_enabled": 0, "laser_power": 90, "enable_auto_exposure": 0,
                   "exposure": 5000, "gain": 20, "global_time_enabled": 0},
        "colour": {"enable_auto_exposure": 0, "exposure": 80, "gain": 30, "auto_exposure_priority": 0},
    }  # fmt: skip
    device = camera_at(port, controls=controls)
    device.open()
    for sensor, options in wanted.items():
        for option, value in options.items():
            assert getattr(twin, sensor).get_option(getattr(rs.option, option)) == value, (sensor, option)
    device.close()
    device = camera_at(port, controls=Controls(global_time=True))
    device.open()
    assert twin.stereo.get_option(rs.option.enable_auto_exposure) == 1, "exposure is automatic unless it is given"
    assert twin.stereo.get_option(rs.option.global_time_enabled) == 1
    assert twin.stereo.get_option(rs.option.laser_power) == 90, "what is not given stays"
    device.close()


def test_a_d405_gives_both_pictures_from_one_sensor(port: TwinPort) -> None:
    twin = port.plug(replace(CAMERA, colour_sensor=False))
    device = camera_at(port, controls=Controls(exposure_us=5000.0, gain=20.0))
    device.open()
    assert twin.stereo.get_option(rs.option.exposure) == 5000
    give(twin, 3, 1.0)
    assert numbers(taken(device)[1]) == (3, 3)
    device.close()
    with pytest.raises(SensorError, match="Set exposure_us"):
        camera_at(port, controls=Controls(colour_exposure_us=5000.0)).open()


def test_hole_fillings_are_the_sdks() -> None:
    documented = rs.hole_filling_filter.__init__.__doc__
    for mode, name in enumerate(HOLE_FILLINGS):
        assert f"{mode} - {name.replace('farthest', 'farest')}" in documented


class Feeder:
    """Gives a twin pictures of its number, about 100 a second, stamped by a device clock 1000 s behind the host's."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ending.wait(0.01):
            number += 1
            stamp_s = host_now_s() - 1000.0
            give_depth(self._twin, number % 200, stamp_s)
            give_colour(self._twin, number % 200, stamp_s)

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.fixture
def feed() -> Iterator[Callable[[Twin], Feeder]]:
    feeders: list[Feeder] = []

    def start(twin: Twin) -> Feeder:
        feeders.append(Feeder(twin))
        return feeders[-1]

    yield start
    for feeder in feeders:
        feeder.end()


FAST = Mode(64, 48, 90)
FAST_CAMERA = TwinCamera(depth=replace(LENS, mode=FAST), colour=replace(LENS, mode=FAST))
LIVE = Timing(rate_hz=90.0, live=True, max_age_s=1000.0)


def test_unplugged_it_is_masked_and_plugged_in_again_it_goes_on(port: TwinPort, feed: Callable[[Twin], Feeder]) -> None:
    device = RealSense(colour=FAST, depth=FAST, serial=CAMERA.serial, context=port.context, lost_after_s=0.3)
    sensor = LiveSensor(device=device, timing=LIVE, mount=Mount(position_m=(1.0, 0.0, 0.0)), retry_s=0.02, capacity=64)
    rig = SensorRig({"front": sensor})
    twin = port.plug(FAST_CAMERA)
    feeder = feed(twin)
    rig.open(None)
    rig.reset(host_now_s(), 0)

    def shown() -> bool:
        now_s = host_now_s()
        rig.tick(now_s)
        return bool(rig.observe(now_s).streams["front"].valid[-1])

    eventually(shown)
    stream = rig.observe(host_now_s()).streams["front"]
    assert stream.age_s[-1] < 30.0, "the stamp is on the host's clock, not 1000 s away"
    np.testing.assert_allclose(stream.data["base_from_camera"][-1][:3, 3], [1.0, 0.0, 0.0])
    feeder.end()
    port.unplug(twin)
    eventually(lambda: is_lost(sensor))
    assert not shown(), "a tick after it is known to be lost, it is masked (max_age_s would not, for 1000 s)"
    assert sensor.counts["reconnects"] == 0
    twin = port.plug(FAST_CAMERA)
    feed(twin)
    eventually(shown)
    assert sensor.counts["reconnects"] >= 1
    rig.close()


def test_half_a_camera_counts_as_lost(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    device = RealSense(colour=SMALL, depth=SMALL, context=port.context, lost_after_s=0.2)
    device.open()
    give(twin, 0, 1.0)
    taken(device)

    def read_depth_only() -> None:
        for n in range(1, 10_000):  # the colour camera is broken
            give_depth(twin, n, 1.0 + n * PERIOD_S)
            device.wait(0.01)

    with pytest.raises(SensorLost, match=r"no pair of pictures for 0\.2 s"):
        read_depth_only()
    device.close()
    before = device.counts
    device.open()  # and works again, from an earlier moment of its clock
    give(twin, 0, 0.5)
    assert numbers(taken(device)[1]) == (0, 0)
    assert device.counts == before, "counts go on"
    device.close()


def test_a_reader_that_was_away_does_not_take_that_for_silence(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    device = RealSense(colour=SMALL, depth=SMALL, context=port.context, lost_after_s=0.1)
    device.open()
    give(twin, 0, 1.0)
    taken(device)
    time.sleep(0.3)
    assert device.wait(0.0) is None
    give(twin, 1, 1.3)
    assert numbers(taken(device)[1]) == (1, 1)
    device.close()


def test_it_keeps_the_contract_of_every_sensor(port: TwinPort, feed: Callable[[Twin], Feeder]) -> None:
    feed(port.plug(FAST_CAMERA))
    device = RealSense(colour=FAST, depth=FAST, context=port.context, lost_after_s=60.0)
    check_sensor(LiveSensor(device=device, timing=LIVE, capacity=64), FakeWorld(), simulated=False)


def test_frames_have_their_own_memory_and_lie_in_the_space(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    device = camera_at(port)
    device.open()
    frames = []
    for n in range(40):  # more than the SDK has buffers
        give(twin, n, 1.0 + n * PERIOD_S)
        frames.append(taken(device)[1])
    assert [numbers(frame) for frame in frames] == [(n, n) for n in range(40)]
    for name, value in frames[0].arrays().items():
        part = device.space.spaces[name]
        check_array(name, value, part)  # type: ignore[arg-type]
        assert part.contains(value.astype(part.dtype))
        assert not np.shares_memory(value, frames[1].arrays()[name])
        assert value.base is None or isinstance(value.base, np.ndarray), "a buffer of the SDK, which has few"
    device.close()


def test_nothing_of_a_closed_camera_stays_behind(port: TwinPort) -> None:
    twin = port.plug(CAMERA)
    device = camera_at(port)
    left = []
    for n in range(3):
        device.open()
        assert device._session is not None
        left.append(weakref.ref(device._session.registration))
        give(twin, n, 1.0 + n)
        taken(device)
        device.close()
    gc.collect()
    assert [ref() for ref in left] == [None, None, None]


@pytest.mark.parametrize("path", [p for p in config_files("sensor") if "realsense" in p.stem], ids=lambda p: p.stem)
def test_configs_build_without_a_camera(path: Path) -> None:
    config = load_plain(path)
    check_config(config)
    sensor = build(config)
    assert isinstance(sensor, LiveSensor)
    mode = config["device"]["colour"]
    assert sensor.space.spaces["depth_m"].shape == (mode["height"], mode["width"])
    assert sensor.timing.rate_hz == mode["fps"]
