"""Forward and inverse kinematics, and the controller that leads the tool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.experts.base import down
from envs.robots.controller import PoseController, SpeedLimits, Workspace
from envs.robots.kinematics import SerialChain, rotation_between, turned
from envs.robots.panda import ARM_JOINTS, REST_RAD, Panda
from envs.robots.panda_model import TOOL_OFFSET_M, panda_urdf
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, rotation_angle_rad

CHAIN = SerialChain(panda_urdf(), ARM_JOINTS, "panda_hand", TOOL_OFFSET_M)
VECTORS = st.lists(st.floats(-1.8, 1.8), min_size=3, max_size=3).map(np.array)


def test_forward_agrees_with_the_simulator() -> None:
    world, robot = PyBulletWorld(), Panda()
    robot.attach(world)
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints = rng.uniform(CHAIN.low, CHAIN.high)
        world.place_joints(joints, 0.04)
        np.testing.assert_allclose(CHAIN.forward(joints), world.link_pose("tool"), atol=1e-6)
    world.close()


def pose(x: float, y: float, z: float, yaw: float) -> FloatArray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = down(yaw), (x, y, z)
    return out


@settings(max_examples=40, deadline=None)
@given(st.floats(0.35, 0.65), st.floats(-0.25, 0.25), st.floats(0.02, 0.4), st.floats(-0.78, 0.78))
def test_inverse_meets_every_pose_of_the_workspace(x: float, y: float, z: float, yaw: float) -> None:
    target = pose(x, y, z, yaw)
    joints, met = CHAIN.solve(target, REST_RAD, REST_RAD, iterations=30)
    assert met
    assert (joints >= CHAIN.low).all()
    assert (joints <= CHAIN.high).all()
    np.testing.assert_allclose(CHAIN.forward(joints), target, atol=2e-4)


def test_inverse_follows_a_path_in_few_iterations() -> None:
    joints, now = REST_RAD, CHAIN.forward(REST_RAD)
    controller = PoseController(SpeedLimits(leash_m=10.0, leash_rad=10.0))
    controller.reset(now)
    for target in (pose(0.6, 0.2, 0.05, 0.7), pose(0.4, -0.2, 0.3, -0.7), pose(0.65, 0.0, 0.1, 0.0)):
        for _ in range(12):
            now = controller.advance(target, now, 1 / 12)
            joints, met = CHAIN.solve(now, joints, REST_RAD)
            assert met


def test_out_of_reach_is_said_and_limits_hold() -> None:
    joints, met = CHAIN.solve(pose(1.5, 0.0, 0.2, 0.0), REST_RAD, REST_RAD, iterations=20)
    assert not met
    assert (joints >= CHAIN.low).all()
    assert (joints <= CHAIN.high).all()


def test_a_chain_that_is_not_there_is_refused() -> None:
    with pytest.raises(SpecError, match="panda_joint3"):
        SerialChain(panda_urdf(), ("panda_joint1", "panda_joint3"), "panda_hand", 0.1)


@settings(deadline=None)
@given(VECTORS, VECTORS)
def test_turning_by_the_rotation_between_arrives(first: FloatArray, second: FloatArray) -> None:
    start, end = axis_angle_to_matrix(first), axis_angle_to_matrix(second)
    vector = rotation_between(start, end)
    assert np.linalg.norm(vector) <= np.pi + 1e-9
    np.testing.assert_allclose(turned(start, vector), end, atol=1e-6)


@pytest.mark.parametrize("axis", np.eye(3))
def test_half_a_turn_is_found(axis: FloatArray) -> None:
    end = axis_angle_to_matrix(np.pi * axis)
    np.testing.assert_allclose(turned(np.eye(3), rotation_between(np.eye(3), end)), end, atol=1e-7)


@settings(deadline=None)
@given(VECTORS, VECTORS, st.floats(0.01, 0.2))
def test_the_commanded_pose_obeys_its_limits(turn: FloatArray, way: FloatArray, period_s: float) -> None:
    limits = SpeedLimits(0.5, 2.0, leash_m=0.06, leash_rad=0.35)
    controller = PoseController(limits)
    controller.reset(np.eye(4))
    target = np.eye(4)
    target[:3, :3], target[:3, 3] = axis_angle_to_matrix(turn), way
    pose_now = controller.advance(target, np.eye(4), period_s)
    assert np.linalg.norm(pose_now[:3, 3]) <= min(0.5 * period_s, 0.06) + 1e-9
    assert rotation_angle_rad(np.eye(3), pose_now[:3, :3]) <= min(2.0 * period_s, 0.35) + 1e-6
    # An arm that does not follow holds the command back.
    for _ in range(50):
        pose_now = controller.advance(target, np.eye(4), period_s)
    assert np.linalg.norm(pose_now[:3, 3]) <= 0.06 + 1e-9


def test_the_commanded_pose_arrives_and_stays() -> None:
    controller = PoseController(SpeedLimits())
    now = np.eye(4)
    controller.reset(now)
    target = np.eye(4)
    target[:3, :3], target[:3, 3] = axis_angle_to_matrix((0.0, 0.0, 1.0)), (0.1, -0.2, 0.05)
    for _ in range(10):
        now = controller.advance(target, now, 1 / 12)
    np.testing.assert_allclose(now, target, atol=1e-9)


def test_settings_out_of_range() -> None:
    with pytest.raises(SpecError, match="linear_m_s"):
        SpeedLimits(linear_m_s=0.0)
    with pytest.raises(SpecError, match="Workspace"):
        Workspace((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
