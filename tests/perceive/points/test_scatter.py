"""Pooling by segment: against loops, with gradients, and the same bits however it is run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.scatter import _sum_of_sorted, segment_count, segment_max, segment_mean, segment_sum
from sensors.errors import SpecError

NAN = float("nan")
SEEDS = st.integers(0, 2**31 - 1)
Pool = Callable[[Tensor, Tensor, int], Tensor]


def rows(seed: int, count: int, segments: int, shape: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor]:
    """Rows with their segments; those of segment -1 hold NaN."""
    rng = np.random.default_rng(seed)
    index = rng.integers(-1, segments, count) if segments else np.full(count, -1)
    values = rng.normal(size=(count, *shape))
    values[index < 0] = NAN
    return torch.from_numpy(values), torch.from_numpy(index)


def slow(values: Tensor, index: Tensor, segments: int, pool: Callable[[Tensor], Tensor]) -> Tensor:
    out = torch.zeros(segments, *values.shape[1:], dtype=values.dtype)
    for segment in range(segments):
        own = values[index == segment]
        if len(own):
            out[segment] = pool(own)
    return out


@settings(max_examples=25)
@given(
    seed=SEEDS, count=st.integers(0, 40), segments=st.integers(0, 8), shape=st.sampled_from([(), (1,), (3,), (2, 3)])
)
def test_sum_mean_and_largest_are_those_of_a_loop(seed: int, count: int, segments: int, shape: tuple[int, ...]) -> None:
    values, index = rows(seed, count, segments, shape)
    expected = slow(values, index, segments, lambda own: own.sum(0))
    torch.testing.assert_close(segment_sum(values, index, segments), expected)
    expected = slow(values, index, segments, lambda own: own.mean(0))
    torch.testing.assert_close(segment_mean(values, index, segments), expected)
    assert segment_max(values, index, segments).equal(slow(values, index, segments, lambda own: own.amax(0)))
    assert segment_count(index, segments).tolist() == [int((index == segment).sum()) for segment in range(segments)]


def test_largest_of_negative_values_is_negative() -> None:
    values = torch.tensor([[-3.0], [-2.0], [-5.0]])
    assert segment_max(values, torch.tensor([0, 0, 2]), 3).tolist() == [[-2.0], [0.0], [-5.0]]


@pytest.mark.parametrize("pool", [segment_sum, segment_mean, segment_max])
def test_gradients(pool: Pool) -> None:
    values, index = rows(1, 12, 4)
    values = torch.where(index[:, None] < 0, 0.5, values).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: pool(v, index, 4), (values,))


@pytest.mark.parametrize("pool", [segment_sum, segment_mean, segment_max])
def test_rows_of_no_segment_give_and_get_nothing(pool: Pool) -> None:
    values, index = rows(2, 30, 4)
    values.requires_grad_()
    pool(values, index, 4).square().sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert (values.grad[index < 0] == 0).all()
    assert (values.grad[index >= 0] != 0).any()


def test_equally_large_rows_share_the_gradient() -> None:
    values = torch.tensor([[2.0], [1.0], [2.0]], requires_grad=True)
    segment_max(values, torch.zeros(3, dtype=torch.int64), 1).sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [0.5, 0.0, 0.5]


@settings(max_examples=20)
@given(seed=SEEDS, count=st.integers(1, 60), segments=st.integers(1, 9))
def test_sorting_first_adds_the_same_rows_in_the_same_order(seed: int, count: int, segments: int) -> None:
    """The way of devices on which adding from many threads has no order."""
    values, index = rows(seed, count, segments)
    values, index = values[index >= 0].float(), index[index >= 0]
    torch.testing.assert_close(_sum_of_sorted(values, index, segments), segment_sum(values, index, segments))
    wide = values.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: _sum_of_sorted(v, index, segments), (wide,))


def test_the_same_bits_in_one_thread_and_in_two() -> None:
    values, index = rows(3, 10_000, 200, (48,))
    values = values.float()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            assert torch.get_num_threads() == threads
            own = values.clone().requires_grad_()
            pooled = [pool(own, index, 200) for pool in (segment_sum, segment_mean, segment_max)]
            sum(each.square().sum() for each in pooled).backward()  # type: ignore[union-attr]
            assert own.grad is not None
            results.append([*pooled, own.grad])
        finally:
            torch.set_num_threads(1)
    assert all(one.equal(other) for one, other in zip(*results, strict=True))
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(values)))
    # Positive control: in another order the sums round otherwise, the largest do not.
    assert not segment_sum(values[shuffled], index[shuffled], 200).equal(results[0][0])
    assert segment_max(values[shuffled], index[shuffled], 200).equal(results[0][2])


def test_what_does_not_fit_is_refused() -> None:
    values = torch.zeros(4, 2)
    with pytest.raises(SpecError, match="Correct the index"):
        segment_sum(values, torch.tensor([0, 1, 2, 3]), 3)
    with pytest.raises(SpecError, match="-1 to 2"):
        segment_max(values, torch.tensor([0, 1, 2, -2]), 3)
    with pytest.raises(SpecError, match="number of its segment"):
        segment_mean(values, torch.zeros(3, dtype=torch.int64), 3)
    with pytest.raises(SpecError, match="int64"):
        segment_sum(values, torch.zeros(4), 3)
