"""Neighbours: against sorting all distances, on lattices where many are equal; the tree against all with all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points import neighbours
from perceive.points.neighbours import Neighbours, nearest, take_points, usable, within
from sensors.errors import SpecError

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)
ALWAYS, NEVER = 0, 1 << 62  # a tree


def lattice(seed: int, size: int, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Points whose distances are exact and often equal; NaN or infinite where not valid, and sometimes where valid."""
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.integers(0, side, (size, count, 3)).astype(np.float32))
    valid = torch.from_numpy(rng.random((size, count)) < 0.8)
    points[~valid & torch.from_numpy(rng.random((size, count)) < 0.5)] = NAN
    points[torch.from_numpy(rng.random((size, count)) < 0.05)] = INF
    return points, valid


def slow(query: Tensor, points: Tensor, valid: Tensor, count: int, radius: float) -> list[list[list[int]]]:
    """Neighbours by sorting (distance, index) of all, in double precision."""
    out = []
    for own_query, own_points, own_valid in zip(query.double(), points.double(), valid, strict=True):
        rows = []
        for at in own_query:
            apart = [
                (float((at - point).norm()), number)
                for number, point in enumerate(own_points)
                if own_valid[number] and point.isfinite().all() and at.isfinite().all()
            ]
            rows.append([number for distance, number in sorted(apart)[:count] if distance <= radius])
        out.append(rows)
    return out


def listed(found: Neighbours) -> list[list[list[int]]]:
    return [
        [index[valid].tolist() for index, valid in zip(*cloud, strict=True)]
        for cloud in zip(found.index, found.valid, strict=True)
    ]


@settings(max_examples=40)
@given(
    seed=SEEDS,
    total=st.integers(1, 40),
    count=st.integers(1, 12),
    side=st.integers(1, 4),
    radius=st.sampled_from([INF, 1.0, 1.5]),
    tree_from=st.sampled_from([ALWAYS, NEVER]),
)
def test_neighbours_are_those_of_sorting_all(
    seed: int, total: int, count: int, side: int, radius: float, tree_from: int
) -> None:
    points, valid = lattice(seed, 2, total, side)
    query, asks = lattice(seed + 1, 2, 9, side)
    if radius == INF:
        found = nearest(query, points, count, query_valid=asks, valid=valid, tree_from=tree_from)
    else:
        found = within(query, points, radius, count, query_valid=asks, valid=valid, tree_from=tree_from)
    query[~asks] = NAN
    expected = slow(query, points, valid, count, radius)
    assert listed(found) == expected
    for b, q in np.ndindex(2, 9):
        own = expected[b][q]
        for place in range(count):
            if place < len(own):
                apart = float((query[b, q] - points[b, own[place]]).norm())
                assert float(found.distance_m[b, q, place]) == pytest.approx(apart, abs=1e-6)
            else:
                assert float(found.distance_m[b, q, place]) == INF
                assert int(found.index[b, q, place]) == (own[0] if own else 0)


@settings(max_examples=8)
@given(seed=SEEDS, radius=st.sampled_from([INF, 0.1]), double=st.booleans())
def test_the_tree_and_all_with_all_agree_bit_for_bit(seed: int, radius: float, double: bool) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform(-1, 1, (2, 800, 3)))
    points[:, 500:600] = points[:, :100]  # points that come twice
    points = points if double else points.float()
    if radius == INF:
        one, other = (nearest(points, points, 16, tree_from=least) for least in (ALWAYS, NEVER))
    else:
        one, other = (within(points, points, radius, 16, tree_from=least) for least in (ALWAYS, NEVER))
    assert one.index.equal(other.index)
    assert one.distance_m.equal(other.distance_m)
    assert one.valid.equal(other.valid)
    assert one.valid.any()
    assert (radius == INF) == bool(one.valid.all())


def test_the_tree_is_used_where_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    plain = neighbours._tree_keys

    def counting(*arguments: object) -> Tensor:
        built.append(1)
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(neighbours, "_tree_keys", counting)
    small, large = torch.rand(2, 64, 3), torch.rand(2, 1024, 3)
    nearest(small, small, 4)
    assert not built
    nearest(large, large, 4)
    assert len(built) == 2


@pytest.mark.parametrize("tree_from", [ALWAYS, NEVER])
def test_a_cloud_of_equal_points(tree_from: int) -> None:
    """The lowest indices are the neighbours of each; a search that looks ever further would look at all, for all."""
    points = torch.full((1, 3000, 3), 0.3)
    found = nearest(points, points, 5, tree_from=tree_from)
    assert (found.index == torch.arange(5)).all()
    assert (found.distance_m == 0).all()


