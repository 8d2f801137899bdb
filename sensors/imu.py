"""Simulated inertial measurement unit (IMU) on a link of the robot: accelerometer and gyroscope."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.frames import ImuFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, pose
from sensors.simulated import check_settings, not_negative, not_ready, positive, require_world
from sensors.spec import box
from sensors.timeline import Timing

_MAX_POSE_ENTRY = 1000.0  # bound of an extrinsic matrix's entries (metres); Gymnasium wants finite bounds


@dataclass(frozen=True)
class _Axes:
    """Errors of one triad of axes, accelerometer or gyroscope; unit is that of what it measures."""

    density: float  # unit / sqrt(Hz)
    walk: float  # unit / s / sqrt(Hz)
    bias: float
    limit: float
    misalignment_deg: float


@final
class _Triad:
    """Three axes with noise in one episode. All is drawn always, so that switching one cause off shifts no other."""

    def __init__(self, axes: _Axes, rate_hz: float, rng: np.random.Generator) -> None:
        self._axes = axes
        self._rng = rng
        self._white_sigma = axes.density * np.sqrt(rate_hz)
        self._turn = axis_angle_to_matrix(np.deg2rad(axes.misalignment_deg) * rng.standard_normal(3))
        self._bias: FloatArray = axes.bias * rng.standard_normal(3)

    def measure(self, true: FloatArray, interval_s: float) -> FloatArray:
        """The reading [3] of a true value [3], ``interval_s`` after the one before."""
        step, white = self._rng.standard_normal((2, 3))
        self._bias = self._bias + self._axes.walk * np.sqrt(interval_s) * step
        reading: FloatArray = np.clip(
            self._turn @ true + self._bias + self._white_sigma * white, -self._axes.limit, self._axes.limit
        )
        return reading


@dataclass(frozen=True, eq=False)
class _Motion:
    """When, and how fast the IMU went [3] in its own frame, m/s."""

    time_s: float
    velocity_m_s: FloatArray


@dataclass(eq=False)
class _Episode:
    accel: _Triad
    gyro: _Triad
    last: _Motion | None = None


@final
class Imu(Sensor):
    """Specific force and angular velocity of a link, with the errors of a MEMS device.

    Motion: with v the IMU's velocity and w its angular velocity, both seen in its own turning frame, the acceleration
    is ``dv/dt + w x v``. The world tells w and v; dv/dt is the change of v since the last reading divided by the time
    between, so it is the mean over that interval and lags by half of it. Specific force is that minus gravity. It is
    exact at rest, at constant acceleration without turning, and in uniform rotation (there v is constant and ``w x v``
    is the centripetal acceleration); elsewhere the error is half an interval times the rate at which dv/dt changes. The
    first reading of an episode knows of no change: there dv/dt is taken for 0, as for a robot at rest.

    Errors, each drawn per axis: white noise of standard deviation density times the square root of ``timing.rate_hz``;
    a bias drawn at switching on, that is at reset, and then a random walk, whose variance grows by walk squared times
    seconds; turned axes, drawn at reset, of which ``base_from_imu`` knows nothing; and saturation. These are the terms
    of Allan variance: the density is the deviation at 1 s on the slope of -1/2 (angle or velocity random walk, N), and
    walk / sqrt(3) that at 1 s on the slope of +1/2 (rate random walk, K).

    Standards: IEEE Std 952-1997, annex C, and IEEE Std 1293-1998 for accelerometers. The defaults are of the order of
    what consumer MEMS devices show in Allan plots.

    Args:
        timing: rate, delay, dropout, history.
        link: link that carries the IMU.
        position_m: position [3] in the link frame, metres.
        quaternion_xyzw: ``link_from_imu`` rotation [4].
        accel_density_m_s2_rt_hz: white noise of the accelerometer, m/s^2/sqrt(Hz).
        accel_walk_m_s3_rt_hz: random walk of its bias, m/s^3/sqrt(Hz).
        accel_bias_m_s2: standard deviation of its bias at the start of an episode, m/s^2.
        accel_range_m_s2: more than this is reported as this, m/s^2.
        gyro_density_rad_s_rt_hz: white noise of the gyroscope, rad/s/sqrt(Hz).
        gyro_walk_rad_s2_rt_hz: random walk of its bias, rad/s^2/sqrt(Hz).
        gyro_bias_rad_s: standard deviation of its bias at the start of an episode, rad/s.
        gyro_range_rad_s: more than this is reported as this, rad/s.
        misalignment_deg: standard deviation, about each axis, of the turn of either triad against its case, degrees.
        gravity_m_s2: of the world; it pulls along the base frame's -z, m/s^2.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        link: str,
        position_m: Sequence[float] = (0.0, 0.0, 0.0),
        quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        accel_density_m_s2_rt_hz: float = 0.0015,
        accel_walk_m_s3_rt_hz: float = 1e-4,
        accel_bias_m_s2: float = 0.05,
        accel_range_m_s2: float = 78.5,
        gyro_density_rad_s_rt_hz: float = 1e-4,
        gyro_walk_rad_s2_rt_hz: float = 3e-6,
        gyro_bias_rad_s: float = 0.003,
        gyro_range_rad_s: float = 17.5,
        misalignment_deg: float = 0.0,
        gravity_m_s2: float = 9.81,
    ) -> None:
        errors = {
            "accel_density_m_s2_rt_hz": accel_density_m_s2_rt_hz,
            "accel_walk_m_s3_rt_hz": accel_walk_m_s3_rt_hz,
            "accel_bias_m_s2": accel_bias_m_s2,
            "gyro_density_rad_s_rt_hz": gyro_density_rad_s_rt_hz,
            "gyro_walk_rad_s2_rt_hz": gyro_walk_rad_s2_rt_hz,
            "gyro_bias_rad_s": gyro_bias_rad_s,
            "misalignment_deg": misalignment_deg,
            "gravity_m_s2": gravity_m_s2,
        }
        ranges = {"accel_range_m_s2": accel_range_m_s2, "gyro_range_rad_s": gyro_range_rad_s}
        check_settings(
            "Imu",
            {
                "link": (bool(link), link, "the name of a link"),
                "position_m": (len(position_m) == 3, position_m, "3 numbers"),
                "quaternion_xyzw": (len(quaternion_xyzw) == 4, quaternion_xyzw, "4 numbers, x y z w"),
                **not_negative(errors),
                **positive(ranges),
            },
        )
        self._timing = timing
        self._link = link
        self._link_from_imu = pose(position_m, quaternion_xyzw)
        self._accel_axes = _Axes(
            accel_density_m_s2_rt_hz, accel_walk_m_s3_rt_hz, accel_bias_m_s2, accel_range_m_s2, misalignment_deg
        )
        self._gyro_axes = _Axes(
            gyro_density_rad_s_rt_hz, gyro_walk_rad_s2_rt_hz, gyro_bias_rad_s, gyro_range_rad_s, misalignment_deg
        )
        self._gravity_m_s2 = np.array([0.0, 0.0, -gravity_m_s2])
        self._world: World | None = None
        self._episode: _Episode | None = None

    @property
    def space(self) -> spaces.Dict:
        """accel_m_s2, gyro_rad_s, base_from_imu; see :class:`sensors.frames.ImuFrame`."""
        accel, gyro = self._accel_axes.limit, self._gyro_axes.limit
        return spaces.Dict(
            {
                "accel_m_s2": box(-accel, accel, (3,)),
                "gyro_rad_s": box(-gyro, gyro, (3,)),
                "base_from_imu": box(-_MAX_POSE_ENTRY, _MAX_POSE_ENTRY, (4, 4)),
            }
        )

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world whose robot is measured.

        Raises:
            SensorError: there is none.
            SpecError: its robot has no such link.
        """
        world = require_world("Imu", world)
        world.link_pose(self._link)
        self._world = world

    def reset(self, rng: np.random.Generator) -> None:
        """Switch on: draw this episode's biases and turned axes, and forget the last reading."""
        accel_rng, gyro_rng = rng.spawn(2)
        rate_hz = self._timing.rate_hz
        self._episode = _Episode(
            _Triad(self._accel_axes, rate_hz, accel_rng), _Triad(self._gyro_axes, rate_hz, gyro_rng)
        )

    def read(self, now_s: float) -> ImuFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._episode is None:
            raise not_ready("Imu")
        episode = self._episode
        base_from_link = self._world.link_pose(self._link)
        base_from_imu = base_from_link @ self._link_from_imu
        imu_from_base = base_from_imu[:3, :3].T
        link_m_s, base_rad_s = self._world.link_velocity(self._link)
        base_m_s = link_m_s + np.cross(base_rad_s, base_from_imu[:3, 3] - base_from_link[:3, 3])
        velocity, rate = imu_from_base @ base_m_s, imu_from_base @ base_rad_s
        last, episode.last = episode.last, _Motion(now_s, velocity)
        interval_s, change = 0.0, np.zeros(3)
        if last is not None and now_s > last.time_s:
            interval_s = now_s - last.time_s
            change = (velocity - last.velocity_m_s) / interval_s
        force = change + np.cross(rate, velocity) - imu_from_base @ self._gravity_m_s2
        return ImuFrame(
            stamp_s=now_s,
            accel_m_s2=episode.accel.measure(force, interval_s),
            gyro_rad_s=episode.gyro.measure(rate, interval_s),
            base_from_imu=base_from_imu,
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None
