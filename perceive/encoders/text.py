"""Words as tokens without a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.build import Resolved
from perceive.encoders.base import Encoder, field_shape, per_token
from perceive.language.base import Language
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError


@final
class TextEncoder(Encoder, Resolved):
    """The tokens of an instruction, projected to the width. They have no place; those beyond its end are not valid.

    Args:
        space: frame space with ``text`` uint8 [bytes].
        history: T.
        width: D.
        language: what makes tokens of a text.

    Raises:
        WiringError: the space has no text, or ``language`` is something else.
    """

    def __init__(self, space: spaces.Dict, history: int, width: int, language: nn.Module) -> None:
        super().__init__()
        owner = "TextEncoder"
        field_shape(owner, space, "text", 1)
        if space.spaces["text"].dtype != np.uint8:
            found = f"dtype {space.spaces['text'].dtype}"
            raise WiringError(owner, "'text' of bytes, uint8", found, "Use another encoder.")
        if not isinstance(language, Language):
            fix = "Name a class of perceive.language, such as perceive.language.words.WordTable."
            raise WiringError(f"{owner}.language", "a Language", type(language).__name__, fix)
        self._history = history
        self.language = language
        self.project = nn.Linear(language.width, width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self.language.num_tokens

    def resolved_arguments(self) -> dict[str, Any]:
        """The language as it is built again from its saved weights alone."""
        return {"language": self.language.config()}

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: words have no scale."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch = len(stream.valid)
        # What an absent frame holds is not read: it could be any text, which would be worked out for nothing.
        text = stream.data["text"].masked_fill(~stream.valid[..., None], 0)
        said = self.language(text.flatten(0, 1))  # [B * T, L, E]
        features: Tensor = self.norm(self.project(said.tokens)).reshape(batch, self.num_tokens, -1)
        count = self.language.num_tokens
        valid = said.valid.reshape(batch, self.num_tokens) & per_token(stream.valid, count)
        nowhere = valid.new_zeros(batch, self.num_tokens)
        return Tokens(
            features, features.new_zeros(batch, self.num_tokens, 3), nowhere, per_token(stream.age_s, count), valid
        )
