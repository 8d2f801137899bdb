"""A code book that follows the vectors that it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class Quantised:
    """Vectors and the codes nearest to them.

    Attributes:
        values: float [..., D], the codes; their gradient goes straight to the vectors.
        index: int64 [...], which code.
        commitment: scalar, mean squared distance that pulls the vectors to their codes, already weighted.
        perplexity: scalar, how many codes are in use, as the exponential of their entropy; no gradient.
    """

    values: Tensor
    index: Tensor
    commitment: Tensor
    perplexity: Tensor


@final
class CodeBook(nn.Module):
    """Vector quantisation (van den Oord et al., NeurIPS 2017), codes being moving averages of what is nearest to them.

    Codes begin as vectors of the first batch that it is trained on. A code that hardly anything is near to is put on a
    vector of the batch (Dhariwal et al., "Jukebox", 2020), or most codes would die early. Codes change in training
    mode only, and no gradient changes them: they are buffers, saved with the model. Vectors that are not finite, or not
    counted, change no code. On several processes the first one's code book holds, as of every buffer.

    Args:
        size: number of codes.
        width: D.
        decay: of the moving averages, per batch.
        commitment: weight of the distance that pulls vectors to their codes.
        revive_below: moving average of the vectors per batch below which a code is put elsewhere; 0 = never.
        learn: False keeps the random codes that it begins with (an ablation).

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        size: int,
        width: int,
        decay: float = 0.99,
        commitment: float = 0.25,
        revive_below: float = 0.1,
        learn: bool = True,
    ) -> None:
        super().__init__()
        if size < 2 or width < 1 or not 0 <= decay < 1 or commitment < 0 or revive_below < 0:
            got = f"{size}, {width}, {decay}, {commitment}, {revive_below}"
            raise SpecError(
                "CodeBook",
                "size >= 2, width >= 1, 0 <= decay < 1, commitment and revive_below >= 0",
                got,
                "Correct it.",
            )
        self._decay, self._commitment, self._revive_below, self._learn = decay, commitment, revive_below, learn
        codes = torch.randn(size, width)
        self.codes: Tensor
        self.uses: Tensor
        self.started: Tensor
        self.register_buffer("codes", codes)
        self.register_buffer("uses", torch.ones(size))
        self.register_buffer("started", torch.tensor(False))

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.codes)

    def forward(self, vectors: Tensor, counts: Tensor | None = None) -> Quantised:
        """Replace vectors by codes.

        Args:
            vectors: float [..., D].
            counts: bool [...], which of them may change codes and are in ``commitment``; None = all.

        Raises:
            SpecError: vectors of another width.
        """
        if vectors.shape[-1] != self.codes.shape[1]:
            fix = "Make the encoder as wide as the code book."
            raise SpecError("CodeBook", f"vectors of {self.codes.shape[1]}", f"{vectors.shape[-1]}", fix)
        flat = vectors.reshape(-1, vectors.shape[-1])
        counted = flat.detach().isfinite().all(-1)
        if counts is not None:
            counted = counted & counts.reshape(-1)
        if self.training and self._learn:
            self._begin(flat.detach(), counted)
        index = self.nearest(flat)
        own = self.codes[index].to(flat.dtype)
        share = nn.functional.one_hot(index[counted], self.size).to(torch.float32).mean(0)
        entropy = -(share * share.clamp_min(1e-10).log()).sum() if counted.any() else share.new_zeros(())
        off = torch.where(counted[:, None], (flat - own).square(), 0.0).sum() / (
            counted.sum().clamp_min(1) * flat.shape[1]
        )
        if self.training and self._learn:
            self._follow(flat.detach(), index, counted)
        values = (flat + (own - flat).detach()).reshape(vectors.shape)
        return Quantised(
            values, index.reshape(vectors.shape[:-1]), self._commitment * off, entropy.nan_to_num().exp().detach()
        )

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices [...] of the codes nearest to vectors [..., D]."""
        flat = vectors.reshape(-1, vectors.shape[-1]).float()
        with full_precision(flat.device):  # half a precision would mix up neighbours
            distance = self.codes.square().sum(1) - 2 * flat @ self.codes.T
        return distance.argmin(1).reshape(vectors.shape[:-1])

    def lookup(self, index: Tensor) -> Tensor:
        """Codes [..., D] of indices [...]."""
        return self.codes[index]

    @torch.no_grad()
    def _begin(self, flat: Tensor, counted: Tensor) -> None:
        if bool(self.started) or not bool(counted.any()):
            return
        self.codes.copy_(self._drawn(flat, counted, self.size))
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, index: Tensor, counted: Tensor) -> None:
        there = flat[counted].float()
        if not len(there):
            return
        uses = torch.zeros_like(self.uses).index_add_(0, index[counted], torch.ones_like(there[:, 0]))
        sums = torch.zeros_like(self.codes).index_add_(0, index[counted], there)
        # The moving average of sums over that of uses, without keeping the former: code' = (d u c + (1 - d) s) / u'.
        after = self._decay * self.uses + (1 - self._decay) * uses
        moved = (self._decay * self.uses[:, None] * self.codes + (1 - self._decay) * sums) / after.clamp_min(1e-9)[
            :, None
        ]
        self.codes.copy_(moved)
        self.uses.copy_(after)
        dead = self.uses < self._revive_below
        if bool(dead.any()):
            fresh = self._drawn(flat, counted, self.size)
            self.codes.copy_(torch.where(dead[:, None], fresh, self.codes))
            self.uses.copy_(torch.where(dead, torch.ones_like(self.uses), self.uses))

    def _drawn(self, flat: Tensor, counted: Tensor, number: int) -> Tensor:
        """Vectors of the batch, no one twice before each came once."""
        there = flat[counted].float()
        order = torch.cat([torch.randperm(len(there), device=flat.device) for _ in range(-(-number // len(there)))])
        return there[order[:number]]
