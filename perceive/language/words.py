"""WordTable: a learned vector for every word, without a tokenizer and without anything to download."""

from __future__ import annotations

import logging
import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from perceive.language.base import Language, TextFeatures, sentences
from perceive.language.vocabulary import VOCABULARY
from sensors.errors import WiringError

_LOG = logging.getLogger(__name__)
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_MOST_KEPT = 4096  # texts whose words are remembered


@final
class WordTable(Language):
    """One token per word: the word's learned vector plus that of its place in the text, normalised.

    Words are lower-case runs of letters and digits. Those of the vocabulary have a vector each; all others share
    ``buckets`` vectors by a hash (CRC-32, the same in every process), so that an unknown word is at least told from
    most others (the hashing trick: Weinberger et al., ICML 2009). It means what training made it mean: a table does
    not know that *crimson* is like *red*; a pretrained encoder does. Languages without spaces come out as one word.

    Args:
        width: E.
        tokens: L; words beyond these are left out, which is logged.
        buckets: vectors for words that are not in the vocabulary.
        words: the vocabulary, lower-case; None = colours, shapes, verbs, prepositions, numbers ...
            (:mod:`perceive.language.vocabulary`).

    Raises:
        WiringError: a number is less than 1, or a word is not one.
    """

    def __init__(self, width: int, tokens: int = 16, buckets: int = 512, words: Sequence[str] | None = None) -> None:
        super().__init__()
        for name, value in (("width", width), ("tokens", tokens), ("buckets", buckets)):
            if value < 1:
                raise WiringError(f"WordTable.{name}", "at least 1", f"{value}", "Correct it.")
        chosen = VOCABULARY if words is None else tuple(words)
        for word in chosen:
            if split(word) != [word]:
                raise WiringError("WordTable.words", "single lower-case words", repr(word), f"Write {split(word)}.")
        if len(set(chosen)) < len(chosen):
            twice = sorted(word for word in set(chosen) if chosen.count(word) > 1)
            raise WiringError("WordTable.words", "every word once", f"{twice} twice", "Remove one of each.")
        self._words = chosen
        self._numbers = {word: number for number, word in enumerate(chosen)}
        self._width = width
        self._tokens = tokens
        self._buckets = buckets
        self._kept: dict[str, list[int]] = {}
        self._told = False
        self.table = nn.Embedding(len(chosen) + buckets, width)
        # Added before a norm that is not linear, so that even the mean over a text's tokens tells its order.
        self.place = nn.Parameter(torch.randn(tokens, width))
        self.norm = nn.LayerNorm(width)

    @property
    def width(self) -> int:
        return self._width

    @property
    def num_tokens(self) -> int:
        return self._tokens

    def resolved_arguments(self) -> dict[str, Any]:
        """All arguments; the vocabulary is written out, so that a later version's does not change what words mean."""
        return {"width": self._width, "tokens": self._tokens, "buckets": self._buckets, "words": list(self._words)}

    def number(self, word: str) -> int:
        """Row of the table for a word as :func:`split` gives it."""
        known = self._numbers.get(word)
        return len(self._words) + zlib.crc32(word.encode()) % self._buckets if known is None else known

    def forward(self, text: Tensor) -> TextFeatures:
        texts, which = sentences(text)
        rows = torch.full((len(texts), self._tokens), -1)
        for at, one in enumerate(texts):
            numbers = self._numbers_of(one)
            rows[at, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        numbers_of_all = rows.to(self.table.weight.device)[which.to(self.table.weight.device)]  # [B, L]
        valid = numbers_of_all >= 0
        tokens = self.norm(self.table(numbers_of_all.clamp_min(0)) + self.place)
        return TextFeatures(torch.where(valid[..., None], tokens, 0.0), valid)

    def _numbers_of(self, text: str) -> list[int]:
        if text not in self._kept:
            words = split(text)
            if len(words) > self._tokens and not self._told:
                self._told = True
                _LOG.warning(
                    "WordTable: '%s' has %d words; those after the first %d are left out. Set tokens: %d.",
                    text, len(words), self._tokens, len(words),
                )  # fmt: skip
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[text] = [self.number(word) for word in words[: self._tokens]]
        return self._kept[text]


def split(text: str) -> list[str]:
    """The lower-case words of a text; equal letters of Unicode count as equal (NFKC), punctuation separates."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'"))
