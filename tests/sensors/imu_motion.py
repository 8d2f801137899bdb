"""An IMU without errors but those that a test asks for, and how a FakeWorld is made to move."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensors.geometry import FloatArray, axis_angle_to_matrix
from sensors.imu import Imu
from sensors.timeline import Timing
from tests.fake_world import FakeWorld

G = 9.81
QUIET: dict[str, Any] = {
    "accel_density_m_s2_rt_hz": 0.0,
    "accel_walk_m_s3_rt_hz": 0.0,
    "accel_bias_m_s2": 0.0,
    "gyro_density_rad_s_rt_hz": 0.0,
    "gyro_walk_rad_s2_rt_hz": 0.0,
    "gyro_bias_rad_s": 0.0,
    "misalignment_deg": 0.0,
}
MOUNT: dict[str, Any] = {"link": "tool", "position_m": (0.03, -0.02, 0.05), "quaternion_xyzw": (0.1, 0.5, -0.3, 0.8)}
MIDDLE = np.array([0.4, 0.1, 0.5])


def imu(rate_hz: float = 100.0, **changed: Any) -> Imu:
    """An IMU without errors, but for those that are given."""
    return Imu(timing=Timing(rate_hz=rate_hz), **(MOUNT | QUIET | changed))


def started(sensor: Imu, world: FakeWorld | None = None, seed: int = 0) -> Imu:
    sensor.open(world or FakeWorld())
    sensor.reset(np.random.default_rng(seed))
    return sensor


def gravity_in(base_from_imu: FloatArray) -> FloatArray:
    """What an IMU at rest reads [3]: g upwards."""
    return base_from_imu[:3, :3].T @ np.array([0.0, 0.0, G])


def spin(world: FakeWorld, time_s: float, rate_rad_s: FloatArray, arm_m: FloatArray) -> None:
    """Put the tool where it is after turning so fast about MIDDLE, which it is ``arm_m`` away from at first."""
    turn = axis_angle_to_matrix(rate_rad_s * time_s)
    world.base_from_tool = np.eye(4)
    world.base_from_tool[:3, :3] = turn
    world.base_from_tool[:3, 3] = MIDDLE + turn @ arm_m
    world.tool_rad_s = rate_rad_s
    world.tool_m_s = np.cross(rate_rad_s, turn @ arm_m)
