"""Masked modelling: guess the hidden patches of a map from the ones that are seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from perceive.batch import Batch
from perceive.encoders.pad import PatchEncoder
from perceive.tactile.pad_frame import moved, pad_from_base
from perceive.tokens import Tokens
from perceive.trunk import Trunk
from sensors.errors import SpecError, WiringError, nearest


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
        if not 0 < mask_ratio < 1:
            raise SpecError("MaskedPatches.mask_ratio", "a share between 0 and 1", f"{mask_ratio}", "Correct it.")
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
        terms: dict[str, Tensor] = {}
        for name in batch.streams:
            if name not in self._stems:
                known = list(self._stems)
                raise WiringError("MaskedPatches", f"streams of {known}", f"'{name}'", nearest(name, known))
            values, measured = self._stems[name].patches(batch.streams[name])
            guess, hidden = self.restore(batch, name, generator)
            scored = measured & hidden[..., None]
            counted = scored.sum().clamp_min(1)
            terms[name] = torch.where(scored, (guess - values).square(), 0.0).sum() / counted
            mean = torch.where(measured, values, 0.0).sum(0) / measured.sum(0).clamp_min(1)
            terms[f"_{name}/mean"] = torch.where(scored, (mean - values).square(), 0.0).sum() / counted
        if not terms:
            raise WiringError("MaskedPatches", f"a stream of {list(self._stems)}", "none", "Pass one.")
        return {"loss": torch.stack([value for key, value in terms.items() if key[0] != "_"]).mean()} | terms

    def restore(self, batch: Batch, name: str, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Guesses float [B, N, patch_size] for all patches of a stream, and which were hidden, bool [B, N]."""
        stream = batch.stream(name)
        tokens = moved(self._stems[name](stream).cleaned(), pad_from_base([stream]))
        size, count = tokens.valid.shape
        keep = min(max(round(count * (1 - self._ratio)), 1), count - 1)
        if count < 2:
            raise SpecError("MaskedPatches", "two patches at least", f"{count}", "Make the patches smaller.")
        drawn = torch.rand(size, count, generator=generator).to(tokens.valid.device)
        # Patches that are there first: of those a share is seen, however many are missing.
        order = torch.where(tokens.valid, drawn, drawn + 1).argsort(1)
        own = (tokens.valid.sum(1) * (1 - self._ratio)).round().clamp_min(1)
        rank = torch.arange(keep, device=order.device)
        seen = _taken(tokens, order[:, :keep])
        seen = replace(seen, valid=seen.valid & (rank < own[:, None])).cleaned()
        origin = tokens.position_m.new_zeros(size, 3)
        told = self.trunk(seen, origin)
        shown = torch.zeros_like(tokens.valid).scatter(1, order[:, :keep], seen.valid)
        told = torch.where(seen.valid[..., None], told, self.hidden.to(told.dtype))
        features = self.hidden.to(told.dtype).expand(size, count, -1)
        features = features.scatter(1, order[:, :keep, None].expand(-1, -1, told.shape[-1]), told)
        whole = Tokens(features, tokens.position_m, tokens.placed, tokens.age_s, tokens.valid).cleaned()
        out: Tensor = self.guess[name](self.decoder(whole, origin))
        return out, ~shown & tokens.valid


def _taken(tokens: Tokens, index: Tensor) -> Tokens:
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
