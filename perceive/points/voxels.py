"""A metric grid of cubes: which voxels hold points, which points each holds, and pooling of points to voxels.

Voxels come sorted by sample, then x, y, z, so their order depends neither on the order of the points nor, within a
sample, on the other samples of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.points.scatter import segment_max, segment_mean, segment_sum
from sensors.errors import SpecError

CELLS = 1 << 20  # cells on each side of the origin along an axis; points beyond are not valid


@dataclass(frozen=True, eq=False)
class Voxels:
    """The M occupied cells of B clouds.

    Attributes:
        cell: int64 [M, 3], number of the cell along x, y, z from the grid's origin; may be negative.
        sample: int64 [M], ascending: the cloud each belongs to.
        count: int64 [M], points in each.
        of_point: int64 [N] (or [B, P]), the voxel of each point; -1 = the point is not valid.
        dropped: int64 [B], points that were said to be valid but have no cell: not finite, outside of the bounds or
            beyond 2^20 cells.
        edge_m: float32 [3], edges of a cell.
        origin_m: float32 [3], corner of cell (0, 0, 0) in the frame of the points.
    """

    cell: Tensor
    sample: Tensor
    count: Tensor
    of_point: Tensor
    dropped: Tensor
    edge_m: Tensor
    origin_m: Tensor

    @property
    def centre_m(self) -> Tensor:
        """Middles of the cells, float32 [M, 3]."""
        return (self.cell + 0.5) * self.edge_m + self.origin_m

    @property
    def per_sample(self) -> Tensor:
        """How many voxels each cloud has, int64 [B]."""
        return torch.bincount(self.sample, minlength=len(self.dropped))

    def sums(self, values: Tensor) -> Tensor:
        """Sums [M, ...] over the points of each voxel, of values [N, ...] (or [B, P, ...])."""
        return segment_sum(self._rows(values), self.of_point.flatten(), len(self.cell))

    def means(self, values: Tensor) -> Tensor:
        """Means [M, ...] over the points of each voxel."""
        return segment_mean(self._rows(values), self.of_point.flatten(), len(self.cell))

    def largest(self, values: Tensor) -> Tensor:
        """The largest [M, ...] over the points of each voxel, component by component."""
        return segment_max(self._rows(values), self.of_point.flatten(), len(self.cell))

    def to_points(self, values: Tensor) -> Tensor:
        """Each voxel's values [M, ...] for its points [N, ...] (or [B, P, ...]); 0 where a point is not valid."""
        flat = self.of_point.flatten()
        padded = torch.cat([values.new_zeros(1, *values.shape[1:]), values])
        return padded.index_select(0, flat + 1).reshape(*self.of_point.shape, *values.shape[1:])

    def first_point(self) -> Tensor:
        """The lowest point of each voxel, int64 [M], counted over all clouds."""
        flat = self.of_point.flatten()
        number = torch.arange(len(flat), device=flat.device)
        first = torch.full((len(self.cell) + 1,), len(flat), device=flat.device)
        first = first.scatter_reduce(0, torch.where(flat < 0, len(self.cell), flat), number, "amin")
        return first[:-1]

    def _rows(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *values.shape[self.of_point.dim() :])


