"""Simulated colour and depth cameras, fixed in the base frame or mounted on a link of the robot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.camera_body import CameraBody, Optics
from sensors.depth_noise import DepthNoise, SquareLawNoise
from sensors.frames import RgbdFrame, RgbFrame
from sensors.simulated import check_settings
from sensors.spec import box
from sensors.timeline import Timing


def _depth_noise(given: float | DepthNoise) -> DepthNoise:
    if isinstance(given, DepthNoise):
        return given
    number = isinstance(given, (int, float))
    good = number and given >= 0 and np.isfinite(given)
    check_settings("camera", {"depth_noise": (good, given, "a finite number >= 0, or a DepthNoise")})
    return SquareLawNoise(given)


@final
class RgbdCamera(Sensor):
    """A colour camera with depth registered to the same pixels.

    Colour noise is normal per pixel. Depth noise is the square law of triangulation, or the model that is passed. Each
    episode draws a colour gain per channel and, for tests of robustness, a new mount. Frames report the true pose of
    the moved camera.

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
        depth_noise: a number is the standard deviation at 1 m, metres, of noise that grows with the square of the depth
            (:class:`sensors.depth_noise.SquareLawNoise`); or another model, such as
            :class:`sensors.depth_noise.StereoDepthNoise`.
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
        depth_noise: float | DepthNoise = 0.001,
        mount_shift_m: float = 0.0,
        mount_shift_deg: float = 0.0,
    ) -> None:
        self._depth_noise = _depth_noise(depth_noise)
        self._optics = Optics(
            width, height, fov_y_deg, link, tuple(position_m), tuple(quaternion_xyzw), near_m, far_m,
            colour_noise, colour_gain, mount_shift_m, mount_shift_deg,
        )  # fmt: skip
        self._timing = timing
        self._body = CameraBody("RgbdCamera", self._optics)

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
        self._body.open(world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's mount and colour gain; take the generators of the noise."""
        self._body.reset(rng)

    def read(self, now_s: float) -> RgbdFrame:
        """Take a picture.

        Raises:
            SensorError: not open, or not reset.
        """
        shot, optics = self._body.shoot(), self._optics
        intrinsics_px = optics.intrinsics_px
        depth_m = self._depth_noise.apply(shot.depth_m, intrinsics_px, optics.near_m, optics.far_m, shot.depth_rng)
        return RgbdFrame(
            stamp_s=now_s,
            rgb=shot.rgb,
            depth_m=depth_m,
            intrinsics_px=intrinsics_px,
            base_from_camera=shot.base_from_camera,
        )

    def close(self) -> None:
        """Let go of the world."""
        self._body.close()


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
        self._optics = Optics(
            width, height, fov_y_deg, link, tuple(position_m), tuple(quaternion_xyzw), near_m, far_m,
            colour_noise, colour_gain, mount_shift_m, mount_shift_deg,
        )  # fmt: skip
        self._timing = timing
        self._body = CameraBody("RgbCamera", self._optics)

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
        self._body.open(world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's mount and colour gain; take the generator of the noise."""
        self._body.reset(rng)

    def read(self, now_s: float) -> RgbFrame:
        """Take a picture.

        Raises:
            SensorError: not open, or not reset.
        """
        shot = self._body.shoot()
        return RgbFrame(
            stamp_s=now_s,
            rgb=shot.rgb,
            intrinsics_px=self._optics.intrinsics_px,
            base_from_camera=shot.base_from_camera,
        )

    def close(self) -> None:
        """Let go of the world."""
        self._body.close()
