"""What objectives of masked modelling share: which tokens are hidden, and tokens that know nothing but their place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.tokens import Tokens
from sensors.errors import SpecError, WiringError, nearest


@dataclass(frozen=True, eq=False)
class Hiding:
    """Which of N tokens are shown and which are to be guessed.

    Attributes:
        index: int64 [B, K], the tokens that are shown.
        shown: bool [B, K]; False where a sample has fewer to show.
        hidden: bool [B, N], the tokens that are there and not shown.
    """

    index: Tensor
    shown: Tensor
    hidden: Tensor

    def fill(self, told: Tensor, unknown: Tensor, whole: Tokens) -> Tokens:
        """All N tokens: what is told of those that are shown, and one that says nothing at every other place.

        Args:
            told: float [B, K, D], features of the tokens that are shown.
            unknown: float [D], what stands for a hidden one.
            whole: N tokens, whose features are not read.
        """
        unknown = unknown.to(told.dtype)
        told = torch.where(self.shown[..., None], told, unknown)
        features = unknown.expand(*whole.valid.shape, -1)
        features = features.scatter(1, self.index[..., None].expand(-1, -1, told.shape[-1]), told)
        return Tokens(features, whole.position_m, whole.placed, whole.age_s, whole.valid).cleaned()


def hide(owner: str, valid: Tensor, ratio: float, generator: torch.Generator | None = None) -> Hiding:
    """Hide a share of the tokens that are there; those that are not are neither hidden nor shown.

    Args:
        owner: class that asks, for errors.
        valid: bool [B, N].
        ratio: share that is hidden, above 0 and below 1.
        generator: draws what is hidden, on the CPU.

    Raises:
        SpecError: fewer than two tokens.
    """
    size, count = valid.shape
    if count < 2:
        raise SpecError(owner, "two tokens at least", f"{count}", "Make what a token stands for smaller.")
    keep = min(max(round(count * (1 - ratio)), 1), count - 1)
    drawn = torch.rand(size, count, generator=generator).to(valid.device)
    # Tokens that are there first: of those a share is seen, however many are missing.
    index = torch.where(valid, drawn, drawn + 1).argsort(1)[:, :keep]
    own = (valid.sum(1) * (1 - ratio)).round().clamp_min(1)
    shown = valid.gather(1, index) & (torch.arange(keep, device=valid.device) < own[:, None])
    seen = torch.zeros_like(valid).scatter(1, index, shown)
    return Hiding(index, shown, valid & ~seen)


def take_tokens(tokens: Tokens, index: Tensor) -> Tokens:
    """The tokens of indices [B, K] of each sample."""

    def wide(value: Tensor) -> Tensor:
        return value.gather(1, index[..., None].expand(-1, -1, value.shape[-1]))

    return Tokens(
        wide(tokens.features),
        wide(tokens.position_m),
        tokens.placed.gather(1, index),
        tokens.age_s.gather(1, index),
        tokens.valid.gather(1, index),
    )


def check_ratio(owner: str, ratio: float) -> None:
    """Refuse a share that hides nothing or everything.

    Raises:
        SpecError: the ratio is not between 0 and 1.
    """
    if not 0 < ratio < 1:
        raise SpecError(f"{owner}.mask_ratio", "a share between 0 and 1", f"{ratio}", "Correct it.")


def check_streams(owner: str, streams: list[str], known: list[str]) -> None:
    """Refuse batches that an objective cannot read whole.

    Raises:
        WiringError: a stream that is not known, or no stream.
    """
    for name in streams:
        if name not in known:
            raise WiringError(owner, f"streams of {known}", f"'{name}'", nearest(name, known))
    if not streams:
        raise WiringError(owner, f"a stream of {known}", "none", "Pass one.")
