"""What the tests and benchmarks of the kernels compare with: written from the definitions, not from the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from perceive.rvt.cube import in_cube
from perceive.rvt.renderer import Rendered
from perceive.rvt.views import View, pixel_of

Array = NDArray[np.float32]
Cloud = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # points [1, N, 3], features [1, N, F], valid [1, N]

# Of each face: image-right, image-down and towards the camera, as (axis, sign).
AXES = {
    "top": ((1, -1), (0, -1), (2, +1)),
    "bottom": ((1, +1), (0, -1), (2, -1)),
    "front": ((1, +1), (2, -1), (0, +1)),
    "back": ((1, -1), (2, -1), (0, -1)),
    "left": ((0, -1), (2, -1), (1, +1)),
    "right": ((0, +1), (2, -1), (1, -1)),
}


@dataclass(frozen=True)
class Picture:
    """One face: features [F, S, S], xyz [3, S, S], depth [S, S], hit [S, S]."""

    features: Array
    xyz: Array
    depth: Array
    hit: NDArray[np.bool_]


def render_face(
    points: Array, features: Array, valid: NDArray[np.bool_], face: str, size: int, splat_px: float
) -> Picture:
    """One cloud [N, 3], [N, F], [N] on one face of the cube, slowly: by two loops over the pixels."""
    one, half = np.float32(1), np.float32(size / 2)
    (right, right_sign), (down, down_sign), (towards, towards_sign) = AXES[face]
    with np.errstate(invalid="ignore"):
        drawn = valid & (np.abs(points) <= 1).all(1)  # False for NaN
    u = (points[:, right] * np.float32(right_sign) + one) * half
    v = (points[:, down] * np.float32(down_sign) + one) * half
    column = np.minimum(np.floor(u), size - 1)
    row = np.minimum(np.floor(v), size - 1)
    away = one - points[:, towards] * np.float32(towards_sign)

    picture = Picture(
        np.zeros((features.shape[1], size, size), np.float32),
        np.zeros((3, size, size), np.float32),
        np.full((size, size), -1, np.float32),
        np.zeros((size, size), bool),
    )
    for i in range(size):
        for j in range(size):
            near = drawn & ((row - i) ** 2 + (column - j) ** 2 <= splat_px**2)
            if not near.any():
                continue
            best = int(np.argmin(np.where(near, away, np.inf)))  # the first of equals
            picture.features[:, i, j] = features[best]
            picture.xyz[:, i, j] = points[best]
            picture.depth[i, j] = away[best]
            picture.hit[i, j] = True
    return picture


def brute_force(
    cloud: Cloud, views: Sequence[View], size: int, splat_px: float, rows: int, pixels_at_once: int = 64
) -> Rendered:
    """The first rows of each picture of one cloud by testing every pixel against every point."""
    points, features, valid = (tensor[0] for tensor in cloud)
    drawn = valid & in_cube(points)
    reach = splat_px**2
    per_view = []
    for i, view in enumerate(views):
        column, row = pixel_of(points[None], views, size)[0, i].floor().clamp(max=size - 1).unbind(1)
        away = torch.where(drawn, 1.0 - points[:, view.towards.index] * view.towards.sign, torch.inf)
        pixels = torch.cartesian_prod(torch.arange(float(rows)), torch.arange(float(size)))
        nearest = []
        for some in pixels.split(pixels_at_once):
            apart = (row - some[:, :1]).square() + (column - some[:, 1:]).square()
            nearest.append(torch.where(apart <= reach, away, torch.inf).min(1))
        depth = torch.cat([part.values for part in nearest])
        index = torch.cat([part.indices for part in nearest])
        hit = depth < torch.inf
        seen = torch.where(hit[:, None], torch.cat([points, features], 1)[index], 0.0).T.view(-1, rows, size)
        per_view.append((seen, torch.where(hit, depth, -1.0).view(rows, size), hit.view(rows, size)))
    seen, depth, hit = (torch.stack(parts)[None] for parts in zip(*per_view, strict=True))
    return Rendered(seen[:, :, 3:], seen[:, :, :3], depth, hit)


def numpy_renderer(cloud: Cloud, views: Sequence[View], size: int) -> Array:
    """The 10 channels [V, 10, S, S] of one cloud with colours, splats of five pixels, by ``numpy.minimum.at``."""
    points, features, valid = (tensor[0].numpy() for tensor in cloud)
    drawn = valid & (np.abs(points) <= 1).all(1)
    points, features = points[drawn], features[drawn]
    index = np.arange(len(points))
    line = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    out = np.empty((len(views), 10, size, size), np.float32)
    for number, view in enumerate(views):
        row, column = (
            np.minimum(((points[:, axis.index] * axis.sign + 1) * (size / 2)).astype(np.int64), size - 1)
            for axis in (view.down, view.right)
        )
        depth = np.float32(1) - points[:, view.towards.index] * np.float32(view.towards.sign)
        keys = depth.view(np.int32).astype(np.int64) << 32 | index
        nothing = np.iinfo(np.int64).max
        buffer = np.full((size, size), nothing)
        np.minimum.at(buffer.reshape(-1), row * size + column, keys)
        nearest = buffer.copy()
        nearest[1:] = np.minimum(nearest[1:], buffer[:-1])
        nearest[:-1] = np.minimum(nearest[:-1], buffer[1:])
        nearest[:, 1:] = np.minimum(nearest[:, 1:], buffer[:, :-1])
        nearest[:, :-1] = np.minimum(nearest[:, :-1], buffer[:, 1:])
        hit = nearest != nothing
        seen = nearest[hit] & 0xFFFFFFFF
        out[number, :6] = 0
        out[number, :3, hit] = points[seen]
        out[number, 3:6, hit] = features[seen]
        out[number, 6] = -1
        out[number, 6, hit] = depth[seen] - depth[seen].mean(dtype=np.float64)
        out[number, 7] = 2 * number / (len(views) - 1) - 1
        out[number, 8], out[number, 9] = line[:, None], line
    return out


def gaussian_logits(
    points: torch.Tensor,
    views: Sequence[View],
    size: int,
    log_noise: float,
    generator: torch.Generator,
    sigma_px: float = 1.5,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat maps as a network gives them: whole Gaussians about points [B, 3], noise added to the logarithm.

    Returns:
        The logits [B, V, S, S] and the true pixels (u, v) [B, V, 2].
    """
    at = pixel_of(points[:, None], views, size)[:, :, 0]
    line = torch.arange(size) + 0.5
    square = (line[:, None] - at[:, :, 1, None, None]) ** 2 + (line - at[:, :, 0, None, None]) ** 2
    return -square / (2 * sigma_px**2) + log_noise * torch.randn(square.shape, generator=generator), at


def argmax_pixels(logits: torch.Tensor) -> torch.Tensor:
    """The centre (u, v) [B, V, 2] of the highest pixel of each map: the plain readout."""
    size = logits.shape[-1]
    best = logits.flatten(2).argmax(2)
    return torch.stack([best % size, best // size], 2) + 0.5
