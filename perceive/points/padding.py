"""Sequences of points cut into equal pieces for attention: patches (PTv3), sets (DSVT), snake groups (FlatFormer).

All are index maps, made once and used by every block: ``take`` brings values into pieces, ``give`` brings results back,
one for each point. Nothing in a piece of one cloud depends on another cloud of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perceive.points.voxels import unique_cells
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class Pieces:
    """S pieces of L places, filled with N points; some points stand in several places.

    Attributes:
        index: int64 [S, L], the point at each place.
        key: bool [S, L]; False = not to be looked at by attention, another place of the piece holds the same point.
        place: int64 [N], the place of each point that its result is taken from, counted over all pieces.
        sample: int64 [S], the cloud of each piece.
    """

    index: Tensor
    key: Tensor
    place: Tensor
    sample: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Values [S, L, ...] at the places, of values [N, ...] of the points; differentiable."""
        return values.index_select(0, self.index.flatten()).view(*self.index.shape, *values.shape[1:])

    def give(self, values: Tensor) -> Tensor:
        """Values [N, ...] of the points, of values [S, L, ...] at the places; ``give(take(x)) == x``."""
        return values.flatten(0, 1).index_select(0, self.place)

    def after(self, order: Tensor) -> Pieces:
        """The same pieces of points that were sorted: ``order`` [N] says which point stood where."""
        place = torch.empty_like(self.place).scatter_(0, order, self.place)
        return Pieces(order[self.index], self.key, place, self.sample)


def borrow_padding(counts: Tensor, length: int) -> Pieces:
    """Cut each cloud's points, in their order, into full patches; the last borrows from the one before.

    A cloud of more than ``length`` points is filled up by as many as it lacks to full patches: the place with no point
    of its own holds the point one patch earlier, so no zeros and no masks are needed (PTv3: Wu et al., CVPR 2024,
    arXiv 2312.10035; FlatFormer: Liu et al., CVPR 2023). A cloud of fewer has one patch, which holds its points over
    and over; the repetitions are no keys.

    Args:
        counts: int64 [B], points of each cloud; 0 gives no patch.
        length: L.

    Raises:
        SpecError: a count below 0, or ``length`` below 1.
    """
    if length < 1 or counts.dim() != 1 or (counts.numel() and int(counts.min()) < 0):
        raise SpecError("borrow_padding", "counts [B] >= 0 and a length >= 1", f"{tuple(counts.shape)}", "Correct it.")
    patches = (counts + length - 1) // length
    sample = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), patches)
    first_patch, first_point = patches.cumsum(0) - patches, counts.cumsum(0) - counts
    patch = torch.arange(len(sample), device=counts.device) - first_patch[sample]  # within the cloud
    slot = patch[:, None] * length + torch.arange(length, device=counts.device)
    own = counts[sample][:, None]
    short = own < length
    index = torch.where(slot < own, slot, torch.where(short, slot % own, slot - length)) + first_point[sample][:, None]
    cloud = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    place = torch.arange(len(cloud), device=counts.device) + (first_patch * length - first_point)[cloud]
    return Pieces(index, ~short | (slot < own), place, sample)


@dataclass(frozen=True, eq=False)
class Windows:
    """Voxels in the windows of a regular grid over the cells.

    Attributes:
        index: int64 [N], the window of each voxel among the W that are occupied, sorted by sample, then place.
        inner: int64 [N, 3], the cell within its window.
        count: int64 [W], voxels of each window.
        sample: int64 [W], the cloud of each window.
        shape: cells of a window along x, y, z.
    """

    index: Tensor
    inner: Tensor
    count: Tensor
    sample: Tensor
    shape: tuple[int, int, int]


def windows_of(
    cell: Tensor, sample: Tensor, shape: tuple[int, int, int], shift: tuple[int, int, int] = (0, 0, 0)
) -> Windows:
    """Which window each voxel lies in.

    Args:
        cell: int64 [N, 3], each cell of a sample once.
        sample: int64 [N].
        shape: cells of a window.
        shift: cells by which the windows are moved down; half a window in every second block lets them exchange.

    Raises:
        SpecError: a shape below 1.
    """
    size = _triple("windows_of.shape", shape, cell)
    moved = cell + torch.tensor(shift, device=cell.device)
    _, own, index, count = unique_cells(moved.div(size, rounding_mode="floor"), sample)
    return Windows(index, moved.remainder(size), count, own, shape)


