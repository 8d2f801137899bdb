"""Sensor, the interface of every adapter, and World, the few questions a simulated sensor may ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.frames import Frame
from sensors.geometry import FloatArray
from sensors.timeline import Timing


@dataclass(frozen=True, eq=False)
class Picture:
    """What a virtual camera sees.

    Attributes:
        rgb: uint8 [H, W, 3].
        depth_m: float32 [H, W], z in the camera frame; 0 = beyond the far plane.
        body: int32 [H, W], id of the body in each pixel; -1 = background.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    body: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class JointState:
    """Joints of the robot: position_rad [J], velocity_rad_s [J], gripper_m (opening between the fingers)."""

    position_rad: FloatArray
    velocity_rad_s: FloatArray
    gripper_m: float


@dataclass(frozen=True, eq=False)
class Touching:
    """A body near a link of the robot, and the contacts through which all of the robot holds it.

    The contacts are the points at which surfaces met in the last physics step, whether they carried force or not. Those
    of the robot's other links are listed too: a rigid body between two fingers is held by both at once, and only the
    sum of their forces is determined by physics.

    Attributes:
        body: its number, for ``bodies`` of :meth:`World.ray_cast`.
        base_from_body: [4, 4] of the part of it that is nearest to the link.
        friction: Coulomb's coefficient between it and the link.
        links: int [N], the link of each contact: 0 = the one that was asked for, other numbers = other links.
        points_m: float [N, 3], base frame.
        normals: float [N, 3], out of the body and into the robot, base frame.
        force_N: float [N, 3], what each contact exerts on the robot, base frame.
    """

    body: int
    base_from_body: FloatArray
    friction: float
    links: NDArray[np.int64]
    points_m: FloatArray
    normals: FloatArray
    force_N: FloatArray  # noqa: N815  (units keep their own capital letter, design convention 4)


class World(Protocol):
    """What a simulated sensor may ask. The environment's simulator answers; a sensor never sees the simulator."""

    @property
    def time_s(self) -> float:
        """Simulated time, seconds."""

    @property
    def instruction(self) -> str:
        """What the robot is to do in this episode, in words; empty = nothing was said."""

    def render(
        self,
        base_from_camera: FloatArray,
        intrinsics_px: FloatArray,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
    ) -> Picture:
        """The picture of a pinhole camera."""

    def link_pose(self, link: str) -> FloatArray:
        """``base_from_link`` [4, 4] of a link of the robot, by its URDF name, or ``"tool"`` for the tool point."""

    def link_velocity(self, link: str) -> tuple[FloatArray, FloatArray]:
        """Velocity [3] in m/s of a link's origin and its angular velocity [3] in rad/s, base frame; see link_pose."""

    def joint_state(self) -> JointState:
        """The robot's joints."""

    def wrench(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """force_N [3] and torque_Nm [3] at the wrist in the sensor frame, and base_from_sensor [4, 4]."""

    def ray_cast(
        self,
        start_m: FloatArray,
        end_m: FloatArray,
        *,
        robot: bool = False,
        cosines: FloatArray | None = None,
        bodies: Sequence[int] | None = None,
    ) -> FloatArray:
        """Metres [N] along each ray [N, 3] -> [N, 3] to the first surface; inf = none.

        Rays pass through the robot unless ``robot``. ``cosines``: float [N], filled with the cosine of the angle of
        incidence, 1 = perpendicular to the surface; 0 = nothing was met. ``bodies``: rays pass through all others.
        """

    def touches(self, link: str, margin_m: float) -> bool:
        """Whether anything that is not the robot is within ``margin_m`` of a link."""

    def touching(self, link: str, margin_m: float) -> Sequence[Touching]:
        """What is within ``margin_m`` of a link and not the robot, by rising number of the body."""


class Sensor(ABC):
    """One sensor, simulated or real.

    Life: constructed whole -> ``space`` readable -> ``open`` once -> (``reset`` -> ``read`` ...) per episode ->
    ``close``.
    Constructors take explicit arguments only (no ``**kwargs``) and open nothing.
    """

    @property
    @abstractmethod
    def space(self) -> spaces.Dict:
        """Field name -> Box of one frame; readable before ``open``."""

    @property
    @abstractmethod
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""

    @abstractmethod
    def open(self, world: World | None) -> None:
        """Connect. Simulated sensors need a world; hardware ignores it.

        Raises:
            SensorError: the device or the world is missing.
        """

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode; all noise of this sensor comes from ``rng``."""

    @abstractmethod
    def read(self, now_s: float) -> Frame | None:
        """Measure now. None = the sensor had nothing to give, which the timeline shows as a gap.

        With ``timing.live``: the oldest frame that was not read yet; None = no more for now, which is no gap.

        Raises:
            SensorLost: the device went away, which the timeline shows as a gap until it is back.
            SensorError: not open, or not reset.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device. May be called twice."""
