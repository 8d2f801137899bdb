"""Alignment and contact: closed forms, who counts, and that training learns which wrench is of which picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perceive.vtt.base import FusionNetwork
from perceive.vtt.concatenation import Concatenation
from perceive.vtt.losses import (
    accuracy,
    alignment_loss,
    contact_label,
    contact_loss,
    prior_divergence,
    shuffled_partners,
)
from perceive.vtt.network import VttNetwork
from perceive.vtt.product_of_experts import ProductOfExperts
from sensors.errors import SpecError

NAN = float("nan")
CHANCE = 2 * math.log(2)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(size=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_nobody_is_its_own_partner_and_everybody_is_somebodys(size: int, seed: int) -> None:
    torch.manual_seed(seed)
    partner = shuffled_partners(size)
    assert (partner != torch.arange(size)).all()
    assert sorted(partner.tolist()) == list(range(size))


def test_partners_are_drawn_anew_and_a_sample_alone_has_none() -> None:
    torch.manual_seed(0)
    count = torch.zeros(4, 4)
    for _ in range(600):
        count[torch.arange(4), shuffled_partners(4)] += 1
    assert (count.diagonal() == 0).all()
    assert (count[~torch.eye(4, dtype=torch.bool)] - 200).abs().max() < 5 * math.sqrt(600 * 2 / 9)
    with pytest.raises(SpecError, match="two samples"):
        shuffled_partners(1)


def test_alignment_in_closed_form() -> None:
    together = torch.tensor([True, True, True, False, False])
    all_count = torch.ones(5, dtype=torch.bool)
    assert float(alignment_loss(torch.zeros(5), together, all_count)) == pytest.approx(CHANCE)
    logit = torch.tensor([2.0, -1.0, NAN, 0.5, -3.0])
    counts = torch.tensor([True, True, False, True, True])
    true = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    false = (math.log1p(math.exp(0.5)) + math.log1p(math.exp(-3))) / 2
    assert float(alignment_loss(logit, together, counts)) == pytest.approx(true + false, rel=1e-6)
    assert float(accuracy(logit, together, counts)) == 0.5
    wrong_way = float(alignment_loss(-logit, together, counts))
    assert wrong_way == pytest.approx(
        true + false + (2 - 1 - 0.5 + 3) / 2, rel=1e-6
    )  # log(1 + e^x) - log(1 + e^-x) = x


def test_pairs_of_one_kind_alone_teach_nothing() -> None:
    logit = torch.tensor([0.3, -0.2], requires_grad=True)
    some = torch.tensor([True, False])
    loss = alignment_loss(logit, some, some)
    loss.backward()
    assert loss.item() == 0
    assert logit.grad is not None
    assert logit.grad.abs().max() == 0


def test_contact_is_the_length_of_the_force_in_newton() -> None:
    force = torch.tensor([[15.1, 0, 0], [0, -14.9, 0], [9, 9, 9], [8, 8, -8], [NAN, 0, 0]])
    label = contact_label(force, 15.0)
    assert label.tolist() == [True, False, True, False, False]
    logit = torch.tensor([1.0, 1, 1, 1, NAN])
    counts = torch.tensor([True, True, True, True, False])
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert float(contact_loss(logit, label, counts)) == pytest.approx(expected, rel=1e-6)
    assert float(contact_loss(logit, label, torch.zeros(5, dtype=torch.bool))) == 0


def test_divergence_is_that_of_gaussians() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, variance = torch.randn(3, 4, generator=draw), torch.rand(3, 4, generator=draw) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(prior_divergence(mean, variance), expected)


SIDE, PATCH = 2, 7  # of the task below
LEARNERS: dict[str, Callable[[], FusionNetwork]] = {
    "vtt": lambda: VttNetwork(14, PATCH, token_width=32, depth=2, heads=2, mlp_ratio=2.0, compressed=4, width=16),
    "concatenation": lambda: Concatenation(14, width=8),
    "product_of_experts": lambda: ProductOfExperts(14, width=8, features=32),
}


def push(size: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A bright patch on noise, and a force towards it: pictures, wrenches, and the patch's row and column."""
    place = torch.randint(SIDE, (size, 2), generator=draw)
    image = torch.rand(size, 3, SIDE * PATCH, SIDE * PATCH, generator=draw) * 0.2
    cell = torch.arange(SIDE * PATCH) // PATCH
    bright = (cell[:, None] == place[:, 0, None, None]) & (cell == place[:, 1, None, None])
    image = torch.where(bright[:, None], image + 0.6, image)
    wrench = 0.1 * torch.randn(size, 6, generator=draw)
    wrench[:, :2] += place - 1.0
    return image, wrench, place


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_which_wrench_is_of_which_picture_is_learned(name: str) -> None:
    """Held-out pairs, true ones and ones from two different places; before training they are not told apart."""
    torch.manual_seed(0)
    network, draw = LEARNERS[name](), torch.Generator().manual_seed(0)
    size, steps, lr = 24, 140, 5e-3
    counts, together = torch.ones(2 * size, dtype=torch.bool), torch.arange(2 * size) < size
    held_image, held_wrench, place = push(300, draw)
    other = torch.randperm(300, generator=draw)
    apart, all_there = (place != place[other]).any(1), torch.ones(300, dtype=torch.bool)

    def told_apart() -> float:
        network.eval()
        with torch.inference_mode():
            true = network(held_image, held_wrench, all_there, all_there).alignment
            false = network(held_image, held_wrench[other], all_there, all_there).alignment
        return float(accuracy(true, all_there, all_there) + accuracy(false, ~all_there, apart)) / 2

    assert told_apart() == pytest.approx(0.5, abs=0.15)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    losses = []
    network.train()
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 20) * (1 - step / steps)
        image, wrench, _ = push(size, draw)
        partner = shuffled_partners(size)
        fused = network(torch.cat([image, image]), torch.cat([wrench, wrench[partner]]), counts, counts)
        loss = alignment_loss(fused.alignment, together, counts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    # A quarter of the shuffled pairs is of the same place, so that the loss cannot fall below 0.63.
    assert np.mean(losses[-20:]) < 0.75 * CHANCE
    assert told_apart() > 0.9


def test_a_sum_of_what_each_sense_says_cannot_tell_pairs() -> None:
    """Why the baselines' logits are not linear: for any f and g, true and exchanged pairs have the same mean logit."""
    torch.manual_seed(0)
    network = Concatenation(14, width=8).eval()
    image, wrench, _ = push(40, torch.Generator().manual_seed(0))
    there, other = torch.ones(40, dtype=torch.bool), torch.arange(40).roll(1)
    linear, mean = torch.nn.Linear(network.width, 1), {}
    with torch.no_grad():
        for kind, felt in (("true", wrench), ("exchanged", wrench[other])):
            fused = network(image, felt, there, there)
            mean[kind] = float(linear(fused.features).mean()), float(fused.alignment.mean())
    assert mean["true"][0] == pytest.approx(mean["exchanged"][0], abs=1e-6)
    assert mean["true"][1] != pytest.approx(mean["exchanged"][1], abs=1e-4)
