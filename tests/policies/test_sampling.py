"""Sample order and seeds are functions of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.optimisation import learning_rate
from policies.sampling import SampleOrder, extend_digest, step_seed
from sensors.errors import DataError


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 5))
def test_every_sample_comes_once_an_epoch(count: int, batch: int, seed: int) -> None:
    indices = np.arange(count) * 3 + 1
    order = SampleOrder(indices, batch, seed)
    steps = -(-3 * count // batch)
    row = np.concatenate([order.step(step) for step in range(steps)])
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(row[epoch * count : (epoch + 1) * count]), indices)
    if count > 20:
        assert not np.array_equal(row[:count], row[count : 2 * count]), "every epoch has an order of its own"


def test_a_step_does_not_depend_on_what_was_asked_before() -> None:
    forward = SampleOrder(np.arange(10), 4, 0)
    taken = [forward.step(step) for step in range(9)]
    backward = SampleOrder(np.arange(10), 4, 0)
    for step in reversed(range(9)):
        np.testing.assert_array_equal(backward.step(step), taken[step])
    other = [SampleOrder(np.arange(10), 4, 1).step(step) for step in range(9)]
    assert not all(np.array_equal(a, b) for a, b in zip(taken, other, strict=True))
    assert forward.epoch(5) == 2.0


def test_no_sample_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        SampleOrder(np.arange(0), 4, 0)


def test_seeds_differ_by_everything() -> None:
    seeds = {step_seed(a, b, c, d) for a in range(3) for b in range(3) for c in range(3) for d in range(3)}
    assert len(seeds) == 81
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_digest_knows_the_order() -> None:
    one = extend_digest(extend_digest(0, np.array([1, 2])), np.array([3]))
    assert one == extend_digest(0, np.array([1, 2, 3]))
    assert one != extend_digest(0, np.array([2, 1, 3]))


def test_learning_rate_in_closed_form() -> None:
    rates = [learning_rate(step, 110, 1.0, 10, True, floor=0.1) for step in range(111)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[110] == pytest.approx(0.1)
    assert learning_rate(500, 110, 1.0, 10, False) == 1.0
    assert learning_rate(0, 5, 1.0, 0, True) == pytest.approx(1.0)
