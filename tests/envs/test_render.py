"""Pictures of the simulated cameras against exact geometry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.world import Light, PyBulletWorld
from sensors.base import Picture
from sensors.errors import SensorError, SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, invert, look_at, project, transform_points, unproject

WIDTH, HEIGHT, NEAR_M, FAR_M = 84, 60, 0.05, 3.0
INTRINSICS = np.array([90.0, 85.0, 38.3, 33.7])  # square pixels and a centred axis would hide mistakes
CAMERA = look_at((0.9, 0.3, 0.6), (0.4, 0.0, 0.0))
HALF_M, MIDDLE_M, YAW_RAD = 0.06, np.array([0.45, 0.02, 0.06]), 0.4


@pytest.fixture
def world() -> Iterator[PyBulletWorld]:
    built = PyBulletWorld()
    yield built
    built.close()


def box_on_plane(world: PyBulletWorld) -> Picture:
    grey, red = (0.5, 0.5, 0.5, 1.0), (0.9, 0.1, 0.1, 1.0)
    world.add_box((2.0, 2.0, 0.05), (0.5, 0.0, -0.05), mass_kg=0.0, rgba=grey)
    world.add_box((HALF_M,) * 3, MIDDLE_M, YAW_RAD, mass_kg=0.0, rgba=red)
    return world.render(CAMERA, INTRINSICS, WIDTH, HEIGHT, NEAR_M, FAR_M)


def exact(camera: FloatArray, intrinsics: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Depth and body (0 plane, 1 box) of each pixel by intersecting its ray with plane and box."""
    fx, fy, cx, cy = intrinsics
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones((HEIGHT, WIDTH))], -1) @ camera[:3, :3].T
    eye = camera[:3, 3]
    plane = np.where(ray[..., 2] < 0, -eye[2] / ray[..., 2], np.inf)
    turn = axis_angle_to_matrix((0.0, 0.0, YAW_RAD))
    own_eye, own_ray = turn.T @ (eye - MIDDLE_M), ray @ turn
    first, second = (-HALF_M - own_eye) / own_ray, (HALF_M - own_eye) / own_ray
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    hit = (enter <= leave) & (enter > 0) & (enter < plane)
    return np.where(hit, enter, plane), np.where(hit, 1, 0)


def test_depth_is_exact_to_a_tenth_of_a_millimetre(world: PyBulletWorld) -> None:
    picture = box_on_plane(world)
    depth, body = exact(CAMERA, INTRINSICS)
    same = picture.body == body
    assert same.mean() > 0.998  # pixels exactly on an edge may fall to either side
    assert np.abs(picture.depth_m - depth)[same].max() < 1e-4


def test_a_shift_of_half_a_pixel_would_be_seen(world: PyBulletWorld) -> None:
    picture = box_on_plane(world)
    depth, body = exact(CAMERA, INTRINSICS + np.array([0.0, 0.0, 0.5, 0.0]))
    same = picture.body == body
    assert same.mean() < 0.998 or np.abs(picture.depth_m - depth)[same].max() > 1e-3


def test_unprojected_pixels_lie_on_what_they_show(world: PyBulletWorld) -> None:
    picture = box_on_plane(world)
    points = transform_points(CAMERA, unproject(picture.depth_m, INTRINSICS).reshape(-1, 3)).reshape(HEIGHT, WIDTH, 3)
    assert np.abs(points[picture.body == 0][:, 2]).max() < 1e-4
    own = (points[picture.body == 1] - MIDDLE_M) @ axis_angle_to_matrix((0.0, 0.0, YAW_RAD))
    assert np.abs(np.abs(own).max(axis=1) - HALF_M).max() < 1e-4


def test_a_small_ball_is_seen_where_its_middle_projects_to(world: PyBulletWorld) -> None:
    middle = np.array([0.5, 0.05, 0.2])
    ball = world.add_sphere(0.03, middle, rgba=(0.0, 1.0, 0.0, 1.0))
    picture = world.render(CAMERA, INTRINSICS, WIDTH, HEIGHT, NEAR_M, FAR_M)
    v, u = np.nonzero(picture.body == ball)
    pixel, depth = project(transform_points(invert(CAMERA), middle[None]), INTRINSICS)
    assert np.abs(pixel[0] - (u.mean(), v.mean())).max() < 0.35
    nearest = picture.depth_m[picture.body == ball].min()
    assert 0.0 <= nearest - (depth[0] - 0.03) < 2e-3  # the ball is a mesh: its corners lie on the sphere


def test_nothing_and_too_far_is_zero_depth(world: PyBulletWorld) -> None:
    box_on_plane(world)
    up = look_at((0.9, 0.3, 0.6), (0.9, 3.0, 3.0))
    empty = world.render(up, INTRINSICS, WIDTH, HEIGHT, NEAR_M, FAR_M)
    assert (empty.depth_m == 0).all()
    assert (empty.body == -1).all()
    near = world.render(CAMERA, INTRINSICS, WIDTH, HEIGHT, NEAR_M, 0.7)
    assert near.depth_m.max() <= 0.7
    assert (near.depth_m == 0).any()


@pytest.mark.parametrize(("near_m", "far_m"), [(0.1, 3.0), (0.1, 2.5), (0.05, 3.0), (0.3, 7.0)])
def test_the_background_has_no_depth_whatever_the_range(world: PyBulletWorld, near_m: float, far_m: float) -> None:
    world.add_box((HALF_M,) * 3, MIDDLE_M, YAW_RAD, mass_kg=0.0, rgba=(0.9, 0.1, 0.1, 1.0))
    picture = world.render(CAMERA, INTRINSICS, WIDTH, HEIGHT, near_m, far_m)
    assert 0 < (picture.body < 0).mean() < 1
    assert (picture.depth_m[picture.body < 0] == 0).all()
    assert (picture.depth_m[picture.body >= 0] > 0).all()


def test_picture_types_and_colours(world: PyBulletWorld) -> None:
    picture = box_on_plane(world)
    assert picture.rgb.shape == (HEIGHT, WIDTH, 3)
    assert picture.rgb.dtype == np.uint8
    assert picture.depth_m.dtype == np.float32
    assert picture.body.dtype == np.int32
    red = picture.rgb[picture.body == 1].astype(int)
    assert (red[:, 0] > red[:, 1] + 50).all()
    assert picture.rgb.flags.c_contiguous


def test_light_changes_the_picture_and_nothing_else(world: PyBulletWorld) -> None:
    before = box_on_plane(world)
    world.set_light(Light((0.0, 1.0, 0.3), 0.3, 0.2))
    after = world.render(CAMERA, INTRINSICS, WIDTH, HEIGHT, NEAR_M, FAR_M)
    assert after.rgb.mean() < before.rgb.mean() - 10
    np.testing.assert_array_equal(after.depth_m, before.depth_m)


def test_renderer_is_named_and_checked(world: PyBulletWorld) -> None:
    assert world.renderer == "tiny (CPU)"
    with pytest.raises(SpecError, match="Did you mean 'tiny'"):
        PyBulletWorld(renderer="tinny")


def test_egl_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.pictures.load_egl", lambda *_: None)
    with pytest.raises(SensorError, match="EGL"):
        PyBulletWorld(renderer="egl")
    auto = PyBulletWorld(renderer="auto")
    assert auto.renderer == "tiny (CPU)"
    auto.close()
