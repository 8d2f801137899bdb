"""The classic baseline finds what geometry alone can find, and says so when it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perceive.pose.estimators.classic import ClassicEstimator
from perceive.pose.raster import MeshRenderer
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import axis_angle_to_matrix, intrinsics_from_fov
from tests.perceive.pose.meshes import mesh, picture

HEIGHT, WIDTH = 240, 320
K = intrinsics_from_fov(WIDTH, HEIGHT, 45.0)
ESTIMATOR = ClassicEstimator({1: mesh("blob"), 5: mesh("bracket")})


def view(name: str, seed: int) -> tuple[RgbdFrame, np.ndarray, np.ndarray]:
    """Frame, mask and truth of an object before a wall, with half a millimetre of noise."""
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = axis_angle_to_matrix(rng.standard_normal(3) * 2)
    pose[:3, 3] = (*rng.uniform(-0.03, 0.03, 2), 0.4)
    drawn = MeshRenderer(mesh(name)).depth(pose, K, (0, 0, WIDTH, HEIGHT))[0]
    mask = drawn > 0
    depth = np.where(mask, drawn, 0.8) + 0.0005 * rng.standard_normal(drawn.shape)
    return picture(depth, K), mask, pose


def test_most_views_of_an_object_without_symmetry_are_found() -> None:
    points, off = mesh("blob").surface(200).xyz_m, []
    for seed in range(6):
        frame, mask, truth = view("blob", seed)
        (found,) = ESTIMATOR.estimate(frame, 1, mask)
        assert found.number == 1
        apart = points @ (found.camera_from_object - truth)[:3, :3].T + (found.camera_from_object - truth)[:3, 3]
        off.append(float(np.linalg.norm(apart, axis=1).max()))
        assert len(found.others) == len(found.other_scores)
        assert (found.other_scores <= found.score).all()
    assert np.median(off) < 0.1 * mesh("blob").diameter_m


def test_the_same_view_gives_the_same_score() -> None:
    frame, mask, _ = view("bracket", 3)
    first, again = (ESTIMATOR.estimate(frame, 5, mask)[0] for _ in range(2))
    assert first.score == pytest.approx(again.score, abs=0.1)


def test_too_little_seen_is_not_found() -> None:
    frame, mask, _ = view("blob", 0)
    few = np.zeros_like(mask)
    few[np.flatnonzero(mask.any(1))[0] + 20, np.flatnonzero(mask.any(0))[0] + 20] = True
    assert ESTIMATOR.estimate(frame, 1, few) == []
    inside = np.where(mask, np.float32(0), frame.depth_m)
    assert ESTIMATOR.estimate(replace(frame, depth_m=inside), 1, mask) == []


def test_bad_input() -> None:
    frame, mask, _ = view("blob", 0)
    with pytest.raises(SpecError, match="object"):
        ESTIMATOR.estimate(frame, 2, mask)
    with pytest.raises(SpecError, match="depth"):
        ESTIMATOR.estimate(replace(frame, depth_m=np.zeros_like(frame.depth_m)), 1, mask)
    with pytest.raises(DataError, match="empty"):
        ESTIMATOR.estimate(frame, 1, np.zeros_like(mask))
    with pytest.raises(DataError, match="mask"):
        ESTIMATOR.estimate(frame, 1, mask[1:])
    with pytest.raises(SpecError, match="models"):
        ClassicEstimator({})
    assert ESTIMATOR.numbers == (1, 5)
