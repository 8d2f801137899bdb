"""Symmetries: counted and placed as BOP does, and closed under what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perceive.pose.symmetry import ContinuousSymmetry, Symmetries, symmetry_nearest
from sensors.errors import SpecError
from sensors.geometry import axis_angle_to_matrix
from tests.perceive.pose.meshes import about, some_pose

NAN = float("nan")


def test_how_many_there_are() -> None:
    half = about((0, 0, 0), (math.pi, 0, 0))
    axis = ContinuousSymmetry.make((0, 0, 2))
    assert len(Symmetries.none().transforms()) == 1
    assert len(Symmetries.make([half]).transforms()) == 2
    assert len(Symmetries.make((), [axis]).transforms()) == 315  # ceil(pi / 0.01)
    assert len(Symmetries.make([half], [axis]).transforms()) == 630
    assert len(Symmetries.make([half], [axis]).transforms(0.1)) == 64
    assert not Symmetries.none()
    assert Symmetries.make([half])
    assert Symmetries.make((), [axis])


def test_the_identity_is_first() -> None:
    for one in (
        Symmetries.none(),
        Symmetries.make([about((1, 2, 3), (0, 0, 1.5))], [ContinuousSymmetry.make((0, 1, 0))]),
    ):
        assert np.array_equal(one.transforms()[0], np.eye(4))


def test_a_quarter_turn_about_an_axis_beside_the_origin_by_hand() -> None:
    """About the line x = 1, y = 0: the origin goes to (1, -1, 0) and points of the line stay."""
    turn = ContinuousSymmetry.make((0, 0, 5), (1, 0, 7)).at(math.pi / 2)
    np.testing.assert_allclose(turn @ [0, 0, 0, 1], [1, -1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turn @ [1, 0, -3, 1], [1, 0, -3, 1], atol=1e-12)
    np.testing.assert_allclose(turn[:3, :3], axis_angle_to_matrix((0, 0, math.pi / 2)), atol=1e-12)


def test_the_steps_are_even_and_products_apply_the_discrete_one_first() -> None:
    half = about((0.1, 0, 0), (math.pi, 0, 0))
    axis = ContinuousSymmetry.make((0, 0, 1), (0.2, 0, 0))
    listed = Symmetries.make([half], [axis]).transforms(0.5)
    count = math.ceil(math.pi / 0.5)
    for k in range(count):
        np.testing.assert_allclose(listed[k], axis.at(2 * math.pi * k / count), atol=1e-12)
        np.testing.assert_allclose(listed[count + k], axis.at(2 * math.pi * k / count) @ half, atol=1e-12)


def test_no_point_moves_farther_between_two_steps_than_promised() -> None:
    """At most the share of the diameter, for a point at half a diameter from the axis."""
    listed = Symmetries.make((), [ContinuousSymmetry.make((0, 0, 1))]).transforms(0.02)
    point = listed[:, :3, 0] * 0.5
    steps = np.linalg.norm(point - np.roll(point, 1, axis=0), axis=1)
    assert 0.019 < steps.max() <= 0.02


def test_the_nearest_of_equal_poses() -> None:
    pose, listed = some_pose(1), Symmetries.make([about((0, 0, 0), (0, 0, math.pi))]).transforms()
    near = pose @ about((0, 0, 0), (0, 0, math.pi)) @ about((0, 0, 0), (0.1, 0.2, 0))
    np.testing.assert_allclose(symmetry_nearest(pose, near, listed), pose @ listed[1], atol=1e-12)
    np.testing.assert_allclose(symmetry_nearest(pose, pose, listed), pose, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [2 * np.eye(4), np.diag([1, 1, -1, 1.0]), np.full((4, 4), NAN), np.diag([1, 1, 1, 2.0])]
)
def test_transforms_that_are_not_rigid(wrong: object) -> None:
    with pytest.raises(SpecError, match="rigid"):
        Symmetries.make([wrong])  # type: ignore[list-item]  # wrong on purpose


@pytest.mark.parametrize("axis", [(0, 0, 0), (NAN, 0, 1), (1, 0), (math.inf, 0, 0)])
def test_axes_without_a_direction(axis: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match="axis"):
        ContinuousSymmetry.make(axis)
