"""Markers on a gel: how dots that are printed on it move when it is pressed, dragged and turned, and how they look.

Three motions are added, each with its own reach, as in FOTS (Zhao et al., RA-L 2024, arXiv 2404.19217): what is
pressed in spreads the gel outwards; what is dragged or turned takes along the gel around it, less the farther it is.
All reaches are metres, and sums over pixels are integrals, so a finer height map moves the markers by the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensors.errors import SpecError
from sensors.simulated import check_settings, not_negative, positive
from sensors.tactile.checks import finite
from sensors.tactile.gel import Gel

_TINY = 1e-30


@dataclass(frozen=True)
class MarkerField:
    """Dots on a grid, and how the gel carries them along.

    Attributes:
        rows: dots down the picture.
        columns: dots across.
        spacing_y_m: between dots down the picture, metres; the grid stands in the middle of the gel.
        spacing_x_m: between dots across, metres.
        dilate: motion per slope of the blurred height map and per ``dilate_m``; 0 = pressing moves no dot.
        dilate_m: reach of pressing, the standard deviation of the bell that blurs the height map, metres.
        shear_m: reach of dragging, likewise, about the middle of the contact, metres.
        twist_m: reach of turning, likewise, metres.

    Raises:
        SpecError: a number is out of its range.
    """

    rows: int = 9
    columns: int = 7
    spacing_y_m: float = 0.0015
    spacing_x_m: float = 0.0015
    dilate: float = 0.5
    dilate_m: float = 0.0015
    shear_m: float = 0.005
    twist_m: float = 0.005

    def __post_init__(self) -> None:
        lengths = {
            "spacing_y_m": self.spacing_y_m,
            "spacing_x_m": self.spacing_x_m,
            "dilate_m": self.dilate_m,
            "shear_m": self.shear_m,
            "twist_m": self.twist_m,
        }
        check_settings(
            "MarkerField",
            {
                "rows": (self.rows >= 1, self.rows, "at least 1"),
                "columns": (self.columns >= 1, self.columns, "at least 1"),
                **positive(lengths),
                **not_negative({"dilate": self.dilate}),
            },
        )

    def at_rest(self, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
        """Where the dots are on an untouched gel [rows * columns, 2]: x and y from the middle, metres, row by row."""
        y = (torch.arange(self.rows, dtype=dtype, device=device) - (self.rows - 1) / 2) * self.spacing_y_m
        x = (torch.arange(self.columns, dtype=dtype, device=device) - (self.columns - 1) / 2) * self.spacing_x_m
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([xx.flatten(), yy.flatten()], -1)

    def motion(self, gel: Gel, overlap_m: Tensor, shear_m: Tensor, twist_rad: Tensor) -> Tensor:
        """How far each dot moves.

        Args:
            gel: size and pixels of the height map.
            overlap_m: float [B, h, w] >= 0, metres.
            shear_m: float [B, 2], how far what touches has dragged the gel along x and y, metres.
            twist_rad: float [B], how far it has turned it, from x towards y; :func:`rigid_motion` gives both.

        Returns:
            float [B, rows * columns, 2], along x and y, metres; 0 where nothing touches the gel.

        Raises:
            SpecError: arrays of another shape, or not finite.
        """
        gel.check(overlap_m, "MarkerField.motion, overlap_m")
        finite("MarkerField.motion, shear_m", shear_m, 2)
        finite("MarkerField.motion, twist_rad", twist_rad, 1)
        dots = self.at_rest(overlap_m.dtype, overlap_m.device)
        y, x = gel.centres(overlap_m.dtype, overlap_m.device)
        high, wide = gel.pitch_m
        # The bell is a product of one over y and one over x, so no table of dots and pixels is needed.
        down, across = dots[:, 1:] - y.T, dots[:, :1] - x
        bell_y = torch.exp(-(down.square()) / (2 * self.dilate_m**2)) * (high / self.dilate_m / (2 * torch.pi) ** 0.5)
        bell_x = torch.exp(-(across.square()) / (2 * self.dilate_m**2)) * (wide / self.dilate_m / (2 * torch.pi) ** 0.5)
        slope_x = torch.einsum("nh,bhw,nw->bn", bell_y, overlap_m, bell_x * across / self.dilate_m)
        slope_y = torch.einsum("nh,bhw,nw->bn", bell_y * down / self.dilate_m, overlap_m, bell_x)
        total = overlap_m.sum((1, 2))
        middle = torch.stack([(overlap_m * x).sum((1, 2)), (overlap_m * y).sum((1, 2))], -1)
        arm = dots - (middle / total.clamp(min=_TINY)[:, None])[:, None]
        square = arm.square().sum(-1, keepdim=True)
        dragged = shear_m[:, None] * torch.exp(-square / (2 * self.shear_m**2))
        turn = twist_rad[:, None, None]
        cosine, sine = turn.cos() - 1, turn.sin()
        about = torch.cat(
            [cosine * arm[..., :1] - sine * arm[..., 1:], sine * arm[..., :1] + cosine * arm[..., 1:]], -1
        )
        turned = about * torch.exp(-square / (2 * self.twist_m**2))
        held = (total > 0)[:, None, None]
        moved = torch.where(held, dragged + turned, torch.zeros_like(turned))
        return self.dilate * torch.stack([slope_x, slope_y], -1) + moved


def rigid_motion(stretch_m: Tensor, normal_N: Tensor, gel: Gel) -> tuple[Tensor, Tensor]:  # noqa: N803
    """The shift and turn that come nearest to how far the pieces of a gel are dragged.

    Least squares, weighted by how hard each piece is pressed; for small turns.

    Args:
        stretch_m: float [B, h, w, 2]; see :class:`sensors.tactile.shear.ShearState`.
        normal_N: float [B, h, w] >= 0.
        gel: size and pixels.

    Returns:
        Shift float [B, 2] of the middle of the contact, metres, and turn float [B] from x towards y, radians.
    """
    weight = normal_N / normal_N.sum((1, 2), keepdim=True).clamp(min=_TINY)
    y, x = gel.centres(normal_N.dtype, normal_N.device)
    places = torch.stack([x.expand(gel.rows, -1), y.expand(-1, gel.columns)], -1)
    middle = torch.einsum("bhw,hwi->bi", weight, places)
    shift = torch.einsum("bhw,bhwi->bi", weight, stretch_m)
    arm = places - middle[:, None, None]
    turning = arm[..., 0] * stretch_m[..., 1] - arm[..., 1] * stretch_m[..., 0]
    return shift, (weight * turning).sum((1, 2)) / (weight * arm.square().sum(-1)).sum((1, 2)).clamp(min=_TINY)


def draw_markers(
    picture: Tensor,
    places_m: Tensor,
    gel: Gel,
    radius_m: float = 0.0003,
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Dots on a picture, with soft edges one pixel wide.

    Args:
        picture: float or uint8 [B, h, w, 3]; 0 to 255 if uint8, of any range if float.
        places_m: float [B, N, 2], x and y of the dots, metres; those outside of the picture are not seen.
        gel: size and pixels of the picture.
        radius_m: of a dot.
        colour: red, green and blue in the picture's range.

    Returns:
        Another picture of the same type.

    Raises:
        SpecError: a picture of another size, a radius that is not positive, or places that are not finite.
    """
    check_settings("draw_markers", positive({"radius_m": radius_m}))
    finite("draw_markers, places_m", places_m, 3)
    (high, wide), rows, columns, batch = gel.pitch_m, gel.rows, gel.columns, len(places_m)
    if tuple(picture.shape) != (batch, rows, columns, 3):
        expected, fix = f"[{batch}, {rows}, {columns}, 3]", "Use the gel with the picture's pixels: gel.with_pixels()."
        raise SpecError("draw_markers, picture", expected, f"{list(picture.shape)}", fix)
    at = places_m / places_m.new_tensor([wide, high]) + places_m.new_tensor([columns / 2 - 0.5, rows / 2 - 0.5])
    # Only the pixels around each dot are looked at.
    reach_y, reach_x = int(radius_m / high) + 2, int(radius_m / wide) + 2
    down = torch.arange(-reach_y, reach_y + 1, device=at.device)[:, None]
    across = torch.arange(-reach_x, reach_x + 1, device=at.device)[None]
    near = at.round()
    column, row = near[..., 0, None, None] + across, near[..., 1, None, None] + down
    away = ((column - at[..., 0, None, None]) * wide).square() + ((row - at[..., 1, None, None]) * high).square()
    cover = ((radius_m - away.sqrt()) / min(high, wide) + 0.5).clamp(0.0, 1.0)
    seen = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    flat = torch.where(seen, row * columns + column, torch.zeros_like(row)).long().flatten(1)
    ink = torch.zeros(batch, rows * columns, dtype=at.dtype, device=at.device)
    ink = ink.scatter_reduce(1, flat, torch.where(seen, cover, torch.zeros_like(cover)).flatten(1), "amax")
    ink = ink.view(batch, rows, columns, 1)
    drawn = picture.to(at.dtype) * (1 - ink) + picture.new_tensor(colour, dtype=at.dtype) * ink
    return drawn.round().to(torch.uint8) if picture.dtype == torch.uint8 else drawn.to(picture.dtype)
