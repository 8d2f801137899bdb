"""Encoder, the interface of everything that turns one sensor's frames into tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError


class Encoder(nn.Module, ABC):
    """Frames of one sensor -> Tokens.

    A constructor takes ``space`` (the frame space of its sensor), ``history`` (T) and ``width`` (D), then its own
    arguments, and raises WiringError when the space lacks a field that it reads.
    """

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """N, the number of tokens for T instants."""

    @abstractmethod
    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the normalisers to a dataset's statistics, field name -> stats. Does nothing where there are none."""

    @abstractmethod
    def forward(self, stream: BatchStream) -> Tokens:
        """Tokens [B, N, D]. A frame with ``valid=False`` gives tokens with ``valid=False``; NaN in it does no harm."""


def field_shape(owner: str, space: spaces.Dict, name: str, dims: int) -> tuple[int, ...]:
    """Shape of one field of one frame.

    Raises:
        WiringError: the space has no such field, or one with another number of axes.
    """
    part = space.spaces.get(name)
    if not isinstance(part, spaces.Box):
        raise WiringError(
            owner, f"a sensor with the field '{name}'", f"fields {sorted(space.spaces)}", "Use another encoder."
        )
    if len(part.shape) != dims:
        raise WiringError(owner, f"'{name}' with {dims} axes", f"shape {part.shape}", "Use another encoder.")
    return part.shape


def grid_shape(owner: str, size: Sequence[int], patch: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        WiringError: the patch does not divide the image.
    """
    if size[0] % patch[0] or size[1] % patch[1]:
        raise WiringError(
            owner, f"an image size that patches of {tuple(patch)} divide", f"{tuple(size)}", "Change one."
        )
    return size[0] // patch[0], size[1] // patch[1]


def per_token(value: Tensor, tokens_per_frame: int) -> Tensor:
    """[B, T] of frames -> [B, T * tokens_per_frame] of tokens."""
    return value.repeat_interleave(tokens_per_frame, dim=1)
