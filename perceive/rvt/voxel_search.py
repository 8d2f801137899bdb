"""The highest voxel of three crossed planes, exactly, without building the cube.

A voxel (x, y, z) of S^3 scores ``xy[x, y] + (xz[x, z] + yz[y, z])``, summed in single precision in just this order.
Rounding never turns the order of two numbers round, so a sum of maxima, taken in the same order, is never below the
score of any voxel that it stands for, and pruning by such bounds loses nothing, not even among ties.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLAB_BYTES = 1 << 22  # the sweep's working memory; on an accelerator 16 times as much


def highest_voxel(xy: Tensor, xz: Tensor, yz: Tensor) -> tuple[Tensor, Tensor]:
    """The best voxel of each sample; among equals the one with the lowest index, x first, then y, then z.

    On the CPU by branch and bound, a column of voxels along z being the branch: of ordinary maps, noise included, a
    handful to a few hundred of the S^2 columns can hold the best voxel, and only they are scored. Where more than a
    sixteenth of them are left (flat maps, or planes that agree nowhere though each is high somewhere along z) all
    voxels are swept slab by slab: S^3 additions and comparisons, the worst case. Elsewhere the sweep is all there is,
    since it never waits for the device.

    Args:
        xy: [B, S, S], finite; indexed [x, y].
        xz: [B, S, S], indexed [x, z].
        yz: [B, S, S], indexed [y, z].

    Returns:
        The score [B] and the voxel (x, y, z) int64 [B, 3].
    """
    if xy.device.type != "cpu":
        return sweep(xy, xz, yz)
    found = [_branch_and_bound(*sample) for sample in zip(xy, xz, yz, strict=True)]
    return torch.stack([score for score, _ in found]), torch.stack([voxel for _, voxel in found])


def sweep(xy: Tensor, xz: Tensor, yz: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`highest_voxel` by scoring every voxel, a few slabs of x at a time."""
    batch, size, _ = xy.shape
    budget = _SLAB_BYTES if xy.device.type == "cpu" else 16 * _SLAB_BYTES
    slabs = min(size, max(1, budget // (batch * size * size * xy.element_size())))
    sums = xy.new_empty(batch, slabs, size, size)  # once: asking the system for it each time costs more than the sums
    best = []
    for start in range(0, size, slabs):
        of_x = slice(start, start + slabs)
        planes = xy[:, of_x]
        torch.add(xz[:, of_x, None], yz[:, None], out=sums[:, : planes.shape[1]])
        best.append(sums[:, : planes.shape[1]].amax(3).add_(planes).amax(2))
    per_x = torch.cat(best, 1)
    score = per_x.amax(1)
    x = per_x.argmax(1)  # the first of equals, as torch documents
    rows = torch.arange(batch, device=xy.device)
    slab = xy[rows, x][:, :, None] + (xz[rows, x][:, None] + yz)
    y_z = (slab == score[:, None, None]).flatten(1).int().argmax(1)
    return score, torch.stack([x, y_z // size, y_z % size], 1)


def _branch_and_bound(xy: Tensor, xz: Tensor, yz: Tensor) -> tuple[Tensor, Tensor]:
    """Score [] and voxel int64 [3] of one sample."""
    size = xy.shape[0]
    bounds = (xy + (xz.amax(1)[:, None] + yz.amax(1))).flatten()
    reached = _climbed(xy, xz, yz, int(bounds.argmax()))
    columns = (bounds >= reached).nonzero()[:, 0]  # ascending; never empty: a bound is not below what was reached
    if columns.numel() > size * size // 16:
        score, voxel = sweep(xy[None], xz[None], yz[None])
        return score[0], voxel[0]
    x, y = columns // size, columns % size
    tops = xy.flatten()[columns] + xz.index_select(0, x).add_(yz.index_select(0, y)).amax(1)
    first = int(columns[tops.argmax()])  # the first of equals, as torch documents
    x_first, y_first = divmod(first, size)
    column = xy[x_first, y_first] + (xz[x_first] + yz[y_first])
    z_first = int(column.argmax())
    return column[z_first], torch.tensor([x_first, y_first, z_first])


def _climbed(xy: Tensor, xz: Tensor, yz: Tensor, column: int) -> Tensor:
    """A score that some voxel has, usually the best: uphill along the axes from a column."""
    x, y = divmod(column, xy.shape[0])
    for _ in range(2):
        z = int((xz[x] + yz[y]).argmax())
        x = int((xy[:, y] + xz[:, z]).argmax())
        y = int((xy[x] + yz[:, z]).argmax())
    return (xy[x, y] + (xz[x] + yz[y])).amax()
