"""Curves: codes against the algorithm of the paper one point at a time, and what makes a Hilbert curve one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.serialise import CURVES, MAX_DEPTH, Curve, decode, depth_of, encode, serialise
from sensors.errors import SpecError

SEEDS = st.integers(0, 2**31 - 1)
DEPTHS = st.integers(1, MAX_DEPTH)


def slow_hilbert(point: list[int], depth: int) -> int:
    """One point by Skilling's published procedure: undo the excess work, Gray-encode, read the transpose by bits."""
    x = list(point)
    q = 1 << (depth - 1)
    while q > 1:
        for i in range(3):
            if x[i] & q:
                x[0] ^= q - 1
            else:
                t = (x[0] ^ x[i]) & (q - 1)
                x[0] ^= t
                x[i] ^= t
        q >>= 1
    for i in range(1, 3):
        x[i] ^= x[i - 1]
    t = 0
    q = 1 << (depth - 1)
    while q > 1:
        if x[2] & q:
            t ^= q - 1
        q >>= 1
    return slow_z([value ^ t for value in x], depth)


def slow_z(point: list[int], depth: int) -> int:
    """One point, bit by bit."""
    digits = "".join(str((value >> bit) & 1) for bit in range(depth - 1, -1, -1) for value in point)
    return int(digits, 2)


def slow(point: list[int], depth: int, curve: Curve) -> int:
    x, y, z = point
    first = [y, x, z] if curve.endswith("trans") else [x, y, z]
    return (slow_hilbert if curve.startswith("hilbert") else slow_z)(first, depth)


def cells(seed: int, count: int, depth: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 1 << depth, (count, 3)))


def cube(depth: int) -> Tensor:
    line = torch.arange(1 << depth)
    return torch.cartesian_prod(line, line, line)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("depth", range(1, MAX_DEPTH + 1))
def test_codes_are_those_of_the_published_procedure(curve: Curve, depth: int) -> None:
    cell = cells(depth, 60, depth)
    cell[0], cell[1] = 0, (1 << depth) - 1
    assert encode(cell, depth, curve).tolist() == [slow(point, depth, curve) for point in cell.tolist()]


@settings(max_examples=20)
@given(seed=SEEDS, depth=DEPTHS, curve=st.sampled_from(CURVES), data=st.data())
def test_decoding_gives_back_cells_and_samples(seed: int, depth: int, curve: Curve, data: st.DataObject) -> None:
    cell = cells(seed, 1000, depth)
    highest = min((1 << (63 - 3 * depth)) - 1, 1 << 40)
    sample = torch.full((1000,), data.draw(st.integers(0, highest)))
    code = encode(cell, depth, curve, sample)
    assert (code >= 0).all()
    assert (code.unique().numel() == cell.unique(dim=0).shape[0]) or depth == MAX_DEPTH
    got, own = decode(code, depth, curve)
    assert got.equal(cell)
    assert own.equal(sample)


@pytest.mark.parametrize("depth", range(1, 6))
def test_every_step_of_a_hilbert_curve_through_a_full_cube_is_one(depth: int) -> None:
    cell = cube(depth)
    for curve in ("hilbert", "hilbert-trans"):
        done = serialise(cell, depth, (curve,))
        assert done.codes[0].sort().values.equal(torch.arange(8**depth))
        walk = cell[done.order[0]]
        assert ((walk[1:] - walk[:-1]).abs().sum(1) == 1).all()


def test_steps_of_the_z_curve_through_a_full_cube() -> None:
    """What the Hilbert curve is for: here a step is 1.46 cells on average, and up to 21."""
    cell = cube(4)
    walk = cell[serialise(cell, 4, ("z",)).order[0]].double()
    steps = (walk[1:] - walk[:-1]).norm(dim=1)
    # The longest, in the middle: from (7, 15, 15) to (8, 0, 0).
    assert float(steps.max()) == pytest.approx((1 + 15**2 + 15**2) ** 0.5)
    assert float(steps.mean()) == pytest.approx(1.457, abs=1e-3)


@settings(max_examples=20)
@given(seed=SEEDS, depth=st.integers(2, MAX_DEPTH))
def test_a_prefix_of_each_code_is_a_cell_of_the_octree(seed: int, depth: int) -> None:
    """So pooling by ``code >> 3`` is the same on every curve, and keeps the codes of the coarser cells."""
    cell = cells(seed, 2000, depth)
    for curve in CURVES:
        assert (encode(cell, depth, curve) >> 3).equal(encode(cell >> 1, depth - 1, curve))


