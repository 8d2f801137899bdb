"""What may be believed of a pose that was found, or held while a part was hidden: closed-form pictures."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.tracking.fit import DepthView
from perceive.pose.tracking.memory import SceneMemory
from perceive.pose.tracking.sequence import MovingSequence
from perceive.pose.tracking.settling import Settling
from perceive.pose.tracking.shapes import bracket, can, carton, jug
from perceive.pose.tracking.starts import shifted, turned_about
from perceive.pose.tracking.tracker import PoseTracker
from perceive.pose.tracking.turn import Turns, compare_turns
from perceive.pose.tracking.verdict import Limits, judge
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, rotation_angle_rad

CAMERA = np.array([300.0, 300.0, 159.5, 119.5])
SIZE = (240, 320)
UPRIGHT = np.array([np.pi / 2, 0.0, 0.0])  # z of the object along the picture's columns


def posed(turn: FloatArray, place: FloatArray) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axis_angle_to_matrix(turn), place
    return pose


def picture(*drawn: tuple[ObjectModel, FloatArray]) -> DepthView:
    depth = np.full(SIZE, np.float32(1.2))
    for model, pose in drawn:
        one = MeshRenderer(model, 1).depth(pose, CAMERA, (0, 0, SIZE[1], SIZE[0]))[0]
        depth = np.where((one > 0) & (one < depth), one, depth)
    return DepthView(depth, CAMERA)


def settling(model: ObjectModel) -> Settling:
    return Settling(model, 0.025, 0.002, 900, 160, True, 1)


def turns(model: ObjectModel, truth: FloatArray, asked: FloatArray) -> Turns:
    parts, view = settling(model), picture((model, truth))
    axis = np.array([0.0, 0.0, 1.0])
    return compare_turns(view, asked, axis, np.zeros(3), parts.symmetries, partial(parts.see, view), 0.006)


def about_z(angle_deg: float) -> FloatArray:
    pose = posed(UPRIGHT, np.array([0.0, 0.0, 0.5]))
    return turned_about(pose, np.zeros(3), np.array([0.0, 0.0, np.deg2rad(angle_deg)]))


def handle_depth(pose: FloatArray) -> float:
    return float((pose[:3, :3] @ [0.06, 0.0, 0.0] + pose[:3, 3])[2])


def test_a_handle_in_the_wrong_place_is_looked_through() -> None:
    model, parts = jug(), settling(jug())
    side_on = about_z(0.0)
    view, known = picture((model, side_on)), 1e-6 * np.eye(6)
    wrong = about_z(180.0)
    for pose, through in ((side_on, False), (wrong, True)):
        side = parts.see(view, pose)
        assert side is not None
        free = judge(view, side, pose, known, Limits(agree=0.5, outline=0.0, through=1.0), 0.006)
        assert free.state == "tracked"
        assert (free.through_share > 0.03) == through
        strict = judge(view, side, pose, known, Limits(agree=0.5, outline=0.0, through=0.01), 0.006)
        assert (strict.state == "tracked") != through


def test_a_hidden_handle_leaves_the_turn_open_and_a_seen_one_settles_it() -> None:
    away = max((about_z(a) for a in range(0, 360, 10)), key=handle_depth)  # behind the body
    assert handle_depth(away) > 0.55
    hidden = turns(jug(), away, away)
    assert hidden.ambiguous
    assert hidden.better is None
    seen = turns(jug(), about_z(0.0), about_z(0.0))
    assert not seen.ambiguous
    assert seen.better is None
    corrected = turns(jug(), about_z(0.0), about_z(60.0)).better
    assert corrected is not None
    assert float(rotation_angle_rad(corrected[:3, :3], about_z(0.0)[:3, :3])) < np.deg2rad(16)


@pytest.mark.parametrize("model", [can(), carton(), bracket()])
def test_turns_that_cannot_or_can_always_be_seen_are_not_called_open(model: ObjectModel) -> None:
    pose = posed(np.array([0.7, 0.5, 0.3]), np.array([0.0, 0.0, 0.5]))
    said = turns(model, pose, pose)
    assert said.better is None
    assert not said.ambiguous


def test_what_stood_there_before_is_remembered_also_from_another_place_of_the_camera() -> None:
    model, parts = carton(), settling(carton())
    here = posed(np.array([0.7, 0.5, 0.3]), np.array([-0.08, 0.0, 0.5]))
    other = posed(np.array([0.2, -0.5, 0.9]), np.array([0.1, 0.0, 0.7]))
    memory = SceneMemory()
    memory.keep(parts.renderer, picture((model, here), (model, other)), 0.0, np.eye(4), here)
    base_from_camera = posed(np.array([0.0, 0.05, 0.0]), np.array([-0.03, 0.01, 0.0]))
    shares = []
    for pose in (other, here, posed(np.array([0.7, 0.5, 0.3]), np.array([0.0, 0.06, 0.5]))):
        seen = np.linalg.inv(base_from_camera) @ pose
        view = picture((model, seen))
        side = parts.see(view, seen)
        assert side is not None
        shares.append(memory.known_share(view, side, base_from_camera, seen, 0.006))
    assert shares[0] > 0.8, "a thing of the same shape"
    assert max(shares[1:]) < 0.1, "the object's own place, and a new one"
    memory.forget()
    assert memory.known_share(view, side, base_from_camera, seen, 0.006) == 0.0


class Told(PoseEstimator):
    """Proposes the poses that it was told, whatever is seen."""

    def __init__(self, model: ObjectModel) -> None:
        self._number = model.number
        self.poses: list[FloatArray] = []

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self._number,)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        nothing = np.zeros((0, 4, 4)), np.zeros(0)
        return [PoseEstimate(number, pose, 1.0, None, *nothing) for pose in self.poses[:most]]


def test_a_double_that_lay_there_before_is_not_taken_for_the_lost_object() -> None:
    model = carton()
    here = posed(np.array([0.7, 0.5, 0.3]), np.array([-0.08, 0.0, 0.5]))
    double = posed(np.array([0.2, -0.5, 0.9]), np.array([0.1, 0.0, 0.7]))
    new = posed(np.array([0.7, 0.5, 0.3]), np.array([-0.05, 0.08, 0.5]))
    told = Told(model)
    tracker = PoseTracker(model, told, search_every=1, hue=None, threads=1)

    def frame(stamp_s: float, *drawn: FloatArray) -> RgbdFrame:
        depth_m = picture(*((model, pose) for pose in drawn)).depth_m
        grey = np.full((*SIZE, 3), 128, np.uint8)
        return RgbdFrame(stamp_s=stamp_s, rgb=grey, depth_m=depth_m, intrinsics_px=CAMERA, base_from_camera=np.eye(4))

    def found(stamp_s: float, *drawn: FloatArray) -> FloatArray | None:
        """Where it is followed to in a second of frames."""
        for k in range(10):
            said = tracker.update(frame(stamp_s + 0.1 * k, *drawn))
            if said.valid:
                return said.camera_from_object
        return None

    # Positive control: who knows nothing of the scene takes the double.
    told.poses = [double]
    taken = found(0.0, double)
    assert taken is not None
    assert np.linalg.norm(taken[:3, 3] - double[:3, 3]) < 0.01
    tracker.reset()
    tracker.start(here, frame(2.0, here, double))
    for k in range(5):
        assert tracker.update(frame(2.0 + 0.1 * k, here, double)).valid
    assert found(3.0, double) is None, "the object is gone, its double lies there as before"
    told.poses = [double, new]
    again = found(5.0, double, new)
    assert again is not None
    assert np.linalg.norm(again[:3, 3] - new[:3, 3]) < 0.01


def test_starts_reach_as_far_as_the_time_allows() -> None:
    pose = posed(np.array([0.7, 0.5, 0.3]), np.array([0.0, 0.0, 0.5]))
    middle = np.array([0.01, 0.02, 0.03])
    near, far = (shifted(pose, middle, passed_s) for passed_s in (0.03, 1.0))
    moved = [np.linalg.norm(one @ [*middle, 1.0] - pose @ [*middle, 1.0], axis=-1) for one in (near, far)]
    assert moved[0].max() == pytest.approx(0.01, rel=0.02)
    assert moved[1].max() == pytest.approx(0.05, rel=0.02)
    assert moved[1][-6:].max() < 1e-9, "turns leave the middle where it is"


def test_a_step_of_an_unknown_velocity_is_followed_at_ten_hertz() -> None:
    film = MovingSequence(carton(), 4, size_px=SIZE, threads=1)
    tracker = PoseTracker(film.model, threads=1)
    first = film.shot(0.0)
    tracker.start(first.camera_from_object, first.frame)
    for k in range(4):
        said = tracker.update(film.shot(0.1 * k).frame)
        assert said.valid, said.reason
    assert said.camera_from_object is not None
    assert np.linalg.norm(said.camera_from_object[:3, 3] - film.truth(0.3)[:3, 3]) < 0.005
