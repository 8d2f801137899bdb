"""Simulated colour and depth cameras, fixed in the base frame or mounted on a link of the robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import Picture, Sensor, World
from sensors.frames import RgbdFrame, RgbFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, intrinsics_from_fov, pose
from sensors.simulated import check_settings, not_negative, not_ready, positive, require_world
from sensors.spec import box
from sensors.timeline import Timing

_MAX_POSE_ENTRY = 1000.0  # bound of an extrinsic matrix's entries (metres); Gymnasium wants finite bounds


@dataclass(frozen=True)
class _Optics:
    """The settings that both cameras share; see :class:`RgbdCamera` for their meaning."""

    width: int
    height: int
    fov_y_deg: float
    link: str | None
    position_m: tuple[float, ...]
    quaternion_xyzw: tuple[float, ...]
    near_m: float
    far_m: float
    colour_noise: float
    colour_gain: float
    mount_shift_m: float
    mount_shift_deg: float

    def __post_init__(self) -> None:
        turned = 0 <= self.mount_shift_deg <= 180
        check_settings(
            "camera",
            {
                "width": (self.width >= 1, self.width, "at least 1 pixel"),
                "height": (self.height >= 1, self.height, "at least 1 pixel"),
                "fov_y_deg": (0 < self.fov_y_deg < 180, self.fov_y_deg, "an angle between 0 and 180 degrees"),
                "link": (self.link != "", self.link, "the name of a link, or null for a fixed camera"),
                "position_m": (len(self.position_m) == 3, self.position_m, "3 numbers"),
                "quaternion_xyzw": (len(self.quaternion_xyzw) == 4, self.quaternion_xyzw, "4 numbers, x y z w"),
                "near_m": (0 < self.near_m < self.far_m, self.near_m, "0 < near_m < far_m"),
                "mount_shift_deg": (turned, self.mount_shift_deg, "an angle from 0 to 180 degrees"),
                **positive({"far_m": self.far_m}),
                **not_negative(
                    {
                        "colour_noise": self.colour_noise,
                        "colour_gain": self.colour_gain,
                        "mount_shift_m": self.mount_shift_m,
                    }
                ),
            },
        )
        pose(self.position_m, self.quaternion_xyzw)  # refuses a quaternion of no length

    def space(self) -> dict[str, spaces.Space[NDArray[np.generic]]]:
        """The fields that both kinds of frame have."""
        return {
            "rgb": box(0, 255, (self.height, self.width, 3), np.uint8),
            "intrinsics_px": box(0.0, 1e6, (4,)),
            "base_from_camera": box(-_MAX_POSE_ENTRY, _MAX_POSE_ENTRY, (4, 4)),
        }


@dataclass(frozen=True, eq=False)
class _Episode:
    """What is drawn once per episode, and the generators of what is drawn for every frame."""

    link_from_camera: FloatArray
    gain: NDArray[np.float32]  # [3], one factor per colour
    colour_rng: np.random.Generator
    depth_rng: np.random.Generator


def _start_episode(optics: _Optics, rng: np.random.Generator) -> _Episode:
    # One generator per cause, so that switching one kind of noise off leaves the others as they were.
    mount_rng, gain_rng, colour_rng, depth_rng = rng.spawn(4)
    link_from_camera = pose(optics.position_m, optics.quaternion_xyzw)
    shift, axis = _direction(mount_rng), _direction(mount_rng)
    link_from_camera[:3, 3] += optics.mount_shift_m * shift
    turn = axis_angle_to_matrix(np.deg2rad(optics.mount_shift_deg) * axis)
    link_from_camera[:3, :3] = link_from_camera[:3, :3] @ turn
    gain = np.exp(optics.colour_gain * gain_rng.standard_normal(3)).astype(np.float32)
    return _Episode(link_from_camera, gain, colour_rng, depth_rng)


def _direction(rng: np.random.Generator) -> FloatArray:
    """A unit vector [3], uniform over the sphere."""
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _gaussian_table(sigma: float) -> NDArray[np.float32]:
    """The 256 equally likely values [256] of a normal distribution with this standard deviation.

    Looking noise up by random bytes is about five times faster than drawing normal numbers; colours are rounded to
    whole counts anyway.
    """
    values = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
    return np.asarray(sigma * values / values.std(), dtype=np.float32)


def _shoot(world: World, optics: _Optics, intrinsics_px: FloatArray, episode: _Episode) -> tuple[Picture, FloatArray]:
    """The clean picture and ``base_from_camera`` [4, 4]."""
    base_from_camera = episode.link_from_camera
    if optics.link is not None:
        base_from_camera = world.link_pose(optics.link) @ base_from_camera
    picture = world.render(base_from_camera, intrinsics_px, optics.width, optics.height, optics.near_m, optics.far_m)
    return picture, base_from_camera


def _expose(rgb: NDArray[np.uint8], episode: _Episode, table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with the episode's colour gain and this frame's noise."""
    value = np.multiply(rgb, episode.gain, dtype=np.float32)
    if table[-1] > 0:
        random_bytes = np.frombuffer(episode.colour_rng.bytes(rgb.size), np.uint8)
        value += table[random_bytes].reshape(rgb.shape)
    value += 0.5  # the cast cuts off, so this rounds
    np.clip(value, 0.0, 255.0, out=value)
    return value.astype(np.uint8)


