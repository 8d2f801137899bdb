"""The grid: against a dictionary, closed forms, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.voxels import CELLS, Voxels, unique_cells, voxelise
from sensors.errors import SpecError

NAN, INF = float("nan"), float("inf")
SEEDS = st.integers(0, 2**31 - 1)


def cloud(seed: int, count: int, samples: int, bad: float = 0.1) -> tuple[Tensor, Tensor]:
    """Points with their sample; some are not finite, some come twice."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.3, (count, 3))
    points[rng.random(count) < bad, rng.integers(0, 3)] = rng.choice([NAN, INF, -INF])
    if count > 4:
        points[1] = points[count // 2]
    return torch.from_numpy(points).float(), torch.from_numpy(rng.integers(0, samples, count))


def slow(points: Tensor, sample: Tensor, edge: tuple[float, ...]) -> dict[tuple[int, ...], list[int]]:
    """(sample, x, y, z) -> its points, in single precision as the code."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, (point, own) in enumerate(zip(points.numpy(), sample.tolist(), strict=True)):
        if np.isfinite(point).all():
            place = tuple(math.floor(value / np.float32(side)) for value, side in zip(point, edge, strict=True))
            found.setdefault((own, *place), []).append(number)
    return dict(sorted(found.items()))


@settings(max_examples=40)
@given(seed=SEEDS, count=st.integers(0, 60), samples=st.integers(1, 3), edge=st.sampled_from([0.05, 0.4, 1.3]))
def test_voxels_are_those_of_a_dictionary(seed: int, count: int, samples: int, edge: float) -> None:
    points, sample = cloud(seed, count, samples)
    voxels = voxelise(points, (edge, 2 * edge, edge), sample=sample, samples=samples)
    expected = slow(points, sample, (edge, 2 * edge, edge))
    assert [(s, *c) for s, c in zip(voxels.sample.tolist(), voxels.cell.tolist(), strict=True)] == list(expected)
    assert voxels.count.tolist() == [len(numbers) for numbers in expected.values()]
    of_point = [-1] * count
    for number, own in enumerate(expected.values()):
        for point in own:
            of_point[point] = number
    assert voxels.of_point.tolist() == of_point
    assert voxels.first_point().tolist() == [numbers[0] for numbers in expected.values()]
    lost = ~points.isfinite().all(1)
    assert voxels.dropped.tolist() == [int((lost & (sample == s)).sum()) for s in range(samples)]
    assert voxels.per_sample.tolist() == [sum(key[0] == s for key in expected) for s in range(samples)]


def test_cells_of_known_places() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.19, -0.01, 0.5], [0.2, 0.0, 0.0], [-1e-9, 0.0, 0.0]])
    voxels = voxelise(points, 0.2)
    assert voxels.cell.tolist() == [[-1, 0, 0], [0, -1, 2], [0, 0, 0], [1, 0, 0]]
    torch.testing.assert_close(voxels.centre_m[1], torch.tensor([0.1, -0.1, 0.5]))
    moved = voxelise(points + torch.tensor([1.0, 2.0, 3.0]), 0.2, origin_m=(1.0, 2.0, 3.0))
    own = int(moved.of_point[0])
    assert moved.cell[own].tolist() == [0, 0, 0]
    torch.testing.assert_close(moved.centre_m[own], torch.tensor([1.1, 2.1, 3.1]))


@settings(max_examples=20)
@given(seed=SEEDS)
def test_the_order_of_the_points_does_not_matter(seed: int) -> None:
    points, sample = cloud(seed, 200, 2)
    shuffle = torch.from_numpy(np.random.default_rng(seed).permutation(200))
    one = voxelise(points, 0.2, sample=sample, samples=2)
    other = voxelise(points[shuffle], 0.2, sample=sample[shuffle], samples=2)
    assert one.cell.equal(other.cell)
    assert one.sample.equal(other.sample)
    assert one.count.equal(other.count)
    assert one.of_point[shuffle].equal(other.of_point)
    torch.testing.assert_close(one.means(points), other.means(points[shuffle]), rtol=0, atol=1e-6)
    assert one.largest(points).equal(other.largest(points[shuffle]))
    with pytest.raises(AssertionError):  # the comparison can fail
        torch.testing.assert_close(one.means(points), other.means(points), rtol=0, atol=1e-6)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_other_clouds_of_the_batch_do_not_matter(seed: int) -> None:
    points, _ = cloud(seed, 100, 1)
    mate, _ = cloud(seed + 1, 300, 1)
    alone = voxelise(points, 0.1)
    both = voxelise(torch.cat([mate * 7, points]), 0.1, sample=torch.tensor([0] * 300 + [1] * 100))
    own = both.sample == 1
    assert both.cell[own].equal(alone.cell)
    assert both.count[own].equal(alone.count)
    both_of, alone_of = both.of_point[300:], alone.of_point
    assert torch.where(both_of < 0, -1, both_of - int((~own).sum())).equal(alone_of)


def test_rows_of_clouds_are_as_points_with_samples() -> None:
    points, sample = cloud(5, 240, 1)
    rng = np.random.default_rng(0)
    valid = torch.from_numpy(rng.random((3, 80)) < 0.7)
    rows = voxelise(points.view(3, 80, 3), 0.2, valid=valid)
    sample = torch.arange(3).repeat_interleave(80)
    flat = voxelise(points, 0.2, sample=sample, valid=valid.flatten(), samples=3)
    for name in ("cell", "sample", "count", "dropped", "edge_m", "origin_m"):
        assert getattr(rows, name).equal(getattr(flat, name)), name
    assert rows.of_point.equal(flat.of_point.view(3, 80))
    assert (rows.of_point[~valid] == -1).all()
    # A point that was never said to be valid is not dropped.
    assert int(rows.dropped.sum()) == int((valid.flatten() & ~points.isfinite().all(1)).sum()) > 0
    values = torch.randn(3, 80, 2, 4)
    assert rows.means(values).equal(flat.means(values.view(240, 2, 4)))
    assert rows.to_points(rows.means(values)).equal(
        flat.to_points(flat.means(values.view(240, 2, 4))).view(3, 80, 2, 4)
    )


def test_bounds_close_below_and_open_above() -> None:
    points = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.999, 0, 0], [-0.001, 0, 0], [0.5, 2.0, 0]])
    voxels = voxelise(points, 0.5, low_m=(0.0, 0.0, 0.0), high_m=(1.0, 1.0, 1.0))
    assert (voxels.of_point >= 0).tolist() == [True, False, True, False, False]
    assert voxels.dropped.tolist() == [3]


def test_values_go_to_voxels_and_back_with_gradients() -> None:
    points, sample = cloud(7, 40, 2)
    voxels = voxelise(points, 0.4, sample=sample, samples=2)
    values = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(voxels.means, (values,))
    assert torch.autograd.gradcheck(voxels.sums, (values,))
    assert torch.autograd.gradcheck(voxels.largest, (values,))
    back = voxels.to_points(voxels.means(values))
    assert (back[voxels.of_point < 0] == 0).all()
    assert voxels.means(torch.where((voxels.of_point >= 0)[:, None], back, NAN)).allclose(voxels.means(values))


def same(one: Voxels, cells: list[list[int]], counts: list[int]) -> bool:
    return one.cell.tolist() == cells and one.count.tolist() == counts


def test_empty_single_equal_and_unusable_clouds() -> None:
    nothing = voxelise(torch.zeros(0, 3), 0.1)
    assert same(nothing, [], [])
    assert nothing.dropped.tolist() == [0]
    assert nothing.means(torch.zeros(0, 4)).shape == (0, 4)
    assert voxelise(torch.zeros(2, 0, 3), 0.1).per_sample.tolist() == [0, 0]
    assert (
        voxelise(torch.zeros(0, 3), 0.1, sample=torch.zeros(0, dtype=torch.int64), samples=3).dropped.tolist()
        == [0] * 3
    )
    assert same(voxelise(torch.tensor([[0.05, 0.15, -0.05]]), 0.1), [[0, 1, -1]], [1])
    equal = voxelise(torch.full((1000, 3), 0.25), 0.1)
    assert same(equal, [[2, 2, 2]], [1000])
    torch.testing.assert_close(equal.means(torch.full((1000, 3), 0.25)), torch.full((1, 3), 0.25))
    lost = voxelise(torch.full((2, 5, 3), NAN), 0.1)
    assert same(lost, [], [])
    assert lost.dropped.tolist() == [5, 5]
    assert lost.to_points(torch.zeros(0, 2)).equal(torch.zeros(2, 5, 2))


def test_points_beyond_the_range_are_dropped_and_counted() -> None:
    points = torch.tensor(
        [[CELLS - 1.0, 0, 0], [float(CELLS), 0, 0], [-float(CELLS), 0, 0], [1e30, 0, 0], [0, -INF, 0]]
    )
    voxels = voxelise(points, 1.0)
    assert voxels.of_point.tolist() == [0, -1, -1, -1, -1]
    assert voxels.dropped.tolist() == [4]


def test_corners_of_the_range_have_different_voxels() -> None:
    ends = torch.tensor([-CELLS + 1.0, CELLS - 1.0])
    points = torch.cartesian_prod(ends, ends, ends)
    assert voxelise(points, 1.0).cell.equal(points.long())
    with pytest.raises(SpecError, match="Crop"):
        unique_cells(points.long(), torch.arange(8))


def test_two_million_points() -> None:
    points = torch.rand(2_000_000, 3, generator=torch.Generator().manual_seed(0))
    voxels = voxelise(points, 0.05)
    assert voxels.cell.shape == (8000, 3)
    assert int(voxels.count.sum()) == 2_000_000
    assert (voxels.cell.index_select(0, voxels.of_point[::1000]) == (points[::1000] / 0.05).floor()).all()


def test_what_does_not_fit_is_refused() -> None:
    points = torch.zeros(4, 3)
    for edge in (0.0, -1.0, NAN, INF, (0.1, 0.1), (0.1, 0.1, 0.0)):
        with pytest.raises(SpecError, match="edge"):
            voxelise(points, edge)
    with pytest.raises(SpecError, match="Reshape"):
        voxelise(points[:, :2], 0.1)
    with pytest.raises(SpecError, match="Reshape"):
        voxelise(points[None], 0.1, sample=torch.zeros(4, dtype=torch.int64))
    with pytest.raises(SpecError, match="sample"):
        voxelise(points, 0.1, sample=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(SpecError, match="0 to 1"):
        voxelise(points, 0.1, sample=torch.tensor([0, 1, 2, 0]), samples=2)
