"""GelCamera over films: turned, cut and scaled pictures, the untouched gel, differences, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sensors.errors import SensorError, SensorLost, SpecError
from sensors.frames import GelImageFrame
from sensors.gel_camera import MODELS, NEUTRAL, GelCamera
from sensors.geometry import pose
from sensors.live import LiveSensor, Mount, wait_for
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.sensors.films import write_film

LIVE = Timing(rate_hz=60.0, live=True)
QUIET = np.random.default_rng(0).integers(40, 200, (24, 32, 3))  # the gel, a block of 10 x 10 pixels each


def gel(change: NDArray[Any] | int = 0, noise: int = 0) -> NDArray[np.uint8]:
    """The DIGIT's sensor sees this: [240, 320, 3]."""
    rgb = np.kron(QUIET + change, np.ones((10, 10, 1), int))
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def digit(film: Path | str, **settings: Any) -> GelCamera:
    return GelCamera(
        **{
            "model": "digit", "device": str(film), "capture_width": 320, "capture_height": 240, "fps": None,
            "speed": 20.0, **settings,
        }
    )  # fmt: skip


def mini(film: Path | str, **settings: Any) -> GelCamera:
    return GelCamera(
        **{
            "model": "gelsight_mini", "device": str(film), "capture_width": 640, "capture_height": 480, "fps": None,
            "width": 320, "height": 240, "reference_frames": 0, "speed": 20.0, **settings,
        }
    )  # fmt: skip


def frames(device: GelCamera) -> list[GelImageFrame]:
    """All that come, until it is lost."""
    found = []
    while True:
        try:
            captured = device.wait(0.2)
        except SensorLost:
            return found
        if captured is not None:
            assert isinstance(captured.frame, GelImageFrame)
            found.append(captured.frame)


def test_a_digit_stands_upright_on_its_mount_with_its_size(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [gel()] * 15)
    mount = Mount(position_m=(0.1, 0.2, 0.3), quaternion_xyzw=(0.0, 1.0, 0.0, 0.0))
    sensor = LiveSensor(device=digit(tmp_path / "film.mkv"), timing=LIVE, mount=mount)
    rig = SensorRig({"tip": sensor})
    rig.open(None)
    frame = wait_for(sensor, 20.0)
    assert isinstance(frame, GelImageFrame)
    # An anticlockwise quarter turn: the right end of a row of the sensor comes to lie on top.
    np.testing.assert_array_equal(frame.rgb, gel().transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(frame.rgb[0, 0], QUIET[0, -1])
    np.testing.assert_array_equal(frame.base_from_pad, pose(mount.position_m, mount.quaternion_xyzw))
    np.testing.assert_allclose(frame.size_m, [0.020, 0.016])  # taller than wide, as the picture
    assert sensor.space["rgb"].shape == frame.rgb.shape == (320, 240, 3)
    rig.close()


def test_the_smaller_picture_is_the_mean_of_the_areas(tmp_path: Path) -> None:
    fine = np.random.default_rng(1).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    write_film(tmp_path / "film.mkv", [fine] * 15)
    device = digit(tmp_path / "film.mkv", width=60, height=80, reference_frames=0)
    device.open()
    shown = frames(device)[0].rgb
    upright = fine.transpose(1, 0, 2)[::-1]
    expected = upright.reshape(80, 4, 60, 4, 3).mean(axis=(1, 3))
    assert np.abs(shown - expected).max() <= 0.51
    assert np.abs(upright[::4, ::4] - expected).mean() > 20, "picking pixels would have done as well"


def test_a_mini_is_cut_by_a_seventh_on_each_side(tmp_path: Path) -> None:
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[..., 0] = 255  # the housing
    rows, columns = 480 // 7, 640 // 7
    inside = rgb[rows : 480 - rows, columns : 640 - columns]
    inside[:] = (0, 90, 0)
    inside[:40, :40] = (0, 0, 200)  # the upper left corner
    write_film(tmp_path / "film.mkv", [rgb] * 5)
    device = mini(tmp_path / "film.mkv")
    device.open()
    frame = frames(device)[0]
    assert frame.rgb.shape == (240, 320, 3)
    assert frame.rgb[..., 0].max() == 0, "the housing is seen"
    np.testing.assert_array_equal(frame.rgb[0, 0], (0, 0, 200))
    np.testing.assert_array_equal(frame.rgb[-1, -1], (0, 90, 0))
    np.testing.assert_allclose(frame.size_m, [0.0143, 0.0186])
    # One row or column less would show the housing: the cut is no larger than it has to be.
    assert rgb[rows - 1, 320, 0] == rgb[240, columns - 1, 0] == 255


def test_a_large_compressed_picture_shows_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rgb = cv2.GaussianBlur(rng.integers(0, 256, (1960, 2604, 3)).astype(np.uint8), (0, 0), 12)
    rgb = np.asarray(cv2.normalize(rgb, None, 0, 255, cv2.NORM_MINMAX), np.uint8)
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (2604, 1960))
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for _ in range(3):
        writer.write(rgb[..., ::-1])
    writer.release()
    device = mini(film, capture_width=2604, capture_height=1960)
    device.open()
    shown = frames(device)[0].rgb
    rows, columns = 1960 // 7, 2604 // 7
    expected = cv2.resize(rgb[rows:-rows, columns:-columns], (320, 240), interpolation=cv2.INTER_AREA)
    assert np.abs(shown - expected.astype(float)).mean() < 3
    assert expected.std() > 20


