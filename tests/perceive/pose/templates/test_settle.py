"""settle_alone: a pose finds its own pixels, is refined on them, and scores higher then."""

from __future__ import annotations

import numpy as np
import pytest

from perceive.pose.templates.hypotheses import rough_covariance
from perceive.pose.templates.scene import Known, Scene
from perceive.pose.templates.settle import settle_alone
from tests.policies.poses.made import MadeSource, two_models


@pytest.mark.parametrize("view", [0, 1, 2])
def test_a_shifted_pose_settles_on_the_object(view: int) -> None:
    source = MadeSource(two_models(), 3, seed=11)
    key = source.views[view]
    frame, truth = source.frame(key), max(source.truth(key), key=lambda one: one.visible_share)
    known = Known(source.models[truth.number], 0.02, 0.002, 40, 512)
    start = np.stack([truth.camera_from_object, truth.camera_from_object])
    start[0, 2, 3] += 0.004  # along the line of sight: to the sides a flat face may slide unseen
    start[1, 2, 3] += 0.012
    given = np.tile(rough_covariance(start[0], known.model.diameter_m), (2, 1, 1))
    camera = np.asarray(frame.intrinsics_px, np.float64)
    poses, score, covariance = settle_alone(Scene(frame), frame.rgb, known, start, given, camera, 512, 0)
    assert len(poses) == len(score) == len(covariance) > 2
    np.testing.assert_array_equal(poses[:2], start)
    assert score[0] > score[1]
    best = int(score.argmax())
    assert best >= 2
    assert score[best] > score[0]
    middle = np.append((known.model.low_m + known.model.high_m) / 2, 1.0)
    assert abs(((poses[best] - truth.camera_from_object) @ middle)[2]) < 0.001
    assert np.linalg.det(covariance[best]) < np.linalg.det(covariance[0])  # it knows better than a rough guess
