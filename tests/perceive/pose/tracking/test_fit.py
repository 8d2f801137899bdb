"""The fit and the motion against closed forms; the parts' own controls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.pose.raster import MeshRenderer
from perceive.pose.tracking.fit import DepthView, fit
from perceive.pose.tracking.motion import DampedMotion
from perceive.pose.tracking.shapes import bracket, carton
from perceive.pose.tracking.side import see
from perceive.pose.tracking.verdict import Limits, judge
from sensors.geometry import FloatArray, axis_angle_to_matrix, rotation_angle_rad

CAMERA = np.array([300.0, 310.0, 159.5, 119.5])
SIZE = (240, 320)
RENDERER = MeshRenderer(bracket(), 1)


def posed(turn: FloatArray, place: FloatArray) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axis_angle_to_matrix(turn), place
    return pose


def picture(pose: FloatArray, renderer: MeshRenderer = RENDERER) -> DepthView:
    depth = renderer.depth(pose, CAMERA, (0, 0, SIZE[1], SIZE[0]))[0]
    return DepthView(np.where(depth > 0, depth, np.float32(1.2)), CAMERA)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_a_small_motion_is_undone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = posed(np.array([0.7, 0.5, 0.3]), np.array([0.03, -0.02, 0.5]))
    off = posed(0.04 * rng.uniform(-1, 1, 3), 0.005 * rng.uniform(-1, 1, 3))
    side = see(RENDERER, truth @ off, CAMERA, SIZE, 800, 120)
    assert side is not None
    done = fit(picture(truth), side, (truth @ off)[None], [0.02] * 4 + [0.008] * 6, 0.0005, 0.07)
    found = done.camera_from_object[0]
    assert np.linalg.norm(found[:3, 3] - truth[:3, 3]) < 0.0015
    assert float(rotation_angle_rad(found[:3, :3], truth[:3, :3])) < 0.012


def test_the_outline_fixes_what_a_flat_face_does_not() -> None:
    flat = MeshRenderer(carton(), 1)
    truth = posed(np.zeros(3), np.array([0.0, 0.0, 0.5]))  # one face, straight on: nothing says where along it
    start = posed(np.zeros(3), np.array([0.006, 0.0, 0.5]))
    left_m = {}
    for rim in (0, 120):
        side = see(flat, start, CAMERA, SIZE, 800, rim)
        assert side is not None
        done = fit(picture(truth, flat), side, start[None], [0.02] * 6, 0.0005, 0.07)
        left_m[rim] = abs(done.camera_from_object[0, 0, 3])
        spread = np.sqrt(done.covariance[0, 3, 3])
        assert spread > 0.02 if rim == 0 else spread < 0.005
    assert left_m[0] > 0.004
    assert left_m[120] < 0.001


def test_covered_is_left_out_and_looked_through_is_not() -> None:
    pose = posed(np.array([0.7, 0.5, 0.3]), np.array([0.0, 0.0, 0.5]))
    view = picture(pose)
    side = see(RENDERER, pose, CAMERA, SIZE, 800, 120)
    assert side is not None
    known = 1e-6 * np.eye(6)
    assert judge(view, side, pose, known, Limits(), 0.006).state == "tracked"
    half = view.depth_m.copy()
    half[:, :160] = 0.3
    covered = judge(DepthView(half, CAMERA), side, pose, known, Limits(), 0.006)
    assert covered.state == "tracked"
    assert 0.2 < covered.visible_share < 0.8
    assert judge(DepthView(half, CAMERA), side, pose, known, Limits(), 0.006, False).state != "tracked"
    half[:, :160] = 0.9
    assert judge(DepthView(half, CAMERA), side, pose, known, Limits(), 0.006).state != "tracked"
    assert judge(DepthView(np.full(SIZE, np.float32(0.3)), CAMERA), side, pose, known, Limits(), 0.006).reason[:6] == (
        "hidden"
    )


def test_prediction_follows_the_clock_and_is_damped() -> None:
    motion = DampedMotion(0.3)
    for k in range(4):
        stamp_s = 0.1 * k
        motion.moved(posed(np.array([0, 0, 1.0 * stamp_s]), np.array([0.2 * stamp_s, 0, 1])), stamp_s)
    near, far = motion.predict(0.31), motion.predict(100.0)
    np.testing.assert_allclose(near[:3, 3], [0.062, 0, 1], atol=1e-4)
    np.testing.assert_allclose(near[:3, :3], axis_angle_to_matrix([0, 0, 0.31]), atol=1e-3)
    assert far[0, 3] == pytest.approx(0.06 + 0.2 * 0.3)
    still = DampedMotion(0.0)
    still.moved(near, 0.0)
    still.moved(far, 0.1)
    np.testing.assert_array_equal(still.predict(0.2), far)


def test_an_object_out_of_view_has_no_side() -> None:
    assert see(RENDERER, posed(np.zeros(3), np.array([5.0, 0, 0.5])), CAMERA, SIZE, 800, 120) is None