def test_the_reference_is_the_mean_of_the_first_pictures(tmp_path: Path) -> None:
    noise = [0, 3, -3, 1, -1, 2, -2, 0]
    film = tmp_path / "film.mkv"
    write_film(film, [gel(noise=n) for n in noise] + [gel(noise=60)] * 5)
    device = digit(film, reference_frames=4)
    device.open()
    assert device.reference is not None
    upright = gel().transpose(1, 0, 2)[::-1].astype(float)
    np.testing.assert_allclose(device.reference, upright + np.mean(noise[:4]), atol=1e-3)
    assert len(frames(device)) == 9  # the others are shown
    device.close()


def test_a_difference_is_grey_where_nothing_is_touched_and_signed_elsewhere(tmp_path: Path) -> None:
    pressed = np.zeros((24, 32, 3), int)
    pressed[4:8, 10:20] = (30, -20, 0)
    film = tmp_path / "film.mkv"
    write_film(film, [gel()] * 10 + [gel(pressed)] * 10 + [gel(200), gel(-200)])
    device = digit(film, difference=True, reference_frames=10)
    device.open()
    shown = frames(device)
    expected = NEUTRAL + np.kron(pressed, np.ones((10, 10, 1), int)).transpose(1, 0, 2)[::-1]
    np.testing.assert_array_equal(shown[3].rgb, expected)
    assert (shown[3].rgb != NEUTRAL).any()
    lighter, darker = shown[-2].rgb, shown[-1].rgb
    assert (lighter.min(), lighter.max()) == (NEUTRAL + 255 - QUIET.max(), 255)  # at its limit, not around it
    assert (darker.min(), darker.max()) == (0, NEUTRAL - QUIET.min())
    device.close()


def test_a_gel_that_is_touched_at_first_is_refused(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    write_film(film, [gel()] * 4 + [gel(40)] * 10)
    with pytest.raises(SensorError, match=r"changed by 40\.0 grey values"):
        digit(film).open()
    device = digit(film, reference_noise=50.0)
    device.open()
    device.close()
    short = tmp_path / "short.mkv"
    write_film(short, [gel()] * 4)
    with pytest.raises(SensorError, match="ended"):
        digit(short).open()


def test_a_fingertip_that_comes_back_keeps_its_reference_until_it_is_told_otherwise(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    write_film(film, [gel()] * 12)
    device = digit(film)
    device.open()
    first = device.reference
    device.close()
    write_film(film, [gel(25)] * 12)  # holds something
    device.open()
    assert first is not None
    np.testing.assert_array_equal(device.reference, first)
    device.close()
    device.forget_reference()
    device.open()
    np.testing.assert_allclose(device.reference, first + 25)
    device.close()


def test_a_reference_may_come_from_a_file(tmp_path: Path) -> None:
    film, path = tmp_path / "film.mkv", tmp_path / "untouched.png"
    write_film(film, [gel(7)] * 12)
    upright = np.ascontiguousarray(gel().transpose(1, 0, 2)[::-1])
    cv2.imwrite(str(path), cv2.cvtColor(upright, cv2.COLOR_RGB2BGR))
    device = digit(film, difference=True, reference_path=str(path), reference_frames=0)
    device.open()
    np.testing.assert_array_equal(frames(device)[0].rgb, np.full((320, 240, 3), NEUTRAL + 7))
    device.close()
    for wrong in (str(film), str(tmp_path / "none.png")):
        with pytest.raises(SensorError, match="reference_path"):
            digit(film, reference_path=wrong).open()
    with pytest.raises(SensorError, match="got 240 x 320"):
        digit(film, width=120, height=160, reference_path=str(path)).open()


def test_a_missing_fingertip_names_the_rule_that_helps() -> None:
    with pytest.raises(SensorError, match=r'idVendor}=="2833".*idProduct}=="0209"'):
        digit("D00000").open()
    with pytest.raises(SensorError, match="GelSight Mini R0B"):
        mini("name:GelSight Mini").open()


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "digitt"},
        {"capture_width": 1280, "capture_height": 720},
        {"fps": 25.0},
        {"led_rgb": (16, 0, 0)},
        {"led_rgb": (1, 2)},
        {"led_rgb": (0.5, 0, 0)},
        {"model": "gelsight_mini", "led_rgb": (1, 1, 1)},
        {"reference_frames": -1},
        {"difference": True, "reference_frames": 0},
        {"reference_noise": 0.0},
        {"size_m": (0.02,)},
        {"size_m": (0.02, 0.0)},
        {"width": 0},
        {"exposure_s": -1.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        digit("D20001", **wrong)
    assert {"digit", "gelsight_mini"} == set(MODELS)
    for width, height, rate in MODELS["digit"].formats:
        digit("D20001", capture_width=width, capture_height=height, fps=rate, led_rgb=(15, 0, 3))
