"""Simulated LiDAR: rays along a scan pattern, with the noise and the motion distortion of a real device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import Sensor, World
from sensors.errors import SpecError
from sensors.frames import LidarFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, matrix_to_axis_angle, pose
from sensors.lidar_pattern import ScanPattern
from sensors.simulated import check_settings, not_negative, not_ready, require_world
from sensors.spec import box
from sensors.timeline import EPSILON_S, Timing

_MAX_POSE_ENTRY = 1000.0  # bound of an extrinsic matrix's entries (metres); Gymnasium wants finite bounds
_POWER_ON_S = 3600.0  # a device has been running for up to so long when an episode starts


@dataclass(frozen=True, eq=False)
class _Episode:
    """What is drawn once per episode, and one generator for each cause of noise, so that none shifts another."""

    started_s: float  # what the device's clock shows when the rig's shows 0
    angle_rng: np.random.Generator
    range_rng: np.random.Generator
    dropout_rng: np.random.Generator
    intensity_rng: np.random.Generator


@final
class Lidar(Sensor):
    """A LiDAR, fixed in the base frame or mounted on a link of the robot.

    A frame is the sweep that ends at ``stamp_s``: points in the order in which they were fired, each with its own time
    ``offset_s`` in [-sweep, 0), in the sensor's frame (+x forwards, +z up). A ray that meets nothing between ``min_m``
    and ``max_m`` gives no point. Things stand still during a sweep, where they are at ``stamp_s``. The sensor itself
    moves with its link if ``motion_distortion``: rays start from poses on the way between the reads, and a point is
    given in the sensor's frame *at its own time*, as a device does. To straighten a sweep, place each point by the pose
    at ``stamp_s + offset_s``. The first sweep of an episode is taken at rest.

    The standard deviation of range noise is ``range_noise_m + range_noise_per_m * range``. Angular noise turns the beam
    without the device noticing: range and what is hit are those of the true direction, the point lies along the nominal
    one. Matte surfaces of one reflectivity are assumed, so that intensity is ``reflectivity`` times the cosine of the
    angle of incidence (Lambert's law), with range compensated for as devices do.

    Args:
        timing: rate, delay, dropout of whole frames, history. A sweep must not take longer than a period.
        pattern: where the rays look, and when.
        link: link of the robot that carries the sensor, or None for one fixed in the base frame.
        position_m: position [3] of the sensor in the link (or base) frame, metres.
        quaternion_xyzw: ``link_from_lidar`` rotation [4].
        min_m: what is nearer hides what is behind it and gives no point, metres.
        max_m: greatest range, metres.
        range_noise_m: standard deviation of the range, metres.
        range_noise_per_m: what is added to it per metre of range.
        angle_noise_rad: standard deviation of the beam's direction about each of two axes across it.
        ray_dropout: probability that a ray that hit gives no point.
        reflectivity: of all surfaces, 0 to 1.
        intensity_noise: standard deviation of the intensity.
        see_robot: whether rays meet the robot.
        motion_distortion: whether the sensor moves during a sweep.

    Raises:
        SpecError: an argument is out of its range, or a sweep takes longer than a period.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        pattern: ScanPattern,
        link: str | None = None,
        position_m: Sequence[float] = (0.0, 0.0, 0.0),
        quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        min_m: float = 0.1,
        max_m: float = 30.0,
        range_noise_m: float = 0.01,
        range_noise_per_m: float = 0.0,
        angle_noise_rad: float = 0.0005,
        ray_dropout: float = 0.01,
        reflectivity: float = 0.5,
        intensity_noise: float = 0.02,
        see_robot: bool = True,
        motion_distortion: bool = True,
    ) -> None:
        noise = {
            "range_noise_m": range_noise_m,
            "range_noise_per_m": range_noise_per_m,
            "angle_noise_rad": angle_noise_rad,
            "intensity_noise": intensity_noise,
        }
        check_settings(
            "Lidar",
            {
                "link": (link != "", link, "the name of a link, or null for a fixed sensor"),
                "position_m": (len(position_m) == 3, position_m, "3 numbers"),
                "quaternion_xyzw": (len(quaternion_xyzw) == 4, quaternion_xyzw, "4 numbers, x y z w"),
                "min_m": (0 <= min_m < max_m, min_m, "0 <= min_m < max_m"),
                "max_m": (bool(np.isfinite(max_m)), max_m, "a finite number"),
                "ray_dropout": (0 <= ray_dropout <= 1, ray_dropout, "a probability"),
                "reflectivity": (0 <= reflectivity <= 1, reflectivity, "a number from 0 to 1"),
                **not_negative(noise),
            },
        )
        if pattern.sweep_s > 1.0 / timing.rate_hz + EPSILON_S:
            raise SpecError(
                "Lidar, timing",
                f"a period of at least a sweep, {pattern.sweep_s:.6g} s",
                f"rate_hz {timing.rate_hz:g}, which is {1.0 / timing.rate_hz:.6g} s",
                "Lower the rate, or make the pattern's sweep shorter.",
            )
        self._timing = timing
        self._pattern = pattern
        self._link = link
        self._link_from_lidar = pose(position_m, quaternion_xyzw)
        self._limits_m = (min_m, max_m)
        self._range_noise = (range_noise_m, range_noise_per_m)
        self._angle_noise_rad = angle_noise_rad
        self._ray_dropout = ray_dropout
        self._reflectivity = reflectivity
        self._intensity_noise = intensity_noise
        self._see_robot = see_robot
        self._motion_distortion = motion_distortion
        self._world: World | None = None
        self._episode: _Episode | None = None
        self._poses: deque[tuple[float, FloatArray]] = deque()  # when, base_from_lidar; back to before the next sweep

    @property
    def space(self) -> spaces.Dict:
        """xyz_m, intensity, offset_s, count, base_from_lidar; see :class:`sensors.frames.LidarFrame`."""
        rays, reach = self._pattern.rays, self._limits_m[1]
        return spaces.Dict(
            {
                "xyz_m": box(-reach, reach, (rays, 3)),
                "intensity": box(0.0, 1.0, (rays,)),
                "offset_s": box(-self._pattern.sweep_s, 0.0, (rays,)),
                "count": box(0, rays, (1,), np.int64),
                "base_from_lidar": box(-_MAX_POSE_ENTRY, _MAX_POSE_ENTRY, (4, 4)),
            }
        )

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world to look at.

        Raises:
            SensorError: there is none.
        """
        self._world = require_world("Lidar", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw how long the device has been running; take the generators of the noise; forget earlier poses."""
        start, *noise = rng.spawn(5)
        self._episode = _Episode(float(start.uniform(0.0, _POWER_ON_S)), *noise)
        self._poses.clear()

    def read(self, now_s: float) -> LidarFrame:
        """The sweep that ends now.

        Raises:
            SensorError: not open, or not reset.
        """
        world, episode = self._world, self._episode
        if world is None or episode is None:
            raise not_ready("Lidar")
        sweep = self._pattern.sweep(episode.started_s + now_s)
        base_from_lidar = self._link_from_lidar
        if self._link is not None:
            base_from_lidar = world.link_pose(self._link) @ base_from_lidar
        self._remember(now_s, base_from_lidar)

        beams = _turned(sweep.directions, self._angle_noise_rad, episode.angle_rng)
        starts, towards = self._fired(now_s + sweep.offset_s, beams)
        cosines = np.zeros(len(beams))
        true_m = world.ray_cast(starts, starts + self._limits_m[1] * towards, robot=self._see_robot, cosines=cosines)
        kept = np.flatnonzero(np.isfinite(true_m) & (true_m >= self._limits_m[0]) & self._answered(episode))
        range_m = self._measured(true_m, episode)[kept]
        return LidarFrame(
            stamp_s=now_s,
            xyz_m=_padded(sweep.directions[kept] * range_m[:, None], len(beams)),
            intensity=_padded(self._shine(cosines, episode)[kept], len(beams)),
            offset_s=_padded(sweep.offset_s[kept], len(beams)),
            count=np.array([len(kept)], np.int64),
            base_from_lidar=base_from_lidar.copy(),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None
        self._poses.clear()

    # -- motion -----------------------------------------------------------------------------------------------------

    def _remember(self, now_s: float, base_from_lidar: FloatArray) -> None:
        if not self._motion_distortion:
            self._poses.clear()
        while self._poses and self._poses[-1][0] >= now_s:  # reading twice is no motion
            self._poses.pop()
        self._poses.append((now_s, base_from_lidar))
        # The newest pose from before the sweep is where it comes from; older ones have had their time.
        while len(self._poses) > 1 and self._poses[1][0] <= now_s - self._pattern.sweep_s:
            self._poses.popleft()

    def _fired(self, when_s: FloatArray, beams: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Starts [N, 3] and directions [N, 3] of the rays in the base frame, each from where the sensor was then."""
        newest = self._poses[-1][1]
        if all(np.array_equal(earlier, newest) for _, earlier in self._poses):
            return np.broadcast_to(newest[:3, 3], beams.shape), beams @ newest[:3, :3].T
        times = np.array([then_s for then_s, _ in self._poses])
        starts, towards = np.empty_like(beams), np.empty_like(beams)
        part = np.clip(np.searchsorted(times, when_s) - 1, 0, len(times) - 2)
        for number in np.unique(part):
            rays = np.flatnonzero(part == number)
            before, after = self._poses[number][1], self._poses[number + 1][1]
            # Clipped: before the first pose of an episode the sensor was at rest.
            share = np.clip((when_s[rays] - times[number]) / (times[number + 1] - times[number]), 0.0, 1.0)[:, None]
            turn = matrix_to_axis_angle(before[:3, :3].T @ after[:3, :3])
            starts[rays] = (1 - share) * before[:3, 3] + share * after[:3, 3]
            turned = np.einsum("nij,nj->ni", axis_angle_to_matrix(share * turn), beams[rays])
            towards[rays] = turned @ before[:3, :3].T
        return starts, towards

    # -- noise: drawn for every ray, hit or not, so that frame k has its own noise whatever it sees --------------------

    def _answered(self, episode: _Episode) -> NDArray[np.bool_]:
        answered: NDArray[np.bool_] = episode.dropout_rng.random(self._pattern.rays) >= self._ray_dropout
        return answered

    def _measured(self, true_m: FloatArray, episode: _Episode) -> FloatArray:
        fixed_m, per_m = self._range_noise
        met_m = np.where(np.isfinite(true_m), true_m, 0.0)
        noisy_m = met_m + (fixed_m + per_m * met_m) * episode.range_rng.standard_normal(len(true_m))
        return np.clip(noisy_m, *self._limits_m)

    def _shine(self, cosines: FloatArray, episode: _Episode) -> FloatArray:
        noise = self._intensity_noise * episode.intensity_rng.standard_normal(len(cosines))
        return np.clip(self._reflectivity * cosines + noise, 0.0, 1.0)


def _turned(directions: FloatArray, sigma_rad: float, rng: np.random.Generator) -> FloatArray:
    """Unit vectors [N, 3], each turned about two axes across it by normal angles."""
    if sigma_rad == 0:
        return directions
    # A random vector, less its part along the ray, is normal in both directions across it.
    shift = sigma_rad * rng.standard_normal(directions.shape)
    shift -= np.einsum("ni,ni->n", shift, directions)[:, None] * directions
    turned = directions + shift
    turned /= np.sqrt(np.einsum("ni,ni->n", turned, turned))[:, None]
    return turned


def _padded(values: FloatArray, rows: int) -> NDArray[np.float32]:
    """float32 [rows, ...]: the values, and zeros below them."""
    out = np.zeros((rows, *values.shape[1:]), np.float32)
    out[: len(values)] = values
    return out
