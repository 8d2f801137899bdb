"""Patches tinted by what is asked for and by the tool: a scale and a shift of their channels, as FiLM has it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

LOOK_UPS = 4  # words of an instruction that are looked up


@final
class Tint(nn.Module):
    """What instruction and proprioception do to every patch at once (FiLM: Perez et al., AAAI 2018).

    So what is meant by "red" is found patch by patch, and where the tool is takes part from the first block on. The
    instruction's words are looked up one by one: which word stands where is what counts, and a mean would hardly tell.

    Args:
        proprio: P, values of proprioception.
        language_width: E, of the instruction's tokens.
        width: D, channels of the patches.
    """

    def __init__(self, proprio: int, language_width: int, width: int) -> None:
        super().__init__()
        self.state = nn.Linear(proprio, width)
        self.word = nn.Linear(language_width, width)
        self.look_up = nn.Linear(language_width, LOOK_UPS, bias=False)
        self.phrase = nn.Linear(LOOK_UPS * width, width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * width))

    def forward(self, patches: Tensor, proprio: Tensor, language: Tensor, language_valid: Tensor) -> Tensor:
        """The patches [B, ..., D], scaled and shifted.

        Args:
            patches: [B, ..., D].
            proprio: [B, P].
            language: [B, L, E]; what is not valid is never read.
            language_valid: bool [B, L].
        """
        mood = self.state(proprio)
        if language.shape[1]:
            there = language_valid[..., None]
            words = torch.where(there, language, 0.0).to(mood.dtype)
            score = self.look_up(words).masked_fill(~there, torch.finfo(mood.dtype).min).softmax(1)
            score = torch.where(there, score, 0.0)  # a silent sample has equal scores everywhere
            mood = mood + self.phrase((score.transpose(1, 2) @ self.word(words)).flatten(1))
        scale, shift = self.mix(mood).view(len(mood), *[1] * (patches.dim() - 2), -1).chunk(2, -1)
        result: Tensor = patches * (1 + scale) + shift
        return result
