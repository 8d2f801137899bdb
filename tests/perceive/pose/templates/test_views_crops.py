"""Where templates are looked at from, and what a cut-out shows."""

from __future__ import annotations

import numpy as np
import pytest

from perceive.pose.templates.crops import SightCamera, cut, round_side
from perceive.pose.templates.views import turn_rotations, view_rotations
from sensors.errors import SpecError
from sensors.geometry import axis_angle_to_matrix


def test_views_are_rotations_spread_over_the_sphere() -> None:
    rotation = view_rotations(162)
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotation), 1)
    sight = rotation[:, 2]
    assert np.allclose(sight.mean(0), 0, atol=0.01)
    angle = np.arccos(np.clip(sight @ sight.T - 2 * np.eye(162), -1, 1)).min(1)
    even = np.sqrt(4 * np.pi / 162)
    assert angle.min() > 0.7 * even
    assert angle.max() < 1.2 * even


def test_turns_go_round_once() -> None:
    turn = turn_rotations(8)
    assert np.allclose(turn[1], axis_angle_to_matrix([0, 0, np.pi / 4]))
    assert np.allclose(turn[7] @ turn[1], np.eye(3))


@pytest.mark.parametrize("make", [view_rotations, turn_rotations])
def test_none_is_refused(make: object) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        make(0)  # type: ignore[operator]  # wrong on purpose


def test_a_cut_out_shows_the_ball_in_its_middle_at_its_distance_after_any_turn() -> None:
    camera = np.array([300.0, 300.0, 99.5, 79.5])
    u, v = np.meshgrid(np.arange(200), np.arange(160))
    ray = np.stack([(u - 99.5) / 300, (v - 79.5) / 300, np.ones_like(u)], -1)
    centre, radius = np.array([0.12, -0.08, 1.0]), 0.06
    a, b, c = (ray**2).sum(-1), ray @ centre, (centre**2).sum() - radius**2
    hit = b**2 - a * c > 0
    depth = np.where(hit, (b - np.sqrt(np.maximum(b**2 - a * c, 0))) / a, 2.0).astype(np.float32)
    rgb = np.where(hit[..., None], (200, 30, 30), (10, 10, 90)).astype(np.uint8)
    away = float(np.linalg.norm(centre))
    at = centre[:2] / centre[2] * 300 + (99.5, 79.5)
    sight = SightCamera.towards(at[0], at[1], camera, away, 0.16 / away)
    crops = cut(rgb, depth, hit, camera, sight, 4, np.zeros((1, 2)), 33)
    for turn in range(4):
        assert crops.mask[turn, 16, 16]
        assert not crops.mask[turn, 0, 0]
        assert crops.empty[turn, 0, 0]
        assert crops.depth_m[turn, 16, 16] == pytest.approx(-radius, abs=2e-3)
        assert crops.rgb[turn, 16, 16, 0] > 0.7
        assert crops.mask[turn].mean() == pytest.approx(np.pi * radius**2 / 0.16**2, rel=0.05)


def test_a_shift_moves_the_cut_out_and_a_turn_turns_it() -> None:
    camera = np.array([100.0, 100.0, 49.5, 49.5])
    mask = np.zeros((100, 100), np.bool_)
    mask[45:55, 60:70] = True  # right of the middle
    picture = np.zeros((100, 100, 3), np.uint8)
    sight = SightCamera.towards(49.5, 49.5, camera, 1.0, 0.5)
    crops = cut(
        picture, np.ones((100, 100), np.float32), mask, camera, sight, 4, np.array([[0.0, 0.0], [0.15, 0.0]]), 50
    )
    middle = [np.argwhere(m).mean(0) for m in crops.mask[::2]]
    assert middle[0] == pytest.approx([24.5, 39.5], abs=0.6)
    # The camera turns clockwise by a quarter, so what was right of the middle is above it.
    assert middle[1] == pytest.approx([9.5, 24.5], abs=0.6)
    assert np.argwhere(crops.mask[1]).mean(0) == pytest.approx([24.5, 24.5], abs=0.6)


def test_the_side_of_a_round_crop_turns_with_the_mask() -> None:
    camera = np.array([200.0, 200.0, 99.5, 99.5])
    v, u = np.mgrid[0:200, 0:200] - 99.5
    sides = []
    for angle in np.linspace(0, np.pi, 7):
        x, y = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
        sides.append(round_side((np.abs(x) < 60) & (np.abs(y) < 20), camera)[2])
    assert np.ptp(sides) < 0.01 * sides[0]
