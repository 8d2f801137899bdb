"""Heat maps of the views to one point in the cube, and the heat maps that the network should have given.

Pixel ``i`` has its centre at ``i + 0.5``, as in rendering, and the voxels of the readout project onto pixel centres: a
target, its heat map and what is read out of it are the same point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from perceive.rvt.views import View, pixel_of
from perceive.rvt.voxel_search import highest_voxel
from sensors.errors import SpecError

_REACH_PX = 5  # of the window about the best voxel: 3.3 sigma of the published target
_PLANES = ((0, 1), (0, 2), (1, 2))
_EDGE = 1e-4  # rounding that a target on the face of the cube may carry


@final
@dataclass(frozen=True)
class Peak:
    """Where heat maps agree best.

    Attributes:
        point: [B, 3] in units of the cube, finer than a voxel.
        score: [B], of the best voxel: the mean over the views of the map where the voxel appears.
        voxel: int64 [B, 3], its index along x, y, z; its centre is at (index + 0.5) * 2 / S - 1.
    """

    point: Tensor
    score: Tensor
    voxel: Tensor


@torch.no_grad()
def peak(maps: Tensor, views: Sequence[View]) -> Peak:
    """The voxel of S^3 with the highest mean score over the views, exactly, refined to a fraction of a voxel.

    The views look along axes, so each map is a function of two coordinates and the score of a voxel is a sum of up to
    three planes; see :func:`perceive.rvt.voxel_search.highest_voxel`, also for the worst case. Equal voxels give way to
    the lowest index, x first, then y, then z. The refined point is the centroid, along each axis, of what rises above
    the lowest pixel of a window of 11 x 11 pixels about the voxel, summed over the views that see the axis (a sharp map
    outweighs a blunt one); done once more about where that led. Near a face the window shrinks to stay centred.

    Paper: the readout of RVT (Goyal et al., CoRL 2023), which scores all S^3 voxels by interpolated look-ups and
    answers with a voxel.

    Args:
        maps: [B, V, S, S], finite: probabilities or any other scores.
        views: V, seeing at least two different pairs of axes.

    Raises:
        SpecError: the maps do not fit the views or are not finite, or two axes are seen by no view.
    """
    _check_maps("peak", maps, views)
    low, high = maps.aminmax()  # NaN is handed on, so two numbers tell of all
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SpecError("peak", "finite maps", "NaN or infinity", "Look for where the network's numbers overflow.")
    planes = _folded(maps.float(), views)
    if len(planes) < 2:
        names = ", ".join(view.name for view in views)
        raise SpecError("peak", "views of two different directions", names, "Opposite faces see the same two axes.")
    nothing = torch.zeros_like(next(iter(planes.values())))
    score, voxel = highest_voxel(*(planes.get(axes, nothing) for axes in _PLANES))
    centre = voxel
    for _ in range(2):
        offset = _centroid(planes, centre)
        place = centre + offset
        centre = place.round().long()
    return Peak((place + 0.5) * (2 / maps.shape[-1]) - 1, score / len(views), voxel)


def peak_of_logits(logits: Tensor, views: Sequence[View]) -> Peak:
    """:func:`peak` of logits [B, V, S, S], each view's softmax taken first."""
    _check_maps("peak_of_logits", logits, views)
    return peak(logits.detach().float().flatten(2).softmax(2).view(logits.shape), views)


def gaussian_targets(points: Tensor, views: Sequence[View], size: int, sigma_px: float = 1.5) -> Tensor:
    """The heat map of a point in each view: a Gaussian cut at 3 sigma, of sum 1.

    Paper: Goyal et al., CoRL 2023; here about where the point is, not about the corner of its pixel.

    Args:
        points: [B, 3] in units of the cube, inside it.
        views: V.
        size: S, pixels along an edge.
        sigma_px: standard deviation.

    Returns:
        [B, V, S, S].

    Raises:
        SpecError: a point outside the cube, or a sigma that is not positive.
    """
    index, weight = _support(points, views, size, sigma_px)
    # Clamped neighbours outside the picture carry no weight, so a sum is a write.
    flat = weight.new_zeros(*index.shape[:2], size * size).scatter_add_(2, index, weight)
    return flat.view(*index.shape[:2], size, size)


def heatmap_loss(logits: Tensor, points: Tensor, views: Sequence[View], sigma_px: float = 1.5) -> Tensor:
    """Cross entropy of the softmax of each view's logits against :func:`gaussian_targets`, the mean over B and V.

    Only the logits under the Gaussian are looked up; the targets are never built.

    Args:
        logits: [B, V, S, S].
        points: [B, 3] in units of the cube, inside it.
        views: V.
        sigma_px: standard deviation of the target.

    Returns:
        A scalar; ln(S^2) for equal logits.

    Raises:
        SpecError: logits that do not fit the views, or as :func:`gaussian_targets`.
    """
    _check_maps("heatmap_loss", logits, views)
    index, weight = _support(points, views, logits.shape[-1], sigma_px)
    flat = logits.flatten(2).float()
    under = torch.where(weight > 0, flat.gather(2, index), 0.0)
    return (flat.logsumexp(2) - (under * weight).sum(2)).mean()


