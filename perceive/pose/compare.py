"""Hypotheses compared with pictures: how a small motion is written, and what is shown of a hypothesis.

The crop of a hypothesis is what a camera would see that looks straight at where the object is thought to be; its frame
has its origin there (see :mod:`perceive.pose.crop`). Beside what was seen stands a drawing of the model at the
hypothesised pose, by the same camera (DeepIM: Li et al., ECCV 2018; CosyPose: Labbe et al., ECCV 2020). Lengths are
stated in the size of the object, so that objects of all sizes look alike to whoever compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.geometry import full_precision
from perceive.pose.crop import CropView, aim, cut
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray

DIAMETER_M = 0.1  # of every object, in the crops that are compared
AMBIENT = 0.35  # share of a drawn colour that does not depend on the surface's direction
_NEAREST_M = 1e-2  # an object's middle that is nearer to the camera than this cannot be looked at


@final
@dataclass(frozen=True, eq=False)
class PoseChange:
    """B small motions of objects before a camera, in numbers that do not depend on each other.

    Attributes:
        turn: float [B, 3, 3], in the camera's axes, about the object's middle.
        shift: float [B, 2], of the middle in the picture, right and down, as a share of the picture's width.
        depth: float [B], the logarithm of the new over the old distance of the middle.
    """

    turn: Tensor
    shift: Tensor
    depth: Tensor

    def then(self, later: PoseChange) -> PoseChange:
        """Both, one after the other."""
        with full_precision(self.turn.device):
            return PoseChange(later.turn @ self.turn, self.shift + later.shift, self.depth + later.depth)

    def inverse(self) -> PoseChange:
        """What undoes it."""
        return PoseChange(self.turn.mT, -self.shift, -self.depth)


def change_between(start: Tensor, end: Tensor, middle_m: Tensor, intrinsics_px: Tensor, width_px: int) -> PoseChange:
    """The change that :func:`changed` needs to make ``end`` of ``start``.

    Args:
        start: [B, 4, 4], camera_from_object.
        end: [B, 4, 4].
        middle_m: [B, 3], the object's middle in its own frame; in front of the camera at both poses.
        intrinsics_px: [B, 4].
        width_px: of the picture.

    Raises:
        SpecError: shapes that do not fit.
    """
    _check(start, middle_m, intrinsics_px, width_px, end)
    with full_precision(start.device):
        old, new = _middles(start, middle_m), _middles(end, middle_m)
        focal = intrinsics_px[:, :2]
        shift = focal * (new[:, :2] / new[:, 2:] - old[:, :2] / old[:, 2:]) / width_px
        return PoseChange(end[:, :3, :3] @ start[:, :3, :3].mT, shift, (new[:, 2] / old[:, 2]).log())


def changed(start: Tensor, change: PoseChange, middle_m: Tensor, intrinsics_px: Tensor, width_px: int) -> Tensor:
    """Poses [B, 4, 4] after a change; arguments as of :func:`change_between`.

    Raises:
        SpecError: shapes that do not fit.
    """
    _check(start, middle_m, intrinsics_px, width_px)
    with full_precision(start.device):
        old = _middles(start, middle_m)
        away = old[:, 2:] * change.depth.exp()[:, None]
        place = old[:, :2] / old[:, 2:] + width_px * change.shift / intrinsics_px[:, :2]
        turn = change.turn @ start[:, :3, :3]
        out = start.clone()
        out[:, :3, :3] = turn
        out[:, :3, 3] = torch.cat([place * away, away], 1) - (turn @ middle_m[..., None])[..., 0]
        return out


def view_of(
    camera_from_object: FloatArray, model: ObjectModel, intrinsics_px: ArrayLike, size_px: int, extent: float
) -> CropView | None:
    """The view that looks straight at the middle of an object; None = it is not in front of the camera.

    Args:
        camera_from_object: [4, 4].
        model: the object.
        intrinsics_px: of the whole picture.
        size_px: S, of the view.
        extent: width of the view, in diameters.
    """
    middle = camera_from_object[:3, :3] @ ((model.low_m + model.high_m) / 2) + camera_from_object[:3, 3]
    if not np.isfinite(middle).all() or middle[2] < _NEAREST_M:
        return None
    fx, fy, cx, cy = np.asarray(intrinsics_px, np.float64)
    pixel = (fx * middle[0] / middle[2] + cx, fy * middle[1] / middle[2] + cy)
    return aim(pixel, intrinsics_px, float(np.linalg.norm(middle)), extent * model.diameter_m, size_px)


def drawing(
    renderer: MeshRenderer, camera_from_object: ArrayLike, intrinsics_px: ArrayLike, size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colours [S, S, 3], lit from the camera, and depth [S, S] of an object alone; black and 0 beside it."""
    drawn = renderer.render(camera_from_object, intrinsics_px, (0, 0, size_px, size_px))
    light = AMBIENT + (1 - AMBIENT) * np.abs(drawn.normal[0, ..., 2:])
    return (drawn.rgb[0] * light).astype(np.uint8), drawn.depth_m[0]


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """B crops beside drawings of their hypotheses, in metres of the world.

    Attributes:
        rgb: uint8 [B, S, S, 3], what was seen.
        depth_m: float [B, S, S]; 0 = none.
        drawn_rgb: uint8 [B, S, S, 3].
        drawn_depth_m: float [B, S, S].
        intrinsics_px: float [B, 4].
        distance_m: float [B], of the hypothesised middle, which lies on the axis.
        diameter_m: float [B], of the objects.
    """

    rgb: Tensor
    depth_m: Tensor
    drawn_rgb: Tensor
    drawn_depth_m: Tensor
    intrinsics_px: Tensor
    distance_m: Tensor
    diameter_m: Tensor

    def batch(self, seen: str, drawn: str) -> Batch:
        """Two streams of RgbdFrame fields, by their names, in which every object has :data:`DIAMETER_M`."""
        size = len(self.rgb)
        scale = DIAMETER_M / self.diameter_m.float()
        pose = torch.eye(4).repeat(size, 1, 1, 1)
        pose[:, 0, 2, 3] = -self.distance_m.float() * scale
        age, valid = torch.zeros(size, 1), torch.ones(size, 1, dtype=torch.bool)
        streams = {}
        for name, rgb, depth in ((seen, self.rgb, self.depth_m), (drawn, self.drawn_rgb, self.drawn_depth_m)):
            data = {
                "rgb": rgb[:, None],
                "depth_m": (depth.float() * scale[:, None, None])[:, None],
                "intrinsics_px": self.intrinsics_px.float()[:, None],
                "base_from_camera": pose,
            }
            streams[name] = BatchStream(data, age, valid)
        return Batch(streams)


