"""What a tracker asks of a frame before it looks at it."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from perceive.pose.estimate import check_view
from perceive.pose.tracking.fit import DepthView
from sensors.errors import DataError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

_FARTHEST_M = 100.0


@final
class FrameGate:
    """Refuses frames that do not belong to the stream; the first one says how the others must be."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._like: tuple[tuple[int, ...], FloatArray] | None = None

    def forget(self) -> None:
        """The next frame may come from another camera."""
        self._like = None

    def view(self, frame: RgbdFrame) -> DepthView:
        """The depth of a frame, with 0 where it is not finite or negative.

        Raises:
            DataError: sizes differ, the camera is another than before, the unit is not metres, the camera's pose or
                the stamp is not finite.
        """
        check_view(self._where, frame, None)
        camera = np.asarray(frame.intrinsics_px, np.float64)
        shape = frame.depth_m.shape
        if self._like is None:
            self._like = (shape, camera.copy())
        elif shape != self._like[0] or not np.allclose(camera, self._like[1], rtol=1e-3, atol=0.5):
            raise DataError(
                self._where,
                f"a picture of {self._like[0]} with intrinsics {self._like[1].tolist()} as before",
                f"{shape} with {camera.tolist()}",
                "Scale K with the picture, or call reset() after a change of camera.",
            )
        if not np.issubdtype(frame.depth_m.dtype, np.floating):
            raise DataError(
                self._where, "depth in metres, float32", str(frame.depth_m.dtype), "Divide millimetres by 1000."
            )
        pose = np.asarray(frame.base_from_camera)
        if not math.isfinite(frame.stamp_s) or pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise DataError(
                self._where, "a finite stamp and base_from_camera [4, 4]", f"{frame.stamp_s}, {pose.shape}",
                "Pass the identity where the camera's pose is not known.",
            )  # fmt: skip
        depth = frame.depth_m
        bad = ~(np.isfinite(depth) & (depth >= 0))
        if bad.any():
            depth = np.where(bad, np.float32(0), depth)
        sample = depth[::8, ::8]
        sample = sample[sample > 0]
        if sample.size and float(np.median(sample)) > _FARTHEST_M:
            raise DataError(
                self._where,
                "depth in metres",
                f"a median of {float(np.median(sample)):.0f}",
                "Are those millimetres? Divide by 1000.",
            )
        return DepthView(depth, camera)
