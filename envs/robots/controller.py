"""PoseController: a commanded pose that moves towards a target at limited speed and never runs away from the robot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from envs.robots.kinematics import rotation_between, turned
from sensors.errors import SpecError
from sensors.geometry import FloatArray


@dataclass(frozen=True)
class Workspace:
    """The box that the tool point is kept in: lowest and highest corner [3] in the base frame, metres."""

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise SpecError(
                "Workspace", "low_m < high_m in each axis", f"{self.low_m}, {self.high_m}", "Correct the corners."
            )

    def clip(self, position_m: FloatArray) -> FloatArray:
        """The nearest point inside."""
        return np.minimum(np.maximum(position_m, self.low_m), self.high_m)


@dataclass(frozen=True)
class SpeedLimits:
    """How fast the commanded pose may move, and how far it may be ahead of the real one.

    Attributes:
        linear_m_s: speed of the tool point.
        angular_rad_s: turn rate.
        leash_m: largest distance between commanded and real position; bounds the force of a blocked arm.
        leash_rad: the same for rotation.
    """

    linear_m_s: float = 0.5
    angular_rad_s: float = 2.0
    leash_m: float = 0.06
    leash_rad: float = 0.35

    def __post_init__(self) -> None:
        for name in ("linear_m_s", "angular_rad_s", "leash_m", "leash_rad"):
            if not getattr(self, name) > 0:
                raise SpecError(f"SpeedLimits.{name}", "a number > 0", repr(getattr(self, name)), "Correct it.")


class PoseController:
    """Holds the commanded pose.

    Args:
        limits: speeds and leash.
    """

    def __init__(self, limits: SpeedLimits) -> None:
        self._limits = limits
        self._pose: FloatArray = np.eye(4)

    @property
    def pose(self) -> FloatArray:
        """The commanded ``base_from_tool`` [4, 4]."""
        return self._pose

    def reset(self, base_from_tool: FloatArray) -> None:
        """Command the pose at which the robot stands."""
        self._pose = np.array(base_from_tool, dtype=float)

    def advance(self, target: FloatArray, actual: FloatArray, period_s: float) -> FloatArray:
        """Move the commanded pose towards ``target`` for ``period_s`` and return it; all poses are [4, 4]."""
        limits = self._limits
        out = np.eye(4)
        position = _towards(self._pose[:3, 3], target[:3, 3], limits.linear_m_s * period_s)
        out[:3, 3] = _towards(actual[:3, 3], position, limits.leash_m)
        rotation = _turn_towards(self._pose[:3, :3], target[:3, :3], limits.angular_rad_s * period_s)
        out[:3, :3] = _turn_towards(actual[:3, :3], rotation, limits.leash_rad)
        self._pose = out
        return out


def _towards(start: FloatArray, end: FloatArray, most: float) -> FloatArray:
    way = end - start
    length = math.sqrt(float(way @ way))
    return end if length <= most else start + way * (most / length)


def _turn_towards(start: FloatArray, end: FloatArray, most: float) -> FloatArray:
    vector = rotation_between(start, end)
    angle = math.sqrt(float(vector @ vector))
    return end if angle <= most else turned(start, vector * (most / angle))
