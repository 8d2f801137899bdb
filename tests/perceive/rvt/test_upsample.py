"""Convex upsampling, and the convolution of an enlarged map against the plain one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perceive.rvt.upsample import ConvexUpsample, EnlargedConv, convex_upsample
from sensors.errors import WiringError

FACTOR, SIDE = 3, 5


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_like(seed: int, scale: float = 2.0, side: int = SIDE) -> Tensor:
    return draw(seed, 2, 9 * FACTOR**2, side, side) * scale


def test_a_constant_map_stays_constant_inside_and_fades_at_the_border() -> None:
    fine = convex_upsample(torch.full((2, 1, SIDE, SIDE), 7.0, dtype=torch.float64), weights_like(0), FACTOR)
    inside = fine[..., FACTOR:-FACTOR, FACTOR:-FACTOR]
    torch.testing.assert_close(inside, torch.full_like(inside, 7.0), atol=1e-12, rtol=0)
    # Around the border zeros are mixed in, so it lies strictly between 0 and the constant.
    border = torch.ones(SIDE * FACTOR, SIDE * FACTOR, dtype=torch.bool)
    border[FACTOR:-FACTOR, FACTOR:-FACTOR] = False
    assert bool((fine[..., border] < 7).all())
    assert bool((fine[..., border] > 0).all())


@given(seed=st.integers(0, 10_000), scale=st.floats(0, 30))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_pixel_stays_within_its_neighbourhood(seed: int, scale: float) -> None:
    coarse = draw(seed, 2, 1, SIDE, SIDE)
    fine = convex_upsample(coarse, weights_like(seed + 1, scale), FACTOR)
    zeros = nn.functional.pad(coarse, (1, 1, 1, 1))  # the zero padding takes part at the border
    high = nn.functional.max_pool2d(zeros, 3, 1).repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
    low = -nn.functional.max_pool2d(-zeros, 3, 1).repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
    assert bool((fine <= high + 1e-12).all())
    assert bool((fine >= low - 1e-12).all())


def test_it_is_the_weighted_sum_written_out() -> None:
    coarse, logits = draw(0, 2, 1, SIDE, SIDE), weights_like(1)
    fine = convex_upsample(coarse, logits, FACTOR)
    for b, row, column in [(0, 0, 0), (0, 7, 4), (1, 14, 14), (1, 3, 11), (0, 8, 0)]:
        i, j = row // FACTOR, column // FACTOR
        pixel = (row % FACTOR) * FACTOR + column % FACTOR
        share = logits[b, :, i, j].view(9, FACTOR**2)[:, pixel].softmax(0)
        total = torch.zeros((), dtype=torch.float64)
        for n in range(9):
            y, x = i + n // 3 - 1, j + n % 3 - 1
            if 0 <= y < SIDE and 0 <= x < SIDE:
                total = total + share[n] * coarse[b, 0, y, x]
        torch.testing.assert_close(fine[b, 0, row, column], total, atol=1e-12, rtol=0)


def test_one_sharp_weight_copies_one_neighbour() -> None:
    coarse = draw(0, 1, 1, SIDE, SIDE)
    for n in range(9):
        logits = torch.full((1, 9, FACTOR**2, SIDE, SIDE), -1e4, dtype=torch.float64)
        logits[:, n] = 0
        fine = convex_upsample(coarse, logits.flatten(1, 2), FACTOR)
        shifted = nn.functional.pad(coarse, (1, 1, 1, 1))[..., n // 3 : n // 3 + SIDE, n % 3 : n % 3 + SIDE]
        assert torch.equal(fine[..., ::FACTOR, ::FACTOR], shifted)


def test_module_gives_one_logit_per_pixel_and_learns() -> None:
    torch.manual_seed(0)
    upsample = ConvexUpsample(16, 14)
    tokens = torch.randn(2, 16, 4, 4, requires_grad=True)
    fine = upsample(tokens)
    assert fine.shape == (2, 1, 56, 56)
    (fine * torch.randn_like(fine)).sum().backward()
    assert tokens.grad is not None
    assert bool(tokens.grad.abs().amax((0, 2, 3)).gt(0).all())
    for name, parameter in upsample.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@pytest.mark.parametrize(("kernel", "factor"), [(5, 5), (11, 11), (3, 4), (7, 2), (1, 3)])
def test_enlarged_convolution_is_the_plain_one(kernel: int, factor: int) -> None:
    torch.manual_seed(0)
    quick = EnlargedConv(4, 6, kernel, coarse=SIDE, factor=factor).double()
    coarse = draw(1, 2, 4, SIDE, SIDE).requires_grad_()
    large = nn.functional.interpolate(coarse, scale_factor=factor, mode="bilinear")
    plain = nn.functional.conv2d(large, quick.weight, quick.bias, padding=kernel // 2)
    # The blending weights were made in single precision; a wrong tap would be off by 1e-2 and more.
    torch.testing.assert_close(quick(coarse), plain, atol=3e-6, rtol=0)
    seen = draw(2, *plain.shape)
    quick_gradients = torch.autograd.grad((quick(coarse) * seen).sum(), (coarse, quick.weight, quick.bias))
    plain_gradients = torch.autograd.grad((plain * seen).sum(), (coarse, quick.weight, quick.bias))
    for ours, theirs in zip(quick_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-6)


def test_enlarged_convolution_starts_like_a_plain_one() -> None:
    torch.manual_seed(0)
    ours, theirs = EnlargedConv(32, 64, 5, coarse=4, factor=5), nn.Conv2d(32, 64, 5)
    for name in ("weight", "bias"):
        mine, other = ours.state_dict()[name], theirs.state_dict()[name]
        assert float(mine.std()) == pytest.approx(float(other.std()), rel=0.2)
        assert float(mine.abs().max()) == pytest.approx(float(other.abs().max()), rel=0.1)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(WiringError, match=r"EnlargedConv\.kernel"):
        EnlargedConv(4, 4, 4, coarse=5, factor=4)
