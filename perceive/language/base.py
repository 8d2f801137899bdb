"""Language, the interface of everything that turns the bytes of a text into tokens."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perceive.build import TARGET, Resolved
from sensors.errors import SpecError
from sensors.instruction import to_text


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Tokens of B texts.

    A text without a word (an absent sensor shows one) has no valid token at all. A softmax over it must not see minus
    infinity everywhere, which is NaN: let each query attend to itself as well, as the trunk does, or to another token.

    Attributes:
        tokens: float [B, L, E], in the order of the words; zero where ``valid`` is False.
        valid: bool [B, L]; False = nothing there, from the text's end on.
    """

    tokens: Tensor
    valid: Tensor


class Language(Resolved, nn.Module):
    """Bytes of a text -> tokens.

    A constructor takes arguments of plain JSON data, so that :func:`perceive.build.build` can make it from a config.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """E, size of a token."""

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """L, most tokens of a text."""

    @abstractmethod
    def forward(self, text: Tensor) -> TextFeatures:
        """Tokens of texts uint8 [B, bytes], UTF-8, zeros after the end (:class:`sensors.frames.TextFrame`).

        Any bytes do: those that are no UTF-8 are read as U+FFFD. What a text gives depends on it alone, not on the
        others of the batch.

        Raises:
            SpecError: not uint8 of two axes.
        """

    @abstractmethod
    def resolved_arguments(self) -> dict[str, Any]:
        """*All* arguments, as plain JSON data, with which it can be built again from its saved weights alone."""

    def config(self) -> dict[str, Any]:
        """What :func:`perceive.build.build` makes it of again."""
        return {TARGET: f"{type(self).__module__}.{type(self).__qualname__}"} | self.resolved_arguments()


def sentences(text: Tensor) -> tuple[list[str], Tensor]:
    """The different texts among uint8 [B, bytes], U of them in the order of their coming, and which each row is [B].

    Raises:
        SpecError: not uint8 of two axes.
    """
    if text.dtype != torch.uint8 or text.ndim != 2:
        got = f"{text.dtype} {list(text.shape)}"
        raise SpecError("Language.forward, text", "uint8 [B, bytes]", got, "Pass a TextFrame's field.")
    numbers: dict[str, int] = {}
    which = [numbers.setdefault(to_text(row), len(numbers)) for row in text.cpu().numpy()]
    return list(numbers), torch.tensor(which, dtype=torch.int64, device=text.device)
