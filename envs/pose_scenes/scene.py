"""ObjectScene: pictures of one scene with the truth about each object in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray


@final
@dataclass(frozen=True, eq=False)
class ObjectView:
    """One picture.

    Attributes:
        rgb: uint8 [H, W, 3].
        depth_m: float32 [H, W], as measured; 0 = no measurement.
        intrinsics_px: float64 [4], fx fy cx cy; integer pixels are pixel centres.
        world_from_camera: float64 [4, 4], OpenCV camera; the table's top is z = 0.
        instance: int32 [H, W], which object the renderer drew there, its row in ``ObjectScene.names``; -1 = none.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics_px: FloatArray
    world_from_camera: FloatArray
    instance: NDArray[np.int32]


@final
@dataclass(frozen=True, eq=False)
class ObjectScene:
    """K objects that lie on a table.

    Attributes:
        number: which scene it is.
        names: of the objects, K of them; the same name may stand there twice.
        world_from_object: float64 [K, 4, 4].
        views: the pictures.
    """

    number: int
    names: tuple[str, ...]
    world_from_object: FloatArray
    views: tuple[ObjectView, ...]

    def camera_from_object(self, view: int) -> FloatArray:
        """float64 [K, 4, 4]."""
        return np.asarray(np.linalg.inv(self.views[view].world_from_camera) @ self.world_from_object)
