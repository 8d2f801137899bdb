"""From slopes back to height: Poisson's equation with free borders, solved by cosine transforms."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from sensors.errors import SpecError
from sensors.tactile.gel import Gel

_FINEST = 0.1  # the least share of a ripple that is made sharp again


@lru_cache(maxsize=16)
def _cosines(size: int) -> tuple[Tensor, Tensor]:
    """The orthonormal DCT-II [size, size] (fp64) and the eigenvalues [size] of the second difference."""
    index = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (index[None] + 0.5) * index[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix, 2 * torch.cos(math.pi * index / size) - 2


def integrate(along_x: Tensor, along_y: Tensor, gel: Gel) -> Tensor:
    """The height map whose slopes come closest to these, in the sense of least squares.

    As used to reconstruct the surface of a gel from its colours (W. Yuan et al., "GelSight: High-Resolution Robot
    Tactile Sensors for Estimating Geometry and Force", Sensors 2017); the cosine transform leaves the height at the
    border free, where a sine transform would pin it to 0.

    Args:
        along_x: metres per metre along +x, float [B, h, w].
        along_y: likewise along +y.
        gel: the grid.

    Returns:
        Height [B, h, w] in metres, up to a constant: its lowest point is 0. Differentiable.

    Raises:
        SpecError: the slopes are not of the gel's size.
    """
    size = (gel.rows, gel.columns)
    for name, slope in (("along_x", along_x), ("along_y", along_y)):
        if slope.ndim != 3 or tuple(slope.shape[1:]) != size:
            fix = "Give both slopes of one gel."
            raise SpecError(f"integrate, {name}", f"[B, {size[0]}, {size[1]}]", str(list(slope.shape)), fix)
    dy, dx = gel.pitch_m
    # Slope between neighbours, then what flows out of each pixel: nothing over the border.
    between_x = (along_x[:, :, 1:] + along_x[:, :, :-1]) * (0.5 / dx)
    between_y = (along_y[:, 1:] + along_y[:, :-1]) * (0.5 / dy)
    flow_x = functional.pad(between_x, (0, 1)) - functional.pad(between_x, (1, 0))
    flow_y = functional.pad(between_y, (0, 0, 0, 1)) - functional.pad(between_y, (0, 0, 1, 0))
    (down, down_value), (across, across_value) = (_cosines(edge) for edge in size)
    value = down_value[:, None] / dy**2 + across_value[None] / dx**2
    value[0, 0] = torch.inf  # the mean is free
    # The slope between two pixels was taken from central differences of four: what that blurred is made sharp again,
    # but for the finest ripples, which central differences do not see.
    sharp_y, sharp_x = (1 / (1 + part / 4).clamp(min=_FINEST) for part in (down_value, across_value))
    weight_x, weight_y = sharp_x[None] / value, sharp_y[:, None] / value
    down, across, weight_x, weight_y = (part.to(flow_x) for part in (down, across, weight_x, weight_y))
    spectrum = _transform(flow_x, down, across) * weight_x + _transform(flow_y, down, across) * weight_y
    height = _transform(spectrum, down.T, across.T)
    return height - height.amin(dim=(1, 2), keepdim=True)


def _transform(picture: Tensor, down: Tensor, across: Tensor) -> Tensor:
    return torch.matmul(torch.matmul(down, picture), across.T)
