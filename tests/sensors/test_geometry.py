"""Rotations, transforms and pinholes: closed forms, round trips, and the angles at which formulas break (0 and pi)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sensors import geometry as g
from sensors.errors import SpecError

unit = st.floats(-1.0, 1.0, allow_nan=False, width=32)
vectors = arrays(np.float64, 3, elements=unit)
quaternions = arrays(np.float64, 4, elements=unit).filter(lambda q: np.linalg.norm(q) > 1e-2)
axes = vectors.filter(lambda v: np.linalg.norm(v) > 1e-2).map(lambda v: v / np.linalg.norm(v))
angles = st.one_of(
    st.floats(0.0, np.pi),
    st.sampled_from([0.0, 1e-12, 1e-8, 1e-4, np.pi / 2, np.pi - 1e-4, np.pi - 1e-8, np.pi]),
)
poses = st.builds(g.pose, vectors, quaternions)


def rodrigues(axis: np.ndarray, angle: float) -> np.ndarray:
    """The rotation by Rodrigues' formula, apart from the code under test."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_quaternions_are_x_y_z_w() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(g.quaternion_to_matrix([0, 0, half, half]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(g.quaternion_to_matrix([half, 0, 0, half]) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


@given(axes, angles)
def test_axis_angle_is_rodrigues(axis: np.ndarray, angle: float) -> None:
    np.testing.assert_allclose(g.axis_angle_to_matrix(axis * angle), rodrigues(axis, angle), atol=1e-9)


@given(axes, angles)
def test_axis_angle_round_trip(axis: np.ndarray, angle: float) -> None:
    rotation = rodrigues(axis, angle)
    vector = g.matrix_to_axis_angle(rotation)
    assert np.linalg.norm(vector) <= np.pi + 1e-9
    np.testing.assert_allclose(np.linalg.norm(vector), angle, atol=1e-7)
    np.testing.assert_allclose(g.axis_angle_to_matrix(vector), rotation, atol=1e-9)


@given(quaternions)
def test_quaternion_round_trip(quaternion: np.ndarray) -> None:
    rotation = g.quaternion_to_matrix(quaternion)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    back = g.matrix_to_quaternion(rotation)
    assert np.linalg.norm(back) == pytest.approx(1.0)
    assert back[3] >= 0
    np.testing.assert_allclose(g.quaternion_to_matrix(back), rotation, atol=1e-9)


@given(quaternions)
def test_rotation_6d_round_trip(quaternion: np.ndarray) -> None:
    rotation = g.quaternion_to_matrix(quaternion)
    six = g.matrix_to_rotation_6d(rotation)
    np.testing.assert_array_equal(six[:3], rotation[:, 0])
    np.testing.assert_array_equal(six[3:], rotation[:, 1])
    np.testing.assert_allclose(g.rotation_6d_to_matrix(six), rotation, atol=1e-9)
    # Gram-Schmidt forgives lengths, and a second column that leans on the first.
    bent = np.concatenate([3.0 * six[:3], 0.5 * six[3:] + 0.7 * six[:3]])
    np.testing.assert_allclose(g.rotation_6d_to_matrix(bent), rotation, atol=1e-9)


@given(poses, poses, vectors)
def test_transforms_compose_and_invert(a_from_b: np.ndarray, b_from_c: np.ndarray, point: np.ndarray) -> None:
    np.testing.assert_allclose(g.invert(a_from_b) @ a_from_b, np.eye(4), atol=1e-12)
    points = point[None]
    step_by_step = g.transform_points(a_from_b, g.transform_points(b_from_c, points))
    np.testing.assert_allclose(g.transform_points(a_from_b @ b_from_c, points), step_by_step, atol=1e-12)


@given(axes, angles, quaternions)
def test_angle_between_rotations(axis: np.ndarray, angle: float, quaternion: np.ndarray) -> None:
    rotation = g.quaternion_to_matrix(quaternion)
    assert float(g.rotation_angle_rad(rotation, rotation @ rodrigues(axis, angle))) == pytest.approx(angle, abs=1e-7)


def test_batches_give_what_single_calls_give() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 4, 3))
    rotations = g.axis_angle_to_matrix(vectors)
    assert rotations.shape == (5, 4, 3, 3)
    for index in np.ndindex(5, 4):
        np.testing.assert_array_equal(rotations[index], g.axis_angle_to_matrix(vectors[index]))
        np.testing.assert_allclose(g.matrix_to_quaternion(rotations)[index], g.matrix_to_quaternion(rotations[index]))
    matrices = np.broadcast_to(np.eye(4), (5, 4, 4)).copy()
    matrices[:, :3, :3] = rotations[:, 0]
    matrices[:, :3, 3] = vectors[:, 0]
    np.testing.assert_allclose(g.invert(matrices) @ matrices, np.broadcast_to(np.eye(4), (5, 4, 4)), atol=1e-12)
    assert g.transform_points(matrices, rng.normal(size=(5, 7, 3))).shape == (5, 7, 3)


@given(arrays(np.float64, (6, 7), elements=st.floats(0.05, 5.0)), st.floats(20.0, 120.0))
def test_unproject_then_project_gives_the_pixel_centres(depth: np.ndarray, fov_y_deg: float) -> None:
    intrinsics = g.intrinsics_from_fov(7, 6, fov_y_deg)
    pixels, z = g.project(g.unproject(depth, intrinsics), intrinsics)
    v, u = np.mgrid[0:6, 0:7]
    np.testing.assert_allclose(z, depth)
    np.testing.assert_allclose(pixels, np.stack([u, v], -1), atol=1e-6)


def test_pinhole_closed_form() -> None:
    intrinsics = g.intrinsics_from_fov(101, 101, 90.0)
    np.testing.assert_allclose(intrinsics, [50.5, 50.5, 50.0, 50.0])
    # The edge of the picture, half a pixel outside the last centre, is where the field of view ends.
    pixels, _ = g.project([1.0, -1.0, 1.0], intrinsics)
    np.testing.assert_allclose(pixels, [100.5, -0.5])
    behind, _ = g.project([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]], intrinsics)
    assert np.isnan(behind).all()
    np.testing.assert_array_equal(g.unproject(np.zeros((2, 2)), intrinsics), np.zeros((2, 2, 3)))


@given(vectors, axes)
def test_look_at_puts_the_target_in_the_middle(eye: np.ndarray, direction: np.ndarray) -> None:
    if abs(direction[2]) > 0.999:
        return
    target = eye + 0.7 * direction
    base_from_camera = g.look_at(eye, target)
    np.testing.assert_allclose(g.transform_points(g.invert(base_from_camera), target[None]), [[0, 0, 0.7]], atol=1e-9)
    assert np.linalg.det(base_from_camera[:3, :3]) == pytest.approx(1.0)
    assert base_from_camera[2, 0] == pytest.approx(0.0, abs=1e-9)  # the picture's rows are level
    assert base_from_camera[2, 1] < 0  # and its y points down


@pytest.mark.parametrize(
    "call",
    [
        lambda: g.quaternion_to_matrix([0.0, 0.0, 0.0, 0.0]),
        lambda: g.rotation_6d_to_matrix(np.zeros(6)),
        lambda: g.rotation_6d_to_matrix([1.0, 0.0, 0.0, 2.0, 0.0, 0.0]),
        lambda: g.look_at([0.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
        lambda: g.look_at([0.0, 0.0, 1.0], [0.0, 0.0, 0.0]),
    ],
)
def test_what_is_not_defined_is_a_spec_error(call: object) -> None:
    with pytest.raises(SpecError):
        call()  # type: ignore[operator]
