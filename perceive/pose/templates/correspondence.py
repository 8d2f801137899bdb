"""Poses from matched cells: by RANSAC where their depth is known, by PnP where not."""

from __future__ import annotations

import numpy as np
import torch

from perceive.points.registration.ransac import ransac
from perceive.pose.templates.crops import SightCamera
from perceive.pose.templates.matching import Matches
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_LEAST = 6  # matches


def poses_of_points(matches: Matches, camera: SightCamera, inlier_m: float, seed: int) -> FloatArray:
    """Poses [K', 4, 4] that most 3-D matches of a template agree on; templates without agreement give none.

    Args:
        matches: of K templates.
        camera: that the cut-out was made with.
        inlier_m: how far a match may be off.
        seed: of RANSAC.
    """
    valid = matches.valid & np.isfinite(matches.depth_m)
    far = camera.reference_m + np.where(valid, matches.depth_m, 0.0)
    seen = np.concatenate([np.broadcast_to(matches.at, (*far.shape, 2)) * far[..., None], far[..., None]], -1)
    agreed = ransac(
        torch.from_numpy(matches.object_m), torch.from_numpy(seen), torch.from_numpy(valid),
        inlier_m=inlier_m, triplets=1024, judged=256, least_inliers=_LEAST, seed=seed,
    )  # fmt: skip
    pose = agreed.target_from_source[agreed.found].numpy()
    return _turned(pose, camera)


def poses_of_pixels(matches: Matches, camera: SightCamera, cells: int, seed: int) -> FloatArray:
    """Poses [K', 4, 4] that most 2-D to 3-D matches of a template agree on.

    Args:
        matches: of K templates.
        camera: that the cut-out was made with.
        cells: along a side of it.
        seed: of RANSAC.
    """
    from perceive.pose.pnp import solve_pnp  # OpenCV is heavy

    # The cut-out is a picture with one pixel for a cell.
    focal = cells / camera.side
    intrinsics = np.array([focal, focal, (cells - 1) / 2, (cells - 1) / 2])
    found = []
    for object_m, at, valid in zip(matches.object_m, matches.at, matches.valid, strict=True):
        if valid.sum() < _LEAST:
            continue
        try:
            result = solve_pnp(
                object_m[valid], at[valid] * focal + (cells - 1) / 2, intrinsics, reach_px=1.0, seed=seed
            )
        except (DataError, SpecError):  # points on a line, or no pose that two thirds of nothing agree on
            continue
        if result.inliers.sum() >= _LEAST and result.camera_from_object[2, 3] > 0:
            found.append(result.camera_from_object)
    return _turned(np.asarray(found, np.float64).reshape(-1, 4, 4), camera)


def _turned(sight_from_object: FloatArray, camera: SightCamera) -> FloatArray:
    out = sight_from_object.copy()
    out[:, :3] = camera.camera_from_sight @ sight_from_object[:, :3]
    return out
