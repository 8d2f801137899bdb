"""How two pads share what rigid contacts carry: sums are kept, inner forces are not, and stiffness decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.geometry import FloatArray, pose
from sensors.pad import PadGrid
from sensors.tactile.pressed import pressed_bodies, shared_shear
from tests.sensors.tactile.grip_world import LEFT, RIGHT, Contact, GripWorld

QUATERNION = {LEFT: (0.7071068, 0.0, 0.0, 0.7071068), RIGHT: (0.0, 0.7071068, 0.7071068, 0.0)}


def _shares(world: GripWorld, shear_to_normal: float = 0.3) -> tuple[FloatArray, FloatArray]:
    """Force [2, 3] along each pad in the base frame, and torque [2] about the base's y through the pads' middle."""
    force, torque = np.zeros((2, 3)), np.zeros(2)
    for k, link in enumerate((LEFT, RIGHT)):
        grid = PadGrid((0.0, 0.0, 0.045), QUATERNION[link], 8, 8, 0.016, 0.016, 0.003)
        base_from_pad = world.link_pose(link) @ pose((0.0, 0.0, 0.045), QUATERNION[link])
        (pressed,) = pressed_bodies(world, link, grid, base_from_pad)
        shear, twist = shared_shear(pressed, base_from_pad, shear_to_normal)
        force[k] = base_from_pad[:3, :2] @ shear
        torque[k] = twist * base_from_pad[1, 2]
    return force, torque


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 1.0))
def test_sums_are_kept(seed: int, shear_to_normal: float) -> None:
    """Whatever the contacts carry: both pads together carry the same force along them, and the same torque."""
    world, rng = GripWorld(), np.random.default_rng(seed)
    for link, side in ((LEFT, -1.0), (RIGHT, 1.0)):
        for _ in range(rng.integers(3, 6)):
            point = (0.5 + rng.uniform(-0.01, 0.01), side * 0.03, 0.03 + rng.uniform(-0.01, 0.01))
            world.contacts.append(Contact(link, point, rng.normal(size=3).tolist()))
    force, torque = _shares(world, shear_to_normal)
    whole = np.array([contact.force_N for contact in world.contacts])
    arms = np.array([contact.point_m for contact in world.contacts]) - (0.5, 0.0, 0.03)
    np.testing.assert_allclose(force.sum(0)[[0, 2]], whole.sum(0)[[0, 2]], rtol=1e-6, atol=1e-7)
    assert torque.sum() == pytest.approx(np.cross(arms, whole).sum(0)[1], rel=1e-6, abs=1e-8)


def test_what_only_pulls_the_fingers_apart_is_left_out() -> None:
    world = GripWorld()
    world.pinch(10.0, (2.0, 0.0, 0.0), (-2.0, 0.0, 0.0))
    # The couple of the two would turn the box: held by uneven pressure at one finger.
    for k, contact in enumerate(world.contacts[:4]):
        more = -np.sign(contact.point_m[0] - 0.5) * 3.0
        world.contacts[k] = Contact(LEFT, contact.point_m, np.add(contact.force_N, (0.0, more, 0.0)).tolist())
    force, torque = _shares(world)
    np.testing.assert_allclose(force, 0.0, atol=1e-9)
    np.testing.assert_allclose(torque, 0.0, atol=1e-9)


def test_a_torque_about_the_fingers_axis_is_shared_alike() -> None:
    """All of it by rigid contacts on the left finger."""
    world = GripWorld()
    world.pinch(10.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    for k, contact in enumerate(world.contacts[:4]):
        along = np.sign(contact.point_m[0] - 0.5)
        world.contacts[k] = Contact(LEFT, contact.point_m, np.add(contact.force_N, (0.0, 0.0, -along)).tolist())
    force, torque = _shares(world)
    assert torque == pytest.approx([0.02, 0.02])
    np.testing.assert_allclose(force, 0.0, atol=1e-9)


def test_a_weight_beside_the_middle_is_shared_by_stiffness() -> None:
    """A torque that presses one pad above and the other below: soft shear leaves it to the springs across the pads."""
    world = GripWorld()
    world.pinch(10.0, (0.0, 0.0, -4.0), (0.0, 0.0, 0.0))  # not in equilibrium: the box is about to turn about x
    soft, stiff = (_shares(world, ratio)[0][0, 2] for ratio in (0.01, 1.0))
    assert -4.0 < stiff < soft < -2.0
    # By hand: springs k along z at y = -30 and 30 mm, k / ratio along y at z = -10 and 10 mm; torque 4 N * 30 mm.
    for ratio, got in ((0.01, soft), (1.0, stiff)):
        turn = 4.0 * 0.03 / (2 * 0.03**2 + 2 * 0.01**2 / ratio)
        assert got == pytest.approx(-2.0 - 0.03 * turn)


def test_bodies_that_only_come_near_do_not_press() -> None:
    world = GripWorld(gap_m=0.0035)
    grid = PadGrid((0.0, 0.0, 0.045), QUATERNION[LEFT], 8, 8, 0.016, 0.016, 0.003)
    base_from_pad = world.link_pose(LEFT) @ grid.link_from_pad
    assert world.touching(LEFT, 0.004)
    assert pressed_bodies(world, LEFT, grid, base_from_pad) == []
