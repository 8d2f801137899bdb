"""Poses found without a mask, refined on and judged by what they themselves say they explain."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.pose.templates.hypotheses import thinned
from perceive.pose.templates.scene import Known, Scene
from sensors.geometry import FloatArray

LEAST_DEPTH = 16  # measured pixels of an object below which its depth is not used
_TIMES = 2


def settle_alone(
    scene: Scene,
    rgb: NDArray[np.uint8],
    known: Known,
    camera_from_object: FloatArray,
    covariances: FloatArray,
    intrinsics_px: FloatArray,
    points: int,
    seed: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The given poses and refined ones, their scores, and covariances.

    The best says which pixels are the object's; on these it is refined, and so once more.

    Args:
        scene: what stands on the table.
        rgb: [H, W, 3].
        known: the object.
        camera_from_object: [N, 4, 4], near each other in the picture.
        covariances: [N, 6, 6].
        intrinsics_px: fx fy cx cy.
        points: that are refined on, at most.
        seed: of their choice.

    Returns:
        Poses [M, 4, 4], scores [M] as of :meth:`~perceive.pose.templates.judging.Judge.score_alone`, and covariances
        [M, 6, 6], M >= N.
    """
    poses = camera_from_object
    score = known.judge.score_alone(rgb, scene.depth_m, scene.standing, poses, intrinsics_px)
    best = poses[int(score.argmax())]
    for _ in range(_TIMES):
        row, column = np.nonzero(known.judge.shown(scene.depth_m, scene.standing, best, intrinsics_px))
        if len(row) < LEAST_DEPTH:
            break
        cloud = thinned(row, column, scene.depth_m, intrinsics_px, points, seed)
        refined = known.refiner.refine(torch.from_numpy(cloud), torch.from_numpy(best[None]))
        new = refined.camera_from_object.numpy()
        judged = known.judge.score_alone(rgb, scene.depth_m, scene.standing, new, intrinsics_px)
        poses, score = np.concatenate([poses, new]), np.concatenate([score, judged])
        covariances = np.concatenate([covariances, refined.covariance.numpy()])
        best = new[0]
    return poses, score, covariances
