"""Groups: centres by the rule, members by distance, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.group import Groups, group
from sensors.errors import SpecError

NAN = float("nan")
SEEDS = st.integers(0, 2**31 - 1)


def cloud(seed: int, size: int, count: int, chance: float = 0.8) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    valid = torch.from_numpy(rng.random((size, count)) < chance)
    points = torch.from_numpy(rng.uniform(-1, 1, (size, count, 3))).float()
    return torch.where(valid[..., None], points, NAN), valid


def as_set(groups: Groups, row: int = 0) -> set[tuple[tuple[float, ...], ...]]:
    """Groups of one cloud as what they are: sets of relative points, without any order."""
    return {
        (tuple(centre), *sorted(map(tuple, members[known].tolist())))
        for centre, members, known, valid in zip(
            groups.centre_m[row].tolist(),
            groups.relative_m[row],
            groups.member_valid[row],
            groups.valid[row],
            strict=True,
        )
        if valid
    }


@settings(max_examples=25)
@given(seed=SEEDS, count=st.integers(1, 60), groups=st.integers(1, 10), size=st.integers(1, 12))
def test_centres_are_greedy_and_members_are_nearest(seed: int, count: int, groups: int, size: int) -> None:
    points, valid = cloud(seed, 2, count)
    made = group(points, valid, groups, size)
    for row in range(2):
        own = [n for n in range(count) if valid[row, n]]
        number = min(groups, len(own))
        assert made.valid[row].tolist() == [g < number for g in range(groups)]
        assert not made.member_valid[row, number:].any()
        assert (made.centre_m[row, number:] == 0).all()
        assert (made.relative_m[row, number:] == 0).all()
        centres = made.centre[row, :number].tolist()
        place = points[row].double()
        for g, centre in enumerate(centres):
            assert centre in own
            if g:  # each attains the largest distance to those before it
                gaps = torch.stack([(place[own] - place[c]).norm(dim=1) for c in centres[:g]]).amin(0)
                gap = torch.stack([(place[centre] - place[c]).norm() for c in centres[:g]]).min()
                assert float(gap) == pytest.approx(float(gaps.max()), abs=1e-6)
            apart = sorted((float((place[n] - place[centre]).norm()), n) for n in own)[:size]
            members = made.index[row, g][made.member_valid[row, g]].tolist()
            assert members == [n for _, n in apart]
            assert members[0] == centre
            torch.testing.assert_close(
                made.relative_m[row, g, : len(members)], points[row, members] - points[row, centre]
            )
            assert (made.relative_m[row, g, len(members) :] == 0).all()
    assert made.relative_m.isfinite().all()
    assert made.centre_m.isfinite().all()


@settings(max_examples=15)
@given(seed=SEEDS)
@example(seed=374157)  # where the first point of all is the one that sampling begins at
def test_the_set_of_groups_is_the_same_in_any_order(seed: int) -> None:
    points, valid = cloud(seed, 1, 120)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(120))
    one = group(points, valid, 8, 6)
    other = group(points[:, order], valid[:, order], 8, 6)
    assert as_set(one) == as_set(other)
    # A start that is no centre of these: the nearest point to one, which farthest point sampling leaves out.
    first = int(one.centre[0, 0])
    apart = torch.where(valid[0], (points[0] - points[0, first]).norm(dim=1), torch.inf)
    apart[first] = torch.inf
    assert as_set(one) != as_set(group(points, valid, 8, 6, start=apart.argmin()[None]))


@settings(max_examples=15)
@given(seed=SEEDS)
def test_relative_points_do_not_change_when_the_cloud_is_moved_or_has_mates(seed: int) -> None:
    points, valid = cloud(seed, 2, 100)
    start = valid.int().argmax(1)
    shift = torch.tensor([0.5, -1.25, 2.0])
    one = group(points, valid, 8, 6, start)
    moved = group(points + shift, valid, 8, 6, start)
    assert one.index.equal(moved.index)
    torch.testing.assert_close(one.relative_m, moved.relative_m, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.centre_m + shift, moved.centre_m, rtol=0, atol=1e-5)
    alone = group(points[1:], valid[1:], 8, 6, start[1:])
    assert alone.relative_m.equal(one.relative_m[1:])
    assert not alone.relative_m.equal(one.relative_m[:1])


def test_the_first_centre_is_the_one_that_was_asked_for() -> None:
    points, valid = cloud(3, 2, 200, 1.0)
    for start in (0, 1, 77, 199):
        assert group(points, valid, 4, 3, torch.tensor([start, 5])).centre[:, 0].tolist() == [start, 5]


def test_values_of_the_members() -> None:
    points, valid = cloud(4, 2, 50, 1.0)
    made = group(points, valid, 5, 4)
    values = torch.randn(2, 50, 6, requires_grad=True)
    gathered = made.gather(values)
    assert gathered.shape == (2, 5, 4, 6)
    assert gathered[1, 2, 3].equal(values[1, made.index[1, 2, 3]])
    relative = made.gather(points) - made.centre_m[:, :, None]
    torch.testing.assert_close(relative, made.relative_m)
    gathered.sum().backward()
    assert values.grad is not None
    assert values.grad[0, :, 0].equal(torch.bincount(made.index[0].flatten(), minlength=50).float())


def test_empty_single_equal_and_unusable_clouds() -> None:
    points = torch.full((3, 6, 3), 0.5)
    valid = torch.tensor([[True] * 6, [False] * 6, [False, True] + [False] * 4])
    made = group(points, valid, 3, 4)
    assert made.valid.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert made.member_valid.sum(2).tolist() == [[4, 4, 4], [0, 0, 0], [1, 0, 0]]
    assert (made.relative_m == 0).all()
    assert made.index[2, 0].tolist() == [1] * 4
    # Valid but not finite counts as not there, and reaches neither centres nor members.
    points = torch.rand(1, 8, 3)
    points[0, 2, 1] = NAN
    points[0, 5, 0] = float("inf")
    made = group(points, torch.ones(1, 8, dtype=torch.bool), 8, 8)
    assert made.valid.sum() == 6
    assert made.member_valid.sum() == 36
    assert not {2, 5} & set(made.index[made.member_valid].tolist())
    assert made.relative_m.isfinite().all()


def test_what_does_not_fit_is_refused() -> None:
    points, valid = cloud(0, 1, 5)
    for groups, size in ((0, 3), (3, 0)):
        with pytest.raises(SpecError, match="group"):
            group(points, valid, groups, size)
    with pytest.raises(SpecError):
        group(points[:, :0], valid[:, :0], 2, 2)
