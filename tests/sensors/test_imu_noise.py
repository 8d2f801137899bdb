"""The IMU's errors have the statistics that its settings state."""

from __future__ import annotations

import numpy as np
import pytest

from sensors.geometry import FloatArray
from sensors.imu import Imu
from tests.fake_world import FakeWorld
from tests.sensors.imu_motion import gravity_in, imu, started


def resting(sensor: Imu, steps: int, rate_hz: float, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Errors [steps, 3] of both triads at rest."""
    started(sensor, seed=seed)
    frames = [sensor.read(k / rate_hz) for k in range(steps)]
    true = gravity_in(frames[0].base_from_imu)
    return np.array([f.accel_m_s2 - true for f in frames]), np.array([f.gyro_rad_s for f in frames])


def allan_deviation(signal: FloatArray, samples: int) -> float:
    """Of means over so many samples, without overlap (IEEE Std 952, annex C); signal [N, 3], axes taken together."""
    clusters = signal[: len(signal) // samples * samples].reshape(-1, samples, 3).mean(1)
    return float(np.sqrt((np.diff(clusters, axis=0) ** 2).mean() / 2))


@pytest.mark.parametrize("rate_hz", [50.0, 400.0])
def test_white_noise_is_density_times_root_of_rate(rate_hz: float) -> None:
    sensor = imu(rate_hz, accel_density_m_s2_rt_hz=0.002, gyro_density_rad_s_rt_hz=0.0003)
    for error, density in zip(resting(sensor, 6000, rate_hz), (0.002, 0.0003), strict=True):
        assert error.std() == pytest.approx(density * np.sqrt(rate_hz), rel=0.05)
        assert np.abs(error.mean(0)).max() < 4 * density * np.sqrt(rate_hz / 6000)
        assert np.abs(np.corrcoef(error.T) - np.eye(3)).max() < 0.06  # no two axes together
        for samples in (1, 4, 16):  # the slope of -1/2: density over root of time
            assert allan_deviation(error, samples) == pytest.approx(density / np.sqrt(samples / rate_hz), rel=0.06)


def test_bias_walks_with_the_stated_variance() -> None:
    """Variance walk^2 t over episodes, from independent steps; and the slope of +1/2 in one long episode."""
    walks = {"accel_walk_m_s3_rt_hz": 0.01, "gyro_walk_rad_s2_rt_hz": 0.002}
    moments = np.array([0.0, 0.25, 1.0, 4.0])
    sensor, ends = imu(**walks), []
    for seed in range(450):
        started(sensor, seed=seed)
        ends.append([(frame.accel_m_s2, frame.gyro_rad_s) for frame in map(sensor.read, moments)])
    values = np.array(ends)  # [episode, moment, triad, axis]
    values[:, :, 0] -= gravity_in(sensor.read(4.0).base_from_imu)
    for triad, walk in enumerate(walks.values()):
        spread = values[:, :, triad].std((0, 2))
        np.testing.assert_allclose(spread[1:], walk * np.sqrt(moments[1:]), rtol=0.05)
        assert spread[0] == pytest.approx(0.0, abs=1e-9)
        steps = np.diff(values[:, :, triad], axis=1)
        assert abs(np.corrcoef(steps[:, 1].ravel(), steps[:, 2].ravel())[0, 1]) < 0.08
    for error, walk in zip(resting(imu(100.0, **walks), 9000, 100.0), walks.values(), strict=True):
        for samples in (30, 60):
            assert allan_deviation(error, samples) == pytest.approx(walk * np.sqrt(samples / 100 / 3), rel=0.1)


def test_the_first_bias_is_drawn_per_episode() -> None:
    sensor = imu(accel_bias_m_s2=0.2, gyro_bias_rad_s=0.03)
    drawn = []
    for seed in range(450):
        accel, gyro = resting(sensor, 2, 100.0, seed)
        np.testing.assert_allclose(accel[0], accel[1], atol=1e-12)  # it stays
        np.testing.assert_allclose(gyro[0], gyro[1], atol=1e-12)
        drawn.append((accel[0], gyro[0]))
    np.testing.assert_allclose(np.std(drawn, axis=(0, 2)), [0.2, 0.03], rtol=0.05)


def test_turned_axes_turn_what_is_read() -> None:
    sensor, angles = imu(misalignment_deg=2.0), []
    for seed in range(300):
        world = FakeWorld()
        world.tool_rad_s = np.array([0.0, 0.0, 1.0])
        frame = started(sensor, world, seed).read(0.0)
        true_accel = gravity_in(frame.base_from_imu) + frame.base_from_imu[:3, :3].T @ np.cross(
            world.tool_rad_s, np.cross(world.tool_rad_s, frame.base_from_imu[:3, 3] - world.base_from_tool[:3, 3])
        )
        for got, true in (
            (frame.accel_m_s2, true_accel),
            (frame.gyro_rad_s, frame.base_from_imu[:3, :3].T @ world.tool_rad_s),
        ):
            assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(true))
            angles.append(np.arccos(np.clip(got @ true / (got @ got), -1, 1)))
    # Turns about the axis of the vector itself do not show: two of three remain.
    assert np.rad2deg(np.sqrt(np.mean(np.square(angles)))) == pytest.approx(2.0 * np.sqrt(2), rel=0.05)
    pairs = np.array(angles).reshape(-1, 2)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.2  # the triads are turned apart from each other


def test_it_saturates() -> None:
    world = FakeWorld()
    sensor = started(imu(accel_range_m_s2=5.0, gyro_range_rad_s=2.0, quaternion_xyzw=(0, 0, 0, 1)), world)
    world.tool_rad_s = np.array([3.0, 0.5, -7.0])
    world.tool_m_s = np.zeros(3)
    frame = sensor.read(0.0)
    np.testing.assert_allclose(frame.gyro_rad_s, [2.0, -0.5, 2.0])  # the tool points down: y and z are turned over
    assert frame.accel_m_s2[2] == -5.0
    assert np.abs(frame.accel_m_s2).max() == 5.0


CAUSES: dict[str, dict[str, float]] = {
    "density": {"accel_density_m_s2_rt_hz": 0.01, "gyro_density_rad_s_rt_hz": 0.01},
    "walk": {"accel_walk_m_s3_rt_hz": 0.01, "gyro_walk_rad_s2_rt_hz": 0.01},
    "bias": {"accel_bias_m_s2": 0.1, "gyro_bias_rad_s": 0.1},
}


@pytest.mark.parametrize("cause", CAUSES)
def test_one_cause_switched_off_leaves_the_others_as_they_were(cause: str) -> None:
    """Errors add up, so what a cause does alone is what is missing without it."""
    everything = {key: value for part in CAUSES.values() for key, value in part.items()}
    without = {key: value for key, value in everything.items() if key not in CAUSES[cause]}
    full, rest, alone = (resting(imu(**part), 5, 100.0, 3) for part in (everything, without, CAUSES[cause]))
    for triad in range(2):
        np.testing.assert_allclose(full[triad] - rest[triad], alone[triad], atol=1e-12)
        assert np.abs(alone[triad][-1]).min() > 0
    np.testing.assert_array_equal(full[0], resting(imu(**everything), 5, 100.0, 3)[0])
    assert not np.array_equal(full[0], resting(imu(**everything), 5, 100.0, 4)[0])
