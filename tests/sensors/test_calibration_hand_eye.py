"""Hand-eye calibration: exact on exact data for any mount, honest about its spread, and plain about what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.calibration.board import Board, Corners
from sensors.calibration.closed_form import (
    daniilidis,
    mean_pose,
    park_martin,
    relative_poses,
    translation,
    useful_pairs,
)
from sensors.calibration.hand_eye import Mounting, calibrate_hand_eye, make_problem
from sensors.calibration.lens import Lens
from sensors.calibration.rendering import random_views
from sensors.calibration.simulation import disturbed, exact_views, hand_poses
from sensors.calibration.views import View
from sensors.errors import DataError, SpecError
from sensors.geometry import (
    FloatArray,
    axis_angle_to_matrix,
    invert,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    pose,
    quaternion_to_matrix,
    rotation_angle_rad,
)

BOARD = Board()
LENS = Lens(640, 480, np.array([600.0, 605.0, 325.0, 236.0]), np.array([-0.1, 0.05, 0.001, -0.0005, 0.01]))
CAMERA = pose((0.06, -0.02, 0.05), (0.1, -0.2, 0.7, 0.68))
PLATE = pose((0.45, 0.1, 0.02), (0.98, 0.05, -0.1, 0.05))


def scene(
    mounting: Mounting, count: int = 12, seed: int = 0, noise_px: float = 0.0, camera: FloatArray = CAMERA,
    plate: FloatArray = PLATE, tilt_deg: float = 40.0,
) -> tuple[list[View], FloatArray]:  # fmt: skip
    """Views, and the hand's pose in each."""
    rng = np.random.default_rng(seed)
    seen = random_views(BOARD, LENS, count, rng, tilt_deg)
    return exact_views(BOARD, LENS, seen, rng, noise_px), hand_poses(mounting, camera, plate, seen)


def errors(found: FloatArray, truth: FloatArray) -> tuple[float, float]:
    """Metres and radians."""
    return float(np.linalg.norm(found[:3, 3] - truth[:3, 3])), float(rotation_angle_rad(found[:3, :3], truth[:3, :3]))


position = st.tuples(*[st.floats(-1.5, 1.5)] * 3)
turn = st.tuples(*[st.floats(-3.1, 3.1)] * 3).filter(lambda v: np.linalg.norm(v) < 3.1)


@st.composite
def mounts(draw: st.DrawFn) -> FloatArray:
    out = pose(draw(position))
    out[:3, :3] = axis_angle_to_matrix(draw(turn))
    return out


