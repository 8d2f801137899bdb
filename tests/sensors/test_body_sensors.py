"""Joints and wrench: true values plus seeded noise, saturation, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensors.errors import SensorError, SpecError
from sensors.joints import JointSensor
from sensors.timeline import Timing
from sensors.wrench import WristWrench
from tests.fake_world import FakeWorld

TIMING = Timing(rate_hz=12.0)


def test_joints_without_noise_are_the_worlds() -> None:
    world = FakeWorld(gripper_m=0.05)
    sensor = JointSensor(timing=TIMING, position_noise_rad=0.0, velocity_noise_rad_s=0.0, gripper_noise_m=0.0)
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.5)
    np.testing.assert_array_equal(frame.position_rad, world.position_rad)
    np.testing.assert_array_equal(frame.velocity_rad_s, world.velocity_rad_s)
    np.testing.assert_array_equal(frame.gripper_m, [0.05])
    np.testing.assert_array_equal(frame.base_from_tool, world.link_pose("tool"))


def test_joint_noise_has_the_size_asked_for() -> None:
    world = FakeWorld()
    sensor = JointSensor(timing=TIMING, position_noise_rad=0.02, velocity_noise_rad_s=0.3, gripper_noise_m=0.001)
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    frames = [sensor.read(float(k)) for k in range(600)]
    position = np.array([f.position_rad for f in frames]) - world.position_rad
    velocity = np.array([f.velocity_rad_s for f in frames]) - world.velocity_rad_s
    gripper = np.array([f.gripper_m for f in frames]) - world.gripper_m
    assert position.std() == pytest.approx(0.02, rel=0.05)
    assert velocity.std() == pytest.approx(0.3, rel=0.05)
    assert gripper.std() == pytest.approx(0.001, rel=0.1)
    assert abs(np.corrcoef(position[:, 0], velocity[:, 0])[0, 1]) < 0.15


def test_a_closed_gripper_never_opens_to_less_than_nothing() -> None:
    sensor = JointSensor(timing=TIMING, gripper_noise_m=0.01)
    sensor.open(FakeWorld(gripper_m=0.0))
    sensor.reset(np.random.default_rng(0))
    assert min(float(sensor.read(float(k)).gripper_m[0]) for k in range(50)) == 0.0


def test_a_robot_with_other_joints_is_refused_at_open() -> None:
    with pytest.raises(SpecError, match=r"7 joints.*6 joints.*joints: 6"):
        JointSensor(timing=TIMING).open(FakeWorld(joints=6))
    JointSensor(timing=TIMING, joints=6).open(FakeWorld(joints=6))


def test_wrench_noise_and_bias() -> None:
    world = FakeWorld()
    sensor = WristWrench(timing=TIMING, force_noise_N=0.5, torque_noise_Nm=0.05, force_bias_N=4.0, torque_bias_Nm=0.4)
    sensor.open(world)
    biases = []
    for seed in range(200):
        sensor.reset(np.random.default_rng(seed))
        frames = [sensor.read(float(k)) for k in range(16)]
        value = np.array([np.concatenate([f.force_N - world.force, f.torque_Nm - world.torque]) for f in frames])
        biases.append(np.concatenate([value.mean(0), value.std(0, ddof=1)]))
    bias, spread = np.split(np.array(biases), 2, axis=-1)
    np.testing.assert_allclose(spread.mean(0), [0.5] * 3 + [0.05] * 3, rtol=0.1)
    np.testing.assert_allclose(bias.std(0), [4.0] * 3 + [0.4] * 3, rtol=0.2)


def test_wrench_without_noise_is_the_worlds_and_saturates() -> None:
    world = FakeWorld()
    quiet = {"force_noise_N": 0.0, "torque_noise_Nm": 0.0, "force_bias_N": 0.0, "torque_bias_Nm": 0.0}
    sensor = WristWrench(timing=TIMING, max_force_N=100.0, max_torque_Nm=5.0, **quiet)
    sensor.open(world)
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.0)
    np.testing.assert_array_equal(frame.force_N, world.force)
    np.testing.assert_array_equal(frame.torque_Nm, world.torque)
    np.testing.assert_array_equal(frame.base_from_sensor, world.link_pose("panda_hand"))
    world.force, world.torque = np.array([1e4, -1e4, 50.0]), np.array([9.0, 0.0, -9.0])
    frame = sensor.read(1.0)
    np.testing.assert_array_equal(frame.force_N, [100.0, -100.0, 50.0])
    np.testing.assert_array_equal(frame.torque_Nm, [5.0, 0.0, -5.0])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (JointSensor, {"joints": 0}),
        (JointSensor, {"position_noise_rad": -1.0}),
        (JointSensor, {"velocity_noise_rad_s": float("nan")}),
        (JointSensor, {"gripper_noise_m": -1.0}),
        (WristWrench, {"force_noise_N": -1.0}),
        (WristWrench, {"torque_noise_Nm": -1.0}),
        (WristWrench, {"force_bias_N": float("inf")}),
        (WristWrench, {"torque_bias_Nm": -1.0}),
        (WristWrench, {"max_force_N": 0.0}),
        (WristWrench, {"max_torque_Nm": float("inf")}),
    ],
)
def test_wrong_settings_are_named(kind: Any, wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        kind(timing=TIMING, **wrong)


@pytest.mark.parametrize("kind", [JointSensor, WristWrench])
def test_reading_before_reset_is_refused(kind: Any) -> None:
    sensor = kind(timing=TIMING)
    sensor.open(FakeWorld())
    with pytest.raises(SensorError, match="reset"):
        sensor.read(0.0)
