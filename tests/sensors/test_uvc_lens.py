"""The lens of UvcCamera: straightened pictures, the intrinsics that are told of them, calibration files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sensors.errors import DataError
from sensors.frames import RgbFrame
from sensors.uvc import Lens, UvcCamera, read_calibration
from tests.sensors.films import HEIGHT, WIDTH, picture, write_film

BARREL = [-0.32, 0.12, 0.001, -0.0015, -0.02]
RATIONAL = [0.4, -0.15, 0.0008, -0.0004, 0.02, 0.8, -0.1, 0.01]


def _shown_through(lens: Lens, rgb: NDArray[np.uint8], tmp_path: Path) -> RgbFrame:
    """What a camera with this lens shows of a picture as it came from the sensor."""
    write_film(tmp_path / "lens.mkv", [rgb] * 30)
    device = UvcCamera(
        device=str(tmp_path / "lens.mkv"), width=lens.width, height=lens.height,
        intrinsics_px=lens.intrinsics_px, distortion=lens.distortion or None,
    )  # fmt: skip
    return _first(device)


def _first(device: UvcCamera) -> RgbFrame:
    device.open()
    captured = device.wait(5.0)
    device.close()
    assert captured is not None
    assert isinstance(captured.frame, RgbFrame)
    return captured.frame


@pytest.mark.parametrize("bend", [BARREL, BARREL[:4], RATIONAL], ids=["barrel", "four", "rational"])
def test_pictures_are_straightened_as_opencv_does(bend: list[float], tmp_path: Path) -> None:
    lens = Lens(320, 240, (260.0, 262.0, 155.0, 122.0), tuple(bend))
    raw = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    raw = np.asarray(cv2.GaussianBlur(raw, (0, 0), 2.0), np.uint8)
    frame = _shown_through(lens, raw, tmp_path)
    fx, fy, cx, cy = frame.intrinsics_px
    matrix = np.array([[260.0, 0, 155.0], [0, 262.0, 122.0], [0, 0, 1]])
    shown = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    expected = cv2.undistort(raw, matrix, np.array(bend), None, shown)
    assert np.abs(frame.rgb.astype(int) - expected).max() <= 1
    assert np.abs(raw.astype(int) - expected).mean() > 3, "the lens bends nothing"


def test_a_straight_line_is_straight_and_points_project_by_the_intrinsics_that_are_told(tmp_path: Path) -> None:
    lens = Lens(320, 240, (260.0, 262.0, 155.0, 122.0), tuple(BARREL))
    # Points of a straight line in space, drawn where the lens puts them.
    points_m = np.stack([np.linspace(-0.40, 0.40, 9), np.full(9, -0.30), np.ones(9)], axis=-1)
    matrix = np.array([[260.0, 0, 155.0], [0, 262.0, 122.0], [0, 0, 1]])
    drawn = cv2.projectPoints(points_m, np.zeros(3), np.zeros(3), matrix, np.array(lens.distortion))[0][:, 0]
    v, u = np.mgrid[0:240, 0:320]
    raw = np.zeros((240, 320), float)
    for x, y in drawn:
        raw += 250 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 1.5**2))
    frame = _shown_through(lens, np.repeat(np.clip(raw, 0, 255).astype(np.uint8)[..., None], 3, axis=-1), tmp_path)
    fx, fy, cx, cy = frame.intrinsics_px
    expected = np.stack([points_m[:, 0] * fx + cx, points_m[:, 1] * fy + cy], axis=-1)
    found = []
    for x, y in expected:
        near = np.where((np.abs(u - x) < 7) & (np.abs(v - y) < 7), frame.rgb[..., 0], 0).astype(float)
        found.append([(near * u).sum() / near.sum(), (near * v).sum() / near.sum()])
    assert np.abs(np.array(found) - expected).max() < 0.15
    bow_px = np.ptp(drawn[:, 1]), np.ptp(np.array(found)[:, 1])
    assert bow_px[0] > 3.0, "the line was straight before"
    assert bow_px[1] < 0.15


@settings(max_examples=30)
@given(
    f=st.floats(150, 600), c=st.floats(140, 180), bend=st.lists(st.floats(-0.1, 0.1), min_size=4, max_size=4),
    k3=st.floats(-0.05, 0.05),
)  # fmt: skip
def test_the_maps_lead_from_straight_pixels_to_bent_ones(f: float, c: float, bend: list[float], k3: float) -> None:
    """Closed form: x' = x (1 + k1 r2 + k2 r4 + k3 r6) + tangential part (Brown, 1966)."""
    k1, k2, p1, p2 = bend[0], bend[1], bend[2] / 20, bend[3] / 20
    maps, (fx, fy, cx, cy) = Lens(320, 240, (f, f, c, 119.5), (k1, k2, p1, p2, k3)).undistortion()
    if maps is None:
        assert not any((k1, k2, p1, p2, k3))
        return
    exact, _ = cv2.convertMaps(*maps, cv2.CV_32FC1)
    for u, v in ((160, 120), (80, 60), (250, 190)):
        x, y = (u - cx) / fx, (v - cy) / fy
        r2 = x * x + y * y
        bent = x * (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        assert exact[v, u] == pytest.approx(f * bent + c, abs=0.05)  # fixed point: 1/32 of a pixel


def test_a_straight_lens_leaves_the_picture_alone(tmp_path: Path) -> None:
    lens = Lens(WIDTH, HEIGHT, (100.0, 101.0, 79.0, 60.0))
    frame = _shown_through(lens, picture(9), tmp_path)
    np.testing.assert_array_equal(frame.rgb, picture(9))
    np.testing.assert_array_equal(frame.intrinsics_px, [100.0, 101.0, 79.0, 60.0])


def test_a_calibration_file_gives_the_same_as_its_numbers(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", [picture(9)] * 30)
    path = tmp_path / "calibration.json"
    numbers = {"intrinsics_px": [150.0, 151.0, 80.0, 61.0], "distortion": BARREL}
    path.write_text(json.dumps({"width": WIDTH, "height": HEIGHT, **numbers, "rms_px": 0.2}))
    frames = []
    for optics in (numbers, {"calibration_path": str(path)}):
        device = UvcCamera(device=str(tmp_path / "film.mkv"), width=WIDTH, height=HEIGHT, **optics)
        frames.append(_first(device))
    np.testing.assert_array_equal(frames[0].rgb, frames[1].rgb)
    np.testing.assert_array_equal(frames[0].intrinsics_px, frames[1].intrinsics_px)
    with pytest.raises(DataError, match="a calibration of 160 x 120"):
        UvcCamera(device=0, width=320, height=240, calibration_path=str(path))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"width": 160, "height": 120, "intrinsics_px": [1, 2, 3]}',
        '{"width": 160, "height": 120, "intrinsics_px": [1, 2, 3, 4], "distortion": [1, 2]}',
        '{"width": 160, "height": 120, "intrinsics_px": [1, NaN, 3, 4]}',
        '{"width": 160, "height": 120, "intrinsics_px": [0, 2, 3, 4]}',
        '{"width": "wide", "height": 120, "intrinsics_px": [1, 2, 3, 4]}',
    ],
)
def test_a_damaged_calibration_is_a_data_error(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "it.json").write_text(text)
    with pytest.raises(DataError, match="perceive calibrate"):
        read_calibration(tmp_path / "it.json")
