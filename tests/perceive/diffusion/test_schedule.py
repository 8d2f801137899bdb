"""The schedule: closed forms of the noise, and samples that come back out of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from perceive.diffusion.schedule import CosineSchedule
from sensors.errors import SpecError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_left_of_a_sample_follows_the_squared_cosine() -> None:
    left = CosineSchedule(100).alpha_bar.double()
    assert (left[1:] < left[:-1]).all()
    assert 0 < left[-1] < 1e-4
    assert 0.99 < left[0] < 1
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    for step in (0, 10, 49, 80, 97):
        assert float(left[step]) == pytest.approx(
            math.cos(((step + 1) / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 / start
        )
    # The last step alone would leave nothing at all; it is held to a thousandth.
    assert float(left[99] / left[98]) == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("step", [0, 20, 60, 99])
def test_a_noised_sample_has_the_mean_and_variance_of_its_step(step: int) -> None:
    schedule = CosineSchedule(100)
    clean, count = 0.7, 200_000
    noised = schedule.noised(torch.full((count, 1), clean), drawn(count, 1), torch.full((count,), step))
    left = float(schedule.alpha_bar[step])
    error = math.sqrt((1 - left) / count)
    assert float(noised.mean()) == pytest.approx(math.sqrt(left) * clean, abs=5 * error)
    assert float(noised.var()) == pytest.approx(1 - left, rel=5 * math.sqrt(2 / count))


def test_each_sample_of_a_batch_has_its_own_step() -> None:
    schedule, clean, noise = CosineSchedule(100), drawn(3, 4, 2), drawn(3, 4, 2, seed=1)
    steps = torch.tensor([5, 90, 40])
    together = schedule.noised(clean, noise, steps)
    for row in range(3):
        alone = schedule.noised(clean[row : row + 1], noise[row : row + 1], steps[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("count", [1, 3, 10, 100])
def test_who_knows_the_answer_gets_exactly_it(count: int) -> None:
    schedule, clean = CosineSchedule(100), drawn(2, 16, 10).clamp(-1, 1)
    assert torch.equal(schedule.sample(lambda noised, step: clean, drawn(2, 16, 10, seed=1), count), clean)


def test_on_its_way_a_sample_is_what_training_would_have_made_of_it() -> None:
    schedule, clean, noise = CosineSchedule(100), drawn(2, 16, 10), drawn(2, 16, 10, seed=1)
    looked: list[tuple[int, Tensor]] = []

    def perfect(noised: Tensor, step: Tensor) -> Tensor:
        looked.append((int(step[0]), noised))
        return clean

    schedule.sample(perfect, schedule.noised(clean, noise, torch.tensor([99, 99])), 10)
    assert [step for step, _ in looked] == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9] == schedule.visited(10)
    for step, noised in looked:
        expected = schedule.noised(clean, noise, torch.tensor([step, step]))
        torch.testing.assert_close(noised, expected, rtol=0, atol=2e-5)


def test_the_best_denoiser_of_a_normal_distribution_samples_from_it() -> None:
    """For x_0 ~ N(m, s^2) the best guess is known, and noise n must become m + s n as the steps become small."""
    schedule, mean, spread = CosineSchedule(1000), 0.5, 0.3
    noise = drawn(64, 1)

    def best(noised: Tensor, step: Tensor) -> Tensor:
        left = schedule.alpha_bar[step][:, None]
        gain = left.sqrt() * spread**2 / (left * spread**2 + 1 - left)
        return mean + gain * (noised - left.sqrt() * mean)

    def off(count: int) -> float:
        return float((schedule.sample(best, noise, count) - (mean + spread * noise)).abs().max())

    assert off(1000) < 0.02
    assert off(1000) < 0.2 * off(100) < 0.2 * off(10)


def test_what_is_told_is_held_within_the_limit() -> None:
    schedule = CosineSchedule(100)
    far = schedule.sample(lambda noised, step: 5 * noised, drawn(2, 3), 10, limit=1.5)
    assert float(far.abs().max()) == 1.5
    free = schedule.sample(lambda noised, step: 5 * noised, drawn(2, 3), 10)
    assert float(free.abs().max()) > 5


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(SpecError):
        CosineSchedule(1)
    for count in (0, 101):
        with pytest.raises(SpecError):
            CosineSchedule(100).visited(count)
