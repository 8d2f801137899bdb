"""Submanifold convolution: equal to a dense one at the voxels, in value and gradient, and the same bits always."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.points.sparse_conv import KernelMap, SubmanifoldConv3d, kernel_map, sparse_conv
from sensors.errors import SpecError

SEEDS = st.integers(0, 2**31 - 1)
TABLE, SEARCH = 1 << 24, 0


def voxels(seed: int, samples: int, side: int, share: float) -> tuple[Tensor, Tensor]:
    """Different voxels in any order; some coordinates are below 0."""
    rng = np.random.default_rng(seed)
    there = np.argwhere(rng.random((samples, side, side, side)) < share)
    there = torch.from_numpy(rng.permutation(there))
    return there[:, 1:] - side // 2, there[:, 0]


def dense(features: Tensor, cell: Tensor, sample: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The dense convolution of the volume, read at the voxels."""
    low = cell.amin(0)
    size = (cell.amax(0) - low + 1).tolist()
    at = (sample, *(cell - low).unbind(1))
    volume = features.new_zeros(int(sample.max()) + 1, *size, features.shape[1]).index_put(at, features)
    kernel = weight.shape[1]
    out = torch.nn.functional.conv3d(
        volume.permute(0, 4, 1, 2, 3), weight.permute(0, 4, 1, 2, 3), bias, padding=kernel // 2
    )
    return out.permute(0, 2, 3, 4, 1)[at]


def pairs_of(found: KernelMap) -> dict[tuple[int, int, int], list[tuple[int, int]]]:
    return {
        offset: list(zip(at.tolist(), other.tolist(), strict=True))
        for offset, (at, other) in zip(found.offsets, found.pairs, strict=True)
    }


@settings(max_examples=20)
@given(
    seed=SEEDS,
    samples=st.integers(1, 3),
    share=st.sampled_from([0.02, 0.3, 1.0]),
    kernel=st.sampled_from([1, 3, 5]),
    table_cells=st.sampled_from([TABLE, SEARCH]),
)
def test_neighbours_are_those_of_a_dictionary(
    seed: int, samples: int, share: float, kernel: int, table_cells: int
) -> None:
    cell, sample = voxels(seed, samples, 5, share)
    place = {(s, *c): n for n, (s, c) in enumerate(zip(sample.tolist(), cell.tolist(), strict=True))}
    reach = kernel // 2
    expected: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for offset in itertools.product(range(-reach, reach + 1), repeat=3):
        if offset > (0, 0, 0):
            moved = {
                n: place.get((key[0], *(a + b for a, b in zip(key[1:], offset, strict=True))))
                for key, n in place.items()
            }
            expected[offset] = [(n, other) for n, other in sorted(moved.items()) if other is not None]
    found = kernel_map(cell, sample, kernel, table_cells)
    assert pairs_of(found) == expected
    if len(cell):
        total = sum(map(len, expected.values()))
        assert found.mean_neighbours == pytest.approx(1 + 2 * total / len(cell))


@settings(max_examples=10)
@given(
    seed=SEEDS,
    samples=st.integers(1, 2),
    share=st.sampled_from([0.05, 0.4, 1.0]),
    kernel=st.sampled_from([1, 3, 5]),
    widths=st.sampled_from([(1, 1), (3, 8), (16, 5)]),
    bias=st.booleans(),
)
def test_values_and_gradients_are_those_of_a_dense_convolution(
    seed: int, samples: int, share: float, kernel: int, widths: tuple[int, int], bias: bool
) -> None:
    cell, sample = voxels(seed, samples, 5, share)
    if not len(cell):
        return
    torch.manual_seed(seed % 1000)
    layer = SubmanifoldConv3d(*widths, kernel=kernel, bias=bias)
    features = torch.randn(len(cell), widths[0], requires_grad=True)
    pull = torch.randn(len(cell), widths[1])
    parameters = [features, *layer.parameters()]
    out = layer(features, kernel_map(cell, sample, kernel))
    expected = dense(features, cell, sample, layer.weight, layer.bias)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad((out * pull).sum(), parameters)
    theirs = torch.autograd.grad((expected * pull).sum(), parameters)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
    assert len(parameters) == 3 if bias else 2


