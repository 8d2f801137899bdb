"""What stood where while the object was known to be elsewhere."""

from __future__ import annotations

from typing import final

import numpy as np
from scipy.ndimage import binary_dilation

from perceive.pose.raster import MeshRenderer
from perceive.pose.tracking.fit import DepthView, place
from perceive.pose.tracking.side import Side
from sensors.geometry import FloatArray, invert

_STEP_PX = 4  # grid on which the object is cut out of a picture
_ASIDE = 3  # cells around it that are cut out as well


@final
class SceneMemory:
    """A few pictures of the scene without the object, in the robot's base.

    A surface that was measured at one place while the object was at another is not the object, however much it looks
    like it. That is what tells a lost object from things of its shape that lie around.

    Args:
        every_s: least time between two pictures that are kept.
        kept: how many pictures.
    """

    def __init__(self, every_s: float = 0.5, kept: int = 3) -> None:
        self._every_s, self._kept = every_s, kept
        self._pictures: list[tuple[float, DepthView, FloatArray]] = []

    def forget(self) -> None:
        """Nothing has been seen."""
        self._pictures = []

    def keep(
        self,
        renderer: MeshRenderer,
        view: DepthView,
        stamp_s: float,
        base_from_camera: FloatArray,
        camera_from_object: FloatArray,
    ) -> None:
        """Remember a picture in which the object is surely at one pose, without the object."""
        if self._pictures and stamp_s - self._pictures[-1][0] < self._every_s:
            return
        height, width = view.depth_m.shape
        fx, fy, cx, cy = view.intrinsics_px / _STEP_PX
        cells = (0, 0, -(-width // _STEP_PX), -(-height // _STEP_PX))
        drawn = binary_dilation(
            renderer.depth(camera_from_object, (fx, fy, cx, cy), cells)[0] > 0, np.ones((3, 3), bool), _ASIDE
        )
        cut = drawn.repeat(_STEP_PX, 0).repeat(_STEP_PX, 1)[:height, :width]
        rest = DepthView(np.where(cut, np.float32(0), view.depth_m), view.intrinsics_px)
        self._pictures = [*self._pictures[-self._kept + 1 :], (stamp_s, rest, invert(base_from_camera))]

    def known_share(self, view: DepthView, side: Side, base_from_camera: FloatArray, camera_from_object: FloatArray,
                    band_m: float) -> float:  # fmt: skip
        """Share of what agrees with a pose now that stood at the same place before, when the object did not.

        Args:
            view: the picture of now.
            side: the object as drawn at the pose.
            base_from_camera: [4, 4] of now.
            camera_from_object: [4, 4], the pose in question.
            band_m: how far two measurements of one surface may differ.
        """
        camera_m = place(camera_from_object[None], side.xyz_m)
        u, v, z = view.project(camera_m)
        _, _, seen = view.at(u, v)
        agrees = (seen > 0) & (np.abs(seen - z) <= band_m)
        if not agrees.any():
            return 0.0
        base_m = camera_m[agrees] @ base_from_camera[:3, :3].T + base_from_camera[:3, 3]
        stood = np.zeros(len(base_m), bool)
        for _, older, camera_from_base in self._pictures:
            u, v, z = older.project(base_m @ camera_from_base[:3, :3].T + camera_from_base[:3, 3])
            _, _, before = older.at(u, v)
            stood |= (before > 0) & (np.abs(before - z) <= band_m)
        return float(stood.mean())