def pairs_of(frame: RgbdFrame, renderer: MeshRenderer, poses: Sequence[FloatArray], views: Sequence[CropView]) -> Pairs:
    """What is seen and what should be seen of hypotheses [4, 4] of one picture, by the views that look at them."""
    seen = [cut(frame, view) for view in views]
    drawn = []
    for pose, view in zip(poses, views, strict=True):
        turned = np.eye(4)
        turned[:3, :3] = view.crop_from_camera
        drawn.append(drawing(renderer, turned @ pose, view.intrinsics_px, view.size_px))
    count, diameter = len(views), renderer.model.diameter_m
    return Pairs(
        torch.from_numpy(np.stack([one.rgb for one in seen])),
        torch.from_numpy(np.stack([one.depth_m for one in seen])),
        torch.from_numpy(np.stack([rgb for rgb, _ in drawn])),
        torch.from_numpy(np.stack([depth for _, depth in drawn])),
        torch.from_numpy(np.stack([view.intrinsics_px for view in views])),
        torch.tensor([view.distance_m for view in views], dtype=torch.float64),
        torch.full((count,), diameter, dtype=torch.float64),
    )


def _middles(poses: Tensor, middle_m: Tensor) -> Tensor:
    return (poses[:, :3, :3] @ middle_m[..., None])[..., 0] + poses[:, :3, 3]


def _check(start: Tensor, middle_m: Tensor, intrinsics_px: Tensor, width_px: int, end: Tensor | None = None) -> None:
    size = len(start)
    poses = [start] if end is None else [start, end]
    good = all(one.shape == (size, 4, 4) for one in poses) and middle_m.shape == (size, 3)
    if not good or intrinsics_px.shape != (size, 4) or width_px < 1:
        got = f"{[list(one.shape) for one in poses]}, {list(middle_m.shape)}, {list(intrinsics_px.shape)}, {width_px}"
        expected = "poses [B, 4, 4], middles [B, 3], intrinsics [B, 4], a width of 1 px or more"
        raise SpecError("PoseChange", expected, got, "Pass four numbers for each camera, not the 3 x 3 matrix K.")