def _folded(maps: Tensor, views: Sequence[View]) -> dict[tuple[int, int], Tensor]:
    """Maps [B, V, S, S] as sums over the views of each pair of axes (low, high): [B, S, S], indexed by voxel."""
    planes: dict[tuple[int, int], Tensor] = {}
    for i, view in enumerate(views):
        plane = maps[:, i]
        against = [dim for dim, axis in ((1, view.down), (2, view.right)) if axis.sign < 0]
        if against:
            plane = plane.flip(against)
        if view.right.index < view.down.index:
            plane = plane.transpose(1, 2)
        axes = (min(view.right.index, view.down.index), max(view.right.index, view.down.index))
        planes[axes] = planes[axes] + plane if axes in planes else plane.contiguous()
    return planes


def _centroid(planes: dict[tuple[int, int], Tensor], centre: Tensor) -> Tensor:
    """The offset [B, 3] in voxels of the mass about voxels int64 [B, 3]."""
    size = next(iter(planes.values())).shape[-1]
    step = torch.arange(-_REACH_PX, _REACH_PX + 1, device=centre.device)
    at = centre[:, :, None] + step  # [B, 3, window]
    room = torch.minimum(centre, size - 1 - centre)
    inside = step.abs() <= room[:, :, None]
    at = at.clamp(0, size - 1)
    rows = torch.arange(centre.shape[0], device=centre.device)[:, None, None]
    moment = torch.zeros(centre.shape, device=centre.device)
    mass = torch.zeros_like(moment)
    for (low, high), plane in planes.items():
        window = plane[rows, at[:, low, :, None], at[:, high, None, :]]
        counts = inside[:, low, :, None] & inside[:, high, None, :]
        floor = torch.where(counts, window, torch.inf).amin((1, 2), keepdim=True)
        weight = torch.where(counts, window - floor, 0.0)
        for axis, profile in ((low, weight.sum(2)), (high, weight.sum(1))):
            moment[:, axis] += (profile * step).sum(1)
            mass[:, axis] += profile.sum(1)
    return torch.where(mass > 0, moment / torch.where(mass > 0, mass, 1.0), 0.0)


def _support(points: Tensor, views: Sequence[View], size: int, sigma_px: float) -> tuple[Tensor, Tensor]:
    """The pixels under each Gaussian, int64 [B, V, K], and their weights [B, V, K] of sum 1 (0 outside the picture)."""
    if not (math.isfinite(sigma_px) and sigma_px > 0):
        raise SpecError("sigma_px", "a positive number", str(sigma_px), "1.5 is the published value.")
    if points.ndim != 2 or points.shape[1] != 3 or not bool((points.abs() <= 1 + _EDGE).all()):
        got = f"{tuple(points.shape)}, up to {float(points.abs().max()) if points.numel() else 0.0:.4g}"
        raise SpecError("target points", "[B, 3] within [-1, 1]^3", got, "Clip them, or move the cube to hold them.")
    at = pixel_of(points.float()[:, None], views, size)[:, :, 0]  # [B, V, 2]
    own = at.floor().clamp(0, size - 1)
    reach = math.ceil(3 * sigma_px)
    step = torch.arange(-reach, reach + 1, device=points.device)
    pixel = own[..., None] + step  # [B, V, 2, window]
    square = (pixel + 0.5 - at[..., None]) ** 2
    inside = (pixel >= 0) & (pixel < size)
    apart = square[:, :, 1, :, None] + square[:, :, 0, None, :]  # rows, columns
    counts = inside[:, :, 1, :, None] & inside[:, :, 0, None, :] & (apart <= (3 * sigma_px) ** 2)
    counts[:, :, reach, reach] = True  # the point's own pixel, however narrow the Gaussian
    weight = torch.where(counts, apart / (-2 * sigma_px * sigma_px), -torch.inf).flatten(2).softmax(2)
    column, row = pixel.long().clamp(0, size - 1).unbind(2)
    return (row[..., :, None] * size + column[..., None, :]).flatten(2), weight


def _check_maps(where: str, maps: Tensor, views: Sequence[View]) -> None:
    if maps.ndim != 4 or maps.shape[1] != len(views) or maps.shape[2] != maps.shape[3] or not views:
        expected = f"[B, {len(views)}, S, S], one map per view"
        raise SpecError(where, expected, str(tuple(maps.shape)), "Pass the maps and the views of one rendering.")
