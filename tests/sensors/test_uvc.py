"""UvcCamera over films, a live network stream and a V4L2 camera in user space."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sensors.clock import host_now_s
from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import Frame, RgbFrame
from sensors.jpeg import decode_jpeg
from sensors.live import LiveSensor, wait_for
from sensors.timeline import Timing
from sensors.uvc import UvcCamera
from sensors.video_controls import Controls, exposure_shift_s
from tests.sensors.films import HEIGHT, WIDTH, number_of, picture, write_film
from tests.sensors.mjpeg_server import Server

LIVE = Timing(rate_hz=30.0, live=True)


def camera(device: Path | str, **settings: Any) -> UvcCamera:
    """A camera of the films' size, without a calibration."""
    return UvcCamera(
        **{"device": str(device), "width": WIDTH, "height": HEIGHT, "fps": 30.0, "fov_y_deg": 50.0, **settings}
    )


def shots(device: UvcCamera) -> Iterator[RgbFrame]:
    """The frames until it is lost."""
    while True:
        try:
            captured = device.wait(0.2)
        except SensorLost:
            return
        if captured is not None:
            assert isinstance(captured.frame, RgbFrame)
            yield captured.frame


def rgb_of(frame: Frame) -> NDArray[np.uint8]:
    assert isinstance(frame, RgbFrame)
    return frame.rgb


def next_of(sensor: LiveSensor) -> Frame:
    """The next frame, after however many cuts."""
    end_s = time.monotonic() + 20.0
    while time.monotonic() < end_s:
        try:
            return wait_for(sensor, 20.0)
        except SensorLost:
            time.sleep(0.005)
    raise AssertionError("it never came back")


def until_lost(sensor: LiveSensor) -> SensorLost:
    end_s = time.monotonic() + 20.0
    while time.monotonic() < end_s:
        try:
            sensor.read(host_now_s())
        except SensorLost as error:
            return error
        time.sleep(0.002)
    raise AssertionError("it was never lost")


# ---------------------------------------------------------------------------------------------------------------- films


def test_a_film_gives_every_picture_once_in_order_and_in_its_colours(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [picture(k) for k in range(60)])
    sensor = LiveSensor(device=camera(tmp_path / "film.mkv", speed=10.0), timing=LIVE, retry_s=60.0)
    sensor.open(None)
    frames = [wait_for(sensor, 20.0) for _ in range(60)]
    assert [number_of(rgb_of(frame)) for frame in frames] == list(range(60))
    np.testing.assert_array_equal(rgb_of(frames[37]), picture(37))  # red on the left, blue on the right
    assert not np.array_equal(rgb_of(frames[37])[..., ::-1], picture(37)), "the picture would not show a mistake"
    assert "2." in until_lost(sensor).got
    assert sensor.counts["truncated"] == sensor.counts["corrupt"] == 0
    sensor.close()


def test_pictures_are_stamped_and_shown_as_far_apart_as_they_were_taken(tmp_path: Path) -> None:
    taken_s = [0.0, 0.033, 0.07, 0.2, 0.21, 0.5]
    write_film(tmp_path / "film.mkv", [picture(k) for k in range(6)], taken_s)
    for speed in (1.0, 4.0):
        device = camera(tmp_path / "film.mkv", speed=speed)
        opened_s = host_now_s()
        device.open()
        stamps_s = []
        for frame in shots(device):
            assert opened_s <= frame.stamp_s <= host_now_s(), "shown before its time"
            stamps_s.append(frame.stamp_s)
        np.testing.assert_allclose(np.diff(stamps_s), np.diff(taken_s) / speed, atol=1e-6)
        device.close()


def test_waiting_ends_after_the_timeout(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [picture(k) for k in range(2)], [0.0, 5.0], rate_hz=1)
    device = camera(tmp_path / "film.mkv", fps=None)
    device.open()
    assert device.wait(0.2) is not None
    before_s = time.monotonic()
    assert device.wait(0.02) is None
    assert time.monotonic() - before_s < 4.0
    device.close()


def test_the_end_of_a_film_is_a_loss_and_it_plays_again(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [picture(k) for k in range(3, 8)])
    sensor = LiveSensor(device=camera(tmp_path / "film.mkv", speed=20.0), timing=LIVE, retry_s=0.05)
    sensor.open(None)
    frames = [next_of(sensor) for _ in range(10)]
    assert [number_of(rgb_of(frame)) for frame in frames] == [3, 4, 5, 6, 7] * 2
    assert sensor.counts["reconnects"] >= 1
    assert all(later.stamp_s > earlier.stamp_s for earlier, later in itertools.pairwise(frames))
    sensor.close()


