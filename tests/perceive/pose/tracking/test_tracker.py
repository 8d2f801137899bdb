"""Tracking in made-up films: exactness, honesty when hidden, bad frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perceive.pose.tracking.depth_search import DepthSearch
from perceive.pose.tracking.sequence import AWAY, MovingSequence
from perceive.pose.tracking.shapes import bracket, can, carton
from perceive.pose.tracking.tracker import PoseTracker
from sensors.errors import DataError, SpecError, WiringError
from sensors.geometry import axis_angle_to_matrix, rotation_angle_rad

SIZE = (240, 320)


def test_a_moving_and_partly_covered_object_is_followed() -> None:
    film = MovingSequence(bracket(), 1, cover=((0, AWAY), (0.2, 0.3), (0.8, 0.3), (1.0, AWAY)), size_px=SIZE, threads=1)
    tracker = PoseTracker(film.model, threads=1)
    first = film.shot(0.0)
    tracker.start(first.camera_from_object, first.frame)
    least = 1.0
    for k in range(12):
        shot = film.shot(k / 15)
        said = tracker.update(shot.frame)
        least = min(least, shot.visible_share)
        assert said.valid, said.reason
        assert said.age_s == 0
        assert said.camera_from_object is not None
        assert np.linalg.norm(said.camera_from_object[:3, 3] - shot.camera_from_object[:3, 3]) < 0.004
        turn = rotation_angle_rad(said.camera_from_object[:3, :3], shot.camera_from_object[:3, :3])
        assert float(turn) < np.deg2rad(3)
    assert least < 0.85, "the plate did cover it"


def test_a_wrong_start_is_pulled_in_without_noise() -> None:
    film = MovingSequence(bracket(), 3, noise_m=1e-5, size_px=SIZE, threads=1)
    tracker = PoseTracker(film.model, threads=1)
    shot = film.shot(0.0)
    off = np.eye(4)
    off[:3, :3], off[:3, 3] = axis_angle_to_matrix([0.05, -0.06, 0.05]), [0.006, -0.005, 0.006]
    tracker.start(shot.camera_from_object @ off, shot.frame)
    tracker.update(shot.frame)
    for k in range(1, 4):
        shot = film.shot(k / 30)
        said = tracker.update(shot.frame)
    assert said.camera_from_object is not None
    assert said.valid
    np.testing.assert_allclose(said.camera_from_object[:3, 3], shot.camera_from_object[:3, 3], atol=0.0015)


def test_hidden_is_held_not_made_up_and_found_again() -> None:
    film = MovingSequence(
        carton(), 5, cover=((0, AWAY), (0.2, AWAY), (0.3, 1), (0.8, 1), (0.9, AWAY)), size_px=SIZE, threads=1
    )
    tracker = PoseTracker(film.model, DepthSearch([film.model], rotations=128, threads=1), search_every=1, threads=1)
    first = film.shot(0.0)
    tracker.start(first.camera_from_object, first.frame)
    measured, hidden, states = None, 0, set()
    for k in range(13):
        shot = film.shot(k / 10)
        said = tracker.update(shot.frame)
        if shot.visible_share < 0.05:
            hidden += 1
            states.add(said.state)
            assert not said.valid
            assert said.age_s > 0
            assert measured is not None
            assert said.camera_from_object is not None
            np.testing.assert_allclose(said.camera_from_object, measured, atol=1e-12)
        elif said.valid:
            measured = said.camera_from_object
    assert hidden >= 4
    assert states == {"uncertain", "lost"}
    assert said.valid, said.reason


def test_the_same_stamp_changes_nothing_and_an_older_one_is_refused() -> None:
    film = MovingSequence(can(), 1, size_px=SIZE, threads=1)
    tracker = PoseTracker(film.model, threads=1)
    first = film.shot(0.0)
    tracker.start(first.camera_from_object, first.frame)
    said = tracker.update(first.frame)
    assert tracker.update(film.shot(0.0).frame) is said
    tracker.update(film.shot(0.05).frame)
    with pytest.raises(DataError, match="later"):
        tracker.update(first.frame)
    tracker.reset()
    assert tracker.update(first.frame).camera_from_object is None


def test_frames_without_depth_are_counted_and_held() -> None:
    film = MovingSequence(bracket(), 1, size_px=SIZE, threads=1)
    tracker = PoseTracker(film.model, threads=1)
    shot = film.shot(0.0)
    tracker.start(shot.camera_from_object, shot.frame)
    before = tracker.update(shot.frame)
    blank = np.zeros(SIZE, np.float32)
    soon = tracker.update(replace(film.shot(0.1).frame, depth_m=blank))
    late = tracker.update(replace(film.shot(0.6).frame, depth_m=np.full(SIZE, np.nan, np.float32)))
    assert tracker.missed_frames == 2
    assert (soon.state, late.state) == ("uncertain", "lost")
    assert soon.age_s == pytest.approx(0.1)
    assert late.age_s == pytest.approx(0.6)
    assert late.camera_from_object is not None
    assert before.camera_from_object is not None
    np.testing.assert_allclose(late.camera_from_object, before.camera_from_object, atol=1e-12)


def test_bad_frames_and_arguments_are_typed_errors() -> None:
    film = MovingSequence(bracket(), 1, size_px=SIZE, threads=1)
    shot = film.shot(0.0)
    tracker = PoseTracker(film.model, threads=1)
    tracker.start(shot.camera_from_object, shot.frame)
    frame = film.shot(0.1).frame
    with pytest.raises(DataError, match="before"):
        tracker.update(replace(frame, intrinsics_px=2 * frame.intrinsics_px))
    with pytest.raises(DataError, match="millimetres"):
        tracker.update(replace(frame, depth_m=frame.depth_m * 1000))
    with pytest.raises(DataError, match="metres"):
        tracker.update(replace(frame, depth_m=(frame.depth_m * 1000).astype(np.uint16)))
    with pytest.raises(DataError, match="depth"):
        tracker.update(replace(frame, depth_m=frame.depth_m[::2]))
    with pytest.raises(DataError, match="rotation"):
        tracker.start(np.diag([2.0, 1, 1, 1]), frame)
    with pytest.raises(DataError, match="in front"):
        tracker.start(np.eye(4) + np.array([[0] * 4, [0] * 4, [0, 0, 0, -1], [0] * 4]), frame)
    assert tracker.update(frame).valid, "a refused frame changes nothing"
    with pytest.raises(SpecError):
        PoseTracker(film.model, points=3)
    with pytest.raises(WiringError):
        PoseTracker(film.model, DepthSearch([carton(77)], rotations=8, threads=1))