def test_the_curves_differ_and_hilbert_depends_on_its_depth() -> None:
    cell = cells(0, 500, 6)
    codes = [tuple(encode(cell, 6, curve).tolist()) for curve in CURVES]
    assert len(set(codes)) == 4
    # Three more levels of zeros turn the axes full circle; one more does not.
    assert encode(cell, 9, "hilbert").equal(encode(cell, 6, "hilbert"))
    assert not encode(cell, 7, "hilbert").equal(encode(cell, 6, "hilbert"))


@settings(max_examples=20)
@given(seed=SEEDS, count=st.integers(0, 400))
def test_orders_sort_stably_by_sample_then_code(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    cell = torch.from_numpy(rng.integers(0, 8, (count, 3)))
    sample = torch.from_numpy(rng.integers(0, 3, count))
    done = serialise(cell, 3, CURVES, sample)
    assert done.depth == 3
    for row, curve in enumerate(CURVES):
        codes = [slow(point, 3, curve) for point in cell.tolist()]
        expected = sorted(range(count), key=lambda n: (int(sample[n]), codes[n], n))
        assert done.order[row].tolist() == expected
        assert done.order[row][done.inverse[row]].tolist() == list(range(count))


@settings(max_examples=20)
@given(seed=SEEDS)
def test_an_order_does_not_depend_on_the_order_it_is_made_from(seed: int) -> None:
    cell = cells(seed, 300, 5).unique(dim=0)
    shuffled = cell[torch.from_numpy(np.random.default_rng(seed).permutation(len(cell)))]
    one, other = serialise(cell, 5), serialise(shuffled, 5)
    for row in range(4):
        assert cell[one.order[row]].equal(shuffled[other.order[row]])


def test_depth_of_the_cells() -> None:
    for value, depth in ((0, 1), (1, 1), (2, 2), (255, 8), (256, 9)):
        assert depth_of(torch.tensor([[0, value, 0]])) == depth
    assert depth_of(torch.zeros(0, 3, dtype=torch.int64)) == 1


def test_empty_one_and_other_shapes() -> None:
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    for curve in CURVES:
        assert encode(nothing, 4, curve).shape == (0,)
        assert decode(encode(nothing, 4, curve), 4, curve)[0].shape == (0, 3)
        cell = cells(1, 24, 7)
        flat = encode(cell, 7, curve)
        assert encode(cell.view(2, 3, 4, 3), 7, curve).flatten().equal(flat)
        assert encode(cell.to(torch.int32), 7, curve).equal(flat)
        assert encode(cell[:1], 7, curve).equal(flat[:1])
    assert serialise(nothing, 4).order.shape == (4, 0)


def test_arguments_are_not_changed() -> None:
    cell = cells(3, 100, 8)
    before = cell.clone()
    for curve in CURVES:
        code = encode(cell, 8, curve)
        kept = code.clone()
        decode(code, 8, curve)
        assert code.equal(kept)
    assert cell.equal(before)
    narrow = cell.to(torch.int32)
    encode(narrow, 8, "hilbert")
    assert narrow.equal(before.to(torch.int32))


def test_two_million_points() -> None:
    cell = torch.randint(0, 1 << 16, (2_000_000, 3), generator=torch.Generator().manual_seed(0))
    code = encode(cell, 16, "hilbert")
    assert decode(code[::50], 16, "hilbert")[0].equal(cell[::50])


def test_what_does_not_fit_is_refused() -> None:
    cell = cells(0, 10, 4)
    with pytest.raises(SpecError, match="0 to 7"):
        encode(cell.fill_diagonal_(8), 3, "z")
    with pytest.raises(SpecError, match="Shift the grid"):
        encode(-cell - 1, 5, "z")
    with pytest.raises(SpecError, match="integers"):
        encode(cell.double(), 5, "z")
    with pytest.raises(SpecError, match=r"\[\.\.\., 3\]"):
        encode(cell[:, :2], 5, "z")
    for depth in (0, 22):
        with pytest.raises(SpecError, match="larger voxels"):
            encode(cell, depth, "z")
        with pytest.raises(SpecError, match="larger voxels"):
            decode(torch.zeros(1, dtype=torch.int64), depth, "z")
    with pytest.raises(SpecError, match="hilbert-trans"):
        encode(cell, 5, "peano")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="smaller batches"):
        encode(cell, 20, "z", torch.full((10,), 8))
    with pytest.raises(SpecError, match="smaller batches"):
        encode(cell, 5, "z", torch.full((10,), -1))
    with pytest.raises(SpecError, match="int64 >= 0"):
        decode(torch.tensor([-1]), 5, "z")
    with pytest.raises(SpecError, match="at least one curve"):
        serialise(cell, 5, ())
