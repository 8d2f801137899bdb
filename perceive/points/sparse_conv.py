"""Submanifold sparse 3D convolution: a dense one read at, and only at, the voxels that are there.

Graham, Engelcke and van der Maaten, "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", CVPR
2018. Which voxel feeds which is looked up once (:class:`KernelMap`) and shared by all layers on the same voxels.

The same bits come out of any number of threads: for each offset of the kernel, each voxel is written at most once, and
offsets follow each other in one order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision, widened
from sensors.errors import SpecError

TABLE_CELLS = 1 << 24  # of 4 bytes; a larger volume is searched instead
_TABLE_PER_VOXEL = 256  # a table much larger than the voxels takes longer to clear than to search them
_EVEN_ROWS = 16

Offset = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Which voxels are neighbours under a cubic kernel.

    Attributes:
        voxels: N.
        kernel: cells along each edge of the kernel, odd.
        offsets: one half of the kernel without its middle, each an offset (x, y, z) in cells.
        pairs: for each of these offsets, voxels ``(at, other)``, int64 [n] each, with
            ``cell[other] == cell[at] + offset`` in the same sample. Exchanged, they are those of the opposite offset.
    """

    voxels: int
    kernel: int
    offsets: tuple[Offset, ...]
    pairs: tuple[tuple[Tensor, Tensor], ...]

    @property
    def mean_neighbours(self) -> float:
        """How many voxels a kernel meets on average, its own included."""
        return 1 + 2 * sum(len(at) for at, _ in self.pairs) / max(1, self.voxels)


def kernel_map(cell: Tensor, sample: Tensor, kernel: int, table_cells: int = TABLE_CELLS) -> KernelMap:
    """Find the neighbours of each voxel.

    Args:
        cell: int64 [N, 3].
        sample: int64 [N] >= 0; voxels of different clouds are no neighbours.
        kernel: 1, 3, 5, ...
        table_cells: the largest volume for which a table of all its cells is made; above, voxels are sorted and
            searched, which gives the same map.

    Raises:
        SpecError: a voxel is given twice, shapes do not fit, an even kernel, or voxels further apart than 2^62 cells.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise SpecError("kernel_map.kernel", "an odd number", repr(kernel), "Use 3 or 5.")
    if cell.dim() != 2 or cell.shape[1] != 3 or sample.shape != cell.shape[:1]:
        raise SpecError("kernel_map", "cell [N, 3], sample [N]", f"{[*cell.shape]}, {[*sample.shape]}", "Reshape them.")
    reach = kernel // 2
    line = range(-reach, reach + 1)
    offsets = [(x, y, z) for x, y, z in itertools.product(line, line, line) if (x, y, z) > (0, 0, 0)]
    if not len(cell):
        return KernelMap(0, kernel, tuple(offsets), tuple((sample, sample) for _ in offsets))
    columns = (sample, *cell.unbind(1))
    ranges = [[int(end) for end in torch.aminmax(column)] for column in columns]
    # Rows of cells are followed by `reach` empty ones, so that stepping over an end meets nothing.
    sizes = [high - low + 1 + (reach if number else 0) for number, (low, high) in enumerate(ranges)]
    volume = math.prod(sizes)
    if volume >= 1 << 62:
        raise SpecError("kernel_map", "voxels within 2^62 cells", f"{volume:.3g}", "Crop the cloud.")
    steps = [sizes[2] * sizes[3], sizes[3], 1]
    key = torch.zeros_like(sample)
    for column, (low, _), size in zip(columns, ranges, sizes, strict=True):
        key = key.mul_(size).add_(column).sub_(low)
    if volume <= min(table_cells, max(1 << 16, _TABLE_PER_VOXEL * len(key))):
        pairs = _by_table(key, offsets, steps, volume)
    else:
        pairs = _by_search(key, offsets, steps)
    return KernelMap(len(key), kernel, tuple(offsets), tuple(pairs))


def _by_table(key: Tensor, offsets: Sequence[Offset], steps: Sequence[int], volume: int) -> list[tuple[Tensor, Tensor]]:
    number = torch.arange(len(key), device=key.device, dtype=torch.int32)
    spare = sum(steps) * max(map(max, offsets), default=0)  # the farthest step past the last voxel
    table = torch.full((volume + spare,), -1, dtype=torch.int32, device=key.device)
    table[key] = number
    if not table.index_select(0, key).equal(number):
        _refuse_duplicates()
    pairs = []
    for offset in offsets:
        # Offsets of the half come after their voxel, so no key is below 0.
        step = sum(step * part for step, part in zip(steps, offset, strict=True))
        other = table.index_select(0, key + step)
        at = (other >= 0).nonzero()[:, 0]
        pairs.append((at, other.index_select(0, at).long()))
    return pairs


def _by_search(key: Tensor, offsets: Sequence[Offset], steps: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    key, order = key.sort()
    if bool((key[1:] == key[:-1]).any()):
        _refuse_duplicates()
    padded = torch.cat([key, key.new_full((1,), -1)])  # what is looked up past the end
    place = torch.zeros_like(key)
    pairs, row = [], None
    for offset in offsets:
        step = sum(step * part for step, part in zip(steps, offset, strict=True))
        if offset[:2] != row:
            # Cells of a row follow each other: one search finds the first, the others come behind it.
            row = offset[:2]
            place = torch.searchsorted(key, key + step)
        hit = padded.index_select(0, place) == key + step
        at = hit.nonzero()[:, 0]
        target = order.index_select(0, at)
        other = order.index_select(0, place.index_select(0, at))
        target, sort = target.sort()  # as the table gives them
        pairs.append((target, other.index_select(0, sort)))
        place = place + hit
    return pairs


def _refuse_duplicates() -> None:
    raise SpecError(
        "kernel_map.cell", "each voxel of a sample once", "a voxel that comes twice", "Pool points to voxels first."
    )


def sparse_conv(features: Tensor, weight: Tensor, bias: Tensor | None, neighbours: KernelMap) -> Tensor:
    """Features [N, D] after a submanifold convolution of features [N, C]; differentiable once.

    ``out[n] = bias + sum over offsets o of weight[:, o, :] @ features[the voxel at cell[n] + o]``: equal to
    ``torch.nn.functional.conv3d`` of the dense volume, padded with zeros, at the voxels.

    Args:
        features: float [N, C].
        weight: float [D, k, k, k, C], offsets along x, y, z from the lowest.
        bias: float [D], or None.
        neighbours: of the N voxels, for kernels of k.

    Raises:
        SpecError: shapes that do not fit.
    """
    kernel = neighbours.kernel
    width = features.shape[-1]
    if weight.shape[1:] != (kernel, kernel, kernel, width) or features.shape[:-1] != (neighbours.voxels,):
        raise SpecError(
            "sparse_conv",
            f"features [{neighbours.voxels}, C], weight [D, {kernel}, {kernel}, {kernel}, C]",
            f"{[*features.shape]}, {[*weight.shape]}",
            "Use the kernel map of these voxels and this kernel.",
        )
    with full_precision(features.device):
        features = widened(features)
        # [k^3, C, D], so that each offset's matrix lies together.
        matrices = weight.to(features.dtype).flatten(1, 3).permute(1, 2, 0).contiguous()
        out: Tensor = _Convolve.apply(features, matrices, neighbours)  # type: ignore[no-untyped-call]
        return out if bias is None else out + bias.to(out.dtype)


class _Convolve(torch.autograd.Function):
    """Sums over offsets, without keeping what was gathered for the backward pass."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, matrices: Tensor, neighbours: KernelMap) -> Tensor:
        ctx.save_for_backward(features, matrices)
        ctx.neighbours = neighbours
        return _convolved(features, matrices, neighbours)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, matrices = ctx.saved_tensors
        neighbours: KernelMap = ctx.neighbours
        grad = grad.contiguous()
        to_features = to_matrices = None
        if ctx.needs_input_grad[0]:
            # A voxel gets back what it gave: the kernel mirrored, each matrix transposed.
            to_features = _convolved(grad, matrices.flip(0).transpose(1, 2).contiguous(), neighbours)
        if ctx.needs_input_grad[1]:
            to_matrices = torch.zeros_like(matrices)
            middle = len(matrices) // 2
            to_matrices[middle] = _outer(features, grad)
            for number, (at, other) in enumerate(neighbours.pairs, 1):
                if len(at):
                    to_matrices[middle + number] = _outer(features.index_select(0, other), grad.index_select(0, at))
                    to_matrices[middle - number] = _outer(features.index_select(0, at), grad.index_select(0, other))
        return to_features, to_matrices, None


