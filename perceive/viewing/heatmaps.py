"""Heatmaps drawn over the virtual views that they speak about."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from perceive.rvt.model import KeyPose, Look
from perceive.rvt.views import pixel_of, views_named
from perceive.viewing.draw import LINES, Picture, mosaic

SHOWN = 0.65  # weight of the brightest part of a heatmap over the view


def heatmap_pictures(look: Look, faces: Sequence[str], right_m: NDArray[np.floating] | None = None) -> list[Picture]:
    """Each view of one stage with its heatmap laid over it, uint8 [S, S, 3]; of the first sample.

    A cross marks where the maps agree best; a circle the right place [3] (base frame, metres), if it is given.

    Args:
        look: what the stage saw and said.
        faces: names of its views.
        right_m: the right place.
    """
    views, size = views_named(faces), look.logits.shape[-1]
    colours = look.rendered.features[0, :, :3].float().cpu().permute(0, 2, 3, 1).numpy()
    chances = look.logits[0].float().flatten(1).softmax(-1).view(-1, size, size).cpu().numpy()
    marks = [(pixel_of(look.point[:1, None], views, size)[0, :, 0].cpu().numpy(), True)]
    if right_m is not None:
        place = torch.as_tensor(right_m, dtype=look.point.dtype, device=look.point.device)[None, None]
        one = type(look.cube)(look.cube.centre_m[:1], look.cube.half_m[:1])
        marks.append((pixel_of(one.normalise(place), views, size)[0, :, 0].cpu().numpy(), False))
    out = []
    for number in range(len(views)):
        view = (255 * colours[number].clip(0, 1)).astype(np.uint8)
        share = chances[number] / max(float(chances[number].max()), 1e-12)
        heat = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        weight = (SHOWN * np.sqrt(share))[..., None]  # the root shows the skirts of a sharp peak
        picture = np.ascontiguousarray((view * (1 - weight) + heat * weight).astype(np.uint8))
        for pixels, found in marks:
            _mark(picture, pixels[number], found)
        out.append(picture)
    return out


def key_pose_picture(
    pose: KeyPose,
    faces: Sequence[str],
    cameras: dict[str, Picture] | None = None,
    right_m: NDArray[np.floating] | None = None,
    side_px: int = 168,
) -> Picture:
    """All stages' views with their heatmaps, one stage a row, and what the cameras saw below.

    Args:
        pose: result of a KeyPoseModel.
        faces: names of the virtual views.
        cameras: name -> picture uint8 [H, W, 3].
        right_m: the right place [3], base frame.
        side_px: of each view.
    """
    named: dict[str, Picture] = {}
    for number, look in enumerate(pose.looks):
        edge_m = 2 * float(look.cube.half_m[0])
        for face, picture in zip(faces, heatmap_pictures(look, faces, right_m), strict=True):
            named[f"{face}, {edge_m:.2g} m" if number == 0 else f"{face}, zoom {edge_m:.2g} m"] = picture
    return mosaic(named | (cameras or {}), len(faces), side_px, side_px)


def _mark(picture: Picture, pixel: NDArray[np.floating], found: bool) -> None:
    place = tuple(int(np.floor(value)) for value in pixel)
    if not all(0 <= value < picture.shape[0] for value in place):
        return
    if found:
        cv2.drawMarker(picture, place, (255, 255, 255), cv2.MARKER_CROSS, 9, 1)
    else:
        cv2.circle(picture, place, 5, LINES[1], 1, cv2.LINE_AA)
