"""Depth in 16 bits: off by half a quantum at most, and what is no measurement stays none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.keyframes.depth import depth_quantum_m, pack, unpack
from sensors.spec import box


@given(st.lists(st.floats(0, 8, width=32), min_size=1), st.sampled_from([1e-4, 2.5e-4, 1e-3]))
def test_depth_is_off_by_half_a_quantum_at_most(values: list[float], quantum_m: float) -> None:
    depth = np.clip(np.array(values, np.float32), np.float32(quantum_m), np.float32(65535 * quantum_m))
    back = np.empty_like(depth)
    packed = pack(depth, quantum_m)
    unpack(packed, quantum_m, back)
    assert packed.dtype == np.uint16
    # What float32 itself cannot tell apart at 6.5 m comes on top: half a micrometre.
    assert np.abs(back.astype(float) - depth).max() <= quantum_m / 2 + 1e-6
    np.testing.assert_array_equal(pack(back, quantum_m), packed)


def test_no_measurement_stays_none_and_a_measurement_one() -> None:
    depth = np.array([0.0, -0.0, -1.0, np.nan, np.inf, -np.inf, 6.56, 1e9, 1e-6, 6.5535, 1e-4], np.float32)
    np.testing.assert_array_equal(pack(depth, 1e-4), [0] * 8 + [1, 65535, 1])


@pytest.mark.parametrize(
    ("high_m", "quantum_m"),
    [(2.0, 1e-4), (6.5, 1e-4), (10.0, 10.0 / 65535), (1000.0, 1e-3), (np.inf, 1e-4)],
)
def test_the_quantum_follows_from_the_range(high_m: float, quantum_m: float) -> None:
    assert depth_quantum_m("depth_m", box(0.0, high_m, (4, 4))) == pytest.approx(quantum_m)


def test_only_depth_pictures_are_packed() -> None:
    assert depth_quantum_m("indentation_m", box(0.0, 1.0, (4, 4))) is None
    assert depth_quantum_m("depth_m", box(0.0, 1.0, (4,))) is None
    assert depth_quantum_m("depth_m", box(0, 9, (4, 4), np.uint16)) is None
