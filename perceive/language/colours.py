"""Where the colours are that an instruction names: words that need not be learned from ten demonstrations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from perceive.language.base import sentences
from perceive.recolour import hue_of
from sensors.errors import SpecError

SATURATED, BRIGHT = 0.35, 0.15  # half of the full score at this saturation (chroma over value) and at this value
SOFT = 0.1  # how gradually both thresholds are passed


@final
class ColourNames(nn.Module):
    """Scores how much a colour looks like the first, second, ... one that a text names.

    What "red" looks like is known before any demonstration (colour naming: van de Weijer et al., IEEE TIP 2009; here a
    hue per name), so that a policy has to learn only which of the named things comes next. Words that it does not know
    score nothing; names of no hue, such as black, are not colours to it. Nothing in it is trained.

    Args:
        hues: name of a colour -> its hue in [0, 1), 0 = red, 1/3 = green, 2/3 = blue.
        slots: K; colours that are named after these are left out.
        spread: a hue this far from the named one, in turns, scores 0.6 (one standard deviation).

    Raises:
        SpecError: no colour, a hue out of range, no slot, or a spread that is not positive.
    """

    def __init__(self, hues: Mapping[str, float], slots: int = 3, spread: float = 0.05) -> None:
        super().__init__()
        if not hues or not all(0 <= hue < 1 for hue in hues.values()) or slots < 1 or spread <= 0:
            raise SpecError(
                "ColourNames", "hues in [0, 1), one slot or more, a positive spread",
                f"{dict(hues)}, {slots}, {spread}", "Correct them.",
            )  # fmt: skip
        self._hues = {name.lower(): float(hue) for name, hue in hues.items()}
        self._word = re.compile(r"\b(" + "|".join(map(re.escape, self._hues)) + r")\b")
        self.slots = slots
        self._spread = spread

    def named(self, text: Tensor) -> Tensor:
        """The hues that texts uint8 [B, bytes] name, in their order, float32 [B, K] on the text's device; NaN = none.

        Raises:
            SpecError: not uint8 of two axes.
        """
        texts, which = sentences(text)
        table = torch.full((len(texts), self.slots), torch.nan)
        for row, one in zip(table, texts, strict=True):
            found = [self._hues[name] for name in self._word.findall(one.lower())[: self.slots]]
            row[: len(found)] = torch.tensor(found)
        return table.to(text.device)[which]

    def forward(self, rgb: Tensor, text: Tensor) -> Tensor:
        """Scores in [0, 1], float32 [B, N, K]; 0 where no colour is named, and for what is grey or dark.

        Args:
            rgb: [B, N, 3] in [0, 1].
            text: uint8 [B, bytes], UTF-8, zeros after the end.

        Raises:
            SpecError: not such shapes.
        """
        if rgb.ndim != 3 or rgb.shape[-1] != 3 or len(rgb) != len(text):
            got = f"{list(rgb.shape)} and {len(text)} texts"
            raise SpecError("ColourNames.forward, rgb", "[B, N, 3], one text for each", got, "Flatten the pixels.")
        named = self.named(text)[:, None]  # [B, 1, K]
        hue, value, chroma = hue_of(rgb.float())
        strong = torch.sigmoid((chroma / value.clamp_min(1e-6) - SATURATED) / SOFT)
        strong = strong * torch.sigmoid((value - BRIGHT) / (SOFT / 2)) * (chroma > 0)
        away = (hue[..., None] - named + 0.5) % 1.0 - 0.5
        score: Tensor = (-0.5 * (away / self._spread).square()).exp().nan_to_num(0.0) * strong[..., None]
        return score
