"""Colour and depth of the same pixels: alignment, lenses, units and filters, through the SDK's own align."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sensors.geometry import FloatArray, axis_angle_to_matrix, invert, pose
from sensors.realsense_settings import Controls, Filters, Mode
from sensors.realsense_twin import TwinCamera, TwinLens, TwinPort
from tests.sensors.realsense_scene import CAMERA, LENS, PERIOD_S, camera_at, give_colour, taken

pytest.importorskip("pyrealsense2", reason="the extra 'realsense' is not installed")


@pytest.fixture
def port() -> TwinPort:
    return TwinPort()


def plane_depth(intrinsics_px: Any, mode: Mode, normal: FloatArray, distance_m: Any) -> FloatArray:
    """z [H, W] of the plane normal . x = distance, for a pinhole."""
    fx, fy, cx, cy = intrinsics_px
    v, u = np.mgrid[0 : mode.height, 0 : mode.width]
    z: FloatArray = distance_m / (((u - cx) / fx) * normal[0] + ((v - cy) / fy) * normal[1] + normal[2])
    return z


WIDE = TwinLens(Mode(424, 240, 30), (213.0, 213.0, 210.6, 121.3))
COLOUR = TwinLens(Mode(320, 240, 30), (307.5, 306.8, 158.2, 123.9))
BENT = replace(COLOUR, distortion=(-0.056, 0.064, 0.0006, -0.0002, -0.021))  # as of a D405


@settings(max_examples=12)
@given(
    baseline_m=st.floats(0.015, 0.05),
    turn_rad=st.tuples(*[st.floats(-0.02, 0.02)] * 3),
    tilt=st.tuples(st.floats(-0.15, 0.15), st.floats(-0.15, 0.15)),
    distance_m=st.floats(0.3, 1.5),
    bent=st.booleans(),
)
def test_aligned_depth_of_a_plane_is_right_to_a_millimetre(
    baseline_m: float, turn_rad: tuple[float, float, float], tilt: tuple[float, float], distance_m: float, bent: bool
) -> None:
    colour_from_depth = pose((baseline_m, 0.002, -0.004))
    colour_from_depth[:3, :3] = axis_angle_to_matrix(turn_rad)
    camera = TwinCamera(
        depth=WIDE, colour=BENT if bent else COLOUR, colour_from_depth=colour_from_depth, depth_unit_m=0.0001
    )
    port = TwinPort()
    twin = port.plug(camera)
    device = camera_at(port, colour=COLOUR.mode, depth=WIDE.mode)
    device.open()
    # The plane n . x = d in the colour frame; with x = R y + t it is (R^T n) . y = d - n . t in the depth frame.
    normal = np.array([*tilt, 1.0])
    in_depth = colour_from_depth[:3, :3].T @ normal
    z = plane_depth(WIDE.intrinsics_px, WIDE.mode, in_depth, distance_m - normal @ colour_from_depth[:3, 3])
    twin.give_depth(np.round(z / 0.0001).astype(np.uint16), number=0, stamp_s=1.0)
    twin.give_colour(np.zeros((240, 320, 3), np.uint8), number=0, stamp_s=1.0)
    frame = taken(device)[1]
    true = plane_depth(COLOUR.intrinsics_px, COLOUR.mode, normal, distance_m)
    np.testing.assert_allclose(frame.intrinsics_px, COLOUR.intrinsics_px, rtol=1e-6)
    inner = (slice(40, -40), slice(60, -60))
    assert (frame.depth_m[inner] > 0).all()
    # A depth pixel stands for half a pixel around it: the plane's slope over that.
    slope_m = distance_m / 213.0 * np.hypot(*tilt)
    error_m = np.abs(frame.depth_m - true)[inner]
    assert np.median(error_m) < 0.001
    assert error_m.max() < 0.001 + slope_m / 2
    device.close()


def test_z_is_that_of_the_colour_camera(port: TwinPort) -> None:
    """The SDK's align alone copies the depth camera's z, which a turned depth camera measures along another axis."""
    colour_from_depth = pose((0.015, 0.0, 0.01))
    colour_from_depth[:3, :3] = axis_angle_to_matrix([0.0, 0.02, 0.0])
    twin = port.plug(TwinCamera(depth=WIDE, colour=COLOUR, colour_from_depth=colour_from_depth, depth_unit_m=0.0001))
    device = camera_at(port, colour=COLOUR.mode, depth=WIDE.mode)
    device.open()
    normal = np.array([0.0, 0.0, 1.0])
    in_depth = colour_from_depth[:3, :3].T @ normal
    z = plane_depth(WIDE.intrinsics_px, WIDE.mode, in_depth, 1.0 - colour_from_depth[2, 3])
    twin.give_depth(np.round(z / 0.0001).astype(np.uint16), number=0, stamp_s=1.0)
    twin.give_colour(np.zeros((240, 320, 3), np.uint8), number=0, stamp_s=1.0)
    seen = taken(device)[1].depth_m[40:-40, 60:-60]
    assert np.abs(z[40:-40, 120:-120] - 1.0).max() > 0.01, "the depth camera's own z would be wrong by a centimetre"
    assert np.abs(seen - 1.0).max() < 0.001
    np.testing.assert_allclose(device.calibration.depth_from_colour, invert(colour_from_depth), atol=1e-6)
    np.testing.assert_allclose(device.calibration.depth_intrinsics_px, WIDE.intrinsics_px, rtol=1e-6)
    device.close()


def bend(x: FloatArray, y: FloatArray, lens: TwinLens) -> tuple[FloatArray, FloatArray]:
    """Rays (z = 1) as the lens shows them: how the SDK means the coefficients of an inverse Brown-Conrady lens."""
    k1, k2, p1, p2, k3 = lens.distortion
    r2 = x * x + y * y
    f = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    x, y = x * f, y * f
    return x + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)


def straighten(u: NDArray[Any], v: NDArray[Any], lens: TwinLens) -> tuple[FloatArray, FloatArray]:
    """The rays of pixels: the inverse of bend, by fixed-point iteration."""
    fx, fy, cx, cy = lens.intrinsics_px
    x, y = shown = (u - cx) / fx, (v - cy) / fy
    for _ in range(60):
        again = bend(x, y, lens)
        x, y = x + shown[0] - again[0], y + shown[1] - again[1]
    np.testing.assert_allclose(bend(x, y, lens), shown, atol=1e-9)
    return x, y


def paint(x: FloatArray, y: FloatArray) -> NDArray[np.uint8]:
    """What is seen along a ray: smooth waves."""
    waves = [128 + 100 * np.sin(20 * x), 128 + 100 * np.sin(20 * y), 128 + 100 * np.cos(14 * (x + y))]
    return np.round(np.stack(waves, axis=-1)).astype(np.uint8)


def test_a_bent_picture_is_straightened(port: TwinPort) -> None:
    lens = replace(BENT, distortion=(-0.2, 0.1, 0.002, -0.003, 0.01))
    twin = port.plug(TwinCamera(depth=replace(LENS, mode=COLOUR.mode), colour=lens))
    v, u = np.mgrid[0.0:240.0, 0.0:320.0]
    bent = paint(*straighten(u, v, lens))
    fx, fy, cx, cy = lens.intrinsics_px
    straight = paint((u - cx) / fx, (v - cy) / fy).astype(int)
    seen = {}
    for undistort in (True, False):
        device = camera_at(port, colour=COLOUR.mode, depth=COLOUR.mode, undistort=undistort)
        device.open()
        assert device.calibration.undistorted is undistort
        assert device.calibration.distortion_model == "inverse_brown_conrady"
        np.testing.assert_allclose(device.calibration.distortion, lens.distortion, rtol=1e-6)
        twin.give_depth(np.full((240, 320), 1000, np.uint16), number=0, stamp_s=1.0)
        twin.give_colour(bent, number=0, stamp_s=1.0)
        seen[undistort] = taken(device)[1].rgb.astype(int)
        device.close()
    np.testing.assert_array_equal(seen[False], bent)
    looked_at = seen[True].any(axis=-1)  # beyond the edge of the bent picture there is nothing to see
    assert looked_at.mean() > 0.9
    assert np.abs(seen[True] - straight)[looked_at].max() <= 2
    assert np.abs(bent.astype(int) - straight).max() > 30, "the lens bends enough to be seen"


def test_red_stays_red_however_it_is_sent() -> None:
    for colour_format in ("rgb8", "bgr8"):
        port = TwinPort()
        twin = port.plug(replace(CAMERA, colour_format=colour_format))
        device = camera_at(port)
        device.open()
        twin.give_depth(np.full((48, 64), 1000, np.uint16), number=0, stamp_s=1.0)
        twin.give_colour(np.full((48, 64, 3), (200, 50, 10), np.uint8), number=0, stamp_s=1.0)
        np.testing.assert_array_equal(taken(device)[1].rgb[24, 32], (200, 50, 10))
        device.close()


def test_depth_units_and_limits(port: TwinPort) -> None:
    twin = port.plug(replace(CAMERA, depth_unit_m=0.0001))
    raw = np.full((48, 64), 5000, np.uint16)
    raw[10:20, 10:20] = 900
    raw[10:20, 30:40] = 30000
    raw[30:40, 10:20] = 0
    for controls, unit_m in ((Controls(), 0.0001), (Controls(depth_unit_m=0.0002), 0.0002)):
        device = camera_at(port, controls=controls, min_distance_m=0.1 * unit_m / 1e-4, max_distance_m=2.0)
        device.open()
        assert device.calibration.depth_unit_m == pytest.approx(unit_m, rel=1e-6)
        twin.give_depth(raw, number=0, stamp_s=1.0)
        give_colour(twin, 0, 1.0)
        depth_m = taken(device)[1].depth_m
        np.testing.assert_allclose(depth_m[5, 5], 5000 * unit_m, rtol=1e-5)
        assert not depth_m[11:19, 11:19].any(), "too near"
        assert not depth_m[11:19, 31:39].any(), "too far"
        assert not depth_m[31:39, 11:19].any(), "not measured"
        device.close()


def test_the_sdks_filters_run(port: TwinPort) -> None:
    twin = port.plug(replace(CAMERA, colour=replace(LENS, intrinsics_px=(60.0, 60.0, 31.7, 23.7))))
    rng = np.random.default_rng(0)
    raw = np.round(1000 + 4 * rng.standard_normal((48, 64))).astype(np.uint16)
    raw[20:24, 30:34] = 0
    cases = {
        "none": Filters(),
        "spatial": Filters(spatial=True),
        "on z": Filters(spatial=True, disparity=False),
        "temporal": Filters(temporal=True),
        "filled": Filters(hole_filling="farthest_from_around"),
    }
    spread, holes = {}, {}
    for name, filters in cases.items():
        device = camera_at(port, filters=filters)
        device.open()
        for n in range(8):
            again = np.where(raw > 0, np.round(raw + 4 * rng.standard_normal(raw.shape)), 0).astype(np.uint16)
            twin.give_depth(again if name == "temporal" else raw, number=n, stamp_s=1.0 + n * PERIOD_S)
            give_colour(twin, n, 1.0 + n * PERIOD_S)
            depth_m = taken(device)[1].depth_m
        spread[name] = float(depth_m[4:16, 4:-4].std())
        holes[name] = int((depth_m[8:-8, 8:-8] == 0).sum())
        # The SDK's align alone lets the nearest of four pixels win, which brings a noisy surface 4 mm nearer.
        assert abs(depth_m[4:16, 4:-4].mean() - 1.0) < (0.005 if name == "on z" else 0.001), name
        device.close()
    assert spread["none"] == pytest.approx(0.004, rel=0.1)
    assert spread["spatial"] < 0.8 * spread["none"]
    assert spread["on z"] < 0.9 * spread["none"]
    assert spread["temporal"] < 1.3 * spread["none"]  # noise was added to it: sqrt(2) times without the filter
    assert 9 <= holes["none"] <= 16
    assert holes["filled"] == 0
