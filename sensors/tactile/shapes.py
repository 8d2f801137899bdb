"""Height maps of simple bodies by closed forms, in batches and differentiable, and of anything that has an SDF.

Every function gives the overlap [B, h, w] in metres of a body pushed into a :class:`sensors.tactile.gel.Gel`. Numbers
may be floats or tensors [B]; the batch is their common size. ``depth_m`` is how deep the lowest point of the body
stands in the undeformed gel, negative = it hovers above.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile.gel import Gel

Number = float | Tensor


def _columns(gel: Gel, *numbers: Number) -> tuple[Tensor, Tensor, list[Tensor]]:
    """y [1, h, 1], x [1, 1, w] and the numbers as tensors [B, 1, 1] of one type and device."""
    tensors = [number for number in numbers if isinstance(number, Tensor)]
    dtype = tensors[0].dtype if tensors else torch.float32
    device = tensors[0].device if tensors else None
    y, x = gel.centres(dtype, device)
    flat = [torch.as_tensor(number, dtype=dtype, device=device).reshape(-1) for number in numbers]
    batch = max(len(number) for number in flat)
    return y[None], x[None], [number.expand(batch)[:, None, None] for number in flat]


def _turned(x: Tensor, y: Tensor, yaw: Tensor) -> tuple[Tensor, Tensor]:
    """Places in the body's own axes, which are turned by ``yaw`` from +x towards +y."""
    cosine, sine = yaw.cos(), yaw.sin()
    return x * cosine + y * sine, y * cosine - x * sine


def sphere(gel: Gel, radius_m: Number, depth_m: Number, x_m: Number = 0.0, y_m: Number = 0.0) -> Tensor:
    """A ball; for a shallow press its rim is a circle of radius sqrt(2 R d - d^2)."""
    y, x, (radius, depth, x0, y0) = _columns(gel, radius_m, depth_m, x_m, y_m)
    squared = radius**2 - (x - x0) ** 2 - (y - y0) ** 2
    inside = squared > 0
    # The inner where keeps the root away from 0, where its gradient is infinite; NaN times 0 would be NaN.
    ball = torch.where(inside, squared, torch.ones_like(squared)).sqrt() - radius + depth
    return torch.where(inside, ball, torch.zeros_like(ball)).clamp(min=0)


def cylinder(
    gel: Gel, radius_m: Number, depth_m: Number, yaw_rad: Number = 0.0, x_m: Number = 0.0, y_m: Number = 0.0
) -> Tensor:
    """An endless cylinder that lies along +x, turned by ``yaw_rad`` towards +y."""
    y, x, (radius, depth, yaw, x0, y0) = _columns(gel, radius_m, depth_m, yaw_rad, x_m, y_m)
    _, across = _turned(x - x0, y - y0, yaw)
    squared = radius**2 - across**2
    inside = squared > 0
    bar = torch.where(inside, squared, torch.ones_like(squared)).sqrt() - radius + depth
    return torch.where(inside, bar, torch.zeros_like(bar)).clamp(min=0)


def cone(
    gel: Gel, slope: Number, depth_m: Number, x_m: Number = 0.0, y_m: Number = 0.0, radius_m: Number = 1.0
) -> Tensor:
    """A cone, tip first: ``slope`` metres of rise per metre from its axis, out to ``radius_m``."""
    y, x, (rise, depth, x0, y0, radius) = _columns(gel, slope, depth_m, x_m, y_m, radius_m)
    squared = (x - x0) ** 2 + (y - y0) ** 2
    away = squared > 0
    distance = torch.where(away, torch.where(away, squared, torch.ones_like(squared)).sqrt(), torch.zeros_like(squared))
    height = (depth - rise * distance).clamp(min=0)
    return torch.where(distance <= radius, height, torch.zeros_like(height))


