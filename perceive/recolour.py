"""Colours and their words exchanged together: a red block that is told as red becomes a blue one that is told as blue.

What a robot is to do stays the same under such an exchange, so demonstrations of "stack the red block on the blue
block" are examples of the other pairs of colours as well. It does not move the right answer: a layout that is known by
heart stays known (in the spirit of GenAug: Chen et al., RSS 2023, which repaints by a
generative model; here only the hue of strong colours is turned).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from sensors.errors import SpecError, WiringError
from sensors.instruction import to_bytes, to_text

SATURATED, BRIGHT = 0.35, 40.0  # a pixel with less has no colour that people would name
FARTHEST = 0.1  # of a hue from the named one, in turns


@final
class ColourWords:
    """Exchanges named colours in the pictures and in the instruction of each sample.

    Args:
        hues: name of a colour -> its hue in [0, 1), 0 = red, 1/3 = green, 2/3 = blue.
        instruction: the sensor with ``text``.

    Raises:
        SpecError: fewer than two colours, or a hue out of range.
    """

    def __init__(self, hues: Mapping[str, float], instruction: str = "task") -> None:
        if len(hues) < 2 or not all(0 <= hue < 1 for hue in hues.values()):
            raise SpecError("ColourWords.hues", "two or more hues in [0, 1)", f"{dict(hues)}", "Correct them.")
        self._names = list(hues)
        self._hues = torch.tensor(list(hues.values()), dtype=torch.float32)
        self._instruction = instruction
        self._word = re.compile(r"\b(" + "|".join(map(re.escape, self._names)) + r")\b")

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """A changed copy of a batch on the CPU; each sample draws one permutation for all its sensors.

        Raises:
            WiringError: the batch has no sensor with the instruction.
        """
        told = batch.stream(self._instruction)
        if "text" not in told.data:
            raise WiringError(
                "ColourWords", f"a sensor '{self._instruction}' with text", f"{sorted(told.data)}", "Name it."
            )
        becomes = torch.rand(batch.size, len(self._names), generator=generator).argsort(1)
        streams = {}
        for name, stream in batch.streams.items():
            data = dict(stream.data)
            if "rgb" in data and "intrinsics_px" in data:  # not a gel's picture
                data["rgb"] = recoloured(data["rgb"], self._hues, becomes)
            if name == self._instruction:
                data["text"] = self._reworded(data["text"], becomes)
            streams[name] = BatchStream(data, stream.age_s, stream.valid)
        return Batch(streams)

    def _reworded(self, text: Tensor, becomes: Tensor) -> Tensor:
        """Texts uint8 [B, T, L] with the words exchanged; one that would not fit any more stays as it is."""
        out = text.clone()
        for sample, order in enumerate(becomes.tolist()):
            swap = {name: self._names[order[number]] for number, name in enumerate(self._names)}
            for step, row in enumerate(text[sample].numpy()):
                said = self._word.sub(lambda found, swap=swap: swap[found[1]], to_text(row))  # type: ignore[misc]
                if len(said.encode()) <= len(row):
                    out[sample, step] = torch.from_numpy(to_bytes(said, len(row)))
        return out


def recoloured(rgb: Tensor, hues: Tensor, becomes: Tensor) -> Tensor:
    """Pictures [B, T, H, W, 3] (0 to 255) in which pixels of one named hue have another; shades stay.

    Args:
        rgb: uint8 or float.
        hues: [K] in [0, 1).
        becomes: int [B, K], which hue each is turned into.
    """
    # Few pixels have a strong colour; only they are converted. A picture's largest minus smallest channel says which.
    highest, lowest = rgb.amax(-1), rgb.amin(-1)
    spread = highest.float() - lowest
    chosen = (spread > SATURATED * highest) & (highest > BRIGHT)
    sample = chosen.nonzero()[:, 0]
    hue, value, chroma = hue_of(rgb[chosen].float())
    away = ((hue[:, None] - hues + 0.5) % 1.0 - 0.5).abs()
    nearest = away.argmin(1)
    named = away.amin(1) <= FARTHEST
    turned = torch.where(named, hue + hues[becomes[sample, nearest]] - hues[nearest], hue)
    # Back to channels: each falls from the value by the chroma, as far as its hue is away.
    k = (turned[:, None] * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6
    colour = value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)
    out = rgb.clone()
    out[chosen] = colour.clamp(0, 255).to(rgb.dtype) if rgb.dtype.is_floating_point else colour.round().to(rgb.dtype)
    return out


def hue_of(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in [0, 1), value and chroma [...] of float colours [..., 3]; value and chroma in the unit of the colours.

    Hue is 0 = red, 1/3 = green, 2/3 = blue, and 0 for greys, which have none.
    """
    red, green, blue = rgb.unbind(-1)
    value = rgb.amax(-1)
    chroma = value - rgb.amin(-1)
    unit = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / unit,
        torch.where(value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit),
    )
    return hue / 6 % 1.0, value, chroma