def test_a_file_that_goes_away_is_lost_and_found_again(tmp_path: Path) -> None:
    film, hidden = tmp_path / "film.mkv", tmp_path / "hidden"
    write_film(film, [picture(k) for k in range(6)])
    sensor = LiveSensor(device=camera(film, speed=20.0), timing=LIVE, retry_s=0.02)
    sensor.open(None)
    film.rename(hidden)
    end_s = time.monotonic() + 20.0
    while "no file" not in (error := until_lost(sensor)).got:
        assert time.monotonic() < end_s, error
    hidden.rename(film)
    assert number_of(rgb_of(next_of(sensor))) == 0
    sensor.close()


def test_a_film_that_is_cut_off_gives_what_is_whole_and_is_counted(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    write_film(film, [picture(k) for k in range(40)])
    data = film.read_bytes()
    film.write_bytes(data[: len(data) // 2])
    device = camera(film, speed=100.0)
    device.open()
    numbers = [number_of(frame.rgb) for frame in shots(device)]
    assert 10 < len(numbers) < 30
    assert numbers[:-1] == list(range(len(numbers) - 1))  # the last one may be torn
    assert device.counts == {"corrupt": 0, "truncated": 1}
    device.close()
    film.write_bytes(data[:200])
    with pytest.raises(SensorError, match="Is it a whole video"):
        device.open()
    film.write_bytes(data)
    device.open()
    assert len(list(shots(device))) == 40
    assert device.counts["truncated"] == 1
    device.close()


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"width": 320}, "160 x 120.*30 Hz"),
        ({"height": 121}, "160 x 120"),
        ({"fps": 60.0}, "at 30 Hz"),
        ({"device": "none.mkv"}, "no file 'none.mkv'"),
    ],
)
def test_what_is_not_as_asked_is_an_error_that_names_it(asked: dict[str, Any], got: str, tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [picture(0)] * 30)
    settings = {"device": str(tmp_path / "film.mkv"), **asked}
    with pytest.raises(SensorError, match=got):
        camera(**settings).open()
    camera(tmp_path / "film.mkv").open()  # what is as asked opens
    with pytest.raises(SensorError, match=r"Call open\(\) first"):
        camera(tmp_path / "film.mkv").wait(0.1)


def test_a_torn_jpeg_is_left_out_and_counted(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (WIDTH, HEIGHT))
    for k in range(20):
        writer.write(picture(k)[..., ::-1])
    writer.release()
    data = bytearray(film.read_bytes())
    ends = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xd9"]
    data[ends[7] : ends[7] + 2] = b"\x00\x00"
    film.write_bytes(data)
    device = camera(film, speed=100.0)
    device.open()
    frames = list(shots(device))
    assert [number_of(frame.rgb) for frame in frames] == [k for k in range(20) if k != 7]
    assert device.counts == {"corrupt": 1, "truncated": 0}
    assert np.abs(frames[3].rgb[40:].astype(int) - picture(3)[40:]).mean() < 5  # lossy, but red is red
    device.close()