def punch(gel: Gel, radius_m: Number, depth_m: Number, x_m: Number = 0.0, y_m: Number = 0.0) -> Tensor:
    """The flat end of a round rod."""
    y, x, (radius, depth, x0, y0) = _columns(gel, radius_m, depth_m, x_m, y_m)
    inside = (x - x0) ** 2 + (y - y0) ** 2 <= radius**2
    return torch.where(inside, depth.clamp(min=0), torch.zeros_like(depth))


def plane(gel: Gel, depth_m: Number, slope_x: Number = 0.0, slope_y: Number = 0.0) -> Tensor:
    """A tilted plane, ``depth_m`` deep in the middle, ``slope`` metres deeper per metre to the right and down."""
    y, x, (depth, along_x, along_y) = _columns(gel, depth_m, slope_x, slope_y)
    return (depth + along_x * x + along_y * y).clamp(min=0)


def box(
    gel: Gel,
    length_m: Number,
    breadth_m: Number,
    depth_m: Number,
    yaw_rad: Number = 0.0,
    x_m: Number = 0.0,
    y_m: Number = 0.0,
    slope: Number = 0.0,
) -> Tensor:
    """A block: ``length_m`` along +x turned by ``yaw_rad`` towards +y, ``breadth_m`` across it.

    ``slope``: its face falls by so many metres per metre along its length; ``depth_m`` is that of its middle.
    """
    y, x, (length, breadth, depth, yaw, x0, y0, tilt) = _columns(
        gel, length_m, breadth_m, depth_m, yaw_rad, x_m, y_m, slope
    )
    along, across = _turned(x - x0, y - y0, yaw)
    face = (depth + tilt * along).clamp(min=0)
    inside = (along.abs() <= length / 2) & (across.abs() <= breadth / 2)
    return torch.where(inside, face, torch.zeros_like(face))


def from_sdf(
    gel: Gel, sdf: Callable[[Tensor], Tensor], batch: int = 1, steps: int = 48, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The height map of a body given by its signed distance, found by sphere tracing out of the hard pad.

    Args:
        gel: where it is pressed into.
        sdf: places [B, N, 3] in the pad's frame (z = 0 at the hard pad, z = thickness at the face of the untouched gel)
            -> signed distances [B, N] in metres, negative inside the body. A lower bound of the distance will do.
        batch: B.
        steps: the most steps of the tracing.
        dtype: of the places.

    Returns:
        Overlap [B, h, w]; a body that reaches the hard pad gives the whole thickness. The gradient with respect to
        whatever ``sdf`` depends on is exact at smooth points: it comes from one Newton step at the surface.

    Raises:
        SpecError: ``sdf`` gives another shape.
    """
    y, x = gel.centres(dtype)
    xy = torch.stack([x.expand(gel.rows, -1), y.expand(-1, gel.columns)], dim=-1).reshape(1, -1, 2).expand(batch, -1, 2)

    def distance(z: Tensor) -> Tensor:
        given = sdf(torch.cat([xy, z[..., None]], dim=-1))
        if given.shape != z.shape:
            expected = f"distances {list(z.shape)} for places {[*z.shape, 3]}"
            raise SpecError("from_sdf, sdf", expected, str(list(given.shape)), "Return one number for each place.")
        return given

    with torch.no_grad():
        z = torch.zeros(xy.shape[:2], dtype=dtype)
        nearest_m = 1e-4 * min(gel.pitch_m)
        for _ in range(steps):
            step = distance(z)
            z = (z + step.clamp(min=0)).clamp(max=gel.thickness_m * 1.5)
            if float(step.abs().where(z < gel.thickness_m, torch.zeros_like(step)).max()) < nearest_m:
                break
        met = (z < gel.thickness_m) & (z > 0)
    with torch.enable_grad():
        probe = z.clone().requires_grad_()
        (rate,) = torch.autograd.grad(distance(probe).sum(), probe)
    # Along the ray the distance falls to 0 at the surface; a grazing ray would divide by nothing.
    surface = z - torch.where(met, distance(z) / rate.clamp(max=-0.05), torch.zeros_like(z))
    return (gel.thickness_m - surface).clamp(min=0, max=gel.thickness_m).reshape(batch, gel.rows, gel.columns)
