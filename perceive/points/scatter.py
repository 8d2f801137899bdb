"""Sum, mean and largest of the rows of each segment: pooling of points to voxels, of voxels to coarser ones.

Deterministic on every device and in any number of threads: rows of a segment are added in the order of the rows. On the
CPU torch does so by itself; elsewhere, where adding from many threads would be in any order, rows are sorted first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensors.errors import SpecError


def segment_sum(values: Tensor, index: Tensor, segments: int) -> Tensor:
    """Sums [M, ...] of the rows of each segment; 0 of an empty one.

    Args:
        values: float [N, ...].
        index: int64 [N], the segment of each row, 0 to M - 1; -1 = of none, whatever stands in that row.
        segments: M.

    Raises:
        SpecError: shapes that do not fit, or a segment that does not exist.
    """
    index = _checked(values, index, segments)
    flat = values.flatten(1) if values.dim() > 1 else values[:, None]
    if values.device.type == "cpu":
        total = flat.new_zeros(segments + 1, flat.shape[1]).index_add(0, index, flat)
    else:
        total = _sum_of_sorted(flat, index, segments + 1)
    return total[:segments].reshape(segments, *values.shape[1:])


def segment_count(index: Tensor, segments: int) -> Tensor:
    """How many rows each segment has, int64 [M]; rows of segment -1 are not counted."""
    return torch.bincount(index + 1, minlength=segments + 1)[1:]


def segment_mean(values: Tensor, index: Tensor, segments: int) -> Tensor:
    """Means [M, ...] of the rows of each segment; 0 of an empty one. Arguments as of :func:`segment_sum`."""
    total = segment_sum(values, index, segments)
    count = segment_count(index, segments).clamp_min(1).to(values.dtype)
    return total / count.reshape(-1, *(1 for _ in values.shape[1:]))


def segment_max(values: Tensor, index: Tensor, segments: int) -> Tensor:
    """The largest [M, ...] of the rows of each segment, component by component; 0 of an empty one.

    Arguments as of :func:`segment_sum`. Where several rows are equally large, the gradient is shared among them, so
    that it does not depend on their order.
    """
    index = _checked(values, index, segments)
    flat = values.flatten(1) if values.dim() > 1 else values[:, None]
    # Selected, not left to fall into the spare segment: there the gradient of NaN would be NaN.
    flat = torch.where((index < segments)[:, None], flat, 0.0)
    spread = index[:, None].expand_as(flat)
    # The value 0 of an empty segment is no row's: it takes no part in the largest.
    most = flat.new_zeros(segments + 1, flat.shape[1]).scatter_reduce(0, spread, flat, "amax", include_self=False)
    return most[:segments].reshape(segments, *values.shape[1:])


def _sum_of_sorted(values: Tensor, index: Tensor, segments: int) -> Tensor:
    """Sums [M, C] by sorting: each segment is one run of rows, added from its first to its last."""
    order = index.sort(stable=True).indices
    lengths = torch.bincount(index, minlength=segments)
    total: Tensor = torch.segment_reduce(values.index_select(0, order), "sum", lengths=lengths, unsafe=True, initial=0)
    return total


def _checked(values: Tensor, index: Tensor, segments: int) -> Tensor:
    """The index with one segment more, for the rows of none."""
    if index.shape != values.shape[:1] or index.dtype != torch.int64:
        raise SpecError(
            "segments",
            f"int64 [{values.shape[0]}]",
            f"{index.dtype} {tuple(index.shape)}",
            "Give each row the number of its segment.",
        )
    if index.numel():
        low, high = (int(value) for value in torch.aminmax(index))
        if low < -1 or high >= segments:
            raise SpecError("segments", f"-1 to {segments - 1}", f"{low} to {high}", "Correct the index.")
    return torch.where(index < 0, segments, index)
