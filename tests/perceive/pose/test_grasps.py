"""Grasps of meshes, and which of them the hand can get at."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceive.pose.grasp_choice import Reach, reachable
from perceive.pose.grasps import Grasps, Gripper, grasps_of, symmetric
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix

HALF = np.array([0.06, 0.02, 0.03])  # a box that fits the hand along y and z only
FACES = [
    (0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4),
    (1, 5, 7), (1, 7, 3),
]  # fmt: skip
REACH = Reach((0.25, -0.35, 0.005), (0.75, 0.35, 0.5))
NOTHING = np.zeros((0, 3))


def box(half: FloatArray = HALF, symmetries: Symmetries | None = None, number: int = 1) -> ObjectModel:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return ObjectModel.make(number, "box", signs * half, FACES, symmetries=symmetries)


def can(radius: float, height: float) -> ObjectModel:
    angle = 2 * math.pi * np.arange(48) / 48
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    low, high = (np.c_[ring, np.full(48, side * height / 2)] for side in (-1, 1))
    vertices = np.concatenate([low, high, [[0, 0, -height / 2], [0, 0, height / 2]]])
    k, n = np.arange(48), (np.arange(48) + 1) % 48
    faces = np.concatenate(
        [
            np.c_[k, n, n + 48],
            np.c_[k, n + 48, k + 48],
            np.c_[n, k, np.full(48, 96)],
            np.c_[k + 48, n + 48, np.full(48, 97)],
        ]
    )
    return ObjectModel.make(
        2, "can", vertices, faces, symmetries=Symmetries.make((), [ContinuousSymmetry.make((0, 0, 1))])
    )


def quick(model: ObjectModel, friction: float = 0.5, seed: int = 0) -> Grasps:
    return grasps_of(model, friction=friction, samples=500, seed=seed)


@cache
def of_box() -> Grasps:
    return quick(box())


@cache
def of_can() -> Grasps:
    return quick(can(0.025, 0.08))


def down(yaw: float = 0.0) -> FloatArray:
    out = np.eye(4)
    out[:3, :3] = axis_angle_to_matrix((0.0, 0.0, yaw)) @ np.diag([1.0, -1.0, -1.0])
    out[:3, 3] = (0.4, 0.0, 0.4)
    return out


def lying(height: float, yaw: float = 0.3) -> FloatArray:
    out = np.eye(4)
    out[:3, :3] = axis_angle_to_matrix((0.0, 0.0, yaw))
    out[:3, 3] = (0.5, -0.1, height)
    return out


def test_the_fingers_of_a_box_close_across_its_narrow_sides() -> None:
    grasps = of_box()
    assert len(grasps) > 20
    closing = np.abs(grasps.object_from_tool[:, :3, 1])
    across = closing.argmax(1)
    assert set(across) == {1, 2}  # 12 cm do not fit between the fingers
    # Within the cone of friction 0.5 of the normal: cos 26.6 degrees; and as wide as the box is along that line.
    assert closing.max(1).min() >= 1 / math.hypot(1, 0.5) - 1e-9
    np.testing.assert_allclose(grasps.width_m, 2 * HALF[across] / closing.max(1), atol=1e-4)
    assert grasps.width_m.max() <= Gripper().most_m
    assert (np.diff(grasps.quality) <= 0).all()
    assert 0 < grasps.quality.min() <= grasps.quality.max() <= 1


def test_less_friction_wants_straighter_grasps() -> None:
    closing = np.abs(quick(box(), friction=0.1).object_from_tool[:, :3, 1]).max(1)
    assert closing.min() >= 1 / math.hypot(1, 0.1) - 1e-9
    assert np.abs(of_box().object_from_tool[:, :3, 1]).max(1).min() < 0.97  # and with more, slanted ones are taken


def test_grasps_of_a_can_pass_through_its_axis() -> None:
    grasps = of_can()
    # The widest chord across a circle is its diameter; a chord within the cone is hardly shorter.
    sideways = np.abs(grasps.object_from_tool[:, 2, 1]) < 0.3
    off = np.linalg.norm(grasps.object_from_tool[sideways, :2, 3], axis=1)
    approach_along_axis = np.abs(grasps.object_from_tool[sideways, 2, 2]) > 0.9
    assert approach_along_axis.any()
    assert off[approach_along_axis].max() < 0.025 * math.sin(math.atan(0.5)) + 3e-3  # it has corners


def test_no_hand_is_inside_the_object() -> None:
    hand, half = Gripper(), HALF
    grasps = of_box()
    low, high = hand.boxes(grasps.width_m / 2)
    share = np.linspace(0, 1, 7)
    grid = np.stack(np.meshgrid(share, share, share), -1).reshape(-1, 3)
    for pose, lows, highs in zip(grasps.object_from_tool, low, high, strict=True):
        points = np.concatenate([a + grid * (b - a) for a, b in zip(lows, highs, strict=True)])
        inside = (np.abs(points @ pose[:3, :3].T + pose[:3, 3]) < half - 6e-3).all(1)
        assert not inside.any()


def test_equal_seeds_give_equal_grasps() -> None:
    first, again, other = quick(box()), of_box(), quick(box(), seed=3)
    np.testing.assert_array_equal(first.object_from_tool, again.object_from_tool)
    assert len(other) != len(first) or not np.array_equal(other.object_from_tool, first.object_from_tool)


def test_what_symmetries_make_of_a_grasp_is_no_further_grasp() -> None:
    plain = quick(ObjectModel.make(2, "can", can(0.025, 0.08).vertices_m, can(0.025, 0.08).faces))
    assert len(of_can()) < len(plain)
    # No two of them are images of each other.
    images = symmetric(of_can().object_from_tool, can(0.025, 0.08).symmetries)
    for number, pose in enumerate(of_can().object_from_tool):
        others = np.delete(images, number, 0).reshape(-1, 4, 4)
        near = np.linalg.norm(others[:, :3, 3] - pose[:3, 3], axis=1) < 1e-3
        alike = np.einsum("nij,ij->n", others[:, :3, :3], pose[:3, :3]) > 2.999
        assert not (near & alike).any()


def test_everywhere_is_every_image_of_every_grasp() -> None:
    model = can(0.025, 0.08)
    grasps = of_can()
    whole = grasps.everywhere(model.symmetries)
    turns = model.symmetries.transforms(0.13)
    assert len(whole) == len(grasps) * len(turns) * 2
    moved = turns[7] @ grasps.object_from_tool[3] @ np.diag([-1.0, -1.0, 1.0, 1.0])
    assert (np.abs(whole.object_from_tool - moved).max((1, 2)) < 1e-9).any()


@pytest.mark.parametrize("half", [(0.05, 0.06, 0.07), (0.002, 0.0025, 0.001)])
def test_what_no_grasp_fits_is_said(half: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="in metres"):
        grasps_of(box(np.array(half)))


def test_a_model_in_millimetres_is_refused() -> None:
    with pytest.raises(DataError, match="in metres"):
        grasps_of(box(1000 * HALF))


def test_settings_are_checked() -> None:
    with pytest.raises(SpecError, match="most_m"):
        Gripper(most_m=0.1)
    with pytest.raises(SpecError, match="friction"):
        quick(box(), friction=0.0)
    with pytest.raises(SpecError, match="low_m < high_m"):
        Reach((0, 0, 0), (1, 1, 0))


@settings(max_examples=15, deadline=None)
@given(yaw=st.floats(-math.pi, math.pi), x=st.floats(0.4, 0.6), y=st.floats(-0.2, 0.2))
def test_a_box_on_the_table_is_taken_from_above_anywhere(yaw: float, x: float, y: float) -> None:
    pose = lying(HALF[2], yaw)
    pose[:2, 3] = x, y
    found = reachable(of_box().everywhere(box().symmetries), pose, REACH, Gripper(), NOTHING, down())
    assert len(found.width_m) == 8
    tools = found.base_from_tool
    assert (-tools[:, 2, 2] >= math.cos(REACH.most_tilt_rad) - 1e-9).all()
    low, high = Gripper().boxes(np.full(8, 0.04))
    for tool, lows, highs in zip(tools, low, high, strict=True):  # no corner of the hand is in the table
        corners = np.array(
            [[(lows, highs)[i][k][j] for j, i in enumerate(b)] for k in range(3) for b in np.ndindex(2, 2, 2)]
        )
        assert (corners @ tool[:3, :3].T + tool[:3, 3])[:, 2].min() > 0.0019
    assert (np.abs(tools[:, :3, 3] - pose[:3, 3]) < 0.07).all()


def test_obstacles_rule_grasps_out() -> None:
    grasps, pose = of_box().everywhere(box().symmetries), lying(HALF[2], 0.0)
    free = reachable(grasps, pose, REACH, Gripper(), NOTHING, down(), most=10_000)
    # A wall beside the box where a finger would come down.
    wall = np.stack(np.meshgrid(np.linspace(0.35, 0.65, 60), [-0.1 + HALF[1] + 0.02], np.linspace(0.01, 0.15, 30)), -1)
    beside = reachable(grasps, pose, REACH, Gripper(), wall.reshape(-1, 3), down(), most=10_000)
    assert len(beside.width_m) < 0.7 * len(free.width_m)
    assert beside.why_not["obstacles"] == len(free.width_m) - len(beside.width_m)
    # A plate over it: nothing is left from above. A plate far away: nothing changes.
    plate = np.stack(np.meshgrid(np.linspace(0.3, 0.7, 80), np.linspace(-0.3, 0.1, 80), [0.09]), -1).reshape(-1, 3)
    assert not len(reachable(grasps, pose, REACH, Gripper(), plate, down()).width_m)
    away = reachable(grasps, pose, REACH, Gripper(), plate + np.array([0, 0, 1.0]), down(), most=10_000)
    np.testing.assert_array_equal(away.base_from_tool, free.base_from_tool)


def test_out_of_the_workspace_and_under_the_table_nothing_is_reachable() -> None:
    grasps = of_box().everywhere(box().symmetries)
    far = lying(HALF[2])
    far[0, 3] = 0.9
    found = reachable(grasps, far, REACH, Gripper(), NOTHING, down())
    assert not len(found.width_m)
    assert found.why_not["workspace"] > 0
    sunk = reachable(grasps, lying(-0.03), REACH, Gripper(), NOTHING, down())
    assert not len(sunk.width_m)


def test_straight_down_and_with_little_turn_comes_first() -> None:
    found = reachable(of_box().everywhere(box().symmetries), lying(HALF[2], 0.0), REACH, Gripper(), NOTHING, down())
    best = found.base_from_tool[0]
    assert best[2, 2] < -0.95
    turned = np.arccos(np.clip((np.trace(best[:3, :3] @ down()[:3, :3].T) - 1) / 2, -1, 1))
    assert turned < math.radians(100)
    # A hand that is turned the other way takes the same place with its fingers exchanged.
    other = reachable(
        of_box().everywhere(box().symmetries), lying(HALF[2], 0.0), REACH, Gripper(), NOTHING, down(math.pi)
    )
    np.testing.assert_allclose(other.base_from_tool[0][:3, 0], -best[:3, 0], atol=0.3)
