"""Features of one thing through several senses, drawn together: contrastive alignment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision, widened
from sensors.errors import SpecError, WiringError, nearest


@final
class ContrastiveAlignment(nn.Module):
    """Symmetric InfoNCE between pairs of modalities, with a learned temperature.

    Of a batch, feature i of one modality is to be nearer to feature i of the other than to any other's, in both
    directions (CLIP: Radford et al., ICML 2021; touch with vision: UniTouch, Yang et al., CVPR 2024; with language too:
    TVL, Fu et al., ICML 2024). What a sample lacks it is neither drawn to nor held against others.

    Features are standardised over the batch before they are projected (as in the heads of SimCLR, Chen et al., ICML
    2020, by running means in evaluation): a tower that knows nothing yet says nearly the same of all samples, and the
    angles between nearly equal vectors would teach it nothing.

    Args:
        widths: modality -> length of its features.
        shared: length of the space where they meet.
        pairs: modalities that are aligned; None = each with each.
        temperature: to begin with.
        least_temperature: the learned temperature stays above this.

    Raises:
        WiringError: fewer than two modalities, or a pair of unknown ones.
        SpecError: a number is not positive.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        shared: int = 64,
        pairs: Sequence[Sequence[str]] | None = None,
        temperature: float = 0.07,
        least_temperature: float = 0.01,
    ) -> None:
        super().__init__()
        names = list(widths)
        if len(names) < 2:
            raise WiringError("ContrastiveAlignment", "two modalities at least", f"{names}", "Add one.")
        every = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :]]
        asked = every if pairs is None else [tuple(pair) for pair in pairs]
        for pair in asked:
            if len(pair) != 2 or pair[0] == pair[1] or not asked:
                raise WiringError("ContrastiveAlignment.pairs", "pairs of two modalities", f"{pair}", "Correct it.")
            for name in pair:
                if name not in widths:
                    raise WiringError("ContrastiveAlignment.pairs", f"of {names}", f"'{name}'", nearest(name, widths))
        if min(temperature, least_temperature, shared) <= 0 or temperature < least_temperature or not asked:
            got = f"{temperature}, {least_temperature}, {shared}, {len(asked)} pairs"
            raise SpecError(
                "ContrastiveAlignment", "0 < least_temperature <= temperature, shared > 0, a pair", got, "Correct it."
            )
        self._pairs = [(pair[0], pair[1]) for pair in asked]
        self._most_log_scale = -math.log(least_temperature)
        self.standard = nn.ModuleDict({name: nn.BatchNorm1d(width, affine=False) for name, width in widths.items()})
        self.project = nn.ModuleDict({name: nn.Linear(width, shared) for name, width in widths.items()})
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def temperature(self) -> float:
        """The present one."""
        return math.exp(-min(float(self.log_scale.detach()), self._most_log_scale))

    def embed(self, name: str, features: Tensor) -> Tensor:
        """Unit vectors [B, shared] of features [B, W] of a modality.

        Raises:
            WiringError: an unknown modality.
        """
        if name not in self.project:
            known = list(self.project)
            raise WiringError("ContrastiveAlignment", f"one of {known}", f"'{name}'", nearest(name, known))
        norm = self.standard[name]
        assert isinstance(norm, nn.BatchNorm1d)
        batch = self.training and len(features) > 1  # of one alone there is no spread
        even = nn.functional.batch_norm(features, norm.running_mean, norm.running_var, training=batch, eps=norm.eps)
        return nn.functional.normalize(self.project[name](even), dim=-1)

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """``"loss"``: mean over the pairs; ``"one/other"``: that of a pair; ``"_one/other"``: share found, both ways.

        Args:
            features: modality -> [B, W]; a modality may be absent altogether.
            present: modality -> bool [B], which samples have it; all that are not named have.

        Raises:
            WiringError: an unknown modality.
            SpecError: batches of different sizes, or nothing to align.
        """
        present = present or {}
        sizes = {name: len(value) for name, value in features.items()}
        pairs = [pair for pair in self._pairs if pair[0] in features and pair[1] in features]
        for name in (*features, *present):
            if name not in self.project:
                known = list(self.project)
                raise WiringError("ContrastiveAlignment", f"one of {known}", f"'{name}'", nearest(name, known))
        if len(set(sizes.values())) > 1 or not pairs:
            raise SpecError(
                "ContrastiveAlignment", f"as many of each, for a pair of {self._pairs}", f"{sizes}", "Pass them."
            )
        unit, there = {}, {}
        for name, value in features.items():
            here = present[name] if name in present else torch.ones(len(value), dtype=torch.bool, device=value.device)
            # What is not there may be NaN, and is no part of a batch's mean: only what is there is projected.
            found = self.embed(name, value[here])
            unit[name] = found.new_zeros(len(value), found.shape[1]).index_put((here.nonzero()[:, 0],), found)
            there[name] = here
        scale = self.log_scale.clamp_max(self._most_log_scale).exp()
        terms: dict[str, Tensor] = {}
        with full_precision(scale.device):
            for one, other in pairs:
                both = there[one] & there[other]
                pair_terms = _info_nce(widened(unit[one]), widened(unit[other]), scale, both)
                terms[f"{one}/{other}"], terms[f"_{one}/{other}"] = pair_terms
        total = torch.stack([value for name, value in terms.items() if not name.startswith("_")]).mean()
        return {"loss": total} | terms


def _info_nce(one: Tensor, other: Tensor, scale: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and share found; samples that lack one of the two are neither asked nor answers."""
    score = one @ other.T * scale
    usable = both[:, None] & both[None]
    # A sample that lacks one keeps its own score, so that no row is all minus infinity; it is not counted.
    own = torch.eye(len(both), dtype=torch.bool, device=both.device)
    score = torch.where(usable | own, score, -math.inf)
    target = torch.arange(len(both), device=both.device)
    counted = both.sum().clamp_min(1)
    terms, found = [], []
    for way in (score, score.T):
        each = nn.functional.cross_entropy(way, target, reduction="none")
        terms.append(torch.where(both, each, 0.0).sum() / counted)
        found.append(((way.argmax(1) == target) & both).sum() / counted)
    return torch.stack(terms).mean(), torch.stack(found).mean()


@torch.no_grad()
def retrieval(one: Tensor, other: Tensor, gallery: int) -> Tensor:
    """How often the partner of each vector is the nearest of a gallery: bool [B], B cut to a multiple of ``gallery``.

    Args:
        one: unit vectors [B, S] that ask.
        other: unit vectors [B, S] that are asked, in galleries of so many, each with the partners of its queries.
        gallery: its size; 1 / gallery is chance.

    Raises:
        SpecError: fewer vectors than a gallery.
    """
    count = len(one) // gallery * gallery
    if count == 0 or one.shape != other.shape:
        raise SpecError(
            "retrieval", f"{gallery} vectors at least, as many of both", f"{one.shape} and {other.shape}", "Pass more."
        )
    score = one[:count].reshape(-1, gallery, one.shape[1]) @ other[:count].reshape(-1, gallery, one.shape[1]).transpose(
        1, 2
    )
    return (score.argmax(-1) == torch.arange(gallery, device=one.device)).flatten()
