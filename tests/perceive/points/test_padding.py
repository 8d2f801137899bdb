"""Patches, sets and groups: against their published formulas in plain loops, and what must not matter."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.padding import Pieces, borrow_padding, partition_sets, snake_groups, snake_order, windows_of
from sensors.errors import SpecError

SEEDS = st.integers(0, 2**31 - 1)
AXES: tuple[Literal["x", "y"], ...] = ("x", "y")


def check(pieces: Pieces, points: int) -> None:
    """What holds of all maps: every point has a place of its own that attention looks at, and comes back."""
    assert pieces.index.flatten()[pieces.place].equal(torch.arange(points))
    assert pieces.key.flatten()[pieces.place].all()
    assert pieces.place.unique().numel() == points
    values = torch.arange(2.0 * points).view(points, 2)
    assert pieces.give(pieces.take(values)).equal(values)
    assert pieces.take(values)[pieces.key].equal(values[pieces.index[pieces.key]])


def slow_patches(counts: list[int], length: int) -> list[list[int]]:
    """PTv3's rule for clouds longer than a patch: the last patch begins with the tail of the one before."""
    patches, first = [], 0
    for count in counts:
        own = list(range(first, first + count))
        padded = own[:]
        while len(padded) % length and count > length:
            padded.append(padded[len(padded) - length])
        if count <= length:
            padded = [own[slot % count] for slot in range(length)] if count else []
        patches += [padded[start : start + length] for start in range(0, len(padded), length)]
        first += count
    return patches


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 40), max_size=5), length=st.integers(1, 16))
def test_patches_borrow_from_the_one_before(counts: list[int], length: int) -> None:
    pieces = borrow_padding(torch.tensor(counts, dtype=torch.int64), length)
    assert pieces.index.tolist() == slow_patches(counts, length)
    check(pieces, sum(counts))
    assert pieces.sample.tolist() == [b for b, count in enumerate(counts) for _ in range(-(-count // length))]
    for patch, key in zip(pieces.index, pieces.key, strict=True):
        # No point is looked at twice, whether it stands twice or not.
        assert patch[key].unique().numel() == int(key.sum())


@pytest.mark.parametrize("count", [7, 8, 24, 25])
def test_full_patches_around_the_length_of_one(count: int) -> None:
    pieces = borrow_padding(torch.tensor([count]), 8)
    assert pieces.index.shape == (math.ceil(count / 8), 8)
    assert pieces.key.all() == (count >= 8)
    if count == 25:
        assert pieces.index[-1].tolist() == [24, 17, 18, 19, 20, 21, 22, 23]
    if count == 7:
        assert pieces.key.tolist() == [[True] * 7 + [False]]


def test_patches_of_sorted_points() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    pieces = borrow_padding(torch.tensor([5]), 2).after(order)
    assert pieces.index.tolist() == [[3, 0], [4, 1], [2, 1]]
    check(pieces, 5)


def test_values_go_in_and_out_with_gradients() -> None:
    pieces = borrow_padding(torch.tensor([5, 3]), 4)
    values = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: pieces.give(pieces.take(v).square()), (values,))
    inner = torch.randn(*pieces.index.shape, 3, dtype=torch.float64, requires_grad=True)
    pieces.give(inner).sum().backward()
    assert inner.grad is not None
    assert int(inner.grad.count_nonzero()) == 8 * 3


# ----------------------------------------------------------------------------------------------------------------- sets


def pillars(seed: int, samples: int, side: int, share: float, height: int = 1) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    there = torch.from_numpy(rng.permutation(np.argwhere(rng.random((samples, side, side, height)) < share)))
    return there[:, 1:], there[:, 0]


def slow_sets(
    cell: Tensor, sample: Tensor, shape: tuple[int, int, int], shift: tuple[int, int, int], length: int, major: str
) -> list[list[int]]:
    windows = defaultdict(list)
    for number, (own, place) in enumerate(zip(sample.tolist(), cell.tolist(), strict=True)):
        moved = [p + s for p, s in zip(place, shift, strict=True)]
        key = (own, *(m // w for m, w in zip(moved, shape, strict=True)))
        x, y, z = (m % w for m, w in zip(moved, shape, strict=True))
        windows[key].append(((x, y, z) if major == "x" else (y, x, z), number))
    sets = []
    for key in sorted(windows):
        own_sorted = [number for _, number in sorted(windows[key])]
        n = len(own_sorted)
        s = math.ceil(n / length)
        sets += [[own_sorted[((i * length + j) * n) // (length * s)] for j in range(length)] for i in range(s)]
    return sets


@settings(max_examples=30)
@given(
    seed=SEEDS,
    share=st.sampled_from([0.05, 0.5, 1.0]),
    shape=st.sampled_from([(3, 4, 1), (6, 6, 2), (12, 12, 1)]),
    shift=st.sampled_from([(0, 0, 0), (2, 3, 0), (3, 3, 1)]),
    length=st.integers(1, 9),
    major=st.sampled_from(AXES),
)
def test_sets_are_dealt_by_the_closed_formula(
    seed: int,
    share: float,
    shape: tuple[int, int, int],
    shift: tuple[int, int, int],
    length: int,
    major: Literal["x", "y"],
) -> None:
    cell, sample = pillars(seed, 2, 9, share, 2)
    windows = windows_of(cell, sample, shape, shift)
    pieces = partition_sets(windows, length, major)
    assert pieces.index.tolist() == slow_sets(cell, sample, shape, shift, length, major)
    check(pieces, len(cell))
    assert sample[pieces.index[:, 0]].equal(pieces.sample)
    # Masked places of a window: S L - n.
    assert int((~pieces.key).sum()) == len(pieces.index) * length - len(cell)
    sets = (windows.count + length - 1) // length
    owner = torch.repeat_interleave(torch.arange(len(sets)), sets)
    masked = torch.zeros_like(sets).index_add(0, owner, (~pieces.key).sum(1))
    assert masked.equal(sets * length - windows.count)
    # Each voxel is in one set only, its repetitions side by side.
    assert pieces.index[pieces.key].sort().values.equal(torch.arange(len(cell)))
    assert pieces.index[:, 1:][~pieces.key[:, 1:]].equal(pieces.index[:, :-1][~pieces.key[:, 1:]])


def test_windows_hold_their_cells() -> None:
    cell = torch.tensor([[0, 0, 0], [11, 0, 0], [12, 0, 0], [-1, 5, 0], [0, 0, 0]])
    windows = windows_of(cell, torch.tensor([0, 0, 0, 0, 1]), (12, 12, 1))
    assert windows.index.tolist() == [1, 1, 2, 0, 3]
    assert windows.count.tolist() == [1, 2, 1, 1]
    assert windows.sample.tolist() == [0, 0, 0, 1]
    assert windows.inner.tolist() == [[0, 0, 0], [11, 0, 0], [0, 0, 0], [11, 5, 0], [0, 0, 0]]
    moved = windows_of(cell, torch.zeros(5, dtype=torch.int64), (12, 12, 1), (6, 6, 0))
    assert moved.index.tolist() == [0, 1, 1, 0, 0]


def test_the_paper_size() -> None:
    """A full window of 12 x 12 holds exactly 4 sets of 36; one voxel more would be a fifth."""
    cell = torch.cartesian_prod(torch.arange(12), torch.arange(12), torch.zeros(1, dtype=torch.int64))
    pieces = partition_sets(windows_of(cell, torch.zeros(144, dtype=torch.int64), (12, 12, 1)), 36, "x")
    assert pieces.index.tolist() == torch.arange(144).view(4, 36).tolist()
    assert pieces.key.all()
    turned = partition_sets(windows_of(cell, torch.zeros(144, dtype=torch.int64), (12, 12, 1)), 36, "y")
    assert turned.index.flatten().equal(torch.arange(144).view(12, 12).T.flatten())


# --------------------------------------------------------------------------------------------------------------- snakes


def published_key(cell: Tensor, shape: tuple[int, int], shift: tuple[int, int], along: str, rows: int) -> list[int]:
    """The integer formula of the paper's code, for one cloud: spans are doubled so that backward rows fit between."""
    keys = []
    for x, y, *_ in cell.tolist():
        quick, slow = ((x, 0), (y, 1)) if along == "x" else ((y, 1), (x, 0))
        (q1, q2), (s1, s2) = (divmod(value + shift[axis], shape[axis]) for value, axis in (quick, slow))
        wide, deep = 2 * shape[quick[1]], 2 * shape[slow[1]]
        sign = (-1) ** s1
        keys.append((2 * rows * s1 + sign * q1) * wide * deep + sign * (deep * q2 + (-1) ** q2 * s2))
    return keys


@settings(max_examples=30)
@given(
    seed=SEEDS,
    share=st.sampled_from([0.05, 0.5, 1.0]),
    shape=st.sampled_from([(3, 3), (3, 4), (4, 3)]),
    shifted=st.booleans(),
    along=st.sampled_from(AXES),
    corner=st.sampled_from([0, 3, 4, 7]),
)
def test_snakes_have_the_order_of_the_published_key(
    seed: int, share: float, shape: tuple[int, int], shifted: bool, along: Literal["x", "y"], corner: int
) -> None:
    cell, sample = pillars(seed, 1, 14, share)
    cell = cell + corner  # which rows run backwards hangs on the grid, not on where a cloud begins
    shift = (shape[0] // 2, shape[1] // 2) if shifted else (0, 0)
    keys = published_key(cell, shape, shift, along, rows=9)
    order = snake_order(cell, sample, shape, shift, along)
    walked = [keys[number] for number in order.tolist()]
    assert all(one < other for one, other in itertools.pairwise(walked))
    assert order.sort().values.equal(torch.arange(len(cell)))


def test_a_snake_makes_no_leap_where_a_row_of_windows_ends() -> None:
    cell = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    order = snake_order(cell, torch.zeros(144, dtype=torch.int64), (3, 3), (0, 0), "x")
    walk = cell[order]
    assert walk[:9].tolist() == [[0, 0], [0, 1], [0, 2], [1, 2], [1, 1], [1, 0], [2, 0], [2, 1], [2, 2]]
    ends = [int((walk[end] - walk[end - 1]).abs().max()) for end in (36, 72, 108)]
    assert max(ends) <= 3
    rows = cell[:, 1] // 3 * 144 + cell[:, 0]  # as one would read lines of text
    plain = cell[rows.sort(stable=True).indices]
    assert int((plain[36] - plain[35]).abs().max()) == 11


@settings(max_examples=20)
@given(seed=SEEDS, along=st.sampled_from(AXES), length=st.integers(1, 20))
def test_groups_follow_the_snake_and_not_the_batch(seed: int, along: Literal["x", "y"], length: int) -> None:
    cell, sample = pillars(seed, 3, 10, 0.3)
    order = snake_order(cell, sample, (3, 3), (1, 1), along)
    assert (sample[order][1:] >= sample[order][:-1]).all()
    pieces = snake_groups(order, sample, 3, length)
    check(pieces, len(cell))
    counts = torch.bincount(sample, minlength=3).tolist()
    assert pieces.index.tolist() == [[int(order[n]) for n in patch] for patch in slow_patches(counts, length)]
    own = (sample == 1).nonzero()[:, 0]
    alone_order = snake_order(cell[own], sample[own] * 0, (3, 3), (1, 1), along)
    alone = snake_groups(alone_order, sample[own] * 0, 1, length)
    assert own[alone.index].equal(pieces.index[pieces.sample == 1])


def test_the_order_of_the_pillars_does_not_matter() -> None:
    cell, sample = pillars(3, 2, 20, 0.4)
    shuffle = torch.from_numpy(np.random.default_rng(1).permutation(len(cell)))
    for along in AXES:
        one = snake_order(cell, sample, (9, 9), (4, 4), along)
        other = snake_order(cell[shuffle], sample[shuffle], (9, 9), (4, 4), along)
        assert shuffle[other].equal(one)
        sets = [
            partition_sets(windows_of(c, s, (12, 12, 1), (6, 6, 0)), 36, along).index
            for c, s in ((cell, sample), (cell[shuffle], sample[shuffle]))
        ]
        assert shuffle[sets[1]].equal(sets[0])
    assert not snake_order(cell, sample, (9, 9), (4, 4), "x").equal(snake_order(cell, sample, (9, 9), (4, 4), "y"))


def test_no_points_and_one() -> None:
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    assert borrow_padding(torch.tensor([0, 0]), 8).index.shape == (0, 8)
    assert partition_sets(windows_of(nothing, nothing[:, 0], (12, 12, 1)), 36, "x").index.shape == (0, 36)
    order = snake_order(nothing, nothing[:, 0], (9, 9), (0, 0), "x")
    assert snake_groups(order, nothing[:, 0], 2, 69).index.shape == (0, 69)
    one, sample = torch.tensor([[5, 7, 0]]), torch.zeros(1, dtype=torch.int64)
    for pieces in (
        borrow_padding(torch.tensor([1]), 4),
        partition_sets(windows_of(one, sample, (12, 12, 1)), 4, "y"),
        snake_groups(snake_order(one, sample, (9, 9), (0, 0), "y"), sample, 1, 4),
    ):
        assert pieces.index.tolist() == [[0] * 4]
        assert pieces.key.tolist() == [[True, False, False, False]]
        check(pieces, 1)


def test_what_does_not_fit_is_refused() -> None:
    cell, sample = pillars(0, 1, 4, 0.5)
    windows = windows_of(cell, sample, (2, 2, 1))
    with pytest.raises(SpecError, match="borrow_padding"):
        borrow_padding(torch.tensor([3]), 0)
    with pytest.raises(SpecError, match="borrow_padding"):
        borrow_padding(torch.tensor([3, -1]), 4)
    with pytest.raises(SpecError, match="windows_of"):
        windows_of(cell, sample, (2, 0, 1))
    with pytest.raises(SpecError, match="partition_sets"):
        partition_sets(windows, 0, "x")
    with pytest.raises(SpecError, match="partition_sets"):
        partition_sets(windows, 4, "z")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="snake_order"):
        snake_order(cell, sample, (0, 3), (0, 0), "x")
    with pytest.raises(SpecError, match="snake_order"):
        snake_order(cell, sample, (3, 3), (0, 0), "z")  # type: ignore[arg-type]
