"""Fewer points out of many: evenly along the pictures, one per voxel, or farthest point sampling. Batched, in torch.

Nothing here draws random numbers unless ``jitter`` is asked for, and none depends on the other samples of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.geometry import full_precision
from perceive.points.cloud import Cloud
from sensors.errors import SpecError

Method = Literal["random", "voxel", "farthest"]
METHODS: tuple[Method, ...] = ("random", "voxel", "farthest")
_CELLS = 1 << 20  # voxels on each side of the origin along an axis; three of these numbers fit into one int64


@dataclass(frozen=True, eq=False)
class Picked:
    """Which N of P points were picked; those that are valid come first.

    Attributes:
        index: int64 [B, N] into the P points; no valid one comes twice.
        valid: bool [B, N]; False where there were fewer than N valid points.
    """

    index: Tensor
    valid: Tensor


def downsample(
    cloud: Cloud, count: int, method: Method, candidates: int = 1024, voxel_m: float = 0.006, jitter: bool = False
) -> Cloud:
    """At most ``count`` of a cloud's valid points, as a cloud of exactly ``count`` with the missing ones not valid.

    Args:
        cloud: P points.
        count: N.
        method: ``"random"`` takes points evenly along the pictures, so near things get most; ``"voxel"`` first thins
            to one point per cube, so that surfaces count by their area; ``"farthest"`` spreads the points best and
            costs most.
        candidates: ``"voxel"`` and ``"farthest"`` choose from this many points, themselves taken evenly.
        voxel_m: edge of the cubes.
        jitter: where the method has a choice, take it at random (training); otherwise always the same (evaluation).

    Raises:
        SpecError: a number out of its range, or an unknown method.
    """
    if method not in METHODS:
        raise SpecError("downsample.method", f"one of {list(METHODS)}", repr(method), "Choose one.")
    if method == "random":
        return take(cloud, pick_evenly(cloud.valid, count, jitter))
    if candidates < count:
        raise SpecError("downsample.candidates", f"at least count = {count}", f"{candidates}", "Raise it.")
    near = take(cloud, pick_evenly(cloud.valid, candidates, jitter))
    if method == "voxel":
        return take(near, pick_evenly(one_per_voxel(near.xyz_m, near.valid, voxel_m), count, jitter))
    return take(near, pick_farthest(near.xyz_m, near.valid, count))


def thinned(batch: Batch, cameras: Sequence[str], stride: int, row: int = 0, column: int = 0) -> Batch:
    """The batch with every ``stride``-th row and column of some RGB-D cameras; their points stay where they are.

    Makes a cloud ``stride`` squared times smaller before it is computed.

    Args:
        batch: see :func:`perceive.points.cloud.fuse`.
        cameras: names of the sensors.
        stride: 1 = all.
        row: first row, below ``stride``.
        column: first column, below ``stride``.

    Raises:
        SpecError: a number out of its range.
        WiringError: no such sensor.
    """
    if stride < 1 or not (0 <= row < stride and 0 <= column < stride):
        raise SpecError(
            "thinned", "stride >= 1, row and column below it", f"{stride}, {row}, {column}", "Correct them."
        )
    if stride == 1:
        return batch
    streams = dict(batch.streams)
    for name in cameras:
        stream = batch.stream(name)
        data = dict(stream.data)
        for field in ("rgb", "depth_m"):
            data[field] = data[field][:, :, row::stride, column::stride]
        offset = torch.tensor([0, 0, column, row], device=stream.valid.device)
        data["intrinsics_px"] = (data["intrinsics_px"] - offset) / stride
        streams[name] = BatchStream(data, stream.age_s, stream.valid)
    return Batch(streams)


def take(cloud: Cloud, picked: Picked) -> Cloud:
    """The cloud of the picked points."""
    size, total = cloud.valid.shape
    flat = (picked.index + total * torch.arange(size, device=picked.index.device)[:, None]).flatten()
    shape = (*picked.index.shape, 3)
    xyz_m = cloud.xyz_m.reshape(-1, 3).index_select(0, flat).view(shape)
    rgb = cloud.rgb.reshape(-1, 3).index_select(0, flat).view(shape)
    return Cloud(xyz_m, rgb, picked.valid)


def pick_evenly(valid: Tensor, count: int, jitter: bool = False) -> Picked:
    """Stratified sampling: the n valid points, in their order, are cut into ``count`` equal runs, one point from each.

    With ``jitter`` the point is drawn uniformly from the run (every valid point has the odds ``count / n``; two
    neighbours of a boundary may be the same point); without, it is the run's middle. All of them if n <= ``count``.

    Args:
        valid: bool [B, P].
        count: N.
        jitter: draw from torch's global generator.

    Raises:
        SpecError: ``count`` below 1, or no point at all.
    """
    _check(valid, count)
    rank = valid.cumsum(1, dtype=torch.int64)  # of a valid point: its number from 1
    total = rank[:, -1:]
    run = torch.arange(count, device=valid.device)
    # In integers, so that neither rounding nor the number of points can make a rank come twice.
    if jitter:
        share = torch.rand(len(valid), count, device=valid.device, dtype=torch.float64)
        wanted = (run * total + (share * total).long()) // count
    else:
        wanted = (2 * run + 1) * total // (2 * count)
    wanted = torch.where(total <= count, run, wanted)
    index = torch.searchsorted(rank, wanted + 1).clamp_max(valid.shape[1] - 1)
    return Picked(index, run < total)


def one_per_voxel(xyz_m: Tensor, valid: Tensor, edge_m: float) -> Tensor:
    """Which points are the first valid one in their cube of a regular grid through the origin, bool [B, P].

    Args:
        xyz_m: float [B, P, 3]; anything where not valid.
        valid: bool [B, P].
        edge_m: edge of a cube. Beyond 2^20 cubes from the origin all count as the outermost.

    Raises:
        SpecError: ``edge_m`` is not above 0.
    """
    if not edge_m > 0:
        raise SpecError("one_per_voxel.edge_m", "an edge above 0", repr(edge_m), "Correct it.")
    cell = torch.where(valid[..., None], xyz_m / edge_m, 0.0).floor().clamp(-_CELLS, _CELLS - 1).long() + _CELLS
    key = (cell[..., 0] * (2 * _CELLS) + cell[..., 1]) * (2 * _CELLS) + cell[..., 2]
    key, order = torch.where(valid, key, -1).sort(dim=1, stable=True)
    first = torch.ones_like(valid)
    first[:, 1:] = key[:, 1:] != key[:, :-1]
    return torch.zeros_like(valid).scatter_(1, order, first) & valid


def pick_farthest(xyz_m: Tensor, valid: Tensor, count: int, start: Tensor | None = None) -> Picked:
    """Farthest point sampling (Eldar et al., 1997): each next point is the one farthest from all before it.

    Equal distances go to the lowest index. The default start does not depend on the order of the points, so nor does
    the set that is picked, ties aside.

    Args:
        xyz_m: float [B, P, 3]; anything where not valid.
        valid: bool [B, P].
        count: N.
        start: int64 [B], valid points to begin with; None = those farthest from the mean of the valid ones.

    Raises:
        SpecError: ``count`` below 1, or no point at all.
    """
    _check(valid, count)
    with full_precision(xyz_m.device), torch.no_grad():
        clean = torch.where(valid[..., None], xyz_m, 0.0)
        x, y, z = clean.permute(2, 0, 1).contiguous()
        # Squared distance to the picked points; -1 = not to be picked (any more).
        nearest = torch.where(valid, torch.inf, -1.0)
        square, part = torch.empty_like(x), torch.empty_like(x)

        def distances(at: Tensor) -> Tensor:
            torch.sub(x, at[0], out=square).mul_(square)
            for axis, values in ((1, y), (2, z)):
                torch.sub(values, at[axis], out=part)
                square.addcmul_(part, part)
            return square

        if start is None:
            mean = clean.sum(1) / valid.sum(1, keepdim=True).clamp_min(1)
            chosen = _largest(torch.where(valid, distances(mean.T[..., None]), -1.0))
        else:
            chosen = start[:, None]
        index = torch.empty(count, *chosen.shape, dtype=torch.int64, device=valid.device)
        index[0] = chosen
        for number in range(1, count):
            nearest.scatter_(1, chosen, -1.0)
            at = torch.stack([values.gather(1, chosen) for values in (x, y, z)])
            torch.minimum(nearest, distances(at), out=nearest)
            chosen = _largest(nearest)
            index[number] = chosen
    return Picked(index[..., 0].T, torch.arange(count, device=valid.device) < valid.sum(1, keepdim=True))


def _largest(values: Tensor) -> Tensor:
    """Where each row [B, P] is largest, the lowest index if several are, int64 [B, 1]."""
    if values.device.type == "cpu":
        # A tenth of the time of torch's, which is most of that of farthest point sampling.
        return torch.from_numpy(values.numpy().argmax(1)[:, None])
    return values.argmax(1, keepdim=True)


def _check(valid: Tensor, count: int) -> None:
    if count < 1 or not valid.shape[1]:
        raise SpecError(
            "sampling of points", "at least 1 out of at least 1", f"{count} out of {valid.shape[1]}", "Correct it."
        )