def _measure(
    depth_m: NDArray[np.float32], optics: _Optics, depth_noise: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The depth image [H, W] with noise that grows with its square; 0 (no measurement) stays 0."""
    noisy = np.array(depth_m, dtype=np.float32)
    if depth_noise > 0:
        noise = rng.standard_normal(noisy.shape, dtype=np.float32)
        noise *= np.float32(depth_noise)
        noise *= noisy
        noise *= noisy
        noisy += noise  # where the depth is 0, so is the noise
        np.clip(noisy, optics.near_m, optics.far_m, out=noisy)
        noisy[depth_m <= 0] = 0.0
    return noisy


@final
class RgbdCamera(Sensor):
    """A colour camera with depth registered to the same pixels.

    Colour noise is normal per pixel; the standard deviation of depth noise is ``depth_noise * z^2``, the law of stereo
    and structured light (Khoshelham and Elberink, Sensors 2012). Each episode draws a colour gain per channel and, for
    tests of robustness, a new mount. Frames report the true pose of the moved camera.

    Args:
        timing: rate, delay, dropout, history.
        width: picture width, pixels.
        height: picture height, pixels.
        fov_y_deg: vertical field of view, degrees; pixels are square.
        link: link of the robot that carries the camera, or None for a camera fixed in the base frame.
        position_m: position [3] of the camera in the link (or base) frame, metres.
        quaternion_xyzw: ``link_from_camera`` rotation [4]; the camera looks along its +z, +x right, +y down.
        near_m: nothing nearer is seen, metres.
        far_m: beyond it there is no measurement (depth 0), metres.
        colour_noise: standard deviation of a pixel's noise, counts of 255.
        colour_gain: standard deviation of the logarithm of the gain drawn per episode and colour.
        depth_noise: standard deviation of depth noise at 1 m, metres.
        mount_shift_m: length of a displacement in a random direction, drawn per episode, metres.
        mount_shift_deg: angle of a turn about a random axis, drawn per episode, degrees.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        width: int = 84,
        height: int = 84,
        fov_y_deg: float = 50.0,
        link: str | None = None,
        position_m: Sequence[float] = (0.0, 0.0, 0.0),
        quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        near_m: float = 0.05,
        far_m: float = 3.0,
        colour_noise: float = 2.0,
        colour_gain: float = 0.02,
        depth_noise: float = 0.001,
        mount_shift_m: float = 0.0,
        mount_shift_deg: float = 0.0,
    ) -> None:
        check_settings("camera", not_negative({"depth_noise": depth_noise}))
        self._optics = _Optics(
            width, height, fov_y_deg, link, tuple(position_m), tuple(quaternion_xyzw), near_m, far_m,
            colour_noise, colour_gain, mount_shift_m, mount_shift_deg,
        )  # fmt: skip
        self._timing = timing
        self._depth_noise = depth_noise
        self._intrinsics_px = intrinsics_from_fov(width, height, fov_y_deg)
        self._table = _gaussian_table(colour_noise)
        self._world: World | None = None
        self._episode: _Episode | None = None

    @property
    def space(self) -> spaces.Dict:
        """rgb, depth_m, intrinsics_px, base_from_camera; see :class:`sensors.frames.RgbdFrame`."""
        depth = box(0.0, self._optics.far_m, (self._optics.height, self._optics.width))
        return spaces.Dict({**self._optics.space(), "depth_m": depth})

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world to look at.

        Raises:
            SensorError: there is none.
        """
        self._world = require_world("RgbdCamera", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's mount and colour gain; take the generators of the noise."""
        self._episode = _start_episode(self._optics, rng)

    def read(self, now_s: float) -> RgbdFrame:
        """Take a picture.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._episode is None:
            raise not_ready("RgbdCamera")
        picture, base_from_camera = _shoot(self._world, self._optics, self._intrinsics_px, self._episode)
        return RgbdFrame(
            stamp_s=now_s,
            rgb=_expose(picture.rgb, self._episode, self._table),
            depth_m=_measure(picture.depth_m, self._optics, self._depth_noise, self._episode.depth_rng),
            intrinsics_px=self._intrinsics_px.copy(),
            base_from_camera=base_from_camera.copy(),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None


@final
class RgbCamera(Sensor):
    """A colour camera without depth; arguments and noise as :class:`RgbdCamera`'s.

    Args:
        timing: rate, delay, dropout, history.
        width: picture width, pixels.
        height: picture height, pixels.
        fov_y_deg: vertical field of view, degrees.
        link: link that carries the camera, or None for one fixed in the base frame.
        position_m: position [3] in the link (or base) frame, metres.
        quaternion_xyzw: ``link_from_camera`` rotation [4].
        near_m: nothing nearer is seen, metres.
        far_m: nothing farther is seen, metres.
        colour_noise: standard deviation of a pixel's noise, counts of 255.
        colour_gain: standard deviation of the logarithm of the gain drawn per episode and colour.
        mount_shift_m: length of a displacement drawn per episode, metres.
        mount_shift_deg: angle of a turn drawn per episode, degrees.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        width: int = 84,
        height: int = 84,
        fov_y_deg: float = 50.0,
        link: str | None = None,
        position_m: Sequence[float] = (0.0, 0.0, 0.0),
        quaternion_xyzw: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
        near_m: float = 0.05,
        far_m: float = 3.0,
        colour_noise: float = 2.0,
        colour_gain: float = 0.02,
        mount_shift_m: float = 0.0,
        mount_shift_deg: float = 0.0,
    ) -> None:
        self._optics = _Optics(
            width, height, fov_y_deg, link, tuple(position_m), tuple(quaternion_xyzw), near_m, far_m,
            colour_noise, colour_gain, mount_shift_m, mount_shift_deg,
        )  # fmt: skip
        self._timing = timing
        self._intrinsics_px = intrinsics_from_fov(width, height, fov_y_deg)
        self._table = _gaussian_table(colour_noise)
        self._world: World | None = None
        self._episode: _Episode | None = None

    @property
    def space(self) -> spaces.Dict:
        """rgb, intrinsics_px, base_from_camera; see :class:`sensors.frames.RgbFrame`."""
        return spaces.Dict(self._optics.space())

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world to look at.

        Raises:
            SensorError: there is none.
        """
        self._world = require_world("RgbCamera", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's mount and colour gain; take the generator of the noise."""
        self._episode = _start_episode(self._optics, rng)

    def read(self, now_s: float) -> RgbFrame:
        """Take a picture.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._episode is None:
            raise not_ready("RgbCamera")
        picture, base_from_camera = _shoot(self._world, self._optics, self._intrinsics_px, self._episode)
        return RgbFrame(
            stamp_s=now_s,
            rgb=_expose(picture.rgb, self._episode, self._table),
            intrinsics_px=self._intrinsics_px.copy(),
            base_from_camera=base_from_camera.copy(),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None
