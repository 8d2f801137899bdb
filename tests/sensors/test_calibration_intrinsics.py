"""Intrinsics: exact on exact data, honest about how sure they are, and loud about what views lack."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from sensors.calibration.board import Board, Corners
from sensors.calibration.intrinsics import calibrate_intrinsics, covered_cells
from sensors.calibration.lens import Lens
from sensors.calibration.pnp import board_poses
from sensors.calibration.rendering import BoardRenderer, random_views
from sensors.calibration.simulation import exact_views
from sensors.calibration.views import View, find_view
from sensors.errors import DataError, SpecError
from sensors.geometry import pose, rotation_angle_rad

BOARD = Board()
LENS = Lens(640, 480, np.array([600.0, 605.0, 325.0, 236.0]), np.array([-0.1, 0.05, 0.001, -0.0005, 0.01]))


def views(count: int = 12, seed: int = 0, noise_px: float = 0.0, lens: Lens = LENS) -> list[View]:
    rng = np.random.default_rng(seed)
    return exact_views(BOARD, lens, random_views(BOARD, lens, count, rng), rng, noise_px)


def test_exact_corners_give_the_camera() -> None:
    found = calibrate_intrinsics(views(), BOARD)
    # OpenCV takes pixels as float32, which is 3e-5 px here.
    np.testing.assert_allclose(found.lens.intrinsics_px, LENS.intrinsics_px, atol=2e-3)
    np.testing.assert_allclose(found.lens.distortion, LENS.distortion, atol=5e-4)
    assert found.rms_px < 1e-4
    assert all(fit.used and fit.rms_px < 1e-4 for fit in found.fits)
    assert not found.warnings


def test_standard_deviations_are_those_that_noise_makes() -> None:
    scores = []
    for seed in range(6):
        found = calibrate_intrinsics(views(12, seed, 0.3), BOARD)
        assert found.rms_px == pytest.approx(0.3 * np.sqrt(2), rel=0.1)
        off = np.concatenate([found.lens.intrinsics_px - LENS.intrinsics_px, found.lens.distortion - LENS.distortion])
        # OpenCV's own deviations are the diagonal of the covariance, which is computed from other formulas.
        stated = np.concatenate([found.intrinsics_std_px, found.distortion_std])
        np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), stated, rtol=0.02)
        scores.append(off / stated)
    assert 0.7 < np.sqrt(np.mean(np.square(scores))) < 1.4


def test_pictures_give_the_camera() -> None:
    rng = np.random.default_rng(3)
    renderer = BoardRenderer(BOARD, LENS)
    seen = [
        find_view(renderer.render(matrix, rng, 2.0), BOARD, str(i))
        for i, matrix in enumerate(random_views(BOARD, LENS, 10, rng))
    ]
    found = calibrate_intrinsics(seen, BOARD)
    assert np.abs(found.lens.intrinsics_px - LENS.intrinsics_px).max() < 1.0
    assert found.rms_px < 0.12


def test_fewer_coefficients_are_held_at_zero() -> None:
    flat = replace(LENS, distortion=np.array([-0.1, 0.02, 0.0, 0.0, 0.0]))
    found = calibrate_intrinsics(views(lens=flat), BOARD, coefficients=2)
    np.testing.assert_allclose(found.lens.distortion, flat.distortion, atol=1e-4)
    assert (found.lens.distortion[2:] == 0).all()
    assert (found.distortion_std[2:] == 0).all()
    straight = calibrate_intrinsics(views(lens=flat), BOARD, coefficients=0)
    assert (straight.lens.distortion == 0).all()
    assert straight.rms_px > 0.1  # the control: the bend is there and is not explained
    with pytest.raises(SpecError, match="0, 2, 4 or 5"):
        calibrate_intrinsics(views(), BOARD, coefficients=3)


def test_a_view_that_does_not_fit_is_left_out_by_name() -> None:
    seen = views(12, 1, 0.1)
    bent = seen[4].corners.pixels + 4.0 * np.random.default_rng(0).normal(size=seen[4].corners.pixels.shape)
    spoilt = [*seen]
    spoilt[4] = replace(seen[4], corners=Corners(seen[4].corners.ids, bent))
    found = calibrate_intrinsics(spoilt, BOARD)
    assert [fit.name for fit in found.fits if not fit.used] == ["0004"]
    assert found.fits[4].rms_px > 2
    assert any("'0004' was left out" in line for line in found.warnings)
    assert np.isnan(found.camera_from_board[4]).all()
    assert np.abs(found.lens.intrinsics_px - LENS.intrinsics_px).max() < 1.5
    # The control: all views agree when none is spoilt.
    assert all(fit.used for fit in calibrate_intrinsics(seen, BOARD).fits)


def test_too_few_views_and_views_of_two_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="at least 6 views"):
        calibrate_intrinsics(views(5), BOARD)
    with pytest.raises(DataError, match="at least 3 views"):
        calibrate_intrinsics(views(2), BOARD, least_views=1)
    with pytest.raises(DataError, match="640 x 480"):
        calibrate_intrinsics([*views(7), replace(views(1)[0], width=320, height=240)], BOARD)
    with pytest.raises(DataError, match="views of the board"):
        calibrate_intrinsics([], BOARD)


def test_poor_coverage_and_flat_views_are_warned_of() -> None:
    width_m, height_m = BOARD.size_m
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-0.02, 0.02, (8, 2))
    flat = [pose((x - width_m / 2 - 0.1, y - height_m / 2, 0.8 + 0.02 * i)) for i, (x, y) in enumerate(shifts)]
    found = calibrate_intrinsics(exact_views(BOARD, LENS, flat, rng, 0.05), BOARD, coefficients=0)
    said = "\n".join(found.warnings)
    assert "% of the picture" in said
    assert "right" in said
    assert re.search("tilt varies by only [0-5] degrees", said)
    assert found.coverage < 0.5


def test_cells_are_counted_once() -> None:
    lone = View("a", 80, 60, Corners(np.arange(2), np.array([[0.0, 0.0], [79.0, 59.0]])))
    cells = covered_cells([lone, lone], 80, 60)
    assert cells.shape == (6, 8)
    assert cells.sum() == 2
    assert cells[0, 0] == cells[5, 7] == 1


def test_the_pose_of_a_board_is_exact_and_its_mirror_is_second() -> None:
    rng = np.random.default_rng(2)
    for matrix in random_views(BOARD, LENS, 6, rng):
        (view,) = exact_views(BOARD, LENS, [matrix], rng)
        poses = board_poses(LENS, BOARD, view)
        np.testing.assert_allclose(poses[0], matrix, atol=1e-6)
        assert all(rotation_angle_rad(other[:3, :3], matrix[:3, :3]) > 1e-3 for other in poses[1:])
