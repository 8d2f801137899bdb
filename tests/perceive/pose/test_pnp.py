"""PnP: exact without noise, sure of itself as far as it should be, and not misled by wrong matches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from perceive.pose.pnp import PnpResult, solve_pnp
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, project, transform_points
from tests.perceive.pose.meshes import motion, some_pose

K = np.array([600.0, 610.0, 320.0, 240.0])


def matches(seed: int, count: int, flat: bool = False, noise_px: float = 0.0) -> tuple[FloatArray, FloatArray, Any]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.06, 0.06, (count, 3)) + np.array([0.3, -0.2, 0.1])
    if flat:
        points[:, 2] = 0.1
    pose = some_pose(seed, 0.6)
    pose[:3, 3] -= pose[:3, :3] @ [0.3, -0.2, 0.1]
    pixels = project(transform_points(pose, points), K)[0]
    return points, pixels + noise_px * rng.standard_normal(pixels.shape), pose


def off(found: PnpResult, truth: Any) -> FloatArray:
    return np.asarray(motion(torch.from_numpy(found.camera_from_object)[None], truth)[0])


@pytest.mark.parametrize("count", [4, 5, 6, 100])
@pytest.mark.parametrize("flat", [False, True])
def test_without_noise_the_pose_is_exact(count: int, flat: bool) -> None:
    for seed in range(10):
        points, pixels, truth = matches(seed, count, flat)
        found = solve_pnp(points, pixels, K)
        if count == 4 and not flat and np.abs(off(found, truth)).max() > 1e-6:
            # Four points may have a second pose that shows them at the very same pixels.
            assert found.rmse_px < 1e-6
            continue
        assert np.abs(off(found, truth)).max() < 1e-6
        assert found.inliers.all()
        assert found.found


@pytest.mark.parametrize("flat", [False, True])
def test_wrong_matches_are_named_and_do_no_harm(flat: bool) -> None:
    points, pixels, truth = matches(3, 200, flat)
    rng = np.random.default_rng(0)
    wrong = rng.random(200) < 0.5
    pixels[wrong] += rng.choice([-1, 1], (int(wrong.sum()), 2)) * rng.uniform(30, 200, (int(wrong.sum()), 2))
    found = solve_pnp(points, pixels, K)
    assert np.array_equal(found.inliers, ~wrong)
    assert np.abs(off(found, truth)).max() < 1e-6


def test_the_covariance_is_calibrated() -> None:
    squares = []
    for seed in range(100):
        points, pixels, truth = matches(seed, 60, noise_px=0.7)
        found = solve_pnp(points, pixels, K, reach_px=6.0)
        error = off(found, truth)
        squares.append(float(error @ np.linalg.solve(found.covariance, error)))
    # A variance out of 114 numbers: Hotelling's factor.
    expected = 6 * 114 / 112
    low, high = chi2.ppf([0.025, 0.975], 600) / 600
    assert low < np.mean(squares) / expected < high


def test_the_same_seed_gives_the_same_and_the_order_does_not_matter() -> None:
    points, pixels, _ = matches(5, 80, noise_px=0.5)
    first, again = solve_pnp(points, pixels, K, seed=3), solve_pnp(points, pixels, K, seed=3)
    assert np.array_equal(first.camera_from_object, again.camera_from_object)
    turned = solve_pnp(points[::-1], pixels[::-1], K)
    assert np.array_equal(turned.inliers[::-1], first.inliers)
    assert np.abs(turned.camera_from_object - first.camera_from_object).max() < 1e-7


def test_noise_alone_has_no_pose() -> None:
    rng = np.random.default_rng(0)
    found = solve_pnp(rng.uniform(-1, 1, (40, 3)), rng.uniform(0, 480, (40, 2)), K, reach_px=0.01, iterations=50)
    assert found.inliers.sum() <= 5


def test_matches_that_are_not_finite_are_left_out() -> None:
    points, pixels, truth = matches(6, 30)
    points[3], pixels[7] = np.nan, np.inf
    found = solve_pnp(points, pixels, K)
    assert sorted(np.flatnonzero(~found.inliers)) == [3, 7]
    assert np.abs(off(found, truth)).max() < 1e-6


def test_bad_input() -> None:
    points, pixels, _ = matches(1, 20)
    with pytest.raises(DataError, match="4 finite"):
        solve_pnp(points[:3], pixels[:3], K)
    with pytest.raises(DataError, match="line"):
        solve_pnp(np.outer(np.arange(20.0), [1, 2, 3]), pixels, K)
    with pytest.raises(DataError, match="line"):
        solve_pnp(np.ones((20, 3)), pixels, K)
    with pytest.raises(SpecError, match="pixels"):
        solve_pnp(points, pixels[:5], K)
    with pytest.raises(SpecError, match="3 x 3"):
        solve_pnp(points, pixels, np.diag([600, 600, 1.0]))
    with pytest.raises(SpecError, match="reach_px"):
        solve_pnp(points, pixels, K, reach_px=0)