def partition_sets(windows: Windows, length: int, major: Literal["x", "y"]) -> Pieces:
    """DSVT's rotated sets: each window's voxels, sorted, dealt evenly to as few sets of ``length`` as hold them.

    A window of n voxels has ``S = ceil(n / L)`` sets; place j of set s holds sorted voxel
    ``floor((s * L + j) * n / (S * L))``. Repetitions stand side by side in one set, and all but the first are no keys:
    ``S * L - n`` places (Wang et al., "DSVT", CVPR 2023, arXiv 2301.06051).

    Args:
        windows: of the voxels.
        length: L, 36 in the paper.
        major: sort by x, y, z or by y, x, z; blocks alternate.

    Raises:
        SpecError: ``length`` below 1, or an unknown axis.
    """
    if length < 1 or major not in ("x", "y"):
        raise SpecError("partition_sets", "length >= 1, major 'x' or 'y'", f"{length}, {major!r}", "Correct them.")
    along_x, along_y, along_z = windows.shape
    x, y, z = windows.inner.unbind(1)
    inner = (x * along_y + y) if major == "x" else (y * along_x + x)
    volume = along_x * along_y * along_z
    order = (windows.index * volume + inner * along_z + z).sort(stable=True).indices
    sets = (windows.count + length - 1) // length
    owner = torch.repeat_interleave(torch.arange(len(sets), device=sets.device), sets)
    nth = torch.arange(len(owner), device=sets.device) - (sets.cumsum(0) - sets)[owner]
    slot = nth[:, None] * length + torch.arange(length, device=sets.device)
    rank = slot * windows.count[owner][:, None] // (sets[owner][:, None] * length)
    # The first place that holds rank r: the least slot with slot * n >= r * S * L.
    key = torch.ones_like(rank, dtype=torch.bool)
    key[:, 1:] = rank[:, 1:] != rank[:, :-1]
    first = (windows.count.cumsum(0) - windows.count)[owner][:, None]
    index = order[rank + first]
    number = torch.arange(index.numel(), device=index.device)
    place = torch.empty_like(order).scatter_(0, index[key], number[key.flatten()])
    return Pieces(index, key, place, windows.sample[owner])


def snake_order(
    cell: Tensor, sample: Tensor, shape: tuple[int, int], shift: tuple[int, int], along: Literal["x", "y"]
) -> Tensor:
    """FlatFormer's order of pillars, int64 [N]: ``order[i]`` is the pillar that stands at place i.

    Windows are walked row by row, there and back, and so are the columns of each window, so that a sequence makes no
    leap where a row of windows ends (Liu et al., "FlatFormer", CVPR 2023). Its four passes are along x and y, each
    without a shift and with one of half a window.

    Args:
        cell: int64 [N, 3] or [N, 2]; z is not looked at, so a pillar must be given once.
        sample: int64 [N].
        shape: cells of a window along x and y, 9 and 9 in the paper.
        shift: cells by which windows are moved down.
        along: ``"x"`` walks rows of windows at one y.

    Raises:
        SpecError: a shape below 1, or an unknown direction.
    """
    if along not in ("x", "y") or min(shape) < 1:
        raise SpecError("snake_order", "shape >= 1, along 'x' or 'y'", f"{shape}, {along!r}", "Correct them.")
    if not len(cell):
        return sample
    quick, slow = (0, 1) if along == "x" else (1, 0)
    moved = cell[:, :2] + torch.tensor(shift, device=cell.device)
    size = torch.tensor(shape, device=cell.device)
    window, inner = moved.div(size, rounding_mode="floor"), moved.remainder(size)
    # Whether rows go forward hangs on the cell itself, not on where the others of the batch begin.
    back = window[:, slow].remainder(2) == 1
    window_key = torch.where(back, -window[:, quick], window[:, quick])
    low, high = window.amin(0), window.amax(0)
    reach = int(torch.maximum(high.abs(), low.abs()).max())
    row = window[:, slow] + reach
    column = window_key + reach
    length = shape[slow]
    turned = inner[:, quick].remainder(2) == 1
    within = inner[:, quick] * length + torch.where(turned, length - 1 - inner[:, slow], inner[:, slow])
    within = torch.where(back, shape[0] * shape[1] - 1 - within, within)
    span = 2 * reach + 1
    key = ((sample * span + row) * span + column) * (shape[0] * shape[1]) + within
    return key.sort(stable=True).indices


def snake_groups(order: Tensor, sample: Tensor, samples: int, length: int) -> Pieces:
    """FlatFormer's groups of ``length`` (69 in the paper) along a snake; the last of a cloud borrows.

    Args:
        order: int64 [N] of :func:`snake_order`.
        sample: int64 [N] of the pillars, as given there.
        samples: B.
        length: L.
    """
    return borrow_padding(torch.bincount(sample, minlength=samples), length).after(order)


def _triple(where: str, shape: Sequence[int], like: Tensor) -> Tensor:
    if len(shape) != 3 or min(shape) < 1:
        raise SpecError(where, "three numbers of cells, each at least 1", repr(shape), "Correct it.")
    return torch.tensor(tuple(shape), device=like.device)