@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_by_differences(kernel: int) -> None:
    cell, sample = voxels(1, 2, 3, 0.3)
    found = kernel_map(cell, sample, kernel)
    generator = torch.Generator().manual_seed(0)
    shapes = ((len(cell), 2), (1, kernel, kernel, kernel, 2), (1,))
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda x, w, b: sparse_conv(x, w, b, found), inputs)


def test_each_offset_takes_its_own_matrix_from_its_own_side() -> None:
    """As torch's convolution: ``out[n] += weight[offset] @ in[n + offset]``."""
    cell = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = kernel_map(cell, torch.zeros(4, dtype=torch.int64), 3)
    weight = torch.arange(27.0).view(1, 3, 3, 3, 1)
    for axis, number in ((0, 1), (1, 2), (2, 3)):
        features = torch.zeros(4, 1)
        features[number] = 1.0
        step = [1, 1, 1]
        step[axis] = 2
        assert float(sparse_conv(features, weight, None, found)[0]) == float(weight[0, step[0], step[1], step[2], 0])
        features = torch.zeros(4, 1)
        features[0] = 1.0
        step[axis] = 0
        out = sparse_conv(features, weight, None, found)
        assert float(out[number]) == float(weight[0, step[0], step[1], step[2], 0])


@pytest.mark.parametrize(
    ("widths", "share", "side"),
    [((6, 32), 0.3, 10), ((48, 32), 1.0, 20)],
)
def test_the_same_bits_in_one_thread_and_in_two_and_again(widths: tuple[int, int], share: float, side: int) -> None:
    """A handful of pairs per offset, and hundreds: BLAS rounds otherwise in two threads where rows are few."""
    cell, sample = voxels(0, 1, side, share)
    flat = cell[:, 2] == 0  # few offsets have pairs: on a busy machine each step of two threads is slow
    cell, sample = cell[flat], sample[flat]
    torch.manual_seed(0)
    layer = SubmanifoldConv3d(*widths)
    features = torch.randn(len(cell), widths[0], requires_grad=True)
    pull = torch.randn(len(cell), widths[1])
    results = []
    for threads in (1, 1, 2):
        torch.set_num_threads(threads)
        try:
            assert torch.get_num_threads() == threads
            found = kernel_map(cell, sample, 3)
            out = layer(features, found)
            results.append([out, *torch.autograd.grad((out * pull).sum(), [features, *layer.parameters()])])
        finally:
            torch.set_num_threads(1)
    for again in results[1:]:
        assert all(one.equal(other) for one, other in zip(results[0], again, strict=True))


@settings(max_examples=5)
@given(seed=SEEDS)
def test_the_order_of_the_voxels_does_not_matter(seed: int) -> None:
    cell, sample = voxels(seed, 2, 8, 0.2)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(cell)))
    torch.manual_seed(0)
    layer, features = SubmanifoldConv3d(8, 8), torch.randn(len(cell), 8)
    one = layer(features, kernel_map(cell, sample, 3))
    other = layer(features[order], kernel_map(cell[order], sample[order], 3))
    torch.testing.assert_close(one[order], other, rtol=0, atol=1e-5)
    assert not torch.allclose(one[order], layer(features, kernel_map(cell, sample, 3)), atol=1e-3)


def test_other_clouds_of_the_batch_do_not_matter() -> None:
    cell, sample = voxels(3, 1, 8, 0.3)
    mate, _ = voxels(4, 1, 9, 0.5)
    torch.manual_seed(0)
    layer, features = SubmanifoldConv3d(16, 16), torch.randn(len(cell) + len(mate), 16)
    both = layer(
        features, kernel_map(torch.cat([cell, mate + 30]), torch.cat([sample, torch.ones(len(mate))]).long(), 3)
    )
    alone = layer(features[: len(cell)], kernel_map(cell, sample, 3))
    torch.testing.assert_close(both[: len(cell)], alone, rtol=0, atol=1e-6)
    # Positive control: in the same cloud they would be neighbours.
    mixed = kernel_map(torch.cat([cell, cell + torch.tensor([8, 0, 0])]), torch.zeros(2 * len(cell)).long(), 3)
    assert not torch.allclose(layer(torch.cat([features[: len(cell)]] * 2), mixed)[: len(cell)], alone, atol=1e-3)


