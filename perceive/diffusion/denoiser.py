"""Denoiser: what a noised action chunk was before, told by the step and by what was observed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import mish, pad

from sensors.errors import WiringError

_CLOCK = 64  # numbers that tell the diffusion step


@final
class Denoiser(nn.Module):
    """A U-Net along time (Janner et al., ICML 2022), conditioned by scaling and shifting every block's channels.

    Diffusion Policy (Chi et al., RSS 2023) with FiLM (Perez et al., AAAI 2018), with one block per resolution as in
    Simple DP3 (Ze et al., RSS 2024). Other than there, steps are normalised one by one over their channels and the
    layout is [B, K, C], so that a convolution is one matrix product: twice as fast on a CPU.

    Args:
        size: A, numbers per action.
        chunk: K, a multiple of 2 ** (resolutions - 1).
        condition: numbers that tell what was observed.
        widths: channels of each resolution, the finest first.
        kernel: steps that a convolution sees, odd.

    Raises:
        WiringError: a chunk that cannot be halved often enough, an even kernel, or no width.
    """

    def __init__(
        self, size: int, chunk: int, condition: int, widths: Sequence[int] = (64, 128, 256), kernel: int = 3
    ) -> None:
        super().__init__()
        owner = "Denoiser"
        if not widths or kernel % 2 == 0:
            raise WiringError(owner, "a width or more and an odd kernel", f"{list(widths)}, {kernel}", "Correct them.")
        coarsest = 2 ** (len(widths) - 1)
        if chunk < 1 or chunk % coarsest:
            fix = "Change chunk, or the number of widths."
            raise WiringError(f"{owner}.chunk", f"a multiple of {coarsest}", f"{chunk}", fix)
        told = condition + _CLOCK
        self.clock = nn.Sequential(nn.Linear(_CLOCK, 4 * _CLOCK), nn.Mish(), nn.Linear(4 * _CLOCK, _CLOCK))
        self.frequency: Tensor
        span = torch.arange(_CLOCK // 2) / (_CLOCK // 2 - 1)
        self.register_buffer("frequency", (-math.log(1e4) * span).exp(), persistent=False)
        steps = list(zip([size, *widths[:-1]], widths, strict=True))
        self.down = nn.ModuleList(_Block(before, after, told, kernel) for before, after in steps)
        self.halve = nn.ModuleList(_Convolution(width, width, 3, stride=2) for width in widths[:-1])
        self.middle = _Block(widths[-1], widths[-1], told, kernel)
        back = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(_Block(2 * before, after, told, kernel) for before, after in back)
        self.stretch = nn.ModuleList(nn.Linear(after, 2 * after) for _, after in back)
        self.leave = nn.Sequential(
            _Convolution(widths[0], widths[0], kernel), nn.LayerNorm(widths[0]), nn.Mish(), nn.Linear(widths[0], size)
        )

    def forward(self, noised: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """The chunk before noise was added [B, K, A].

        Args:
            noised: [B, K, A].
            step: int64 [B].
            condition: [B, condition].
        """
        angle = step[:, None] * self.frequency
        told = torch.cat([self.clock(torch.cat([angle.sin(), angle.cos()], -1)), condition], -1)
        told, features, kept = mish(told), noised, []
        for level, block in enumerate(self.down):
            features = block(features, told)
            kept.append(features)
            if level < len(self.halve):
                features = self.halve[level](features)
        features = self.middle(features, told)
        for block, stretch in zip(self.up, self.stretch, strict=True):
            features = stretch(block(torch.cat([features, kept.pop()], -1), told))
            # Two steps out of each.
            features = features.unflatten(-1, (2, -1)).flatten(1, 2)
        clean: Tensor = self.leave(features)
        return clean


class _Block(nn.Module):
    """Two convolutions and a shortcut; between them each channel is scaled and shifted by what is told."""

    def __init__(self, before: int, after: int, told: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = _Convolution(before, after, kernel), _Convolution(after, after, kernel)
        self.norms = nn.ModuleList([nn.LayerNorm(after), nn.LayerNorm(after)])
        self.film = nn.Linear(told, 2 * after)
        self.shortcut = nn.Linear(before, after) if before != after else nn.Identity()

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.film(told)[:, None].chunk(2, -1)
        inner = mish(self.norms[0](self.first(features))) * (1 + scale) + shift
        out: Tensor = mish(self.norms[1](self.second(inner))) + self.shortcut(features)
        return out


class _Convolution(nn.Module):
    """A convolution along time of [B, K, C] with zeros around, as one matrix product."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self._kernel, self._stride = kernel, stride
        self.weigh = nn.Linear(kernel * before, after)

    def forward(self, features: Tensor) -> Tensor:
        steps, side = features.shape[1], self._kernel // 2
        features = pad(features, (0, 0, side, side))
        seen = [features[:, at : at + steps : self._stride] for at in range(self._kernel)]
        out: Tensor = self.weigh(torch.cat(seen, -1))
        return out
