"""Pair features by hand and under rotation; normals against numpy's eigenvectors and known surfaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.geometry import axis_angle_to_matrix
from perceive.points.neighbours import nearest
from perceive.points.pair_features import estimate_normals, pair_features
from sensors.errors import SpecError

NAN = float("nan")
SEEDS = st.integers(0, 2**31 - 1)
X, Y, Z = torch.eye(3, dtype=torch.float64)


def randoms(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def rotation(seed: int) -> Tensor:
    return axis_angle_to_matrix(randoms(seed, 3) * 2)


def every(points: Tensor) -> Tensor:
    return torch.ones(points.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize(
    ("first", "to", "second", "expected"),
    [
        (Z, 2 * X, Z, (2.0, 0.5, 0.5, 0.0)),
        (Z, 3 * Z, -Z, (3.0, 0.0, 1.0, 1.0)),
        (X, X + Y, Y, (math.sqrt(2), 0.25, 0.25, 0.5)),
        (2 * X, -X + Y, 5 * Y, (math.sqrt(2), 0.75, 0.25, 0.5)),
        (X, 0 * X, X, (0.0, 0.0, 0.0, 0.0)),
        (0 * X, Y, X, (1.0, 0.0, 0.5, 0.0)),
    ],
)
def test_features_by_hand(first: Tensor, to: Tensor, second: Tensor, expected: tuple[float, ...]) -> None:
    at = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    features = pair_features(at, first, at + to, second)
    torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_small_angles_are_exact() -> None:
    """By the cosine they would be zero in single precision."""
    angle = 1e-5
    tilted = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
    features = pair_features(torch.zeros(3), torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, 1]), tilted)
    assert float(features[3]) == pytest.approx(angle / math.pi, rel=1e-5)


@settings(max_examples=30)
@given(seed=SEEDS)
def test_neither_rotation_nor_translation_changes_features(seed: int) -> None:
    place, normal = randoms(seed, 2, 20, 3), randoms(seed + 1, 2, 20, 3)
    turn, shift = rotation(seed + 2), randoms(seed + 3, 3)
    plain = pair_features(place[0], normal[0], place[1], normal[1])
    moved_place, moved_normal = place @ turn.T + shift, normal @ turn.T
    moved = pair_features(moved_place[0], moved_normal[0], moved_place[1], moved_normal[1])
    torch.testing.assert_close(plain, moved, rtol=0, atol=1e-6)
    assert plain[:, 1:].min() >= 0
    assert plain[:, 1:].max() <= 1
    # Positive control: normals that stay behind.
    left = pair_features(moved_place[0], normal[0], moved_place[1], moved_normal[1])
    assert (left - plain).abs().max() > 1e-3


@settings(max_examples=20)
@given(seed=SEEDS)
def test_exchanging_the_points_turns_the_connection_round(seed: int) -> None:
    place, normal = randoms(seed, 2, 3), randoms(seed + 1, 2, 3)
    there = pair_features(place[0], normal[0], place[1], normal[1])
    back = pair_features(place[1], normal[1], place[0], normal[0])
    expected = torch.stack([there[0], 1 - there[2], 1 - there[1], there[3]])
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-12)


def test_shapes_are_broadcast() -> None:
    centre, members = randoms(0, 2, 5, 1, 3), randoms(1, 2, 5, 7, 3)
    features = pair_features(centre, randoms(2, 2, 5, 1, 3), members, randoms(3, 2, 5, 7, 3))
    assert features.shape == (2, 5, 7, 4)
    both = randoms(2, 2, 5, 1, 3), randoms(3, 2, 5, 7, 3)
    one = pair_features(centre[1, 2, 0], both[0][1, 2, 0], members[1, 2, 4], both[1][1, 2, 4])
    torch.testing.assert_close(features[1, 2, 4], one)


def test_gradients_are_right_and_finite_where_there_is_no_direction() -> None:
    inputs = [randoms(seed, 4, 3).requires_grad_() for seed in range(4)]
    assert torch.autograd.gradcheck(pair_features, inputs)
    points = torch.zeros(3, 3, requires_grad=True)  # the connection is no direction
    normal = torch.eye(3, requires_grad=True)
    pair_features(points, normal, points * 1.0, normal * 1.0).sum().backward()
    for given_ in (points, normal):
        assert given_.grad is not None
        assert given_.grad.isfinite().all()


# -------------------------------------------------------------------------------------------------------------- normals


@settings(max_examples=15)
@given(seed=SEEDS, scale=st.sampled_from([1e-4, 1.0, 1e3]))
def test_normals_and_curvature_are_numpys(seed: int, scale: float) -> None:
    points = randoms(seed, 1, 60, 3) * scale
    made = estimate_normals(points, every(points), count=10)
    assert made.valid.all()
    index = nearest(points, points, 10).index[0].numpy()
    for number in range(60):
        near = points[0].numpy()[index[number]]
        values, vectors = np.linalg.eigh(np.cov(near.T, bias=True))
        assert abs(float(made.normal[0, number].numpy() @ vectors[:, 0])) == pytest.approx(1, abs=1e-6)
        assert float(made.curvature[0, number]) == pytest.approx(values[0] / values.sum(), abs=1e-9)


def test_normals_of_a_plane_look_to_the_sensor() -> None:
    flat = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 200, 3))).float()
    flat[..., 2] = 0.0
    turn = rotation(1).float()
    points = flat @ turn.T + torch.tensor([0.3, 0.2, 5.0])
    above = torch.tensor([[0.0, 0, 2.0], [0.0, 0, -2.0]]) @ turn.T + torch.tensor([0.3, 0.2, 5.0])
    made = estimate_normals(points, every(points), 12, viewpoint_m=above)
    assert made.valid.all()
    for row, side in enumerate((1.0, -1.0)):
        torch.testing.assert_close(made.normal[row], (side * turn[:, 2]).expand(200, 3), rtol=0, atol=1e-4)
    assert made.curvature.max() < 1e-6


def test_normals_of_a_sphere_look_outwards() -> None:
    points = torch.nn.functional.normalize(randoms(2, 1, 3000, 3), dim=-1)
    made = estimate_normals(points * 0.2 + 7.0, every(points), 12)
    assert (made.normal * points).sum(-1).min() > 0.95
    torch.testing.assert_close(made.normal.norm(dim=-1), torch.ones(1, 3000, dtype=torch.float64))
    inside = estimate_normals(points * 0.2, every(points), 12, viewpoint_m=torch.zeros(1, 3, dtype=torch.float64))
    assert (inside.normal * points).sum(-1).max() < -0.95


@settings(max_examples=10)
@given(seed=SEEDS)
def test_normals_turn_with_the_cloud_and_features_of_them_do_not(seed: int) -> None:
    points = randoms(seed, 1, 80, 3)
    turn = rotation(seed + 1)
    one, other = (estimate_normals(p, every(p), 8) for p in (points, points @ turn.T + 3.0))
    torch.testing.assert_close(one.normal @ turn.T, other.normal, rtol=0, atol=1e-6)
    assert (one.normal - other.normal).abs().max() > 1e-2
    features = [
        pair_features(p[:, :1], made.normal[:, :1], p, made.normal)
        for p, made in ((points, one), (points @ turn.T + 3.0, other))
    ]
    torch.testing.assert_close(*features, rtol=0, atol=1e-6)


def test_order_mates_and_blocks_do_not_matter() -> None:
    points = randoms(5, 2, 70, 3)
    order = torch.from_numpy(np.random.default_rng(0).permutation(70))
    whole = estimate_normals(points, every(points), 8)
    torch.testing.assert_close(
        estimate_normals(points[:, order], every(points), 8).normal, whole.normal[:, order], rtol=0, atol=1e-9
    )
    assert estimate_normals(points[1:], every(points)[1:], 8).normal.equal(whole.normal[1:])
    assert estimate_normals(points, every(points), 8, block=33).normal.equal(whole.normal)


def test_where_no_surface_is_there_is_no_normal() -> None:
    line = torch.arange(20.0)[:, None] * torch.tensor([0.1, 0.2, -0.3])
    equal = torch.ones(20, 3)
    lattice = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 3)
    made = estimate_normals(torch.stack([line, equal]), torch.ones(2, 20, dtype=torch.bool), 8)
    assert not made.valid.any()
    assert (made.normal == 0).all()
    # The middle of a cube varies equally in all directions.
    made = estimate_normals(lattice[None], torch.ones(1, 27, dtype=torch.bool), 27)
    assert not made.valid.any()
    few = estimate_normals(torch.rand(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), 8)
    assert not few.valid.any()
    assert estimate_normals(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool), 8).normal.shape == (2, 0, 3)


def test_points_that_are_not_there_are_not_used() -> None:
    points = randoms(6, 1, 50, 3).float()
    valid = torch.ones(1, 50, dtype=torch.bool)
    valid[0, 10:20] = False
    good = torch.cat([points[:, :10], points[:, 20:]], 1)
    points[0, 10:15] = NAN
    spoilt = points.clone()
    spoilt[0, 15:18] = 0.0
    expected = estimate_normals(good, every(good), 8)
    for cloud in (points, spoilt):
        made = estimate_normals(cloud, valid, 8)
        assert made.valid.equal(valid)
        assert made.normal[valid].equal(expected.normal[0])
        assert (made.normal[~valid] == 0).all()
    valid[:] = True
    assert estimate_normals(points, valid, 8).valid.sum() == 45
    with pytest.raises(SpecError, match="at least 3"):
        estimate_normals(points, valid, 2)
