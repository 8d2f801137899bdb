"""Fewer points: each way against a slow reference, its closed forms, and what must not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from perceive.batch import Batch
from perceive.points.cloud import Cloud, fuse
from perceive.points.sample import (
    METHODS,
    Method,
    downsample,
    one_per_voxel,
    pick_evenly,
    pick_farthest,
    take,
    thinned,
)
from sensors.errors import SpecError
from tests.perceive.scene import camera_space, fake_batch

NAN = float("nan")
SEEDS = st.integers(0, 2**31 - 1)


def points(seed: int, size: int, count: int, chance: float = 0.7) -> tuple[Tensor, Tensor]:
    """Points in a cube, NaN where not valid; at least one is."""
    rng = np.random.default_rng(seed)
    valid = rng.random((size, count)) < chance
    valid[np.arange(size), rng.integers(0, count, size)] = True
    xyz = np.where(valid[..., None], rng.uniform(-1, 1, (size, count, 3)), NAN)
    return torch.from_numpy(xyz).float(), torch.from_numpy(valid)


def cloud_of(seed: int, size: int = 2, count: int = 300, chance: float = 0.7) -> Cloud:
    xyz, valid = points(seed, size, count, chance)
    return Cloud(xyz, xyz * 0.5 + 0.5, valid)


def slow_farthest(xyz: NDArray[Any], valid: NDArray[Any], count: int, start: int) -> list[int]:
    """One set, in double precision, as the definition says."""
    left = [i for i in range(len(xyz)) if valid[i]]
    chosen = [start]
    left.remove(start)
    while left and len(chosen) < count:
        gaps = [min(float(np.linalg.norm(xyz[i] - xyz[j])) for j in chosen) for i in left]
        chosen.append(left.pop(int(np.argmax(gaps))))
    return chosen


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, total=st.integers(1, 24), count=st.integers(1, 12), given_start=st.booleans())
def test_farthest_points_are_those_of_the_definition(seed: int, total: int, count: int, given_start: bool) -> None:
    xyz, valid = points(seed, 3, total)
    start = valid.int().argmax(1) if given_start else None
    picked = pick_farthest(xyz, valid, count, start)
    assert picked.index.shape == picked.valid.shape == (3, count)
    for row in range(3):
        own = xyz[row].double().numpy()
        first = int(picked.index[row, 0])
        if start is None:
            from_mean = np.linalg.norm(own - own[valid[row].numpy()].mean(0), axis=1)
            assert from_mean[first] == pytest.approx(np.nanmax(from_mean), abs=1e-6)
        else:
            assert first == start[row]
        expected = slow_farthest(own, valid[row].numpy(), count, first)
        assert picked.index[row, : len(expected)].tolist() == expected
        assert picked.valid[row].tolist() == [number < len(expected) for number in range(count)]


def test_farthest_points_on_a_line_and_in_a_square() -> None:
    line = torch.zeros(1, 9, 3)
    line[0, :, 1] = torch.arange(9.0)
    everything = torch.ones(1, 9, dtype=torch.bool)
    # From one end: the other end, the middle, then the quarters; equal gaps go to the lowest index.
    assert pick_farthest(line, everything, 5, torch.tensor([0])).index.tolist() == [[0, 8, 4, 2, 6]]
    assert pick_farthest(line, everything, 3, torch.tensor([4])).index.tolist() == [[4, 0, 8]]
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0), torch.zeros(1))[None]
    corners = pick_farthest(grid, torch.ones(1, 25, dtype=torch.bool), 5).index[0].tolist()
    assert sorted(corners[:4]) == [0, 4, 20, 24]
    assert corners[4] == 12


def test_farthest_points_are_the_same_set_in_any_order() -> None:
    xyz, valid = points(0, 1, 60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    one = pick_farthest(xyz, valid, 10)
    other = pick_farthest(xyz[:, order], valid[:, order], 10)
    assert set(one.index[0].tolist()) == set(order[other.index[0]].tolist())
    fixed = torch.zeros(1, dtype=torch.int64)
    assert set(pick_farthest(xyz[:, order], valid[:, order], 10, fixed).index[0].tolist()) != set(
        other.index[0].tolist()
    )


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_farthest_points_spread(seed: int) -> None:
    """No point is farther from the picked ones than these are from each other, which random ones do not keep."""
    xyz, valid = points(seed, 1, 400, 1.0)

    def spread(index: Tensor) -> tuple[float, float]:
        own = xyz[0, index]
        apart = torch.cdist(own, own).fill_diagonal_(torch.inf).min()
        return float(apart), float(torch.cdist(xyz[0], own).min(1).values.max())

    apart, uncovered = spread(pick_farthest(xyz, valid, 32).index[0])
    assert apart >= uncovered - 1e-6
    random_apart, random_uncovered = spread(torch.from_numpy(np.random.default_rng(seed).permutation(400)[:32]))
    assert random_apart < apart
    assert random_uncovered > uncovered


def test_equal_points_are_picked_once_each() -> None:
    xyz = torch.zeros(1, 6, 3)
    valid = torch.tensor([[True, False, True, True, False, True]])
    picked = pick_farthest(xyz, valid, 5)
    assert picked.valid.tolist() == [[True] * 4 + [False]]
    assert sorted(picked.index[0, :4].tolist()) == [0, 2, 3, 5]
    assert not pick_farthest(xyz, torch.zeros_like(valid), 5).valid.any()


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, total=st.integers(1, 40), count=st.integers(1, 40), jitter=st.booleans())
def test_even_picks_are_valid_ordered_and_complete(seed: int, total: int, count: int, jitter: bool) -> None:
    torch.manual_seed(seed % 1000)
    _, valid = points(seed, 4, total, 0.6)
    valid[3] = False
    picked = pick_evenly(valid, count, jitter)
    for row in range(4):
        index = picked.index[row][picked.valid[row]].tolist()
        assert int(picked.valid[row].sum()) == min(count, int(valid[row].sum()))
        assert valid[row, index].all()
        assert index == sorted(index)
        if not jitter:
            assert len(set(index)) == len(index)
        if int(valid[row].sum()) <= count:
            assert index == valid[row].nonzero()[:, 0].tolist()
        assert ((picked.index >= 0) & (picked.index < total)).all()


def test_even_picks_are_the_middles_of_equal_runs() -> None:
    valid = torch.ones(1, 10, dtype=torch.bool)
    assert pick_evenly(valid, 5).index.tolist() == [[1, 3, 5, 7, 9]]
    assert pick_evenly(valid, 2).index.tolist() == [[2, 7]]
    assert pick_evenly(valid, 10).index.tolist() == [list(range(10))]
    valid[0, ::2] = False
    assert pick_evenly(valid, 1).index.tolist() == [[5]]


def test_with_jitter_every_valid_point_has_the_same_odds() -> None:
    torch.manual_seed(0)
    times, total, count = 4000, 14, 5
    valid = torch.ones(times, total, dtype=torch.bool)
    valid[:, 3:5] = False
    picked = pick_evenly(valid, count, jitter=True)
    found = torch.bincount(picked.index.flatten(), minlength=total) / times
    assert found[3:5].tolist() == [0, 0]
    odds = count / 12
    error = (odds / times) ** 0.5
    assert (found[valid[0]] - odds).abs().max() < 5 * error
    # Control: without jitter some are always picked and others never.
    assert set(torch.bincount(pick_evenly(valid, count).index.flatten(), minlength=total).tolist()) == {0, times}


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, total=st.integers(1, 60), edge_m=st.floats(0.05, 1.5))
def test_one_point_per_voxel_is_the_first_in_it(seed: int, total: int, edge_m: float) -> None:
    xyz, valid = points(seed, 2, total)
    kept = one_per_voxel(xyz, valid, edge_m)
    for row in range(2):
        first: dict[tuple[int, ...], int] = {}
        for i in range(total):
            if valid[row, i]:
                first.setdefault(tuple((xyz[row, i] / edge_m).floor().int().tolist()), i)
        assert kept[row].nonzero()[:, 0].tolist() == sorted(first.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_points_of_the_cloud_whole_and_is_the_same_each_time(method: Method) -> None:
    whole = cloud_of(1)
    less = downsample(whole, 40, method, candidates=200, voxel_m=0.1)
    assert less.xyz_m.shape == less.rgb.shape == (2, 40, 3)
    assert less.valid.all()
    for row in range(2):
        known = {tuple(p) for p in whole.xyz_m[row][whole.valid[row]].tolist()}
        kept = [tuple(p) for p in less.xyz_m[row].tolist()]
        assert len(set(kept)) == 40
        assert set(kept) <= known
    assert torch.equal(less.rgb, less.xyz_m * 0.5 + 0.5)
    again = downsample(whole, 40, method, candidates=200, voxel_m=0.1)
    assert torch.equal(again.xyz_m, less.xyz_m)
    alone = downsample(take_row(whole, 1), 40, method, candidates=200, voxel_m=0.1)
    assert torch.equal(alone.xyz_m[0], less.xyz_m[1])
    torch.manual_seed(0)
    drawn = downsample(whole, 40, method, candidates=60, voxel_m=0.1, jitter=True)
    assert not torch.equal(drawn.xyz_m, downsample(whole, 40, method, candidates=60, voxel_m=0.1, jitter=True).xyz_m)


def take_row(cloud: Cloud, row: int) -> Cloud:
    rows = slice(row, row + 1)
    return Cloud(cloud.xyz_m[rows], cloud.rgb[rows], cloud.valid[rows])


@pytest.mark.parametrize("method", METHODS)
def test_a_cloud_with_fewer_points_keeps_them_all(method: Method) -> None:
    whole = cloud_of(2, count=20)
    less = downsample(whole, 64, method, candidates=64, voxel_m=1e-4)
    for row in range(2):
        found = {tuple(p) for p in less.xyz_m[row][less.valid[row]].tolist()}
        assert found == {tuple(p) for p in whole.xyz_m[row][whole.valid[row]].tolist()}
    nothing = Cloud(whole.xyz_m, whole.rgb, torch.zeros_like(whole.valid))
    assert not downsample(nothing, 64, method, candidates=64).valid.any()


def test_voxels_count_surfaces_by_their_area() -> None:
    """A near surface with ten times the points of a far one of the same size gets as many, not ten times as many."""
    draw = torch.Generator().manual_seed(0)
    many, few = torch.rand(1000, 3, generator=draw), torch.rand(100, 3, generator=draw)
    for flat in (many, few):
        flat[:, 2] = 0.5
    few[:, 0] += 3
    xyz = torch.cat([many, few])[None]
    whole = Cloud(xyz, xyz, torch.ones(1, 1100, dtype=torch.bool))

    def share(method: Method) -> float:
        less = downsample(whole, 40, method, candidates=1100, voxel_m=0.25)
        return float((less.xyz_m[0, :, 0] > 2)[less.valid[0]].float().mean())

    assert share("random") < 0.15
    assert 0.4 < share("voxel") < 0.6
    assert 0.4 < share("farthest") < 0.6


def test_taking_is_indexing() -> None:
    whole = cloud_of(3)
    picked = pick_evenly(whole.valid, 10)
    less = take(whole, picked)
    for row in range(2):
        assert torch.equal(less.xyz_m[row], whole.xyz_m[row, picked.index[row]])
        assert torch.equal(less.rgb[row], whole.rgb[row, picked.index[row]])


def test_a_thinned_picture_gives_a_part_of_the_same_points() -> None:
    sensors: Mapping[str, Any] = {"a": camera_space(9, 12), "b": camera_space(9, 12)}
    batch = fake_batch(np.random.default_rng(0), 2, sensors, {"a": 1, "b": 1})
    whole, less = fuse(batch, ["a", "b"]), fuse(thinned(batch, ["a", "b"], 3, 1, 2), ["a", "b"])

    def part(value: Tensor) -> Tensor:
        return value.view(2, 2, 9, 12, -1)[:, :, 1::3, 2::3].reshape(2, -1, value[0, 0].numel())

    torch.testing.assert_close(less.xyz_m, part(whole.xyz_m), rtol=0, atol=1e-6)
    assert torch.equal(less.rgb, part(whole.rgb))
    assert torch.equal(less.valid[..., None], part(whole.valid))
    assert thinned(batch, ["a"], 1) is batch
    only = thinned(batch, ["b"], 3)
    assert only.stream("a") is batch.stream("a")
    with pytest.raises(SpecError, match="thinned"):
        thinned(batch, ["a"], 3, 3, 0)


def test_numbers_out_of_range_are_refused() -> None:
    whole = cloud_of(4)
    empty = Batch({})
    for call in (
        lambda: pick_evenly(whole.valid, 0),
        lambda: pick_evenly(whole.valid[:, :0], 3),
        lambda: pick_farthest(whole.xyz_m, whole.valid, 0),
        lambda: one_per_voxel(whole.xyz_m, whole.valid, 0.0),
        lambda: downsample(whole, 30, "voxel", candidates=20),
        lambda: downsample(whole, 30, "nearest"),  # type: ignore[arg-type]  # that is the point
        lambda: thinned(empty, [], 0),
    ):
        with pytest.raises(SpecError):
            call()