def test_distances_far_from_the_origin_are_exact() -> None:
    """The expanded product |a|^2 - 2ab + |b|^2 would be off by a metre here."""
    line = torch.arange(50.0)[:, None] * torch.tensor([0.0, 0.25, 0.0]) + torch.tensor([4096.0, -2048.0, 1024.0])
    found = nearest(line[None], line[None], 3)
    assert found.index[0, 1:-1].sort(1).values.equal(torch.arange(48)[:, None] + torch.arange(3))
    assert found.distance_m[0, 1:-1].equal(torch.tensor([0.0, 0.25, 0.25]).expand(48, 3))


@settings(max_examples=10)
@given(seed=SEEDS, tree_from=st.sampled_from([ALWAYS, NEVER]))
def test_neither_the_order_nor_batch_mates_matter(seed: int, tree_from: int) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform(-1, 1, (3, 300, 3))).float()
    order = torch.from_numpy(rng.permutation(300))
    one = nearest(points[:1], points[:1], 8, tree_from=tree_from)
    other = nearest(points[:, order], points[:, order], 8, tree_from=tree_from)
    assert order[other.index[0]].equal(one.index[0][order])
    assert not order[other.index[1]].equal(one.index[0][order])


def test_the_same_in_one_thread_and_in_two() -> None:
    points = torch.rand(1, 4000, 3, generator=torch.Generator().manual_seed(0))
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            results += [nearest(points, points, 8), nearest(points[:, :50], points, 8, tree_from=NEVER)]
        finally:
            torch.set_num_threads(1)
    for one, other in (results[::2], results[1::2]):
        assert one.index.equal(other.index)
        assert one.distance_m.equal(other.distance_m)
    assert results[0].index[:, :50].equal(results[1].index)


@pytest.mark.parametrize("tree_from", [ALWAYS, NEVER])
def test_empty_single_and_unusable_clouds(tree_from: int) -> None:
    points = torch.rand(2, 7, 3)
    for query, cloud in ((points, points[:, :0]), (points[:, :0], points), (points[:0], points[:0])):
        found = nearest(query, cloud, 4, tree_from=tree_from)
        assert found.index.shape == found.distance_m.shape == found.valid.shape == (*query.shape[:2], 4)
        assert not found.valid.any()
    one = nearest(points[:, :1], points[:, :1], 3, tree_from=tree_from)
    assert one.index.tolist() == [[[0, 0, 0]]] * 2
    assert one.valid.tolist() == [[[True, False, False]]] * 2
    for bad in (NAN, INF, -INF, 1e20):
        points[0, 3, 1] = bad
        found = nearest(points, points, 7, tree_from=tree_from)
        assert found.valid.sum((1, 2)).tolist() == [36, 49]
        assert 3 not in found.index[0][found.valid[0]].tolist()
        assert not found.valid[0, 3].any()
    lost = nearest(torch.full((1, 2, 3), NAN), torch.full((1, 5, 3), NAN), 2, tree_from=tree_from)
    assert not lost.valid.any()
    assert (lost.index == 0).all()


def test_half_precision_is_compared_in_single() -> None:
    points = torch.rand(1, 600, 3).half()
    for tree_from in (ALWAYS, NEVER):
        found = nearest(points, points, 5, tree_from=tree_from)
        assert found.distance_m.dtype == torch.float32
        assert found.index.equal(nearest(points.float(), points.float(), 5).index)


def test_usable_points() -> None:
    points = torch.tensor([[0.0, 1, 2], [NAN, 0, 0], [0, INF, 0], [0, 0, 1e15], [1e14, 0, 0]])
    assert usable(points).tolist() == [True, False, False, False, True]
    assert usable(points, torch.tensor([False, True, True, True, True])).tolist() == [False] * 4 + [True]


def test_rows_by_index_with_gradients() -> None:
    values = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[[0, 4], [2, 2]], [[1, 1], [3, 0]]])
    taken = take_points(values, index)
    assert taken.shape == (2, 2, 2, 3)
    assert taken[1, 1, 0].equal(values[1, 3])
    assert torch.autograd.gradcheck(lambda v: take_points(v, index), (values,))


def test_what_does_not_fit_is_refused() -> None:
    points = torch.rand(2, 5, 3)
    with pytest.raises(SpecError, match="at least 1"):
        nearest(points, points, 0)
    with pytest.raises(SpecError, match="radius"):
        within(points, points, 0.0, 3)
    with pytest.raises(SpecError, match="radius"):
        within(points, points, NAN, 3)
    with pytest.raises(SpecError, match="query_m"):
        nearest(points[0], points, 3)
    with pytest.raises(SpecError, match="points_m"):
        nearest(points, points.long(), 3)
    with pytest.raises(SpecError, match="as many clouds"):
        nearest(points[:1], points, 3)
    with pytest.raises(SpecError, match="of one type"):
        nearest(points.double(), points, 3)
