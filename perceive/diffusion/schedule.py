"""CosineSchedule: how noise is added to a sample in training, and taken out of it again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision
from sensors.errors import SpecError

_OFFSET, _LARGEST_BETA = 0.008, 0.999  # of the published schedule


@final
class CosineSchedule(nn.Module):
    """Denoising diffusion (DDPM: Ho et al., NeurIPS 2020) with the squared-cosine schedule (Nichol and Dhariwal, 2021).

    After step t of 0 .. T - 1 a sample is x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise. It is taken out
    deterministically in fewer steps (DDIM: Song et al., ICLR 2021, eta = 0) by a function that tells x_0.

    Args:
        steps: T.

    Raises:
        SpecError: fewer than two steps.
    """

    def __init__(self, steps: int = 100) -> None:
        super().__init__()
        if steps < 2:
            raise SpecError("CosineSchedule.steps", "at least 2", f"{steps}", "100 is usual.")
        self._steps = steps
        at = torch.arange(steps + 1, dtype=torch.float64) / steps
        ideal = ((at + _OFFSET) / (1 + _OFFSET) * math.pi / 2).cos().square()
        beta = (1 - ideal[1:] / ideal[:-1]).clamp_max(_LARGEST_BETA)
        self.alpha_bar: Tensor
        self.register_buffer("alpha_bar", (1 - beta).cumprod(0).float(), persistent=False)

    @property
    def steps(self) -> int:
        """T."""
        return self._steps

    def noised(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Samples [B, ...] after steps int64 [B], in single precision."""
        with full_precision(clean.device):
            alpha_bar = self.alpha_bar[step].view(-1, *[1] * (clean.ndim - 1))
            return alpha_bar.sqrt() * clean.float() + (1 - alpha_bar).sqrt() * noise.float()

    def visited(self, count: int) -> list[int]:
        """The ``count`` steps at which a sample is looked at, last to first, evenly spaced and from T - 1 on.

        They begin where there is nothing but noise, as the first sample has nothing else (Lin et al., WACV 2024).

        Raises:
            SpecError: not 1 to T of them.
        """
        if not 1 <= count <= self._steps:
            raise SpecError("CosineSchedule.visited", f"1 to {self._steps} steps", f"{count}", "10 is usual.")
        return [self._steps * left // count - 1 for left in range(count, 0, -1)]

    def sample(
        self, denoise: Callable[[Tensor, Tensor], Tensor], noise: Tensor, count: int, limit: float | None = None
    ) -> Tensor:
        """Carry standard normal noise [B, ...] to a sample.

        Args:
            denoise: (x_t [B, ...], t int64 [B]) -> what x_0 seems to be.
            noise: x_T.
            count: steps.
            limit: what ``denoise`` says is clamped to +- this; None = it is not.

        Raises:
            SpecError: not 1 to T steps.
        """
        visited, current = self.visited(count), noise
        for step, before in zip(visited, [*visited[1:], None], strict=True):
            clean = denoise(current, torch.full((len(noise),), step, device=noise.device)).to(noise.dtype)
            if limit is not None:
                clean = clean.clamp(-limit, limit)
            if before is None:
                return clean
            with full_precision(noise.device):
                now, then = self.alpha_bar[step], self.alpha_bar[before]
                seen = (current - now.sqrt() * clean) / (1 - now).sqrt()
                current = then.sqrt() * clean + (1 - then).sqrt() * seen
        raise AssertionError("visited() gives one step at least")
