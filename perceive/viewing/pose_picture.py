"""Models drawn where they were estimated to be, over the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.viewing.draw import Picture, write
from sensors.geometry import FloatArray, project, transform_points

TRUE_COLOUR = (60, 200, 90)
AXES = ((230, 60, 60), (60, 200, 90), (70, 110, 240))
TINT = 0.45


def pose_picture(
    rgb: Picture,
    intrinsics_px: FloatArray,
    renderers: Mapping[int, MeshRenderer],
    poses: Sequence[tuple[int, FloatArray]],
    truth: Sequence[tuple[int, FloatArray]] = (),
) -> Picture:
    """A picture with every model rendered into it half transparent, outlined, with its axes.

    Args:
        rgb: uint8 [H, W, 3].
        intrinsics_px: fx fy cx cy.
        renderers: of every object that is drawn.
        poses: number of the object and camera_from_object [4, 4], as estimated.
        truth: the same, as it is; drawn as a green outline only.

    Returns:
        uint8 [H, W, 3], a new picture.
    """
    out = np.array(rgb)
    for number, pose in sorted(poses, key=lambda each: -float(each[1][2, 3])):  # the far ones first
        found = _drawn(renderers[number], pose, intrinsics_px, out.shape)
        if found is None:
            continue
        (left, top, right, bottom), there, colour = found
        part = out[top:bottom, left:right]
        part[there] = ((1 - TINT) * part[there] + TINT * colour[there]).astype(np.uint8)
        _outline(part, there, (255, 255, 255))
        _axes(out, renderers[number].model, pose, intrinsics_px)
    for number, pose in truth:
        found = _drawn(renderers[number], pose, intrinsics_px, out.shape)
        if found is not None:
            (left, top, right, bottom), there, _ = found
            _outline(out[top:bottom, left:right], there, TRUE_COLOUR)
    return out


def _drawn(
    renderer: MeshRenderer, pose: FloatArray, intrinsics_px: FloatArray, shape: tuple[int, ...]
) -> tuple[tuple[int, int, int, int], NDArray[np.bool_], NDArray[np.uint8]] | None:
    box = renderer.box(pose, intrinsics_px, shape[0], shape[1])
    if box is None:
        return None
    drawn = renderer.render(pose, intrinsics_px, box)
    return box, drawn.depth_m[0] > 0, drawn.rgb[0]


def _outline(part: NDArray[np.uint8], there: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    edge = there & ~cv2.erode(there.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    part[edge] = colour


def _axes(out: Picture, model: ObjectModel, pose: FloatArray, intrinsics_px: FloatArray) -> None:
    ends = np.concatenate([np.zeros((1, 3)), np.eye(3) * model.diameter_m * 0.4])
    in_camera = transform_points(pose, ends)
    if (in_camera[:, 2] < 1e-3).any():
        return
    pixels = np.rint(project(in_camera, intrinsics_px)[0]).astype(int)
    for end, colour in zip(pixels[1:], AXES, strict=True):
        cv2.line(out, tuple(map(int, pixels[0])), tuple(map(int, end)), colour, 1, cv2.LINE_AA)
    write(out, model.name, (int(pixels[0][0]) + 4, int(pixels[0][1]) - 4), 0.35)