def _convolved(features: Tensor, matrices: Tensor, neighbours: KernelMap) -> Tensor:
    """Sums [N, D] over the offsets of features [N, C] by matrices [k^3, C, D]."""
    middle = len(matrices) // 2
    out = _product(features, matrices[middle])
    # Offsets are numbered as the kernel is laid out; the half of the map is the upper one.
    for number, (at, other) in enumerate(neighbours.pairs, 1):
        if len(at):
            out.index_add_(0, at, _product(features.index_select(0, other), matrices[middle + number]))
            out.index_add_(0, other, _product(features.index_select(0, at), matrices[middle - number]))
    return out


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """The product of matrices [n, C] and [C, D], the same bits in any number of threads.

    BLAS splits a handful of rows between threads, and then rounds them otherwise than together: never give it so few.
    """
    count = len(rows)
    if count >= _EVEN_ROWS:
        return rows @ matrix
    return (nn.functional.pad(rows, (0, 0, 0, _EVEN_ROWS - count)) @ matrix)[:count]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """The sum [C, D] of outer products of rows [n, C] and [n, D]."""
    return _product(left.T, right)


@final
class SubmanifoldConv3d(nn.Module):
    """A layer of :func:`sparse_conv`.

    Its weight [D, k, k, k, C] has the layout of spconv 2, so that published weights load under their names.

    Args:
        in_width: C.
        out_width: D.
        kernel: k, odd.
        bias: whether each output has a constant.

    Raises:
        SpecError: an even kernel.
    """

    def __init__(self, in_width: int, out_width: int, kernel: int = 3, bias: bool = True) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise SpecError("SubmanifoldConv3d.kernel", "an odd number", repr(kernel), "Use 3 or 5.")
        self.weight = nn.Parameter(torch.empty(out_width, kernel, kernel, kernel, in_width))
        self.bias = nn.Parameter(torch.empty(out_width)) if bias else None
        # As torch initialises a dense convolution: uniform with the variance 1 / (3 fan_in).
        bound = (in_width * kernel**3) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, features: Tensor, neighbours: KernelMap) -> Tensor:
        """Features [N, D] of features [N, C]."""
        return sparse_conv(features, self.weight, self.bias, neighbours)
