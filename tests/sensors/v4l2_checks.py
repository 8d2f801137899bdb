"""Checks of UvcCamera over the camera of v4l2_camera.c; test_uvc.py runs them in a process that has it loaded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost
from sensors.frames import Frame, RgbFrame
from sensors.gel_camera import GelCamera
from sensors.live import Captured, LiveSensor, wait_for
from sensors.timeline import Timing
from sensors.uvc import UvcCamera
from sensors.video_devices import find_video_devices

NODE, PICTURES = Path(os.environ["V4L2_CAMERA"]), Path(os.environ["V4L2_PICTURES"])
COUNT = 16  # pictures, each a grey level of its own beside red
LIVE = Timing(rate_hz=60.0, live=True)


def level(number: int) -> int:
    return 8 + 15 * number


def plug_in() -> None:
    other = NODE.with_suffix(".new")  # to open the node itself is to open the camera
    other.touch()
    other.rename(NODE)


@pytest.fixture(scope="module", autouse=True)
def _pictures() -> None:
    for number in range(COUNT):
        rgb = np.full((480, 640, 3), level(number), np.uint8)
        rgb[:, :320] = (220, 30, 20)
        (PICTURES / f"{number}.MJPG").write_bytes(cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes())
        luma = np.full((480, 640, 2), 128, np.uint8)  # Y U Y V
        luma[..., 0] = 16 + level(number) * 219 // 255
        luma.tofile(PICTURES / f"{number}.YUYV")
    os.environ.pop("V4L2_AHEAD_S", None)


@pytest.fixture(autouse=True)
def _plugged() -> Iterator[None]:
    plug_in()
    yield
    for name in ("V4L2_AHEAD_S", "V4L2_NO_MJPG"):
        os.environ.pop(name, None)
    (PICTURES / "silent").unlink(missing_ok=True)


def camera(**settings: Any) -> UvcCamera:
    return UvcCamera(**{"device": str(NODE), "fps": 60.0, "fov_y_deg": 50.0, **settings})


def take(device: UvcCamera, count: int) -> list[Captured]:
    taken: list[Captured] = []
    end_s = time.monotonic() + 20.0
    while len(taken) < count:
        assert time.monotonic() < end_s, "no pictures"
        captured = device.wait(0.2)
        if captured is not None:
            taken.append(captured)
    return taken


def shown(frame: Frame) -> int:
    assert isinstance(frame, RgbFrame)
    return round((float(frame.rgb[240, 480].mean()) - 8) / 15)


@pytest.mark.parametrize("buffers", [1, 4])
def test_every_picture_comes_in_order_and_in_its_colours(buffers: int) -> None:
    device = camera(buffer_size=buffers)
    device.open()
    taken = take(device, 40)
    device.close()
    numbers = np.array([shown(captured.frame) for captured in taken])
    assert set(np.diff(numbers) % COUNT) == {1}
    assert isinstance(taken[0].frame, RgbFrame)
    np.testing.assert_allclose(taken[0].frame.rgb[240, 100], (220, 30, 20), atol=6)
    assert device.counts == {"corrupt": 0, "truncated": 0}


def test_uncompressed_pictures_too() -> None:
    device = camera(pixel_format="YUYV", fps=10.0)
    device.open()
    taken = take(device, 3)
    device.close()
    numbers = np.array([shown(captured.frame) for captured in taken])
    assert set(np.diff(numbers) % COUNT) == {1}
    for captured, number in zip(taken, numbers, strict=True):
        assert isinstance(captured.frame, RgbFrame)
        assert abs(int(captured.frame.rgb[0, 0, 0]) - level(int(number))) <= 2


def test_the_drivers_stamp_is_the_hosts_clock_moved_to_the_middle_of_the_exposure() -> None:
    for exposure_s in (None, 0.04):
        device = camera(exposure_s=exposure_s)
        device.open()
        for captured in take(device, 5):
            assert not captured.device_clock
            age_s = captured.arrived_s - captured.frame.stamp_s - (exposure_s or 0) / 2
            assert 0 <= age_s < 5.0
            assert captured.arrived_s != captured.frame.stamp_s
        device.close()


def test_a_driver_with_a_clock_of_its_own_is_mapped_onto_the_hosts() -> None:
    os.environ["V4L2_AHEAD_S"] = "1000"
    sensor = LiveSensor(device=camera(), timing=LIVE)
    sensor.open(None)
    frames = [wait_for(sensor, 20.0) for _ in range(20)]
    assert sensor.clock.count >= 20
    assert sensor.clock.offset_s == pytest.approx(-1000, abs=1.0)
    assert all(0 <= host_now_s() - frame.stamp_s < 30.0 for frame in frames)
    sensor.close()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"width": 1280, "height": 720}, "1280 x 720 MJPG at 60 Hz; got 640 x 480 MJPG at 60 Hz"),
        ({"pixel_format": "YUYV"}, "got 640 x 480 YUYV at 10 Hz.*v4l2-ctl --list-formats-ext"),
        ({"fps": 90.0}, "at 90 Hz; got 640 x 480 MJPG at 60 Hz"),
        ({"white_balance_k": 9000.0}, r"white balance \(K\) = 9000; got 6500 from the camera"),
        ({"focus": "auto"}, "takes automatic focus = 1; got one that does not"),
        ({"device": "/dev/video99"}, "a camera '/dev/video99'"),
    ],
)
def test_what_the_camera_does_not_give_is_an_error_that_names_what_it_gave(asked: dict[str, Any], error: str) -> None:
    with pytest.raises(SensorError, match=error):
        camera(**asked).open()
    device = camera()
    device.open()  # what it has, it gives
    device.close()


def test_another_pixel_format_is_not_taken_for_the_one_that_was_asked_for() -> None:
    os.environ["V4L2_NO_MJPG"] = "1"
    with pytest.raises(SensorError, match="640 x 480 MJPG at 10 Hz; got 640 x 480 YUYV at 10 Hz"):
        camera(fps=10.0).open()


def test_controls_reach_the_camera() -> None:
    device = camera(exposure_s=0.0125, gain=33.0, white_balance_k=5000.0)
    device.open()
    device.close()
    probe = cv2.VideoCapture(str(NODE), cv2.CAP_V4L2)
    keys = (cv2.CAP_PROP_AUTO_EXPOSURE, cv2.CAP_PROP_EXPOSURE, cv2.CAP_PROP_GAIN, cv2.CAP_PROP_AUTO_WB)
    assert [probe.get(key) for key in keys] == [1, 125, 33, 0]
    assert probe.get(cv2.CAP_PROP_WB_TEMPERATURE) == 5000
    probe.release()
    device = camera(exposure_s="auto", white_balance_k="auto")
    device.open()
    device.close()
    probe = cv2.VideoCapture(str(NODE), cv2.CAP_V4L2)
    assert [probe.get(key) for key in (cv2.CAP_PROP_AUTO_EXPOSURE, cv2.CAP_PROP_AUTO_WB)] == [3, 1]
    probe.release()


def test_unplugged_and_plugged_in_again() -> None:
    sensor = LiveSensor(device=camera(), timing=LIVE, retry_s=0.02)
    sensor.open(None)
    wait_for(sensor, 20.0)
    NODE.unlink()
    error = _until_lost(sensor)
    assert "camera" in error.expected
    plug_in()
    end_s = time.monotonic() + 20.0
    while time.monotonic() < end_s:
        try:
            wait_for(sensor, 20.0)
            break
        except SensorLost:
            time.sleep(0.01)
    assert sensor.counts["reconnects"] == 1
    sensor.close()


def test_silence_is_a_loss_after_its_time_and_does_not_hold_up_closing() -> None:
    sensor = LiveSensor(device=camera(lost_after_s=0.5), timing=LIVE, retry_s=60.0)
    sensor.open(None)
    wait_for(sensor, 20.0)
    (PICTURES / "silent").touch()
    assert "silence for 0.5 s" in _until_lost(sensor).got
    sensor.close()
    (PICTURES / "silent").unlink()
    device = camera(lost_after_s=60.0)
    device.open()
    take(device, 1)
    (PICTURES / "silent").touch()
    while True:
        before_s = time.monotonic()
        if device.wait(0.05) is None:
            break
    assert time.monotonic() - before_s < 5.0  # OpenCV by itself would wait for 10 s
    device.close()


def test_a_torn_picture_is_left_out_and_counted() -> None:
    whole = (PICTURES / "5.MJPG").read_bytes()
    (PICTURES / "5.MJPG").write_bytes(whole[:-500])
    device = camera()
    device.open()
    numbers = [shown(captured.frame) for captured in take(device, 20)]
    device.close()
    (PICTURES / "5.MJPG").write_bytes(whole)
    assert 5 not in numbers
    assert {4, 6} <= set(numbers)
    assert device.counts["corrupt"] >= 1


def test_the_lights_of_a_digit_hang_on_its_zoom() -> None:
    device = GelCamera(
        model="digit", device=str(NODE), capture_width=640, capture_height=480, fps=30.0, pixel_format="MJPG",
        led_rgb=(15, 2, 7), reference_frames=0,
    )  # fmt: skip
    device.open()
    captured = None
    while captured is None:
        captured = device.wait(0.2)
    device.close()
    assert captured.frame.arrays()["rgb"].shape == (320, 240, 3)
    # The left of the sensor's picture is the bottom of the upright one.
    np.testing.assert_allclose(captured.frame.arrays()["rgb"][300, 120], (220, 30, 20), atol=6)
    probe = cv2.VideoCapture(str(NODE), cv2.CAP_V4L2)
    assert int(probe.get(cv2.CAP_PROP_ZOOM)) == 0xF27
    probe.release()


def test_the_search_lists_what_the_kernel_lists_and_does_not_fall_over() -> None:
    assert all(device.path.startswith("/dev/video") for device in find_video_devices())


def _until_lost(sensor: LiveSensor) -> SensorLost:
    end_s = time.monotonic() + 20.0
    while time.monotonic() < end_s:
        try:
            sensor.read(host_now_s())
        except SensorLost as error:
            return error
        time.sleep(0.005)
    raise AssertionError("it was never lost")
