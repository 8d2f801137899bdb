"""Masked modelling: guess the hidden patches of a map from the ones that are seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from perceive.batch import Batch
from perceive.encoders.pad import PatchEncoder
from perceive.objectives.masking import check_ratio, check_streams, hide, take_tokens
from perceive.tactile.pad_frame import moved, pad_from_base
from perceive.trunk import Trunk
from sensors.errors import WiringError


@final
class MaskedPatches(nn.Module):
    """Masked autoencoding of touch (He et al., CVPR 2022) on situated tokens.

    Of each sample a share of the patches is hidden; stem and trunk see only the others, which also saves their time. A
    small decoder gets what they say and, at the place of every hidden patch, a token that knows nothing but its place,
    and guesses the patch. Stems and trunk are those of the model that is to be pretrained, by reference: training this
    trains them. The decoder is thrown away afterwards. Patches that were not measured (absent frames, dead pixels) are
    neither hidden nor scored; they are simply not there.

    Args:
        stems: kind of sensor -> stem.
        trunk: what the stems share, with metric positions.
        width: D of all of them.
        mask_ratio: share of the patches that is hidden.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        shortest_m: shortest wavelength of position in the decoder.
        longest_m: longest.

    Raises:
        SpecError: the ratio is not between 0 and 1.
        WiringError: a stem whose tokens are no patches.
    """

    def __init__(
        self,
        stems: Mapping[str, nn.Module],
        trunk: Trunk,
        width: int,
        mask_ratio: float = 0.75,
        decoder_depth: int = 1,
        decoder_heads: int = 4,
        shortest_m: float = 0.004,
        longest_m: float = 0.064,
    ) -> None:
        super().__init__()
        check_ratio("MaskedPatches", mask_ratio)
        self._ratio = mask_ratio
        self._stems: dict[str, PatchEncoder] = {}
        for name, stem in stems.items():
            if not isinstance(stem, PatchEncoder):
                raise WiringError(f"MaskedPatches, '{name}'", "a stem of patches", type(stem).__name__, "Leave it out.")
            self._stems[name] = stem
        self.stems = nn.ModuleDict(self._stems)
        self.trunk = trunk
        self.hidden = nn.Parameter(torch.randn(width) * 0.5)
        self.decoder = Trunk(width, 0, decoder_depth, decoder_heads, shortest_m=shortest_m, longest_m=longest_m)
        self.guess = nn.ModuleDict({name: nn.Linear(width, stem.patch_size) for name, stem in self._stems.items()})

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``"loss"``: mean over the streams of ``"kind"``, the mean squared error of what was hidden.

        Also ``"_kind/mean"``: that of guessing each patch's mean over the batch, which needs no touch.

        Args:
            batch: streams by kind of sensor.
            generator: draws what is hidden.

        Raises:
            WiringError: a stream without a stem, or no stream.
        """
        check_streams("MaskedPatches", list(batch.streams), list(self._stems))
        terms: dict[str, Tensor] = {}
        for name in batch.streams:
            values, measured = self._stems[name].patches(batch.streams[name])
            guess, hidden = self.restore(batch, name, generator)
            scored = measured & hidden[..., None]
            counted = scored.sum().clamp_min(1)
            terms[name] = torch.where(scored, (guess - values).square(), 0.0).sum() / counted
            mean = torch.where(measured, values, 0.0).sum(0) / measured.sum(0).clamp_min(1)
            terms[f"_{name}/mean"] = torch.where(scored, (mean - values).square(), 0.0).sum() / counted
        return {"loss": torch.stack([value for key, value in terms.items() if key[0] != "_"]).mean()} | terms

    def restore(self, batch: Batch, name: str, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Guesses float [B, N, patch_size] for all patches of a stream, and which were hidden, bool [B, N]."""
        stream = batch.stream(name)
        tokens = moved(self._stems[name](stream).cleaned(), pad_from_base([stream]))
        hiding = hide("MaskedPatches", tokens.valid, self._ratio, generator)
        seen = replace(take_tokens(tokens, hiding.index), valid=hiding.shown).cleaned()
        origin = tokens.position_m.new_zeros(len(tokens.valid), 3)
        whole = hiding.fill(self.trunk(seen, origin), self.hidden, tokens)
        out: Tensor = self.guess[name](self.decoder(whole, origin))
        return out, hiding.hidden
