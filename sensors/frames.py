"""Frames: what one sensor measured at one instant. Frozen; every array field is stated with shape, unit and frame.

A frame's array fields are the keys of its sensor's space, so a sensor of your own needs only a frozen dataclass with
the fields it measures.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame(ABC):
    """One measurement.

    Attributes:
        stamp_s: capture time on the rig's clock, seconds (mid-exposure where the device knows it).
    """

    stamp_s: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Field name -> array, for every field but the time stamp."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name != "stamp_s"}


@dataclass(frozen=True, eq=False, kw_only=True)
class RgbFrame(Frame):
    """A colour picture.

    Attributes:
        rgb: uint8 [H, W, 3].
        intrinsics_px: float [4], fx fy cx cy.
        base_from_camera: float [4, 4] at capture time.
    """

    rgb: NDArray[np.uint8]
    intrinsics_px: FloatArray
    base_from_camera: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class RgbdFrame(Frame):
    """A colour picture with depth registered to the same pixels.

    Attributes:
        rgb: uint8 [H, W, 3].
        depth_m: float32 [H, W], z in the camera frame; 0 = no measurement.
        intrinsics_px: float [4], fx fy cx cy.
        base_from_camera: float [4, 4] at capture time.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics_px: FloatArray
    base_from_camera: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class PointFrame(Frame):
    """A point cloud of fixed capacity.

    Attributes:
        xyz_m: float32 [N, 3] in the base frame; rows from ``count`` on are padding.
        rgb: uint8 [N, 3].
        count: int64 [1], number of points that are there.
    """

    xyz_m: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    count: NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class LidarFrame(Frame):
    """One sweep of a LiDAR.

    Attributes:
        xyz_m: float32 [N, 3] in the sensor frame; rows from ``count`` on are padding.
        intensity: float32 [N] in [0, 1].
        offset_s: float32 [N], capture time of each point relative to ``stamp_s``.
        count: int64 [1], number of points that are there.
        base_from_lidar: float [4, 4] at ``stamp_s``.
    """

    xyz_m: NDArray[np.float32]
    intensity: NDArray[np.float32]
    offset_s: NDArray[np.float32]
    count: NDArray[np.int64]
    base_from_lidar: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class TactileFrame(Frame):
    """How far the gel of a fingertip is pressed in.

    Attributes:
        indentation_m: float32 [h, w] >= 0, along the pad's inward normal; 0 = untouched.
        base_from_pad: float [4, 4]; origin in the pad's middle, +x to the right of the picture, +y down,
            +z out of the gel towards what is touched.
        size_m: float [2], height and width of the sensing area.
    """

    indentation_m: NDArray[np.float32]
    base_from_pad: FloatArray
    size_m: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class GelImageFrame(Frame):
    """The picture that a camera behind the gel of a fingertip takes (DIGIT, GelSight).

    Attributes:
        rgb: uint8 [H, W, 3].
        base_from_pad: float [4, 4]; origin in the pad's middle, +x to the right of the picture, +y down,
            +z out of the gel towards what is touched.
        size_m: float [2], height and width of what the picture shows.
    """

    rgb: NDArray[np.uint8]
    base_from_pad: FloatArray
    size_m: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class ForceFieldFrame(Frame):
    """The forces that act on each piece of a fingertip's gel.

    Attributes:
        force_N: float32 [h, w, 3] in the pad frame, exerted *on* the gel: what presses has z < 0, what drags the gel to
            the right of the picture x > 0. The sum over the field is the whole force on the fingertip.
        base_from_pad: float [4, 4]; origin in the pad's middle, +x to the right of the picture, +y down,
            +z out of the gel towards what is touched.
        size_m: float [2], height and width of the sensing area.
    """

    force_N: NDArray[np.float32]  # noqa: N815  (units keep their own capital letter, design convention 4)
    base_from_pad: FloatArray
    size_m: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class PressureFrame(Frame):
    """How hard each of a few cells of a fingertip is pressed (taxel arrays, beads).

    Attributes:
        normal_N: float32 [h, w] >= 0, the force on each cell along the pad's inward normal; 0 = untouched, or dead.
        base_from_pad: float [4, 4]; origin in the pad's middle, +x to the right of the picture, +y down,
            +z out of the pad towards what is touched.
        size_m: float [2], height and width of the sensing area.
    """

    normal_N: NDArray[np.float32]  # noqa: N815
    base_from_pad: FloatArray
    size_m: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class WrenchFrame(Frame):
    """Force and torque at a wrist.

    Attributes:
        force_N: float [3] in the sensor frame, exerted *on* the tool side.
        torque_Nm: float [3] in the sensor frame.
        base_from_sensor: float [4, 4].
    """

    force_N: FloatArray  # noqa: N815
    torque_Nm: FloatArray  # noqa: N815
    base_from_sensor: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class ImuFrame(Frame):
    """What an inertial measurement unit feels.

    Attributes:
        accel_m_s2: float [3] in the sensor frame, specific force: acceleration minus gravity, so at rest +g upwards.
        gyro_rad_s: float [3] in the sensor frame, angular velocity relative to the base frame.
        base_from_imu: float [4, 4] at ``stamp_s``.
    """

    accel_m_s2: FloatArray
    gyro_rad_s: FloatArray
    base_from_imu: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class JointFrame(Frame):
    """What the robot knows of itself.

    Attributes:
        position_rad: float [J].
        velocity_rad_s: float [J].
        gripper_m: float [1], opening between the fingers.
        base_from_tool: float [4, 4], the point between the fingertips; +z is the approach direction.
    """

    position_rad: FloatArray
    velocity_rad_s: FloatArray
    gripper_m: FloatArray
    base_from_tool: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class TextFrame(Frame):
    """What the robot was told.

    Attributes:
        text: uint8 [L], UTF-8, zeros after its end; see :func:`sensors.instruction.to_text`.
    """

    text: NDArray[np.uint8]
