"""Histograms of neighbours' features as a descriptor of a point: it does not turn if the features do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perceive.geometry import full_precision, widened
from sensors.errors import SpecError


def histograms(
    features: Tensor, ranges: Sequence[tuple[float, float]], bins: int = 11, valid: Tensor | None = None
) -> Tensor:
    """A histogram for each of F features over the K neighbours of each point, side by side, float [..., F * bins].

    From point-pair features (Drost et al., CVPR 2010) this makes a rotation-invariant descriptor in the manner of the
    fast point feature histograms (Rusu et al., ICRA 2009). A value falls into its two nearest bins by its distance to
    their centres, so nothing jumps where a value crosses an edge. The root of the shares is returned: their Euclidean
    distance is Hellinger's, in which no full bin drowns the rest. A point without neighbours gets zeros.

    Args:
        features: float [..., K, F]; a neighbour with a NaN or infinite feature is left out.
        ranges: low and high of each feature; values beyond count as the nearest end.
        bins: for each feature.
        valid: bool [..., K], neighbours that are there.

    Raises:
        SpecError: as many ranges as features are needed, each with its low below its high, and two bins.
    """
    width = features.shape[-1]
    if len(ranges) != width or any(not low < high for low, high in ranges) or bins < 2:
        raise SpecError(
            "histograms", f"{width} ranges with low < high, and at least 2 bins", f"{list(ranges)}, {bins}", "Correct."
        )
    with full_precision(features.device):
        values = widened(features)
        there = values.isfinite().all(-1)
        if valid is not None:
            there = there & valid
        low = values.new_tensor([pair[0] for pair in ranges])
        high = values.new_tensor([pair[1] for pair in ranges])
        place = torch.where(there[..., None], (values - low) / (high - low), 0.0).clamp(0, 1) * (bins - 1)
        lower = place.detach().floor().clamp_max(bins - 2)
        upper_share = torch.where(there[..., None], place - lower, 0.0)
        lower_share = torch.where(there[..., None], 1 - (place - lower), 0.0)
        cell = lower.long() + bins * torch.arange(width, device=values.device)
        flat = values.new_zeros(*values.shape[:-2], width * bins)
        flat = flat.scatter_add(-1, cell.flatten(-2), lower_share.flatten(-2))
        flat = flat.scatter_add(-1, (cell + 1).flatten(-2), upper_share.flatten(-2))
        share = flat / (there.sum(-1, keepdim=True).clamp_min(1) * width)
        # The root's slope at an empty bin is infinite; there the share is a constant zero.
        return torch.where(share > 0, torch.where(share > 0, share, 1.0).sqrt(), 0.0)
