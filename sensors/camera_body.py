"""What colour and depth cameras share: optics, mount and exposure of a virtual camera in a world."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.base import World
from sensors.geometry import FloatArray, axis_angle_to_matrix, intrinsics_from_fov, pose
from sensors.simulated import check_settings, not_negative, not_ready, positive, require_world
from sensors.spec import box

_MAX_POSE_ENTRY = 1000.0  # bound of an extrinsic matrix's entries (metres); Gymnasium wants finite bounds


@dataclass(frozen=True)
class Optics:
    """The settings that both cameras share; see :class:`sensors.camera.RgbdCamera` for their meaning."""

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

    @property
    def intrinsics_px(self) -> FloatArray:
        """fx fy cx cy [4]."""
        return intrinsics_from_fov(self.width, self.height, self.fov_y_deg)

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


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture: colours as exposed, depth still true."""

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    base_from_camera: FloatArray
    depth_rng: np.random.Generator


@final
class CameraBody:
    """The part that both cameras have: it stands somewhere in a world and takes pictures of it.

    Args:
        name: of the camera's class, for errors.
        optics: its settings.
    """

    def __init__(self, name: str, optics: Optics) -> None:
        self._name = name
        self._optics = optics
        self._intrinsics_px = optics.intrinsics_px
        self._colour_noise = _gaussian_table(optics.colour_noise)
        self._world: World | None = None
        self._episode: _Episode | None = None

    def open(self, world: World | None) -> None:
        self._world = require_world(self._name, world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's mount and colour gain."""
        # One generator per cause, so that switching one kind of noise off leaves the others as they were.
        mount_rng, gain_rng, colour_rng, depth_rng = rng.spawn(4)
        optics = self._optics
        link_from_camera = pose(optics.position_m, optics.quaternion_xyzw)
        shift, axis = _direction(mount_rng), _direction(mount_rng)
        link_from_camera[:3, 3] += optics.mount_shift_m * shift
        turn = axis_angle_to_matrix(np.deg2rad(optics.mount_shift_deg) * axis)
        link_from_camera[:3, :3] = link_from_camera[:3, :3] @ turn
        gain = np.exp(optics.colour_gain * gain_rng.standard_normal(3)).astype(np.float32)
        self._episode = _Episode(link_from_camera, gain, colour_rng, depth_rng)

    def shoot(self) -> Shot:
        if self._world is None or self._episode is None:
            raise not_ready(self._name)
        optics, episode = self._optics, self._episode
        base_from_camera = episode.link_from_camera.copy()
        if optics.link is not None:
            base_from_camera = self._world.link_pose(optics.link) @ base_from_camera
        picture = self._world.render(
            base_from_camera, self._intrinsics_px, optics.width, optics.height, optics.near_m, optics.far_m
        )
        return Shot(self._expose(picture.rgb, episode), picture.depth_m, base_from_camera, episode.depth_rng)

    def _expose(self, rgb: NDArray[np.uint8], episode: _Episode) -> NDArray[np.uint8]:
        """The picture [H, W, 3] with the episode's colour gain and this frame's noise."""
        value = np.multiply(rgb, episode.gain, dtype=np.float32)
        if self._colour_noise[-1] > 0:
            random_bytes = np.frombuffer(episode.colour_rng.bytes(rgb.size), np.uint8)
            value += self._colour_noise[random_bytes].reshape(rgb.shape)
        value += 0.5  # the cast cuts off, so this rounds
        np.clip(value, 0.0, 255.0, out=value)
        return value.astype(np.uint8)

    def close(self) -> None:
        self._world = None


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
