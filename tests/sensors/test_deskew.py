"""Motion compensation: points of a world that stands, measured one by one by a sensor that moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.deskew import deskew
from sensors.errors import SpecError
from sensors.geometry import FloatArray, axis_angle_to_matrix, interpolate_pose, invert, pose, transform_points
from sensors.lidar_pattern import SolidStatePattern
from tests.fake_world import FakeWorld
from tests.sensors.quiet_lidar import DOWN, TOOL, opened, points_of


def poses(rng: np.random.Generator, turn_rad: float) -> tuple[FloatArray, FloatArray]:
    """Two poses, the second turned by so much about some axis."""
    before = pose(rng.uniform(-3, 3, 3))
    before[:3, :3] = axis_angle_to_matrix(rng.normal(size=3))
    axis = rng.normal(size=3)
    now = pose(before[:3, 3] + rng.normal(size=3))
    now[:3, :3] = before[:3, :3] @ axis_angle_to_matrix(turn_rad * axis / np.linalg.norm(axis))
    return before, now


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0, 3.1), st.floats(1e-3, 10))
def test_what_stands_is_found_where_it_is(seed: int, turn_rad: float, period_s: float) -> None:
    """Each point seen from the pose at its own time, one by one; from before the first pose too."""
    rng = np.random.default_rng(seed)
    before, now = poses(rng, turn_rad)
    stands = rng.uniform(-20, 20, (30, 3))
    share = np.append(rng.uniform(-0.5, 1.2, 28), (0.0, 1.0))
    seen = [
        transform_points(invert(interpolate_pose(before, now, s)), at[None])[0]
        for s, at in zip(share, stands, strict=True)
    ]
    found = deskew(seen, (share - 1) * period_s, before, now, period_s)
    np.testing.assert_allclose(transform_points(now, found), stands, atol=1e-9)


def test_a_turn_and_a_way_by_hand() -> None:
    """Half way through a quarter turn to the left and 2 m ahead: what was 1 m ahead then is right of ahead now."""
    now = pose((2.0, 0.0, 0.0))
    now[:3, :3] = axis_angle_to_matrix((0.0, 0.0, np.pi / 2))
    found = deskew([[1.0, 0.0, 0.0]], [-0.05], np.eye(4), now, 0.1)
    half = np.sqrt(0.5)
    # In the base: (1, 0, 0) + (half, half, 0); from (2, 0, 0), looking along y.
    np.testing.assert_allclose(found, [[half, 1 - half, 0.0]], atol=1e-12)


def test_a_sensor_at_rest_and_points_of_now_stay_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    before, now = poses(rng, 0.4)
    xyz, offset = rng.normal(size=(9, 3)), rng.uniform(-0.1, 0, 9)
    np.testing.assert_allclose(deskew(xyz, offset, now, now, 0.1), xyz, atol=1e-14)
    np.testing.assert_array_equal(deskew(xyz, np.zeros(9), before, now, 0.1), xyz)
    assert np.abs(deskew(xyz, offset, before, now, 0.1) - xyz).max() > 0.1


def test_a_sweep_of_the_simulated_lidar_on_a_moving_mount() -> None:
    """The table is flat again, and it was not: the sensor's own rays, through its own motion distortion."""
    world = FakeWorld(box_middle_m=(50.0, 0.0, 0.03))
    lidar = opened(world, SolidStatePattern(60.0, 1500, 1 / 12), link=TOOL, position_m=(0.0, 0.0, 0.0))
    frames = []
    for now_s, turn, place in ((0.0, (0.0, 0.0, 0.0), (0.3, 0.0, 0.8)), (1 / 12, (0.15, 0.2, 0.3), (0.4, 0.1, 0.9))):
        world.base_from_tool = pose(place) @ pose((0, 0, 0), DOWN)
        world.base_from_tool[:3, :3] = axis_angle_to_matrix(turn) @ world.base_from_tool[:3, :3]
        world.now_s = now_s
        frames.append(lidar.read(now_s))
    last = frames[1]
    count = int(last.count[0])
    assert count > 500
    found = deskew(points_of(last), last.offset_s[:count], frames[0].base_from_lidar, last.base_from_lidar, 1 / 12)
    height = transform_points(last.base_from_lidar, found)[:, 2]
    bent = transform_points(last.base_from_lidar, points_of(last))[:, 2]
    assert np.abs(height).max() < 1e-6
    assert np.abs(bent).max() > 0.05


def test_what_is_not_finite_is_nan_and_harms_nothing_else() -> None:
    before, now = poses(np.random.default_rng(1), 0.3)
    xyz, offset = np.ones((5, 3)), np.full(5, -0.05)
    clean = deskew(xyz, offset, before, now, 0.1)
    xyz[0, 1], xyz[1, 2], offset[2], offset[3] = np.nan, -np.inf, np.nan, np.inf
    found = deskew(xyz, offset, before, now, 0.1)
    assert np.isnan(found[:4]).all()
    np.testing.assert_array_equal(found[4], clean[4])
    assert deskew(np.zeros((0, 3)), np.zeros(0), before, now, 0.1).shape == (0, 3)


def test_two_million_points_at_once() -> None:
    before, now = poses(np.random.default_rng(2), 0.3)
    offset = np.linspace(-0.1, 0, 2_000_000)
    xyz = np.ones((len(offset), 3), np.float32)
    found = deskew(xyz, offset, before, now, 0.1)
    np.testing.assert_allclose(found[::400_000], deskew(xyz[::400_000], offset[::400_000], before, now, 0.1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"xyz_m": np.zeros((4, 2))}, "xyz_m"),
        ({"xyz_m": np.zeros(3)}, "xyz_m"),
        ({"offset_s": np.zeros(3)}, "offset_s"),
        ({"base_from_sensor_before": np.full((4, 4), np.nan)}, "before"),
        ({"base_from_sensor_now": np.eye(3)}, "now"),
        ({"period_s": 0.0}, "period_s"),
        ({"period_s": float("nan")}, "period_s"),
        ({"period_s": float("inf")}, "period_s"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], named: str) -> None:
    given: dict[str, Any] = {
        "xyz_m": np.zeros((4, 3)),
        "offset_s": np.zeros(4),
        "base_from_sensor_before": np.eye(4),
        "base_from_sensor_now": np.eye(4),
        "period_s": 0.1,
    }
    with pytest.raises(SpecError, match=named):
        deskew(**{**given, **changes})
