"""The cells that PTv3 works on, from the finest resolution to the coarsest, with all that hangs on where they are.

A level knows its cells' neighbours (for the convolutions) and how they are cut into patches along each curve (for the
attention); blocks only carry features over it. Nothing here depends on the other clouds of the batch: the depth of a
curve is that of each cloud, the grid begins at each cloud's first cell and a patch never shrinks to what the smallest
cloud holds. (The published code takes depth, origin and patch from the batch at hand.)

Paper: Wu et al., "Point Transformer V3: Simpler, Faster, Stronger", CVPR 2024, arXiv 2312.10035.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.points.padding import Pieces, borrow_padding
from perceive.points.scatter import segment_mean
from perceive.points.serialise import Curve, encode
from perceive.points.sparse_conv import KernelMap, kernel_map
from perceive.points.voxels import Voxels, unique_cells, voxelise
from sensors.errors import SpecError

_KERNEL = 3  # of the convolutions inside of blocks


@dataclass(frozen=True, eq=False)
class GridCloud:
    """Clouds on a grid: one row for each occupied cell, rows in any order.

    Attributes:
        features: float [M, C].
        cell: int64 [M, 3] >= 0, each cell of a cloud once.
        sample: int64 [M], the cloud of each, 0 to ``samples - 1``.
        samples: B; clouds may be empty.
        position_m: float [M, 3], where the surface is in the cell, in the frame of the points.
    """

    features: Tensor
    cell: Tensor
    sample: Tensor
    samples: int
    position_m: Tensor

    def __post_init__(self) -> None:
        rows = len(self.cell)
        shapes = (self.features.shape[:-1], self.cell.shape[1:], self.sample.shape, self.position_m.shape)
        if shapes != ((rows,), (3,), (rows,), (rows, 3)):
            raise SpecError(
                "GridCloud",
                "features [M, C], cell [M, 3], sample [M], position_m [M, 3]",
                f"{[*self.features.shape]}, {[*self.cell.shape]}, {[*self.sample.shape]}, {[*self.position_m.shape]}",
                "Give one row per cell.",
            )
        if rows and not 0 <= int(self.sample.min()) <= int(self.sample.max()) < self.samples:
            raise SpecError("GridCloud.sample", f"0 to {self.samples - 1}", "others", "Correct it.")


def grid_cloud(
    points_m: Tensor,
    features: Tensor,
    edge_m: float,
    sample: Tensor | None = None,
    valid: Tensor | None = None,
    samples: int | None = None,
) -> tuple[GridCloud, Voxels]:
    """Points pooled to the cells of a grid: means of positions and features; cells counted from each cloud's lowest.

    Args:
        points_m: float [N, 3] with ``sample``, or [B, P, 3]; points that are not finite, and those whose features are
            not, are left out.
        features: float [N, C] or [B, P, C].
        edge_m: edge of a cell.
        sample: int64 [N]; None = one cloud.
        valid: bool [N] or [B, P]; None = all.
        samples: B, where the last clouds may be empty.

    Returns:
        The cloud, and the voxels, whose ``to_points`` brings results of cells back to points and whose ``dropped``
        counts the points that have none.

    Raises:
        SpecError: shapes that do not fit; see :func:`perceive.points.voxels.voxelise`.
    """
    if features.shape[:-1] != points_m.shape[:-1]:
        raise SpecError(
            "grid_cloud.features", f"[{[*points_m.shape[:-1]]}, C]", f"{[*features.shape]}", "Give one row per point."
        )
    # A point whose features are not finite is dropped, and counted, as one whose place is not.
    placed = torch.where(features.isfinite().all(-1, keepdim=True), points_m, torch.nan)
    voxels = voxelise(placed, edge_m, sample=sample, valid=valid, samples=samples)
    clouds = len(voxels.dropped)
    if voxels.cell.numel():
        lowest = torch.full((clouds, 3), torch.iinfo(torch.int64).max, device=points_m.device)
        lowest = lowest.scatter_reduce(0, voxels.sample[:, None].expand(-1, 3), voxels.cell, "amin")
        cell = voxels.cell - lowest[voxels.sample]
    else:
        cell = voxels.cell.reshape(0, 3)
    position_m = voxels.means(points_m).reshape(len(cell), 3)
    return GridCloud(voxels.means(features), cell, voxels.sample, clouds, position_m), voxels


@dataclass(frozen=True, eq=False)
class Level:
    """The M cells of B clouds at one resolution, sorted by sample, x, y, z.

    Attributes:
        cell: int64 [M, 3].
        sample: int64 [M], ascending.
        samples: B.
        position_m: float [M, 3], mean of what the cell holds.
        codes: int64 [K, M], place on each of K curves, the sample above; shuffled curves are shuffled here.
        neighbours: of each cell in a kernel of 3.
        patches: for the curves that blocks use, the patches of attention.
        masked: whether some place of a patch is no key.
        child_of: int64 [number of cells one level finer], the cell of this level each lies in; None at the finest.
    """

    cell: Tensor
    sample: Tensor
    samples: int
    position_m: Tensor
    codes: Tensor
    neighbours: KernelMap
    patches: tuple[Pieces, ...]
    masked: bool
    child_of: Tensor | None

    @property
    def per_sample(self) -> Tensor:
        """How many cells each cloud has, int64 [B]."""
        return torch.bincount(self.sample, minlength=self.samples)


@dataclass(frozen=True, eq=False)
class Levels:
    """All resolutions of a batch.

    Attributes:
        levels: from the finest to the coarsest; each has cells of twice the edge of the one before.
        stem: neighbours at the finest for the kernel of the stem.
        row: int64 [M], for each given row its cell of the finest level.
        first: int64 [M], for each cell of the finest level the row it was given as.
    """

    levels: tuple[Level, ...]
    stem: KernelMap
    row: Tensor
    first: Tensor


@torch.no_grad()
def build_levels(
    cloud: GridCloud,
    blocks: Sequence[int],
    patch: int,
    curves: Sequence[Curve],
    stem_kernel: int,
    shuffle: bool,
) -> Levels:
    """Prepare the geometry of all levels.

    Args:
        cloud: the cells.
        blocks: how many blocks the longest stage at each level has; block i uses curve ``i % K``.
        patch: places of a patch.
        curves: K curves.
        stem_kernel: cells along the kernel of the stem, 3 or more.
        shuffle: permute the curves at each level, from torch's generator (training only).

    Raises:
        SpecError: a cell given twice, below 0 or beyond what a code of 63 bits holds.
    """
    cell, sample, row, count = unique_cells(cloud.cell, cloud.sample)
    if len(cell) != len(cloud.cell):
        raise SpecError(
            "GridCloud.cell", "each cell of a cloud once", f"{int(count.max())} times the same", "Use grid_cloud."
        )
    first = torch.empty_like(row).scatter_(0, row, torch.arange(len(row), device=row.device))
    codes = curve_codes(cell, sample, cloud.samples, curves, len(blocks) - 1)
    stem = kernel_map(cell, sample, stem_kernel)
    neighbours = _inner(stem)
    position_m = cloud.position_m.index_select(0, first)
    child_of = None
    levels: list[Level] = []
    for number, depth in enumerate(blocks):
        if number:
            fine = levels[-1]
            cell, sample, child_of, _ = unique_cells(fine.cell >> 1, fine.sample)
            # All cells of a coarser one share the prefix of their codes, on every curve.
            codes = fine.codes.new_empty(len(curves), len(cell)).index_copy_(1, child_of, fine.codes >> 3)
            position_m = segment_mean(fine.position_m, child_of, len(cell))
            neighbours = kernel_map(cell, sample, _KERNEL)
        if shuffle:
            codes = codes[torch.randperm(len(codes)).to(codes.device)]
        patches = cut(codes[: min(depth, len(curves))], sample, cloud.samples, patch)
        masked = bool(patches) and not bool(patches[0].key.all())
        levels.append(Level(cell, sample, cloud.samples, position_m, codes, neighbours, patches, masked, child_of))
    return Levels(tuple(levels), stem, row, first)


def curve_codes(cell: Tensor, sample: Tensor, samples: int, curves: Sequence[Curve], least_depth: int) -> Tensor:
    """Codes int64 [K, M], each cloud with the depth that its own cells need, samples above the deepest.

    Args:
        cell: int64 [M, 3] >= 0.
        sample: int64 [M].
        samples: B.
        curves: K of them.
        least_depth: how many levels must be left to be dropped (``code >> 3`` each) before the sample is touched.

    Raises:
        SpecError: a cell below 0 or beyond 2^21, or a code that needs more than 63 bits.
    """
    if not len(cell):
        return cell.new_zeros(len(curves), 0)
    if int(cell.min()) < 0:
        raise SpecError("GridCloud.cell", "cells from 0", f"{int(cell.min())}", "Count from the cloud's lowest cell.")
    last = torch.zeros(samples, dtype=torch.int64, device=cell.device)
    last = last.scatter_reduce(0, sample, cell.amax(1), "amax")
    depths = [max(1, int(value).bit_length()) for value in last.tolist()]
    deepest = max(*depths, least_depth, 1)
    if 3 * deepest + (samples - 1).bit_length() > 63:
        raise SpecError(
            "GridCloud.cell",
            f"codes of 63 bits for {samples} clouds",
            f"cells up to {int(last.max())}: {deepest} levels",
            "Use larger cells, crop the outliers, or make smaller batches.",
        )
    depth = torch.tensor(depths, device=cell.device)[sample]
    codes = cell.new_empty(len(curves), len(cell))
    for level in sorted(set(depths)):  # at most 21
        of_level = (depth == level).nonzero()[:, 0]
        part = cell.index_select(0, of_level)
        for number, curve in enumerate(curves):
            codes[number].index_copy_(0, of_level, encode(part, level, curve))
    return codes | (sample << (3 * deepest))


def cut(codes: Tensor, sample: Tensor, samples: int, patch: int) -> tuple[Pieces, ...]:
    """Patches along each of the curves whose codes [K, M] are given.

    Where no cloud fills a patch, patches are as long as the largest cloud: the places past it would be no keys.
    """
    if not codes.shape[1]:
        return tuple(borrow_padding(sample.new_zeros(samples), patch) for _ in codes)
    counts = torch.bincount(sample, minlength=samples)
    pieces = borrow_padding(counts, min(patch, int(counts.max())))
    return tuple(pieces.after(code.sort(stable=True).indices) for code in codes)


def _inner(neighbours: KernelMap) -> KernelMap:
    """The map of a kernel of 3 that lies inside of a larger one's."""
    kept = [number for number, offset in enumerate(neighbours.offsets) if max(map(abs, offset)) <= _KERNEL // 2]
    offsets, pairs = ([values[number] for number in kept] for values in (neighbours.offsets, neighbours.pairs))
    return KernelMap(neighbours.voxels, _KERNEL, tuple(offsets), tuple(pairs))  # type: ignore[arg-type]
