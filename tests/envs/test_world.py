"""The simulated world: its answers to sensors, and that worlds are independent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from envs.experts.base import down
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import invert

RED = (1.0, 0.0, 0.0, 1.0)


@pytest.fixture
def standing() -> Iterator[tuple[PyBulletWorld, Panda]]:
    """A Panda at rest, its tool 20 cm above a fixed table."""
    world, robot = PyBulletWorld(), Panda()
    robot.attach(world)
    world.add_box((0.5, 0.5, 0.02), (0.5, 0.0, -0.02), mass_kg=0.0, rgba=RED)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = down(0.3), (0.5, 0.1, 0.2)
    robot.reset(pose)
    yield world, robot
    world.close()


def test_two_worlds_do_not_disturb_each_other() -> None:
    first, second = PyBulletWorld(), PyBulletWorld()
    ball = first.add_box((0.05, 0.05, 0.05), (0.0, 0.0, 1.0), mass_kg=1.0, rgba=RED)
    other = second.add_box((0.05, 0.05, 0.05), (0.0, 0.0, 5.0), mass_kg=1.0, rgba=RED)
    first.step(24)
    assert first.time_s == pytest.approx(0.1)
    assert second.time_s == 0.0
    assert first.body_position(ball)[2] == pytest.approx(1.0 - 0.5 * 9.81 * 0.1**2, abs=3e-3)
    np.testing.assert_allclose(second.body_position(other), (0.0, 0.0, 5.0), atol=1e-9)
    first.close()
    second.step(24)
    assert second.body_position(other)[2] < 5.0
    second.close()
    second.close()


@pytest.mark.slow
def test_many_worlds_can_be_made_one_after_the_other() -> None:
    for _ in range(1100):  # pybullet holds at most 1025 servers at a time
        PyBulletWorld().close()


def test_tool_pose_is_where_the_robot_was_put(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    tool = world.link_pose("tool")
    np.testing.assert_allclose(tool[:3, 3], (0.5, 0.1, 0.2), atol=1e-4)
    np.testing.assert_allclose(tool[:3, :3], down(0.3), atol=2e-4)
    hand = world.link_pose("panda_hand")
    np.testing.assert_allclose(tool[:3, 3] - hand[:3, 3], 0.1034 * hand[:3, 2], atol=1e-9)
    np.testing.assert_allclose(world.link_pose("panda_link0"), np.eye(4))


def test_unknown_links_are_named(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    with pytest.raises(SpecError, match="Did you mean 'panda_hand'"):
        world.link_pose("panda_hnd")
    with pytest.raises(SpecError, match="Did you mean 'panda_leftfinger'"):
        world.touches("panda_leftfingr", 0.01)


def test_joint_state(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    state = world.joint_state()
    assert state.position_rad.shape == state.velocity_rad_s.shape == (7,)
    assert state.gripper_m == pytest.approx(0.08)


def test_rays_pass_through_the_robot(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    # Straight down through hand and arm, one beside them, and one away from everything.
    start = np.array([[0.5, 0.1, 0.9], [0.8, -0.3, 0.5], [0.5, 0.1, 0.9]])
    end = np.array([[0.5, 0.1, -0.9], [0.8, -0.3, -0.5], [0.5, 0.1, 2.0]])
    np.testing.assert_allclose(world.ray_cast(start, end), (0.9, 0.5, np.inf), atol=1e-6)
    assert world.ray_cast(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)


def test_more_rays_than_one_batch_holds(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    count = 40_000
    start = np.tile((0.3, 0.2, 0.25), (count, 1))
    found = world.ray_cast(start, start - (0.0, 0.0, 1.0))
    assert found.shape == (count,)
    np.testing.assert_allclose(found, 0.25, atol=1e-6)


def test_touch_looks_at_its_link_and_ignores_the_robot(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    assert not world.touches("panda_leftfinger", 0.01)
    tool = world.link_pose("tool")
    at = tool[:3, 3] + tool[:3, 1] * (0.04 - 0.012)  # 2 mm inside of the left pad's face
    world.add_box((0.01, 0.01, 0.01), at, 0.3, mass_kg=0.0, rgba=RED)
    assert world.touches("panda_leftfinger", 0.01)
    assert not world.touches("panda_leftfinger", 0.0005)
    assert not world.touches("panda_rightfinger", 0.01)


def test_wrench_is_the_weight_of_the_hand(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    world.step(240)
    force, torque, base_from_sensor = world.wrench()
    # Hand and fingers weigh 1.01 kg and pull along the sensor's z, which points down.
    np.testing.assert_allclose(force, (0.0, 0.0, 1.01 * 9.81), atol=0.06)
    np.testing.assert_allclose(torque, 0.0, atol=0.01)
    np.testing.assert_allclose(base_from_sensor, world.link_pose("panda_hand"))


def test_torque_is_about_the_origin_of_the_sensor(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, robot = standing
    pose = np.eye(4)
    c, s = np.cos(0.6), np.sin(0.6)
    pose[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ down(0.0)
    pose[:3, 3] = (0.5, 0.0, 0.3)
    robot.reset(pose)
    world.step(480)
    force, torque, base_from_sensor = world.wrench()
    gravity = invert(base_from_sensor)[:3, :3] @ (0.0, 0.0, -9.81)
    # 0.81 kg at 40 mm and two fingers of 0.1 kg at 78.4 mm along the sensor's z.
    expected = np.cross((0.0, 0.0, 0.81 * 0.04 + 0.2 * 0.0784), gravity)
    np.testing.assert_allclose(force, 1.01 * gravity, atol=0.1)
    np.testing.assert_allclose(torque, expected, atol=0.01)
    assert np.linalg.norm(expected) > 0.2


def test_restore_brings_everything_back(standing: tuple[PyBulletWorld, Panda]) -> None:
    world, _ = standing
    world.remember()
    before = world.joint_state().position_rad
    world.drive([0.0] * 7, [2.0] * 7, [80.0] * 7, 0.0, 20.0)
    world.step(50)
    assert np.abs(world.joint_state().position_rad - before).max() > 0.05
    world.restore()
    np.testing.assert_array_equal(world.joint_state().position_rad, before)
    assert world.time_s == 0.0