def voxelise(
    points_m: Tensor,
    edge_m: float | Sequence[float],
    *,
    sample: Tensor | None = None,
    valid: Tensor | None = None,
    samples: int | None = None,
    origin_m: Sequence[float] = (0.0, 0.0, 0.0),
    low_m: Sequence[float] | None = None,
    high_m: Sequence[float] | None = None,
) -> Voxels:
    """Sort points into the cells of a grid.

    Args:
        points_m: float [N, 3] with ``sample``, or [B, P, 3] with one cloud per row; not finite = not valid.
        edge_m: edge of a cell, or its three edges.
        sample: int64 [N], the cloud of each point of [N, 3]; None = all of one. Not with [B, P, 3].
        valid: bool [N] or [B, P]; None = all.
        samples: B, where the last clouds of ``sample`` may be empty; None = highest + 1.
        origin_m: corner of cell (0, 0, 0).
        low_m: points below this in some coordinate have no cell.
        high_m: points at or above this in some coordinate have no cell.

    Raises:
        SpecError: shapes that do not fit, an edge that is not above 0, or so many occupied cells apart from each other
            that one number cannot name them all (2^63).
    """
    edge = _edges(edge_m)
    shape = points_m.shape[:-1]
    batched = points_m.dim() == 3
    if points_m.shape[-1:] != (3,) or points_m.dim() not in (2, 3) or (batched and sample is not None):
        raise SpecError(
            "voxelise.points_m", "[N, 3] with sample, or [B, P, 3]", f"{tuple(points_m.shape)}", "Reshape them."
        )
    if batched:
        samples = shape[0]
        sample = torch.arange(samples, device=points_m.device)[:, None].expand(shape).flatten()
    elif sample is None:
        samples = 1 if samples is None else samples
        sample = torch.zeros(shape, dtype=torch.int64, device=points_m.device)
    elif samples is None:
        samples = int(sample.max()) + 1 if sample.numel() else 0
    if sample.shape != (shape.numel(),) or (
        sample.numel() and not 0 <= int(sample.min()) <= int(sample.max()) < samples
    ):
        raise SpecError("voxelise.sample", f"int64 [{shape.numel()}], 0 to {samples - 1}", "others", "Correct it.")
    points = points_m.detach().reshape(-1, 3)
    said = torch.ones_like(sample, dtype=torch.bool) if valid is None else valid.reshape(-1)
    edge_t = torch.tensor(edge, dtype=points.dtype, device=points.device)
    origin_t = torch.tensor(tuple(origin_m), dtype=points.dtype, device=points.device)
    place = ((points - origin_t) / edge_t).floor()
    # Written so that NaN counts as outside.
    there = said & (place.abs() < CELLS).all(1)
    for bound, above in ((low_m, True), (high_m, False)):
        if bound is not None:
            at = torch.tensor(tuple(bound), dtype=points.dtype, device=points.device)
            there = there & ((points >= at) if above else (points < at)).all(1)
    dropped = torch.bincount(sample[said & ~there], minlength=samples)
    kept = there.nonzero()[:, 0]
    cell, own, of_kept, count = unique_cells(place.index_select(0, kept).long(), sample.index_select(0, kept))
    of_point = torch.full_like(sample, -1).index_copy(0, kept, of_kept).reshape(shape)
    return Voxels(cell, own, count, of_point, dropped, edge_t.float(), origin_t.float())


def unique_cells(cell: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The different cells, sorted by sample, x, y, z.

    Args:
        cell: int64 [N, 3].
        sample: int64 [N].

    Returns:
        Cells [M, 3], samples [M], the number of each given cell's in them [N], and how often each was given [M].

    Raises:
        SpecError: they span more than 2^63 cells.
    """
    if not len(cell):
        return cell, sample, sample, sample
    columns = (sample, *cell.unbind(1))
    ranges = [[int(end) for end in torch.aminmax(column)] for column in columns]
    sizes = [high - low + 1 for low, high in ranges]
    volume = math.prod(sizes)
    if volume >= 1 << 63:
        raise SpecError(
            "voxels", "fewer than 2^63 cells from the first to the last", f"{volume:.3g}", "Crop the points first."
        )
    key = torch.zeros_like(sample)
    for column, (low, _), size in zip(columns, ranges, sizes, strict=True):
        key = key.mul_(size).add_(column).sub_(low)
    found, inverse, count = torch.unique(key, return_inverse=True, return_counts=True)
    parts = []
    left = found
    for (low, _), size in zip(ranges[:0:-1], sizes[:0:-1], strict=True):
        parts.append(left % size + low)
        left = left // size
    return torch.stack(parts[::-1], 1), left + ranges[0][0], inverse, count


def _edges(edge_m: float | Sequence[float]) -> tuple[float, ...]:
    edges = (float(edge_m),) * 3 if isinstance(edge_m, int | float) else tuple(float(edge) for edge in edge_m)
    if len(edges) != 3 or not all(0 < edge < float("inf") for edge in edges):
        raise SpecError("voxelise.edge_m", "one edge above 0, or three", repr(edge_m), "Correct it.")
    return edges
