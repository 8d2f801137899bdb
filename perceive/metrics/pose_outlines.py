"""Which pixels a posed object can cover at all, so that rays are cast through no others.

The picture of an object in front of the camera lies inside of the convex hull of its projected corners. That hull is
bounded here by 16 half-planes, whose supports are found for many poses at once; each row of the picture is left with
one run of pixels. Everything is a pixel too wide, so that rounding loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.pose.raster import NEAREST_M, Box, MeshRenderer
from sensors.geometry import FloatArray

_WIDER_PX = 1.0
# Normals of the half-planes to the right of the picture; the opposite ones are to its left. Those straight up and down
# are the box's own.
_TURNS = np.pi / 8 * np.arange(-3, 4)
_NORMALS = np.stack([np.cos(_TURNS), np.sin(_TURNS)], -1)


@final
@dataclass(frozen=True, eq=False)
class Outline:
    """Where an object may be seen.

    Attributes:
        box: left, top, right, bottom of the part of the picture.
        runs: int64 [h, 2], of each row of the box the first pixel and the one after the last, from the box's left.
    """

    box: Box
    runs: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Pixels in it."""
        return int((self.runs[:, 1] - self.runs[:, 0]).sum())


def outlines(
    renderer: MeshRenderer,
    corners_m: FloatArray | None,
    poses: FloatArray,
    intrinsics_px: FloatArray,
    sizes: Sequence[tuple[int, int]],
) -> list[Outline | None]:
    """Outlines of one object at many poses; None = out of view.

    Args:
        renderer: of the object; its box counts where something is beside or behind the camera.
        corners_m: [C, 3], corners of the convex hull of the model; None = not known: the box counts everywhere.
        poses: [N, 4, 4], camera_from_object.
        intrinsics_px: [N, 4], fx fy cx cy.
        sizes: height and width of each of the N pictures.
    """
    if corners_m is None:
        return [_whole(renderer, *some) for some in zip(poses, intrinsics_px, sizes, strict=True)]
    points = poses[:, :3, :3] @ corners_m.T + poses[:, :3, 3:]  # [N, 3, C]
    ahead = points[:, 2].min(1) > NEAREST_M
    with np.errstate(divide="ignore", invalid="ignore"):
        pixel = points[:, :2] / points[:, 2:] * intrinsics_px[:, :2, None] + intrinsics_px[:, 2:, None]
    low, high = pixel.min(2), pixel.max(2)
    along = _NORMALS @ pixel  # [N, K, C]
    nearest, farthest = along.min(2) - _WIDER_PX, along.max(2) + _WIDER_PX
    found: list[Outline | None] = []
    for number, (height, width) in enumerate(sizes):
        if not ahead[number]:
            found.append(_whole(renderer, poses[number], intrinsics_px[number], (height, width)))
            continue
        # Clipped before they become integers: a corner close to the camera's plane may be anywhere.
        left, top = (int(max(np.floor(edge), 0)) for edge in np.minimum(low[number], (width, height)))
        right, bottom = (int(np.ceil(edge)) + 1 for edge in np.clip(high[number], -1, (width, height)))
        right, bottom = min(right, width), min(bottom, height)
        if left >= right or top >= bottom:
            found.append(None)
            continue
        down = np.arange(top, bottom)[:, None] * _NORMALS[:, 1]
        first = ((nearest[number] - down) / _NORMALS[:, 0]).max(1).clip(left, right)
        last = ((farthest[number] - down) / _NORMALS[:, 0]).min(1).clip(left - 1, right - 1)
        runs = np.stack([np.ceil(first), np.floor(last) + 1], -1).astype(np.int64) - left
        runs[:, 1] = np.maximum(runs[:, 1], runs[:, 0])
        found.append(Outline((left, top, right, bottom), runs))
    return found


def _whole(
    renderer: MeshRenderer, pose: FloatArray, intrinsics_px: FloatArray, size: tuple[int, int]
) -> Outline | None:
    box = renderer.box(pose, intrinsics_px, *size)
    if box is None:
        return None
    left, top, right, bottom = box
    return Outline(box, np.tile(np.array([0, right - left]), (bottom - top, 1)))
