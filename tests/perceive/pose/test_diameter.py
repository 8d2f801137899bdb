"""The diameter equals the definition, also for flat, thin and tiny sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from perceive.pose.diameter import diameter


@given(st.integers(0, 2**31 - 1), st.integers(2, 300), st.integers(0, 3))
@settings(max_examples=40)
def test_as_defined(seed: int, count: int, thickness: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, 3)) * np.array([1, thickness > 0, thickness > 1]) + rng.standard_normal(3)
    assert diameter(points) == pytest.approx(pdist(points).max(), abs=1e-14)


def test_by_hand() -> None:
    assert diameter(np.array([[0, 0, 0], [3, 4, 0], [1, 1, 1.0]])) == 5.0
    assert diameter(np.array([[1.0, 2, 3]])) == 0.0
    assert diameter(np.tile([[1.0, 2, 3]], (50, 1))) == 0.0


def test_more_corners_than_one_block() -> None:
    rng = np.random.default_rng(0)
    ball = rng.standard_normal((2500, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)  # every point is a corner of the hull
    assert diameter(ball) == pytest.approx(pdist(ball).max(), abs=1e-14)
