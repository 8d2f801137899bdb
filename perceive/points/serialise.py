"""One number per grid cell, so that cells near in space are mostly near in order: z-order and Hilbert curves.

The four orders of PTv3 (Wu et al., CVPR 2024, arXiv 2312.10035): both curves, and both with x and y exchanged. A code
holds ``3 * depth`` bits, the sample's number above them, so one sort keeps the samples of a batch apart. A prefix of
any of the four codes is a cell of the octree: ``code >> 3`` is the same partition for all.

Codes depend on ``depth``, not only on the cell: every further level turns the axes of a Hilbert curve. Whoever takes
the depth (or the origin of the grid) from the batch at hand makes a cloud's order depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sensors.errors import SpecError

Curve = Literal["z", "z-trans", "hilbert", "hilbert-trans"]
CURVES: tuple[Curve, ...] = ("z", "z-trans", "hilbert", "hilbert-trans")
MAX_DEPTH = 21  # 3 * 21 = 63: what a non-negative int64 holds
_BLOCK = 1 << 17

# Spreading 21 bits so that two zeros stand between neighbours: shift left, keep what has arrived.
_SPREAD = (
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)
_EVERY_THIRD = 0x1249249249249249


@dataclass(frozen=True, eq=False)
class Serialised:
    """Cells in the order of K curves.

    Attributes:
        codes: int64 [K, N], sample bits included.
        order: int64 [K, N]; ``order[k, i]`` is the cell that stands at place i of curve k.
        inverse: int64 [K, N]; ``inverse[k, n]`` is the place of cell n on curve k.
        depth: levels of the codes.
    """

    codes: Tensor
    order: Tensor
    inverse: Tensor
    depth: int


def depth_of(cell: Tensor) -> int:
    """The least depth whose codes hold these cells [..., 3], at least 1."""
    return max(1, int(cell.max()).bit_length()) if cell.numel() else 1


def serialise(cell: Tensor, depth: int, curves: Sequence[Curve] = CURVES, sample: Tensor | None = None) -> Serialised:
    """Sort cells along curves; equal cells keep their order.

    Args:
        cell: int64 [N, 3], each from 0 to ``2^depth - 1``.
        depth: levels, 1 to 21.
        curves: which ones, K of them.
        sample: int64 [N], which cloud of the batch a cell belongs to; None = one cloud.

    Raises:
        SpecError: see :func:`encode`.
    """
    if not curves:
        raise SpecError("serialise.curves", "at least one curve", "none", f"Choose of {list(CURVES)}.")
    codes = torch.stack([encode(cell, depth, curve, sample) for curve in curves])
    # One by one: torch sorts integers by radix only in one dimension, which takes a third of the time.
    order = torch.stack([row.sort(stable=True).indices for row in codes])
    places = torch.arange(codes.shape[1], device=codes.device).expand_as(order)
    return Serialised(codes, order, torch.empty_like(order).scatter_(1, order, places), depth)


def encode(cell: Tensor, depth: int, curve: Curve, sample: Tensor | None = None) -> Tensor:
    """The codes of cells, int64 [...].

    Args:
        cell: integers [..., 3], each from 0 to ``2^depth - 1``; x holds the highest of each three bits.
        depth: levels, 1 to 21.
        curve: one of the four.
        sample: int64 [...] >= 0, put above the ``3 * depth`` bits; all of them must fit into 63.

    Raises:
        SpecError: unknown curve, depth or sample out of range, cells of another kind or beyond the range.

    Papers: Morton, IBM 1966, for z; Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707, 2004.
    """
    _check_curve(depth, curve)
    if cell.is_floating_point() or cell.dtype == torch.bool or cell.shape[-1:] != (3,):
        raise SpecError("encode.cell", "integers [..., 3]", f"{cell.dtype} {tuple(cell.shape)}", "Floor them first.")
    if cell.numel():
        low, high = (int(value) for value in torch.aminmax(cell))
        if low < 0 or high >= 1 << depth:
            raise SpecError(
                "encode.cell", f"0 to {(1 << depth) - 1}", f"{low} to {high}", "Shift the grid, or raise the depth."
            )
    parts = [_encode(part, depth, curve) for part in _blocks(cell.reshape(-1, 3))]
    code = torch.cat(parts).view(cell.shape[:-1])
    return code if sample is None else code | (_checked_sample(sample, depth) << (3 * depth))


def decode(code: Tensor, depth: int, curve: Curve) -> tuple[Tensor, Tensor]:
    """Cells int64 [..., 3] and samples int64 [...] of codes; the inverse of :func:`encode`.

    Raises:
        SpecError: unknown curve, depth out of range, or codes that are not int64 >= 0.
    """
    _check_curve(depth, curve)
    if code.dtype != torch.int64 or (code.numel() and int(code.min()) < 0):
        raise SpecError("decode.code", "int64 >= 0", f"{code.dtype}, or below 0", "Pass codes of encode.")
    bits = 3 * depth
    sample = code >> bits if bits < 63 else torch.zeros_like(code)
    parts = [_decode(part & ((1 << bits) - 1), depth, curve) for part in _blocks(code.flatten())]
    return torch.cat(parts).view(*code.shape, 3), sample


def _blocks(rows: Tensor) -> list[Tensor]:
    """Parts of rows that stay in the cache while dozens of small steps go over them."""
    parts: Sequence[Tensor] = torch.split(rows, _BLOCK if rows.device.type == "cpu" else max(1, len(rows)))
    return list(parts)


def _encode(cell: Tensor, depth: int, curve: Curve) -> Tensor:
    x, y, z = (part.to(torch.int32) for part in cell.unbind(-1))
    if curve.endswith("-trans"):
        x, y = y, x
    if curve.startswith("hilbert"):
        return _ungray(_interleave(*_to_transpose(x, y, z, depth)), 3 * depth)
    return _interleave(x, y, z)


def _decode(code: Tensor, depth: int, curve: Curve) -> Tensor:
    if curve.startswith("hilbert"):
        gray = code ^ (code >> 1)
        x, y, z = _from_transpose(*_deinterleave(gray), depth)
    else:
        x, y, z = _deinterleave(code)
    if curve.endswith("-trans"):
        x, y = y, x
    return torch.stack([x, y, z], -1)


def _to_transpose(x: Tensor, y: Tensor, z: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Skilling's transform without the Gray step, for all points at once; from the highest bit down."""
    axes = (x.clone(), y.clone(), z.clone())
    first, flip, swap = axes[0], torch.empty_like(x), torch.empty_like(x)
    for bit in range(depth - 1, 0, -1):
        lower = (1 << bit) - 1
        for axis in axes:
            # All ones below the bit where it is set: the first axis is turned round there, else exchanged with this.
            torch.bitwise_left_shift(axis, 31 - bit, out=flip)
            flip.bitwise_right_shift_(31).bitwise_and_(lower)
            if axis is not first:
                torch.bitwise_xor(first, axis, out=swap)
                swap.bitwise_and_(flip ^ lower)
                axis.bitwise_xor_(swap)
                first.bitwise_xor_(swap)
            first.bitwise_xor_(flip)
    return axes