@pytest.mark.parametrize("table_cells", [TABLE, SEARCH])
def test_a_voxel_that_comes_twice_is_refused(table_cells: int) -> None:
    cell, sample = voxels(5, 2, 6, 0.5)
    kernel_map(cell, sample, 3, table_cells)
    with pytest.raises(SpecError, match="comes twice"):
        kernel_map(torch.cat([cell, cell[7:8]]), torch.cat([sample, sample[7:8]]), 3, table_cells)
    # The same cell in another cloud is another voxel.
    kernel_map(torch.cat([cell, cell]), torch.cat([sample, sample + 2]), 3, table_cells)


def test_far_apart_voxels_are_searched() -> None:
    """A table of this volume would take 10^16 bytes."""
    cell = torch.tensor([[0, 0, 0], [1 << 17, 1 << 17, 1 << 17], [(1 << 17) + 1, 1 << 17, 1 << 17]])
    found = kernel_map(cell, torch.zeros(3, dtype=torch.int64), 3)
    assert {offset: pairs for offset, pairs in pairs_of(found).items() if pairs} == {(1, 0, 0): [(1, 2)]}
    with pytest.raises(SpecError, match="Crop"):
        kernel_map(cell << 4, torch.zeros(3, dtype=torch.int64), 3)


def test_none_and_one() -> None:
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    layer = SubmanifoldConv3d(4, 6, kernel=5)
    empty = torch.zeros(0, 4, requires_grad=True)
    out = layer(empty, kernel_map(nothing, nothing[:, 0], 5))
    assert out.shape == (0, 6)
    out.sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad == 0).all()
    features = torch.randn(1, 4)
    one = layer(features, kernel_map(torch.tensor([[3, -2, 9]]), torch.tensor([4]), 5))
    torch.testing.assert_close(one, features @ layer.weight[:, 2, 2, 2].T + layer.bias)


def test_half_precision_is_summed_in_single() -> None:
    cell, sample = voxels(6, 1, 6, 0.5)
    torch.manual_seed(0)
    layer, features = SubmanifoldConv3d(8, 8), torch.randn(len(cell), 8)
    found = kernel_map(cell, sample, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(features, found).equal(layer(features, found).float())
        inside = layer(features, found)
    assert inside.equal(layer(features, found))
    assert layer(features.bfloat16(), found).equal(layer(features.bfloat16().float(), found))


def test_weights_of_a_new_layer_have_the_spread_of_a_dense_one() -> None:
    torch.manual_seed(0)
    ours, theirs = SubmanifoldConv3d(32, 64, kernel=3), torch.nn.Conv3d(32, 64, 3)
    assert ours.weight.shape == (64, 3, 3, 3, 32)
    assert float(ours.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.02)
    assert list(SubmanifoldConv3d(2, 2, bias=False).state_dict()) == ["weight"]


def test_what_does_not_fit_is_refused() -> None:
    cell, sample = voxels(7, 1, 4, 0.5)
    for kernel in (0, 2, -1):
        with pytest.raises(SpecError, match="odd"):
            kernel_map(cell, sample, kernel)
        with pytest.raises(SpecError, match="odd"):
            SubmanifoldConv3d(2, 2, kernel)
    with pytest.raises(SpecError, match="Reshape"):
        kernel_map(cell, sample[1:], 3)
    found = kernel_map(cell, sample, 3)
    layer = SubmanifoldConv3d(4, 4)
    for features in (torch.zeros(len(cell), 3), torch.zeros(len(cell) + 1, 4)):
        with pytest.raises(SpecError, match="kernel map of these voxels"):
            layer(features, found)
    with pytest.raises(SpecError, match="this kernel"):
        layer(torch.zeros(len(cell), 4), kernel_map(cell, sample, 5))
