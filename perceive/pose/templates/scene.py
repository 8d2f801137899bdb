"""What an estimator keeps: of an object, for all pictures; of a picture, for all objects that are asked for in it."""

from __future__ import annotations

import zlib
from typing import final

import numpy as np

from perceive.pose.model import ObjectModel
from perceive.pose.proposals import standing
from perceive.pose.proposals_object import Palette, ScenePatches
from perceive.pose.proposals_segments import segments
from perceive.pose.raster import MeshRenderer
from perceive.pose.refine import ModelRefiner
from perceive.pose.templates.judging import Judge
from perceive.pose.templates.store import Kind, Templates
from sensors.frames import RgbdFrame


@final
class Known:
    """What there is of one object.

    Args:
        model: the object.
        tolerance: as of :class:`~perceive.pose.templates.judging.Judge`.
        floor_m: likewise.
        pixels: likewise.
        points: that poses are refined with.
    """

    def __init__(self, model: ObjectModel, tolerance: float, floor_m: float, pixels: int, points: int) -> None:
        self.model = model
        self.renderer = MeshRenderer(model)
        self.refiner = ModelRefiner(model, points)
        self.judge = Judge(self.renderer, tolerance, floor_m, pixels)
        self.templates: dict[Kind, Templates] = {}
        self.palette = Palette(model)
        self.silhouette_m2 = silhouette_m2(model)


@final
class Scene:
    """What stands on the table of one picture, cut into patches.

    Args:
        frame: the picture, with depth.

    Raises:
        SpecError: there is no depth.
    """

    def __init__(self, frame: RgbdFrame) -> None:
        camera = np.asarray(frame.intrinsics_px, np.float64)
        self._mark = _mark(frame)
        self.depth_m = np.where(np.isfinite(frame.depth_m) & (frame.depth_m > 0), frame.depth_m, 0).astype(np.float32)
        self.standing = standing(frame)
        found = segments(frame.rgb, self.depth_m, self.standing, camera)
        self.patches = ScenePatches(frame.rgb, self.depth_m, found, camera)

    def shows(self, frame: RgbdFrame) -> bool:
        """Whether it was made of just this picture (its content: arrays may be written to)."""
        return _mark(frame) == self._mark


def silhouette_m2(model: ObjectModel) -> float:
    """The mean area that an object covers, m^2: of a convex body a fourth of its surface (Cauchy)."""
    a, b, c = (model.vertices_m[model.faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 8


def _mark(frame: RgbdFrame) -> tuple[int, int, tuple[float, ...]]:
    return (
        zlib.crc32(frame.depth_m.tobytes()),
        zlib.crc32(frame.rgb.tobytes()),
        tuple(float(x) for x in frame.intrinsics_px),
    )
