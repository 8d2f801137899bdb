"""Cameras against closed forms: where a surface is seen, how noise behaves, and how far a mount is moved."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.base import Picture
from sensors.camera import RgbCamera, RgbdCamera
from sensors.errors import SensorError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import (
    FloatArray,
    intrinsics_from_fov,
    invert,
    look_at,
    matrix_to_quaternion,
    pose,
    project,
    rotation_angle_rad,
    transform_points,
    unproject,
)
from sensors.timeline import Timing
from tests.contracts import CONF, build_sensor
from tests.fake_world import BOX_RGB, FakeWorld

TIMING = Timing(rate_hz=12.0)
QUIET = {"colour_noise": 0.0, "colour_gain": 0.0, "depth_noise": 0.0}
EYE, TARGET = (1.1, 0.3, 0.8), (0.5, 0.0, 0.1)
MOUNT: dict[str, Any] = {
    "position_m": EYE,
    "quaternion_xyzw": tuple(matrix_to_quaternion(look_at(EYE, TARGET)[:3, :3])),
}


def _shoot(camera: RgbdCamera, world: FakeWorld, seed: int = 0) -> RgbdFrame:
    camera.open(world)
    camera.reset(np.random.default_rng(seed))
    return camera.read(0.0)


def test_every_pixel_of_the_box_and_the_table_lies_on_its_surface() -> None:
    world = FakeWorld(box_quaternion_xyzw=(0.0, 0.0, 0.3, 0.95))
    frame = _shoot(RgbdCamera(timing=TIMING, **MOUNT, **QUIET), world)
    points = transform_points(frame.base_from_camera, unproject(frame.depth_m, frame.intrinsics_px).reshape(-1, 3))
    seen = frame.depth_m.reshape(-1) > 0
    on_box = (frame.rgb.reshape(-1, 3) == BOX_RGB).all(-1)
    assert on_box.sum() > 30
    in_box = np.abs(transform_points(invert(world.base_from_box), points[on_box])) - world.box_size_m / 2
    np.testing.assert_allclose(in_box.max(-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(points[seen & ~on_box][:, 2], 0.0, atol=1e-6)


def test_a_camera_on_a_link_moves_with_it() -> None:
    world = FakeWorld(tool_m=(0.4, 0.1, 0.3))
    camera = RgbdCamera(timing=TIMING, link="tool", position_m=(0.05, 0.0, -0.1), **QUIET)
    first = _shoot(camera, world)
    np.testing.assert_allclose(first.base_from_camera, world.link_pose("tool") @ pose((0.05, 0.0, -0.1)))
    np.testing.assert_allclose(first.base_from_camera[:3, 3], [0.45, 0.1, 0.4])
    world.base_from_tool[:3, 3] += [0.1, 0.0, 0.2]
    np.testing.assert_allclose(camera.read(1.0).base_from_camera[:3, 3], [0.55, 0.1, 0.6])
    np.testing.assert_allclose(first.base_from_camera[:3, 3], [0.45, 0.1, 0.4])  # a frame keeps its own pose


@given(st.integers(0, 10_000), st.floats(0.0, 0.5), st.floats(0.0, 180.0))
def test_a_mount_is_moved_by_exactly_what_was_asked(seed: int, shift_m: float, shift_deg: float) -> None:
    moved = RgbdCamera(
        timing=TIMING, width=4, height=4, mount_shift_m=shift_m, mount_shift_deg=shift_deg, **MOUNT, **QUIET
    )
    got = _shoot(moved, FakeWorld(), seed).base_from_camera
    mount = pose(**MOUNT)
    assert np.linalg.norm(got[:3, 3] - mount[:3, 3]) == pytest.approx(shift_m, abs=1e-9)
    assert np.rad2deg(rotation_angle_rad(mount[:3, :3], got[:3, :3])) == pytest.approx(shift_deg, abs=1e-5)


def test_a_moved_camera_tells_the_truth_about_its_pose() -> None:
    world = FakeWorld()
    camera = RgbdCamera(timing=TIMING, mount_shift_m=0.1, mount_shift_deg=10.0, **MOUNT, **QUIET)
    poses = []
    for seed in range(3):
        frame = _shoot(camera, world, seed)
        points = transform_points(frame.base_from_camera, unproject(frame.depth_m, frame.intrinsics_px).reshape(-1, 3))
        seen = frame.depth_m.reshape(-1) > 0
        assert (np.abs(points[seen][:, 2]) < 0.06 + 1e-6).all()
        poses.append(frame.base_from_camera)
        np.testing.assert_array_equal(camera.read(1.0).base_from_camera, frame.base_from_camera)  # fixed in an episode
    assert not np.allclose(poses[0], poses[1])
    directions = np.array([p[:3, 3] - np.array(EYE) for p in poses])
    assert np.linalg.matrix_rank(directions) == 3


def test_depth_noise_grows_with_the_square_of_the_depth() -> None:
    """Straight down on the bare table from 0.5 m and from 1 m: 0.25 and 1 times the noise at 1 m."""
    spread = {}
    for height in (0.5, 1.0):
        world = FakeWorld(box_middle_m=(9.0, 9.0, 9.0))
        settings = QUIET | {"depth_noise": 0.004}
        down = RgbdCamera(
            timing=TIMING, position_m=(0.5, 0.0, height), quaternion_xyzw=(1.0, 0.0, 0.0, 0.0), **settings
        )
        error = _shoot(down, world).depth_m - height
        assert abs(error.mean()) < 5 * 0.004 * height**2 / 84
        spread[height] = error.std()
    assert spread[1.0] == pytest.approx(0.004, rel=0.05)
    assert spread[0.5] == pytest.approx(0.001, rel=0.05)


def test_noise_leaves_no_measurement_alone_and_stays_in_range() -> None:
    """A level camera: the sky half has depth 0 and keeps it under huge noise; the rest stays within near and far."""
    level = {
        "position_m": (0.0, 0.0, 0.3),
        "quaternion_xyzw": tuple(matrix_to_quaternion(look_at((0, 0, 0.3), (1, 0, 0.3))[:3, :3])),
    }
    clean = _shoot(RgbdCamera(timing=TIMING, near_m=0.2, **level, **QUIET), FakeWorld())
    noisy = _shoot(RgbdCamera(timing=TIMING, near_m=0.2, **level, **(QUIET | {"depth_noise": 0.5})), FakeWorld())
    assert (clean.depth_m == 0).sum() > 84 * 42
    np.testing.assert_array_equal(noisy.depth_m == 0, clean.depth_m == 0)
    measured = noisy.depth_m[noisy.depth_m > 0]
    assert measured.min() >= np.float32(0.2)
    assert measured.max() <= np.float32(3.0)
    assert (noisy.depth_m != clean.depth_m).any()


def test_colour_noise_and_gain() -> None:
    world = FakeWorld(box_middle_m=(9.0, 9.0, 9.0))
    down: dict[str, Any] = {"position_m": (0.5, 0.0, 1.0), "quaternion_xyzw": (1.0, 0.0, 0.0, 0.0), "timing": TIMING}
    clean = _shoot(RgbdCamera(**down, **QUIET), world).rgb.astype(float)
    noisy = _shoot(RgbdCamera(**down, **(QUIET | {"colour_noise": 6.0})), world).rgb - clean
    assert noisy.std() == pytest.approx(6.0, rel=0.03)
    assert abs(noisy.mean()) < 0.2
    camera = RgbdCamera(**down, **(QUIET | {"colour_gain": 0.3}))
    first = _shoot(camera, world).rgb
    gain = first.mean((0, 1)) / clean.mean((0, 1))
    assert first.std((0, 1)).max() == 0  # one gain for the whole picture
    assert len(set(np.round(gain, 3))) == 3  # and one for each colour
    np.testing.assert_array_equal(camera.read(1.0).rgb, first)  # the same through the episode
    assert not np.array_equal(_shoot(camera, world, seed=1).rgb, first)


def test_no_noise_is_the_picture_itself() -> None:
    world = FakeWorld()
    frame = _shoot(RgbdCamera(timing=TIMING, **MOUNT, **QUIET), world)
    picture = world.render(frame.base_from_camera, frame.intrinsics_px, 84, 84, 0.05, 3.0)
    np.testing.assert_array_equal(frame.rgb, picture.rgb)
    np.testing.assert_array_equal(frame.depth_m, picture.depth_m)


def test_one_kind_of_noise_does_not_shift_another() -> None:
    base = {"timing": TIMING, **MOUNT}
    all_on = _shoot(RgbdCamera(**base), FakeWorld())
    np.testing.assert_array_equal(_shoot(RgbdCamera(**base, colour_noise=0.0), FakeWorld()).depth_m, all_on.depth_m)
    np.testing.assert_array_equal(_shoot(RgbdCamera(**base, depth_noise=0.0), FakeWorld()).rgb, all_on.rgb)
    colour_only = RgbCamera(**base)
    colour_only.open(FakeWorld())
    colour_only.reset(np.random.default_rng(0))
    np.testing.assert_array_equal(colour_only.read(0.0).rgb, all_on.rgb)


def test_pictures_need_not_be_square() -> None:
    frame = _shoot(RgbdCamera(timing=TIMING, width=30, height=20, **MOUNT), FakeWorld())
    assert frame.rgb.shape == (20, 30, 3)
    assert frame.depth_m.shape == (20, 30)
    np.testing.assert_allclose(frame.intrinsics_px, intrinsics_from_fov(30, 20, 50.0))


@pytest.mark.parametrize("kind", [RgbdCamera, RgbCamera])
@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"height": 0},
        {"fov_y_deg": 180.0},
        {"link": ""},
        {"position_m": (0.0, 0.0)},
        {"quaternion_xyzw": (0.0, 0.0, 1.0)},
        {"near_m": 0.0},
        {"near_m": 4.0},
        {"far_m": float("inf")},
        {"colour_noise": -1.0},
        {"colour_gain": -1.0},
        {"mount_shift_m": -0.1},
        {"mount_shift_deg": 200.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_are_named(kind: type[RgbdCamera], wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        kind(timing=TIMING, **wrong)


def test_other_wrong_settings() -> None:
    with pytest.raises(SpecError, match="depth_noise"):
        RgbdCamera(timing=TIMING, depth_noise=-1.0)
    with pytest.raises(SpecError, match="depth_noise"):
        RgbdCamera(timing=TIMING, depth_noise="much")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="quaternion"):
        RgbdCamera(timing=TIMING, quaternion_xyzw=(0.0, 0.0, 0.0, 0.0))
    with pytest.raises(SensorError, match="RgbCamera"):
        RgbCamera(timing=TIMING).open(None)


def test_the_front_camera_of_the_rigs_sees_the_whole_workspace() -> None:
    corners = np.array(list(itertools.product((0.35, 0.65), (-0.2, 0.2), (0.0, 0.35))))
    frame = _shoot(build_sensor(CONF / "sensor" / "front_camera.yaml"), FakeWorld())  # type: ignore[arg-type]
    pixels, depth = project(transform_points(invert(frame.base_from_camera), corners), frame.intrinsics_px)
    assert pixels.min() > 5
    assert pixels.max() < 83 - 5
    assert depth.min() > 0.5
    np.testing.assert_allclose(frame.base_from_camera, look_at((1.02, 0.3, 0.72), (0.5, 0.0, 0.12)), atol=1e-5)


@pytest.mark.parametrize(("name", "eye"), [("left_camera", (0.46, 0.7, 0.6)), ("right_camera", (0.46, -0.7, 0.6))])
def test_the_side_cameras_see_the_whole_workspace(name: str, eye: tuple[float, float, float]) -> None:
    corners = np.array(list(itertools.product((0.35, 0.65), (-0.2, 0.2), (0.0, 0.35))))
    frame = _shoot(build_sensor(CONF / "sensor" / f"{name}.yaml"), FakeWorld())  # type: ignore[arg-type]
    pixels, depth = project(transform_points(invert(frame.base_from_camera), corners), frame.intrinsics_px)
    assert pixels.min() > 5
    assert pixels.max() < 83 - 5
    assert depth.min() > 0.5
    np.testing.assert_allclose(frame.base_from_camera, look_at(eye, (0.5, 0.0, 0.12)), atol=1e-5)


class _Pattern(FakeWorld):
    """Pictures of whole numbers, so that nothing but the camera's own noise decides about the last bit."""

    def render(
        self,
        base_from_camera: FloatArray,
        intrinsics_px: FloatArray,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
    ) -> Picture:
        v, u = np.mgrid[0:height, 0:width]
        rgb = np.stack([(u * 3 + v) % 256, (u + v * 5) % 256, (u * v) % 256], -1).astype(np.uint8)
        depth_m = (((u * 7 + v * 13) % 160) / np.float32(64)).astype(np.float32)
        return Picture(rgb, depth_m, np.zeros((height, width), np.int32))


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("front_camera", "54eb31e0b14a81ba1f47f0559afe67dbef475f9abc2adb925ec9aafaea2a4268"),
        ("wrist_camera", "ec286cd6b5e4447bb791d0f812ffad69ee000b42790ca5c45992219ea639c778"),
        ("front_rgb", "a8052b131b5aa9cf1b563134cbf33e464f4596c37f42f62d7778762a508406e1"),
    ],
)
def test_recorded_episodes_can_be_made_again_bit_for_bit(name: str, digest: str) -> None:
    """Noise of a seed as it was when the demo's episodes were collected; it rests on numpy's streams, too."""
    camera, seen = build_sensor(CONF / "sensor" / f"{name}.yaml"), hashlib.sha256()
    camera.open(_Pattern())
    for seed in (0, 7):
        camera.reset(np.random.default_rng(seed))
        for k in range(3):
            frame = camera.read(k / 12)
            assert frame is not None
            values = frame.arrays()
            for field in ("rgb", "depth_m"):
                if field in values:
                    seen.update(values[field].tobytes())
    assert seen.hexdigest() == digest


def test_the_wrist_camera_of_the_rigs_sees_what_it_should() -> None:
    camera = build_sensor(CONF / "sensor" / "wrist_camera.yaml")
    high = _shoot(camera, FakeWorld(tool_m=(0.5, 0.0, 0.28)))  # type: ignore[arg-type]
    floor = np.array(list(itertools.product((0.37, 0.63), (-0.2, 0.2), (0.0,))))
    pixels, _ = project(transform_points(invert(high.base_from_camera), floor), high.intrinsics_px)
    assert pixels.min() > 0
    assert pixels.max() < 83
    low = _shoot(camera, FakeWorld(tool_m=(0.5, 0.0, 0.03)))  # type: ignore[arg-type]
    tool, _ = project(transform_points(invert(low.base_from_camera), np.array([[0.5, 0.0, 0.03]])), low.intrinsics_px)
    assert (np.abs(tool - 41.5) < 27).all()  # what is between the fingers is well inside the picture
    assert (low.rgb[int(tool[0, 1]), int(tool[0, 0])].astype(int) - BOX_RGB < 40).all()
