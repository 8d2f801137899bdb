"""Matches between points by their features, whatever these are: the nearest both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.geometry import full_precision, widened
from sensors.errors import SpecError

_BLOCK = 1 << 22  # distances held at once for each sample


@dataclass(frozen=True, eq=False)
class Matches:
    """For each source point the target point with the nearest features.

    Attributes:
        index: int64 [B, N], the target point; 0 where there is none.
        mutual: bool [B, N]; the target point's nearest is this source point, and both are valid.
        distance: float [B, N] between the features; infinite where there is none.
        ratio: float [B, N] in [0, 1], of that to the distance of the second nearest: near 1 = ambiguous.
    """

    index: Tensor
    mutual: Tensor
    distance: Tensor
    ratio: Tensor

    def pairs(self, source_m: Tensor, target_m: Tensor) -> tuple[Tensor, Tensor]:
        """Source points [B, N, 3] and the points that they match [B, N, 3]; see ``mutual`` for which count."""
        return source_m, target_m.gather(1, self.index[..., None].expand(-1, -1, target_m.shape[-1]))


def match(
    source: Tensor,
    target: Tensor,
    source_valid: Tensor | None = None,
    target_valid: Tensor | None = None,
    max_ratio: float | None = None,
) -> Matches:
    """Mutually nearest features. Of equally near ones the lowest index is taken.

    Args:
        source: float [B, N, F]; a point with a NaN or infinite feature has no match.
        target: float [B, M, F].
        source_valid: bool [B, N]; None = all.
        target_valid: bool [B, M].
        max_ratio: matches above this ``ratio`` are not mutual (Lowe, IJCV 2004).

    Raises:
        SpecError: shapes that do not fit.
    """
    if source.ndim != 3 or target.ndim != 3 or source.shape[::2] != target.shape[::2]:
        raise SpecError(
            "match", "features [B, N, F] and [B, M, F]", f"{list(source.shape)} and {list(target.shape)}", "Correct it."
        )
    batch, count, width = source.shape
    other = target.shape[1]
    if not count or not other:
        empty = torch.zeros(batch, count, dtype=torch.int64, device=source.device)
        far = torch.full((batch, count), torch.inf, dtype=widened(source).dtype, device=source.device)
        return Matches(empty, empty.bool(), far, torch.ones_like(far))
    with full_precision(source.device), torch.no_grad():
        source, there = _clean(widened(source), source_valid)
        target, there_too = _clean(widened(target), target_valid)
        # Around a common middle: distances are taken as sums of squares and products, which would drown small ones.
        weight = torch.cat([there, there_too], 1)[..., None]
        middle = torch.cat([source, target], 1).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
        source, target = source - middle, target - middle
        size = torch.where(there_too, (target * target).sum(-1), torch.inf)[:, None]
        nearest, second, index = [], [], []
        best = torch.full((batch, other), torch.inf, dtype=source.dtype, device=source.device)
        back = torch.zeros(batch, other, dtype=torch.int64, device=source.device)
        rows = max(1, _BLOCK // other)
        for start in range(0, count, rows):
            part = source[:, start : start + rows]
            own = torch.where(there[:, start : start + rows], (part * part).sum(-1), torch.inf)[..., None]
            square = torch.baddbmm(size, part, target.transpose(1, 2), alpha=-2).add_(own)
            low, chosen = _lowest(square)
            index.append(chosen)
            nearest.append(low)
            column, row = _lowest(square.transpose(1, 2))
            better = column < best
            best, back = torch.where(better, column, best), torch.where(better, row + start, back)
            second.append(square.scatter_(2, chosen[..., None], torch.inf).amin(-1))
        found, there = torch.cat(index, 1), there & torch.cat(nearest, 1).isfinite()
        mutual = there & (back.gather(1, found) == torch.arange(count, device=source.device))
        gap = source - target.gather(1, found[..., None].expand(-1, -1, width))
        distance = torch.where(there, torch.linalg.vector_norm(gap, dim=-1), torch.inf)
        runner = torch.cat(second, 1).clamp_min(0).sqrt()
        ratio = torch.where(there & (runner > 0), torch.minimum(distance / runner, torch.ones_like(runner)), 1.0)
        if max_ratio is not None:
            mutual = mutual & (ratio <= max_ratio)
    return Matches(torch.where(there, found, 0), mutual, distance, ratio)


def _clean(features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    there = features.isfinite().all(-1)
    if valid is not None:
        there = there & valid
    return torch.where(there[..., None], features, 0.0), there


def _lowest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least of each row, and the first place where it is."""
    low = values.amin(-1)
    return low, (values == low[..., None]).to(torch.uint8).argmax(-1)