def _from_transpose(x: Tensor, y: Tensor, z: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of :func:`_to_transpose`: its steps backwards, each of which undoes itself."""
    axes = (x.clone(), y.clone(), z.clone())
    first = axes[0]
    for bit in range(1, depth):
        lower = (1 << bit) - 1
        for axis in reversed(axes):
            flip = -((axis >> bit) & 1) & lower
            first.bitwise_xor_(flip)
            if axis is not first:
                swap = (first ^ axis) & (flip ^ lower)
                axis.bitwise_xor_(swap)
                first.bitwise_xor_(swap)
    return axes


def _ungray(code: Tensor, bits: int) -> Tensor:
    """Each bit becomes the parity of itself and all above it."""
    shift = 1
    while shift < bits:
        code = code ^ (code >> shift)
        shift *= 2
    return code


def _interleave(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Codes ... x1 y1 z1 x0 y0 z0 of integers of at most 21 bits."""
    code = _spread(x).bitwise_left_shift_(1)
    code.bitwise_or_(_spread(y)).bitwise_left_shift_(1)
    return code.bitwise_or_(_spread(z))


def _spread(value: Tensor) -> Tensor:
    value = value.long()
    for shift, keep in _SPREAD:
        value = (value << shift).bitwise_or_(value).bitwise_and_(keep)
    return value


def _deinterleave(code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = (_gather((code >> place) & _EVERY_THIRD) for place in (2, 1, 0))
    return x, y, z


def _gather(value: Tensor) -> Tensor:
    """The inverse of :func:`_spread`."""
    keeps = [keep for _, keep in _SPREAD[-2::-1]] + [(1 << MAX_DEPTH) - 1]
    for (shift, _), keep in zip(reversed(_SPREAD), keeps, strict=True):
        value = (value >> shift).bitwise_or_(value).bitwise_and_(keep)
    return value


def _check_curve(depth: int, curve: Curve) -> None:
    if curve not in CURVES:
        raise SpecError("curve", f"one of {list(CURVES)}", repr(curve), "Choose one.")
    if not 1 <= depth <= MAX_DEPTH:
        raise SpecError("depth of a curve", f"1 to {MAX_DEPTH}", repr(depth), "Use larger voxels.")


def _checked_sample(sample: Tensor, depth: int) -> Tensor:
    if sample.numel():
        low, high = (int(value) for value in torch.aminmax(sample))
        if low < 0 or 3 * depth + high.bit_length() > 63:
            raise SpecError(
                "encode.sample",
                f"0 to {(1 << (63 - 3 * depth)) - 1} beside {depth} levels",
                f"{low} to {high}",
                "Use fewer levels or smaller batches.",
            )
    return sample.long()