def test_a_jpeg_of_a_webcam_has_no_huffman_tables_and_may_be_padded() -> None:
    whole = cv2.imencode(".jpg", picture(5))[1].tobytes()
    expected = decode_jpeg(np.frombuffer(whole, np.uint8))
    bare = bytearray(whole)
    while (at := bare.find(b"\xff\xc4")) >= 0:  # define Huffman table
        del bare[at : at + 2 + int.from_bytes(bare[at + 2 : at + 4], "big")]
    assert len(bare) < len(whole) - 300
    for sent in (bytes(bare), whole + bytes(37)):
        shown = decode_jpeg(np.frombuffer(sent, np.uint8))
        assert shown is not None
        np.testing.assert_array_equal(shown, expected)
    small = decode_jpeg(np.frombuffer(whole, np.uint8), 4)
    assert small is not None
    assert expected is not None
    means = expected.reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - means).mean() < 2
    for torn in (whole[:-2], whole[1:], b"", b"\xff\xd8\xff\xd9", whole[: len(whole) // 2]):
        assert decode_jpeg(np.frombuffer(torn, np.uint8)) is None


# --------------------------------------------------------------------------------------------------------- live streams


@pytest.fixture
def server() -> Iterator[Server]:
    built = Server()
    yield built
    built.stop()


def stream_of(server: Server, **settings: Any) -> LiveSensor:
    device = camera(f"http://127.0.0.1:{server.port}/it.mjpg", **settings)
    return LiveSensor(device=device, timing=LIVE, retry_s=0.02)


def test_a_live_stream_gives_every_picture_but_the_torn_ones(server: Server) -> None:
    server.torn = {30, 41}
    sensor = stream_of(server, fps=None)
    before_s = host_now_s()
    sensor.open(None)
    frames = [wait_for(sensor, 20.0) for _ in range(60)]
    assert [number_of(rgb_of(frame)) for frame in frames] == [k for k in range(62) if k not in (30, 41)]
    assert sensor.counts["corrupt"] == 2
    stamps_s = np.array([frame.stamp_s for frame in frames])
    assert (np.diff(stamps_s) >= 0).all()
    assert before_s < stamps_s[0]
    assert stamps_s[-1] <= host_now_s()
    sensor.close()


def test_a_stream_whose_server_goes_is_lost_and_resumes_when_it_is_back(server: Server) -> None:
    sensor = stream_of(server)
    sensor.open(None)
    assert number_of(rgb_of(wait_for(sensor, 20.0))) == 0
    server.stop()
    until_lost(sensor)
    with pytest.raises(SensorLost):
        sensor.read(host_now_s())  # and stays so
    second = Server(server.port)
    assert number_of(rgb_of(next_of(sensor))) == 0  # from its beginning
    assert sensor.counts["reconnects"] == 1
    sensor.close()
    second.stop()


def test_a_silent_stream_is_lost_after_the_time_that_is_asked_for(server: Server) -> None:
    device = camera(f"http://127.0.0.1:{server.port}/it.mjpg", lost_after_s=0.3)
    device.open()
    assert device.wait(0.2) is not None
    server.silent.set()
    before_s = time.monotonic()
    list(shots(device))
    assert 0.25 < time.monotonic() - before_s < 10.0
    device.close()


def test_a_stream_that_is_not_there_is_an_error(server: Server) -> None:
    port = server.port
    server.stop()
    with pytest.raises(SensorError, match="Does its server run"):
        camera(f"http://127.0.0.1:{port}/it.mjpg").open()


# -------------------------------------------------------------------------------------------------------- Linux cameras


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_linux_cameras_in_a_process_of_their_own(tmp_path: Path) -> None:
    """Runs tests/sensors/v4l2_checks.py with the camera of v4l2_camera.c loaded under OpenCV's V4L2 backend."""
    here, library = Path(__file__).parent, tmp_path / "camera.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(here / "v4l2_camera.c"), "-ldl"], check=True
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # a node has to lie under /dev
        environment = {
            **os.environ, "LD_PRELOAD": str(library), "V4L2_PICTURES": str(tmp_path), "V4L2_CAMERA": f"{folder}/video0",
        }  # fmt: skip
        plain = ["--noconftest", "-p", "no:cacheprovider", "-p", "no:randomly", str(here / "v4l2_checks.py")]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plain],
            env=environment, cwd=here.parents[1], capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("value", ["Y", "N", None])
def test_the_stamp_is_moved_to_the_middle_of_the_exposure(value: str | None, tmp_path: Path) -> None:
    if value is not None:
        (tmp_path / "hwtimestamps").write_text(f"{value}\n")
    # By the hardware's clock the stamp is the exposure's beginning; else it is when the picture began to arrive.
    assert exposure_shift_s(0.02, tmp_path) == (0.01 if value == "Y" else -0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fov_y_deg": None},
        {"intrinsics_px": [1.0, 1.0, 1.0, 1.0]},
        {"fov_y_deg": 180.0},
        {"distortion": [-0.3, 0.1, 0.0, 0.0]},
        {"fov_y_deg": None, "intrinsics_px": [1.0, 1.0, 1.0]},
        {"fov_y_deg": None, "intrinsics_px": [1.0, 1.0, 1.0, 1.0], "distortion": [0.1]},
        {"width": 0},
        {"fps": 0.0},
        {"pixel_format": "H264"},
        {"buffer_size": 0},
        {"lost_after_s": 0.0},
        {"speed": math.inf},
        {"device": ""},
        {"exposure_s": 0.0},
        {"exposure_s": "manual"},
        {"gain": "auto"},
        {"gain": -1.0},
        {"focus": math.nan},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        UvcCamera(**{"device": 0, "fov_y_deg": 50.0, **wrong})
    assert Controls(exposure_s="auto", focus=0.0).asked == ["exposure_s", "focus"]