@given(mounts(), mounts(), st.integers(0, 1000))
@settings(max_examples=40)
@pytest.mark.parametrize("method", [park_martin, daniilidis])
def test_the_closed_forms_are_exact(method: object, x: FloatArray, w: FloatArray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    carriers = np.stack([pose(rng.normal(size=3), rng.normal(size=4)) for _ in range(6)])
    a, b = useful_pairs(relative_poses(carriers), relative_poses(invert(x) @ carriers @ w))
    found = method(a, b)  # type: ignore[operator]
    np.testing.assert_allclose(found, x, atol=1e-8)
    np.testing.assert_allclose(mean_pose(invert(carriers) @ x @ (invert(x) @ carriers @ w)), w, atol=1e-8)
    shrunk = b.copy()
    shrunk[:, :3, 3] /= 0.97
    moved, scale = translation(a, shrunk, x[:3, :3], free_scale=True)
    np.testing.assert_allclose(moved, x[:3, 3], atol=1e-8)
    assert scale == pytest.approx(0.97)


@given(mounts(), mounts(), st.integers(0, 100), st.sampled_from(Mounting))
@settings(max_examples=8)
def test_exact_data_give_any_mount_exactly(x: FloatArray, w: FloatArray, seed: int, mounting: Mounting) -> None:
    views, poses = scene(mounting, 6, seed, camera=x, plate=w)
    found = calibrate_hand_eye(views, poses, BOARD, LENS, mounting)
    assert max(errors(found.carrier_from_camera, x)) < 1e-6
    assert max(errors(found.carrier_from_board, w)) < 1e-6
    assert found.rms_px < 1e-5
    assert found.scale == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(pose(found.position_m, found.quaternion_xyzw), found.carrier_from_camera, atol=1e-12)


@pytest.mark.parametrize("mounting", Mounting)
def test_names_say_what_the_transforms_do(mounting: Mounting) -> None:
    """By hand, without the helper that made the scenes: a corner seen by the camera is the corner on the board."""
    views, poses = scene(mounting)
    found = calibrate_hand_eye(views, poses, BOARD, LENS, mounting)
    for view, base_from_hand in zip(views, poses, strict=True):
        if mounting is Mounting.EYE_IN_HAND:
            base_from_camera, base_from_board = base_from_hand @ found.carrier_from_camera, found.carrier_from_board
        else:
            base_from_camera, base_from_board = found.carrier_from_camera, base_from_hand @ found.carrier_from_board
        corner = np.append(BOARD.corners_m[view.corners.ids[0]], 1.0)
        seen = np.linalg.inv(base_from_camera) @ base_from_board @ corner
        np.testing.assert_allclose(LENS.project(seen[:3]), view.corners.pixels[0], atol=1e-5)


def test_the_jacobian_is_that_of_the_errors() -> None:
    views, poses = scene(Mounting.EYE_TO_HAND, 3)
    problem = make_problem(views, poses, BOARD, LENS)
    x, w, step = CAMERA @ pose((0.01, 0, 0)), PLATE @ pose((0, 0.01, 0), (0.02, 0, 0, 1)), 1e-6
    _, jacobian = problem.errors_and_jacobian(x, w, 1.1)

    def moved(start: FloatArray, change: FloatArray) -> FloatArray:
        out = start.copy()
        out[:3, :3] = start[:3, :3] @ axis_angle_to_matrix(change[:3])
        out[:3, 3] += change[3:]
        return out

    for unknown in range(13):
        ends = []
        for sign in (1, -1):
            change = np.zeros(13)
            change[unknown] = sign * step
            ends.append(problem.errors_and_jacobian(moved(x, change[:6]), moved(w, change[6:12]), 1.1 + change[12])[0])
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(jacobian[..., unknown], slope, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("mounting", Mounting)
@pytest.mark.parametrize("robot", [(0.0, 0.0), (3e-4, 5e-4)])
def test_standard_deviations_are_those_that_errors_make(mounting: Mounting, robot: tuple[float, float]) -> None:
    places, turns = [], []
    for seed in range(5):
        views, poses = scene(mounting, 12, seed, 0.3)
        said = disturbed(poses, np.random.default_rng(100 + seed), *robot)
        found = calibrate_hand_eye(views, said, BOARD, LENS, mounting)
        off_m = found.carrier_from_camera[:3, 3] - CAMERA[:3, 3]
        off_rad = matrix_to_axis_angle(CAMERA[:3, :3].T @ found.carrier_from_camera[:3, :3])
        places.append(off_m / found.position_std_m)
        turns.append(off_rad / found.rotation_std_rad)
    for scores in (places, turns):
        assert 0.6 < np.sqrt(np.mean(np.square(scores))) < 1.6


def test_an_uncertain_lens_makes_an_uncertain_mount() -> None:
    views, poses = scene(Mounting.EYE_IN_HAND, 10)
    exact = calibrate_hand_eye(views, poses, BOARD, LENS, Mounting.EYE_IN_HAND)
    deviations = np.array([2.0, 2.0, 3.0, 1.0, 0, 0, 0, 0, 0])
    for number in range(4):
        one = np.zeros(9)
        one[number] = deviations[number]
        covariance = np.diag(one**2)
        said = calibrate_hand_eye(views, poses, BOARD, LENS, Mounting.EYE_IN_HAND, lens_covariance=covariance)
        # The same by doing it: a lens that is off by one deviation.
        off = replace(LENS, intrinsics_px=LENS.intrinsics_px + one[:4])
        done = calibrate_hand_eye(views, poses, BOARD, off, Mounting.EYE_IN_HAND)
        moved_m = np.abs(done.carrier_from_camera[:3, 3] - exact.carrier_from_camera[:3, 3])
        np.testing.assert_allclose(said.position_std_m, moved_m, rtol=0.05, atol=2e-5)
        moved = matrix_to_axis_angle(exact.carrier_from_camera[:3, :3].T @ done.carrier_from_camera[:3, :3])
        np.testing.assert_allclose(said.rotation_std_rad, np.abs(moved), rtol=0.05, atol=5e-5)


def test_a_bumped_robot_is_left_out_by_name() -> None:
    views, poses = scene(Mounting.EYE_IN_HAND, 14, 3, 0.2)
    bumped = poses.copy()
    bumped[5] = bumped[5] @ pose((0.02, 0.0, 0.0))
    found = calibrate_hand_eye(views, bumped, BOARD, LENS, Mounting.EYE_IN_HAND)
    assert [fit.name for fit in found.fits if not fit.used] == ["0005"]
    assert found.fits[5].rms_px > 5
    assert any("'0005' was left out" in line for line in found.warnings)
    assert errors(found.carrier_from_camera, CAMERA)[0] < 1e-3
    assert all(fit.used for fit in calibrate_hand_eye(views, poses, BOARD, LENS, Mounting.EYE_IN_HAND).fits)


def test_wrong_corners_do_little() -> None:
    """Two corners in every view are read 6 px to the right; least squares would follow them."""
    views, poses = scene(Mounting.EYE_TO_HAND, 12, 4, 0.2)
    rng = np.random.default_rng(0)
    spoilt = []
    for view in views:
        pixels = view.corners.pixels.copy()
        pixels[rng.choice(len(pixels), 2, replace=False), 0] += 6.0
        spoilt.append(replace(view, corners=Corners(view.corners.ids, pixels)))
    found = calibrate_hand_eye(spoilt, poses, BOARD, LENS, Mounting.EYE_TO_HAND)
    assert all(fit.used for fit in found.fits)
    off_m, off_rad = errors(found.carrier_from_camera, CAMERA)
    assert off_m < 4e-4
    assert off_rad < 8e-4


@pytest.mark.parametrize("mounting", Mounting)
def test_turns_about_one_axis_are_refused_with_the_axis(mounting: Mounting) -> None:
    axis = np.array([0.0, 0.0, 1.0])
    seen = []
    for number, angle in enumerate(np.linspace(-0.6, 0.6, 8)):
        carrier = pose((0.01 * number, 0.02 * (number % 3), 0.0))
        carrier[:3, :3] = axis_angle_to_matrix(angle * axis)
        seen.append(carrier)
    carriers = np.stack(seen)
    # The camera a little above the board, at whatever mount makes it see it.
    camera_from_board = pose((-0.12, -0.09, 0.5))
    plate = invert(carriers[4]) @ CAMERA @ camera_from_board
    boards = invert(CAMERA) @ carriers @ plate
    views = exact_views(BOARD, LENS, list(boards), np.random.default_rng(0))
    poses = invert(carriers) if mounting is Mounting.EYE_IN_HAND else carriers
    with pytest.raises(DataError, match=r"one axis only, \(0\.00, 0\.00, 1\.00\) of the " + mounting.carrier):
        calibrate_hand_eye(views, poses, BOARD, LENS, mounting)


def test_other_motions_that_tell_nothing_are_refused() -> None:
    views, poses = scene(Mounting.EYE_IN_HAND, 6)
    shifted = np.stack([pose((0.1 * i, 0.0, 0.0)) for i in range(6)])
    with pytest.raises(DataError, match="shifting it tells nothing"):
        calibrate_hand_eye(views, shifted, BOARD, LENS, Mounting.EYE_IN_HAND)
    with pytest.raises(DataError, match="at least 3 poses"):
        calibrate_hand_eye(views[:2], poses[:2], BOARD, LENS, Mounting.EYE_IN_HAND)


def test_three_poses_are_enough_and_few_are_warned_of() -> None:
    views, poses = scene(Mounting.EYE_IN_HAND, 3, 1)
    found = calibrate_hand_eye(views, poses, BOARD, LENS, Mounting.EYE_IN_HAND)
    assert max(errors(found.carrier_from_camera, CAMERA)) < 1e-6
    assert any("only 3 poses" in line for line in found.warnings)
    little = calibrate_hand_eye(*scene(Mounting.EYE_IN_HAND, 12, 1, tilt_deg=4), BOARD, LENS, Mounting.EYE_IN_HAND)
    assert any("turn it more" in line for line in little.warnings)


def test_usual_mistakes_are_named() -> None:
    views, poses = scene(Mounting.EYE_IN_HAND, 8, 2, 0.2)
    with pytest.raises(DataError, match="mode should be eye_to_hand"):
        calibrate_hand_eye(views, invert(poses), BOARD, LENS, Mounting.EYE_IN_HAND)
    misread = poses.copy()  # a file that wrote w x y z, read as x y z w
    misread[:, :3, :3] = quaternion_to_matrix(np.roll(matrix_to_quaternion(poses[:, :3, :3]), 1, axis=-1))
    with pytest.raises(DataError, match="w x y z"):
        calibrate_hand_eye(views, misread, BOARD, LENS, Mounting.EYE_IN_HAND)
    with pytest.raises(DataError, match="out of step"):
        calibrate_hand_eye(views[1:], poses[:-1], BOARD, LENS, Mounting.EYE_IN_HAND)
    wrong = replace(BOARD, square_m=0.04, marker_m=0.03)
    with pytest.raises(DataError, match=r"squares of (29\.9|30\.0)"):
        calibrate_hand_eye(views, poses, wrong, LENS, Mounting.EYE_IN_HAND, max_rms_px=2.0)
    shuffled = poses[np.random.default_rng(0).permutation(len(poses))]
    with pytest.raises(DataError, match="its own pose"):
        calibrate_hand_eye(views, shuffled, BOARD, LENS, Mounting.EYE_IN_HAND)


def test_a_shrunk_print_is_noticed() -> None:
    views, poses = scene(Mounting.EYE_TO_HAND, 12, 5, 0.1)
    found = calibrate_hand_eye(views, poses, replace(BOARD, square_m=0.0303), LENS, Mounting.EYE_TO_HAND)
    assert found.scale == pytest.approx(0.03 / 0.0303, abs=4 * found.scale_std)
    assert any("30.0" in line and "measure a square" in line for line in found.warnings)
    true = calibrate_hand_eye(views, poses, BOARD, LENS, Mounting.EYE_TO_HAND)
    assert not any("measure a square" in line for line in true.warnings)


def test_shapes_are_checked() -> None:
    views, poses = scene(Mounting.EYE_IN_HAND, 4)
    with pytest.raises(SpecError, match="one pose a view"):
        calibrate_hand_eye(views, poses[:3], BOARD, LENS, Mounting.EYE_IN_HAND)
    with pytest.raises(SpecError, match="this resolution"):
        calibrate_hand_eye(views, poses, BOARD, replace(LENS, width=320, height=240), Mounting.EYE_IN_HAND)
