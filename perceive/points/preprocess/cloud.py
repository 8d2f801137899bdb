"""PointCloud: the points of one scene in numpy, with what is known of each of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sensors.errors import SpecError
from sensors.frames import LidarFrame, PointFrame
from sensors.geometry import FloatArray, transform_points

_WIDTHS = {"xyz_m": 3, "rgb": 3, "normal": 3, "origin_m": 3, "intensity": 0, "offset_s": 0, "cluster": 0}


@dataclass(frozen=True, eq=False, kw_only=True)
class PointCloud:
    """N points in one frame, the robot's base frame unless said otherwise. None = not known.

    Attributes:
        xyz_m: float [N, 3].
        rgb: float [N, 3] in [0, 1].
        normal: float [N, 3] of unit length; zero where a point has none.
        origin_m: float [N, 3], where the sensor stood that saw the point.
        intensity: float [N].
        offset_s: float [N], capture time relative to that of the whole.
        cluster: int [N], number of the point's cluster; -1 = none.

    Raises:
        SpecError: an array of another shape or kind.
    """

    xyz_m: FloatArray
    rgb: FloatArray | None = None
    normal: FloatArray | None = None
    origin_m: FloatArray | None = None
    intensity: FloatArray | None = None
    offset_s: FloatArray | None = None
    cluster: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        rows = self.xyz_m.shape[0] if self.xyz_m.ndim else 0
        for name, value in self.arrays().items():
            width = _WIDTHS[name]
            shape = (rows, width) if width else (rows,)
            kind = np.integer if name == "cluster" else np.floating
            if value.shape != shape or not np.issubdtype(value.dtype, kind):
                raise SpecError(
                    f"PointCloud.{name}",
                    f"{kind.__name__} {list(shape)}",
                    f"{value.dtype} {list(value.shape)}",
                    "Convert the array; all of them have one row for each point.",
                )

    def __len__(self) -> int:
        return len(self.xyz_m)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> array of everything that is known."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> PointCloud:
        """The points with some numbers, or those that a mask picks."""
        return PointCloud(**{name: value[index] for name, value in self.arrays().items()})

    def finite(self) -> NDArray[np.bool_]:
        """Which points have three finite coordinates, bool [N]."""
        return np.asarray(np.isfinite(self.xyz_m).all(axis=1))

    def moved(self, a_from_b: ArrayLike) -> PointCloud:
        """The same points in frame ``a``, for a cloud in frame ``b``."""
        transform = np.asarray(a_from_b, dtype=float)
        normal, origin = self.normal, self.origin_m
        return replace(
            self,
            xyz_m=transform_points(transform, self.xyz_m),
            normal=None if normal is None else normal @ transform[:3, :3].T,
            origin_m=None if origin is None else transform_points(transform, origin),
        )


def from_points(frame: PointFrame) -> PointCloud:
    """The points of a frame that are there."""
    count = int(frame.count[0])
    return PointCloud(xyz_m=frame.xyz_m[:count], rgb=frame.rgb[:count].astype(np.float32) / np.float32(255))


def from_lidar(frame: LidarFrame) -> PointCloud:
    """The points of a sweep that are there, in the base frame as at the frame's stamp."""
    count = int(frame.count[0])
    here = PointCloud(
        xyz_m=frame.xyz_m[:count],
        origin_m=np.zeros((count, 3)),
        intensity=frame.intensity[:count],
        offset_s=frame.offset_s[:count],
    )
    return here.moved(frame.base_from_lidar)
