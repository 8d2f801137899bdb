"""LiDARs for the tests: quiet ones, opened, and a world that remembers the rays that it was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensors.frames import LidarFrame
from sensors.geometry import FloatArray, transform_points
from sensors.lidar import Lidar
from sensors.lidar_pattern import ScanPattern, vlp_16
from sensors.timeline import Timing
from tests.benchmarks.bench_lidar import QUIET
from tests.fake_world import FakeWorld

UP = (0.0, 0.0, 0.0, 1.0)
DOWN = (0.0, float(np.sqrt(0.5)), 0.0, float(np.sqrt(0.5)))  # +x of the LiDAR looks down
TOOL = "tool"


class Recording(FakeWorld):
    """Remembers the rays that it was asked for."""

    def ray_cast(self, start_m: Any, end_m: Any, **options: Any) -> Any:
        self.starts, self.towards = np.array(start_m), (end_m - start_m)
        self.towards /= np.linalg.norm(self.towards, axis=1, keepdims=True)
        return super().ray_cast(start_m, end_m, **options)


def quiet_lidar(pattern: ScanPattern | None = None, **changes: Any) -> Lidar:
    """Quiet unless told otherwise; 16 upright rings 1 m above the table and the box."""
    settings: dict[str, Any] = {
        "timing": Timing(rate_hz=12.0),
        "pattern": pattern or vlp_16(120, 12.0),
        "position_m": (0.5, 0.0, 1.0),
        "quaternion_xyzw": UP,
        **QUIET,
    }
    return Lidar(**(settings | changes))


def opened(world: Any, pattern: ScanPattern | None = None, seed: int = 0, **changes: Any) -> Lidar:
    lidar = quiet_lidar(pattern, **changes)
    lidar.open(world)
    lidar.reset(np.random.default_rng(seed))
    return lidar


def points_of(frame: LidarFrame) -> FloatArray:
    """The points that are there [count, 3] in the sensor's frame, double."""
    return frame.xyz_m[: int(frame.count[0])].astype(float)


def in_base(frame: LidarFrame) -> FloatArray:
    return transform_points(frame.base_from_lidar, points_of(frame))
