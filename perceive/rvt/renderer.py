"""Point clouds to the pictures of virtual orthographic cameras: one scatter for all samples and views.

Every point that is valid and inside the cube becomes one 64-bit key per view, its depth above its index, and the key of
a pixel is the smallest that falls on it: the nearest point, and among equally near ones the first. Depths are
non-negative floats, whose bits order as they do, so nothing is rounded for it; and a minimum does not depend on the
order in which it is taken, so the pictures are the same on every run and device. A splat is a minimum over shifted
keys, and colours are looked up once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from perceive.rvt.cube import in_cube
from perceive.rvt.views import View
from sensors.errors import SpecError

# Above the bits of every depth. The index below it points at a row of zeros.
_NOTHING = 0x7FFFFFFF


@final
@dataclass(frozen=True)
class Rendered:
    """What the virtual cameras see. Tensors may be strided views of one block.

    Attributes:
        features: [B, V, F, S, S], those of the nearest point; 0 where there is none.
        xyz: [B, V, 3, S, S], its place in units of the cube; 0 where there is none.
        depth: [B, V, S, S], its distance from the face that the camera sits in, in units of the cube (0 to 2); -1 where
            there is none.
        hit: bool [B, V, S, S], where there is one.
    """

    features: Tensor
    xyz: Tensor
    depth: Tensor
    hit: Tensor


@torch.no_grad()
def render(
    points: Tensor, features: Tensor, valid: Tensor, views: Sequence[View], size: int, splat_px: float = 1.344
) -> Rendered:
    """Render point clouds from faces of the cube, without gradients.

    A pixel shows the nearest among the points whose own pixel has its centre within ``splat_px`` of the pixel's centre;
    equally near points (to the last bit of their single-precision depth) give way to the lowest index. Points outside
    the cube are never drawn, wherever they are along the view: no arm in front of a zoomed cube can cover it. Only
    points inside cost more than a comparison.

    Paper: the virtual views of RVT (Goyal et al., CoRL 2023) and RVT-2 (Goyal et al., RSS 2024). The default splat is
    their 0.012 of half the cube at 224 px: a pixel and its four neighbours.

    Args:
        points: [B, N, 3] in units of the cube; NaN marks a point as invalid.
        features: [B, N, F] of the points, e.g. colours.
        valid: bool [B, N].
        views: V.
        size: S, pixels along an edge.
        splat_px: radius of a point on the screen; below 1 it is one pixel.

    Raises:
        SpecError: shapes that do not fit, no views, or a size or radius that cannot be.
    """
    _check(points, features, valid, views, size, splat_px)
    batch, count = valid.shape
    kept = (valid & in_cube(points)).flatten().nonzero()[:, 0]
    # Channels first: looking a pixel up is then one short pass per channel over a table that stays in the cache.
    x_y_z = points.flatten(0, 1).index_select(0, kept).t().float().contiguous()
    key = _nearest(x_y_z, kept // max(count, 1), batch, views, size, splat_px)
    index = key.to(torch.int32)  # the lower half
    hit = index != kept.numel()
    table = torch.cat([x_y_z, features.flatten(0, 1).index_select(0, kept).t().float()])
    table = torch.cat([table, table.new_zeros(table.shape[0], 1)], 1)
    seen = table.index_select(1, index.flatten()).view(-1, *hit.shape).permute(1, 2, 0, 3, 4)
    depth = torch.where(hit, (key >> 32).to(torch.int32).view(torch.float32), -1.0)
    return Rendered(seen[:, :, 3:], seen[:, :, :3], depth, hit)


def channels(rendered: Rendered, views: Sequence[View]) -> Tensor:
    """The channels of the published networks [B, V, 7 + F, S, S].

    In this order: xyz (3); the features (F); depth minus its mean over the pixels of this picture that show something,
    -1 where nothing is; and where the pixel is: the number of its view, its row and its column, each over [-1, 1].

    Paper: Goyal et al., CoRL 2023; with colours, F = 3, these are its 10 channels.

    Args:
        rendered: of :func:`render`.
        views: the same V.

    Raises:
        SpecError: another number of views than was rendered.
    """
    hit = rendered.hit
    batch, count, size, _ = hit.shape
    if count != len(views):
        raise SpecError("channels", f"the {count} views that were rendered", f"{len(views)}", "Pass the same views.")
    device = hit.device
    total = torch.where(hit, rendered.depth, 0.0).sum((2, 3))
    mean = total / hit.sum((2, 3)).clamp(min=1)
    relative = torch.where(hit, rendered.depth - mean[:, :, None, None], -1.0)
    number = torch.linspace(-1, 1, count, device=device) if count > 1 else torch.zeros(1, device=device)
    line = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1  # pixel centres in units of the cube
    where = torch.stack(
        [
            number[:, None, None].expand(-1, size, size),
            line[:, None].expand(count, -1, size),
            line.expand(count, size, -1),
        ],
        1,
    )
    parts = [rendered.xyz, rendered.features, relative[:, :, None], where.expand(batch, -1, -1, -1, -1)]
    return torch.cat(parts, 2)


def _nearest(x_y_z: Tensor, sample: Tensor, batch: int, views: Sequence[View], size: int, splat_px: float) -> Tensor:
    """The smallest key of each pixel, int64 [B, V, S, S], of points [3, M] that belong to samples [M]."""
    device, count = x_y_z.device, x_y_z.shape[1]
    reach = int(splat_px)
    # Empty cells right of and below each picture, and a lead before the first: a shifted picture brings in emptiness,
    # never its neighbour, and every shift is one contiguous run of the flat buffer.
    width = size + reach
    lead = reach * width + reach
    picture = width * width
    cells = batch * len(views) * picture
    nothing = (_NOTHING << 32) | count
    buffer = torch.full((cells + 2 * lead,), nothing, dtype=torch.int64, device=device)
    numbers = torch.arange(count, device=device)
    origin = sample * (len(views) * picture) + lead
    places, keys = [], []
    for i, view in enumerate(views):
        column, row = (_pixel(x_y_z[axis.index], axis.sign, size) for axis in (view.right, view.down))
        depth = 1.0 - x_y_z[view.towards.index] * view.towards.sign
        keys.append((depth.view(torch.int32).long() << 32) | numbers)
        places.append((row * width + column + i * picture).long() + origin)
    buffer.scatter_reduce_(0, torch.cat(places), torch.cat(keys), "amin")
    nearest = buffer[lead : lead + cells]
    shifts = [row * width + column for row, column in _disc(splat_px) if (row, column) != (0, 0)]
    if shifts:
        nearest = torch.minimum(nearest, buffer[lead + shifts[0] : lead + shifts[0] + cells])
    for shift in shifts[1:]:
        torch.minimum(nearest, buffer[lead + shift : lead + shift + cells], out=nearest)
    return nearest.view(batch, len(views), width, width)[:, :, :size, :size]


def _pixel(coordinate: Tensor, sign: int, size: int) -> Tensor:
    """The pixel int32 [M] of coordinates [M] in [-1, 1]; the far face itself belongs to the last pixel."""
    return ((coordinate * sign + 1.0) * (size / 2)).to(torch.int32).clamp_(max=size - 1)


def _disc(radius_px: float) -> list[tuple[int, int]]:
    """The whole-pixel offsets (row, column) within a radius."""
    reach = range(-int(radius_px), int(radius_px) + 1)
    return [(row, column) for row in reach for column in reach if row * row + column * column <= radius_px * radius_px]


def _check(points: Tensor, features: Tensor, valid: Tensor, views: Sequence[View], size: int, splat_px: float) -> None:
    given = f"points {tuple(points.shape)}, features {tuple(features.shape)}, valid {tuple(valid.shape)} {valid.dtype}"
    fits = points.ndim == 3 and features.ndim == 3 and points.shape[2] == 3 and valid.dtype == torch.bool
    if not fits or points.shape[:2] != valid.shape or features.shape[:2] != valid.shape:
        expected = "points [B, N, 3], features [B, N, F] and a bool valid [B, N]"
        raise SpecError("render", expected, given, "Give each point a place, features and whether it counts.")
    if not views or size < 1 or not (math.isfinite(splat_px) and splat_px >= 0):
        got = f"{len(views)} views, size {size}, splat_px {splat_px}"
        raise SpecError("render", "views, a positive size and a radius of 0 or more", got, "Change the wrong one.")
