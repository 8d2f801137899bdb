"""Recordings of a RealSense, written by the SDK's recorder and played by the same class."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sensors.clock import host_now_s
from sensors.errors import DataError, SensorError, SensorLost
from sensors.frames import RgbdFrame
from sensors.geometry import pose
from sensors.live import LiveSensor, wait_for
from sensors.realsense import RealSense
from sensors.realsense_settings import Mode
from sensors.realsense_twin import TwinPort
from sensors.timeline import Timing
from tests.sensors.realsense_scene import (
    CAMERA,
    NOISY,
    PERIOD_S,
    SMALL,
    camera_at,
    eventually,
    give_noise,
    is_lost,
    noise,
    record,
    taken,
)

pytest.importorskip("pyrealsense2", reason="the extra 'realsense' is not installed")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("bags") / "twin.db3")
    record(path, 20, "hardware_clock")
    return path


def live_frames() -> list[RgbdFrame]:
    """The same pictures from the twin itself, without a file."""
    port = TwinPort()
    twin = port.plug(NOISY)
    device = camera_at(port)
    device.open()
    frames = []
    for n in range(20):
        give_noise(twin, n, "hardware_clock")
        if n != 7:
            frames.append(taken(device)[1])
    device.close()
    return frames


def play(device: RealSense, pause_s: float = 0.0) -> list[RgbdFrame]:
    frames: list[RgbdFrame] = []

    def read_all() -> None:
        while True:
            captured = device.wait(0.2)
            time.sleep(pause_s)
            if captured is not None:
                assert captured.device_clock
                assert isinstance(captured.frame, RgbdFrame)
                frames.append(captured.frame)

    with pytest.raises(SensorLost, match="the end of the recording"):
        read_all()
    return frames


@pytest.mark.parametrize("pause_s", [0.0, 0.03])
def test_a_recording_plays_the_same_pictures_and_stamps(bag: str, pause_s: float) -> None:
    device = RealSense(colour=SMALL, depth=SMALL, bag=bag, real_time=False)
    device.open()
    assert device.calibration.serial == CAMERA.serial
    np.testing.assert_allclose(device.calibration.depth_from_colour, pose((-0.015, 0.0, 0.0)), atol=1e-7)
    played, live = play(device, pause_s), live_frames()
    assert len(played) == len(live) == 19, "every pair, however slowly they are read; and no pair without its colour"
    for frame, other in zip(played, live, strict=True):
        np.testing.assert_array_equal(frame.rgb, other.rgb)
        np.testing.assert_allclose(frame.depth_m, other.depth_m, atol=1e-6)
        np.testing.assert_array_equal(frame.intrinsics_px, other.intrinsics_px)
        assert frame.stamp_s == pytest.approx(other.stamp_s, abs=1e-6)
    assert device.counts["unpaired_depth"] == 1
    assert device.counts["missing_colour"] == 1
    device.close()
    with pytest.raises(SensorError, match="played to its end"):
        device.open()


def test_a_recording_closed_before_its_end_begins_again_and_a_loop_always(bag: str) -> None:
    device = RealSense(colour=SMALL, depth=SMALL, bag=bag, real_time=False, loop=True)
    for _ in range(2):
        device.open()
        np.testing.assert_array_equal(taken(device)[1].rgb, noise(0)[0])
        device.close()
    for _ in range(2):
        device.open()
        assert len(play(device)) == 19
        device.close()


def test_a_recording_in_real_time_through_a_live_sensor(bag: str) -> None:
    device = RealSense(colour=SMALL, depth=SMALL, bag=bag)
    sensor = LiveSensor(device=device, timing=Timing(rate_hz=30.0, live=True), retry_s=0.02)
    sensor.open(None)
    frame = wait_for(sensor, 20.0)
    assert abs(host_now_s() - frame.stamp_s) < 20.0, "its stamps are now, not when it was recorded"
    eventually(lambda: is_lost(sensor))
    time.sleep(0.1)
    assert is_lost(sensor), "it does not begin again by itself"
    sensor.close()


def test_the_hosts_clock_of_a_recording_is_a_devices(tmp_path: Path) -> None:
    """What was now when it was recorded is long ago when it is played."""
    record(str(tmp_path / "a.db3"), 4, "global_time")
    device = RealSense(colour=SMALL, depth=SMALL, bag=str(tmp_path / "a.db3"), real_time=False)
    device.open()
    np.testing.assert_allclose(
        [frame.stamp_s for frame in play(device)], 50.0 + np.arange(4) * PERIOD_S - 0.004321, rtol=0, atol=1e-6
    )
    device.close()


def test_a_program_that_fails_while_it_plays_ends(bag: str) -> None:
    code = f"""
from sensors.realsense import RealSense
from sensors.realsense_settings import Mode
device = RealSense(colour=Mode(64, 48, 30), depth=Mode(64, 48, 30), bag={bag!r}, real_time=False)
device.open()
device.wait(20.0)
raise SystemExit("over")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (1, "over")


def test_recordings_that_cannot_be_played(bag: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        RealSense(colour=SMALL, depth=SMALL, bag=str(tmp_path / "no.bag")).open()
    for name in ("broken.bag", "broken.db3"):
        (tmp_path / name).write_bytes(b"not a recording" * 100)
        with pytest.raises(DataError, match=name):
            RealSense(colour=SMALL, depth=SMALL, bag=str(tmp_path / name)).open()
    with pytest.raises(SensorError, match="recording of camera 5"):
        RealSense(colour=SMALL, depth=SMALL, bag=bag, serial="5").open()
    with pytest.raises(SensorError, match="color mode 640x480 at 30 fps; got 64x48 at 30 fps"):
        RealSense(colour=Mode(), depth=SMALL, bag=bag).open()
