"""What all three networks keep, and what the two simple ones are: a concatenation, and a product of Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.vtt.base import Fused
from perceive.vtt.concatenation import IMAGE, Concatenation
from perceive.vtt.product_of_experts import ProductOfExperts, product_of_gaussians
from sensors.errors import SpecError
from tests.perceive.vtt.networks import SMALL, seen, small

NAN = float("nan")
NAMES = sorted(SMALL)


def values(fused: Fused) -> Tensor:
    return torch.cat([fused.features, fused.alignment[:, None], fused.contact[:, None]], 1)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_gradients_and_samples_apart(name: str) -> None:
    network = small(name).train()
    image, wrench, *there = seen()
    fused = network(image, wrench, *there)
    assert fused.features.shape == (5, network.width)
    assert fused.alignment.shape == fused.contact.shape == (5,)
    weight = torch.randn(5, network.width + 2, generator=torch.Generator().manual_seed(3))
    (values(fused) * weight).sum().backward()
    lacking = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert lacking == []
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network.eval()
    whole = values(network(image, wrench, *there))
    alone = values(network(image[2:3], wrench[2:3], there[0][:1], there[1][:1]))
    torch.testing.assert_close(alone, whole[2:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_reads_what_is_absent(name: str) -> None:
    """NaN in it changes neither answers nor gradients, to the bit; noise in what is there changes both logits."""
    network = small(name).eval()
    image, wrench, there, _ = seen()
    gone = torch.tensor([True, False, True, False, True])
    for what in ("image", "wrench"):
        image_there, wrench_there = (gone, there) if what == "image" else (there, gone)
        answers, gradients = [], []
        for bad in (0.5, NAN):
            broken_image = torch.where(image_there[:, None, None, None], image, bad)
            broken_wrench = torch.where(wrench_there[:, None], wrench, bad)
            network.zero_grad()
            answer = values(network(broken_image, broken_wrench, image_there, wrench_there))
            answer.square().sum().backward()
            answers.append(answer.detach())
            gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        assert answers[0].isfinite().all()
        assert torch.equal(*answers)
        assert all(g.isfinite().all() and torch.equal(g, h) for g, h in zip(*gradients, strict=True))
    with torch.no_grad():
        before = values(network(image, wrench, there, there))
        noise, _, _, _ = seen(seed=9)
        for other in (values(network(noise, wrench, there, there)), values(network(image, -wrench, there, there))):
            assert ((other - before).abs()[:, -2:] > 1e-7).all()


@pytest.mark.parametrize("name", NAMES)
def test_absence_is_told_from_zeros_and_leaves_the_other_sense(name: str) -> None:
    network = small(name).eval()
    image, wrench, there, _ = seen()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases start at zero, so that zeros would say nothing
        for absent, zeros in (
            (network(image, wrench, ~there, there), network(torch.zeros_like(image), wrench, there, there)),
            (network(image, wrench, there, ~there), network(image, torch.zeros_like(wrench), there, there)),
        ):
            assert ((values(absent) - values(zeros)).abs().amax(1) > 1e-5).all()
            assert (values(absent)[1:] - values(absent)[:1]).abs().max() > 1e-5
        nothing = values(network(image, wrench, ~there, ~there))
    assert nothing.isfinite().all()
    torch.testing.assert_close(nothing, nothing[:1].expand_as(nothing), rtol=0, atol=1e-5)


def test_a_concatenation_is_one() -> None:
    network = small("concatenation").eval()
    assert isinstance(network, Concatenation)
    image, wrench, there, _ = seen()
    other = seen(seed=4)
    with torch.no_grad():
        whole = network(image, wrench, there, there).features
        assert torch.equal(network(image, other[1], there, there).features[:, :IMAGE], whole[:, :IMAGE])
        assert torch.equal(network(other[0], wrench, there, there).features[:, IMAGE:], whole[:, IMAGE:])
        assert network(image, wrench, ~there, there).features[:, :IMAGE].abs().max() == 0
        assert network(image, wrench, there, ~there).features[:, IMAGE:].abs().max() == 0
    assert whole.shape == (5, 288)


def test_the_order_of_experts_does_not_matter_and_agreement_makes_sure() -> None:
    draw = torch.Generator().manual_seed(0)
    means, variances = torch.randn(4, 2, 3, generator=draw), torch.rand(4, 2, 3, generator=draw) + 0.1
    both = torch.ones(4, 2, dtype=torch.bool)
    mean, variance = product_of_gaussians(means, variances, both)
    swapped = product_of_gaussians(means.flip(1), variances.flip(1), both)
    torch.testing.assert_close(mean, swapped[0])
    torch.testing.assert_close(variance, swapped[1])
    assert (variance < variances.amin(1)).all()
    one = torch.tensor([True, False]).expand(4, 2)
    assert (product_of_gaussians(means, variances, one)[1] > variance).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    means=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    variances=st.lists(st.floats(0.05, 4), min_size=3, max_size=3),
    there=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_the_product_is_that_of_the_densities(means: list[float], variances: list[float], there: list[bool]) -> None:
    """Multiplied on a grid with the standard density, normalised, and integrated."""
    x = torch.linspace(-12, 12, 6001, dtype=torch.float64)
    log = -x.square() / 2
    for mean, variance, counts in zip(means, variances, there, strict=True):
        log = log - (x - mean).square() / (2 * variance) * counts
    density = (log - log.max()).exp()
    density = density / density.sum()
    expected = float((density * x).sum())
    spread = float((density * (x - expected).square()).sum())
    given_there = torch.tensor([there])
    given_means = torch.where(given_there, torch.tensor([means]), NAN)[..., None]
    given_variances = torch.where(given_there, torch.tensor([variances]), NAN)[..., None]
    product = product_of_gaussians(given_means.double(), given_variances.double(), given_there)
    assert product[0].item() == pytest.approx(expected, abs=1e-6)
    assert product[1].item() == pytest.approx(spread, abs=1e-6)


def test_in_training_the_feature_is_drawn_and_in_answers_it_is_the_mean() -> None:
    network = small("product_of_experts").eval()
    image, wrench, there, _ = seen(1)
    answer = network(image, wrench, there, there)
    assert answer.mean is not None
    assert answer.variance is not None
    assert torch.equal(answer.features, answer.mean)
    network.train()
    torch.manual_seed(0)
    count = 4000
    with torch.no_grad():
        drawn = network(*(part.expand(count, *part.shape[1:]) for part in (image, wrench, there, there)))
    error = (drawn.features - drawn.mean) / drawn.variance.sqrt()
    assert float(error.mean()) == pytest.approx(0, abs=5 / math.sqrt(count * 32))
    assert float(error.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / (count * 32)))
    torch.testing.assert_close(drawn.mean[:1], answer.mean)


def test_without_both_the_product_is_the_prior() -> None:
    network = ProductOfExperts(21, width=4, features=6, sample=False).train()
    image, wrench, there, _ = seen()
    fused = network(image, wrench, ~there, ~there)
    assert torch.equal(fused.features, torch.zeros(5, 6))
    assert torch.equal(fused.variance, torch.ones(5, 6))
    with pytest.raises(SpecError):
        product_of_gaussians(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
