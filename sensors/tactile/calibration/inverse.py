"""Two ways from colours to slopes: search in the table, and a polynomial fitted to it."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sensors.tactile.gel import Gel
from sensors.tactile.table import ColourTable

STEEPEST_RAD = math.radians(50.0)  # steeper than a table is ever calibrated to
_WIDEST_RAD = math.radians(40.0)  # of the regressor
_USUAL_RAD = math.radians(30.0)  # tilts are believed to be of this size, where colours do not tell
_GRID = 61  # tilts to each side of the plane of angles that are searched, along both axes
_COARSE = 4  # of which every so many-th first
_TILE_PX = 16  # within a tile colours are taken to be those of its middle, for the first look
_STEPS = 4  # of Gauss and Newton


@final
class TableSearch:
    """The slope whose colour in the table comes nearest, at the pixel's own place.

    A first look goes through a coarse grid of slopes, with the colours of the middle of the tile that the pixel is in;
    Gauss and Newton's steps between the bins of a fine grid then bring it to the least squared difference of the three
    colours, damped by the noise: a slope that the colours do not tell stays small.

    Args:
        table: the calibration.
        gel: size and pixels of the pictures.
        noise: of the camera, grey values.
        steepest_rad: steeper tilts are not looked for: far from what was calibrated, other colours may look the same.
    """

    def __init__(self, table: ColourTable, gel: Gel, noise: float, steepest_rad: float = STEEPEST_RAD) -> None:
        # Colours over a square grid of tilts: [3 colours x 6 powers, G, G], for places in [0, 1).
        tilt = torch.linspace(-steepest_rad, steepest_rad, _GRID, dtype=torch.float64)
        down, right = torch.meshgrid(tilt, tilt, indexing="ij")
        self._planes = _coefficients(table, right, down).float()
        self._spacing = float(tilt[1] - tilt[0])
        self._damping = (max(noise, 0.3) * self._spacing / _USUAL_RAD) ** 2
        x, y = _places(table, gel)
        self._powers = _powers(x[None, :].expand(gel.rows, -1), y[:, None].expand(-1, gel.columns))  # [6, h, w]

    def __call__(self, change: Tensor) -> Tensor:
        """Change of the grey values [B, 3, h, w] -> slopes along x and y [B, 2, h, w]."""
        return torch.stack([_slopes(self._refined(one, self._first(one))) for one in change])

    def _first(self, change: Tensor) -> Tensor:
        """Indices into the grid, as floats [2, h, w], of the best tilt of the coarse grid."""
        h, w = change.shape[1:]
        coarse = self._planes[:, ::_COARSE, ::_COARSE]
        count = coarse.shape[1]
        flat = coarse.reshape(3, 6, -1)
        number = torch.arange(0, _GRID, _COARSE) - (_GRID - 1) / 2
        squared = (number[:, None].square() + number[None].square()).reshape(-1)
        # The corners of the square are steeper than the limit.
        unlikely = torch.where(squared.sqrt() <= (_GRID - 1) / 2, self._damping * squared, torch.inf)
        out = torch.empty(2, h, w)
        for top in range(0, h, _TILE_PX):
            for left in range(0, w, _TILE_PX):
                part = (slice(top, top + _TILE_PX), slice(left, left + _TILE_PX))
                middle = self._powers[:, min(top + _TILE_PX // 2, h - 1), min(left + _TILE_PX // 2, w - 1)]
                known = torch.einsum("cpk,p->ck", flat, middle)
                seen = change[:, *part].reshape(3, -1)
                # |seen - known|^2 without the part that is the same for all.
                best = (((known * known).sum(0) + unlikely)[None] - 2 * seen.T @ known).argmin(dim=1)
                shape = change[0, *part].shape
                out[0, *part] = (best % count * _COARSE).float().view(shape)
                out[1, *part] = (torch.div(best, count, rounding_mode="floor") * _COARSE).float().view(shape)
        return out

    def _refined(self, change: Tensor, at: Tensor) -> Tensor:
        """Tilts in radians [2, h, w], between the points of the grid."""
        middle = (_GRID - 1) / 2
        for _ in range(_STEPS):
            colour, by_x, by_y = self._look(at)
            off = change - colour
            # Normal equations of two unknowns at each pixel, with what is believed beforehand: tilts are small.
            xx = (by_x * by_x).sum(0) + self._damping
            yy = (by_y * by_y).sum(0) + self._damping
            xy = (by_x * by_y).sum(0)
            gx = (by_x * off).sum(0) - self._damping * (at[0] - middle)
            gy = (by_y * off).sum(0) - self._damping * (at[1] - middle)
            scale = 1 / (xx * yy - xy * xy).clamp(min=1e-9)
            step = torch.stack([(yy * gx - xy * gy) * scale, (xx * gy - xy * gx) * scale])
            from_middle = at + step.clamp(-_COARSE, _COARSE) - middle
            # No steeper than the limit.
            at = middle + from_middle * (middle / from_middle.norm(dim=0).clamp(min=middle))
        return (at - middle) * self._spacing

    def _look(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Colours [3, h, w] at indices into the grid, and their derivatives by the indices."""
        h, w = at.shape[1:]
        low = at.floor().clamp(0, _GRID - 2)
        part = at - low
        index = (low[1] * _GRID + low[0]).long().reshape(-1)
        flat = self._planes.reshape(3, 6, -1)
        corners = []
        for shift in (0, 1, _GRID, _GRID + 1):
            chosen = flat.index_select(2, index + shift).view(3, 6, h, w)
            corners.append((chosen * self._powers).sum(dim=1))
        upper, lower = torch.lerp(corners[0], corners[1], part[0]), torch.lerp(corners[2], corners[3], part[0])
        by_x = torch.lerp(corners[1] - corners[0], corners[3] - corners[2], part[1])
        return torch.lerp(upper, lower, part[1]), by_x, lower - upper


@final
class Regressor:
    """A polynomial of the three colours and the place, fitted once to slopes drawn at random and their colours.

    Args:
        table: the calibration.
        gel: size and pixels of the pictures.
        noise: of the camera, grey values; added to the colours that it is fitted to.
        steepest_rad: up to which tilt, but no more than 40 degrees: a wider range costs exactness everywhere.
        degree: of the polynomial.
        samples: how many slopes are drawn.
    """

    def __init__(
        self,
        table: ColourTable,
        gel: Gel,
        noise: float,
        steepest_rad: float = STEEPEST_RAD,
        degree: int = 4,
        samples: int = 40000,
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        # Even in direction, more of the small tilts: most of a picture is nearly flat.
        angle = torch.rand(samples, generator=draw, dtype=torch.float64) * min(steepest_rad, _WIDEST_RAD)
        direction = torch.rand(samples, generator=draw, dtype=torch.float64) * (2 * math.pi)
        tilt = torch.stack([angle * direction.cos(), angle * direction.sin()])
        place = torch.rand(2, samples, generator=draw, dtype=torch.float64)
        chosen = _coefficients(table, *tilt).reshape(3, 6, samples)
        change = (chosen * _powers(place[0], place[1])).sum(dim=1)
        change += torch.randn(change.shape, generator=draw, dtype=torch.float64) * noise
        self._scale = change.abs().mean(dim=1)
        self._degree = degree
        x, y = _places(table, gel)
        self._place = torch.stack([x[None, :].expand(gel.rows, -1), y[:, None].expand(-1, gel.columns)])
        design = self._features(change, place)
        slope = _slopes(tilt)
        self._weights = torch.linalg.lstsq(design.T, slope.T).solution.T.float()  # [2, features]

    def _features(self, change: Tensor, place: Tensor) -> Tensor:
        """Every product of up to ``degree`` colours and places, at most quadratic in the places: [features, ...]."""
        scaled = change / self._scale.to(change).view(3, *[1] * (change.ndim - 1))
        parts = [*scaled.unbind(), *(2 * place.to(change) - 1).unbind()]
        found = []

        def add(product: Tensor | None, first: int, left: int) -> None:
            found.append(torch.ones_like(parts[0]) if product is None else product)
            if left:
                for number in range(first, len(parts)):
                    add(parts[number] if product is None else product * parts[number], number, left - 1)

        add(None, 0, self._degree)
        return torch.stack(found)

    def __call__(self, change: Tensor) -> Tensor:
        """Change of the grey values [B, 3, h, w] -> slopes along x and y [B, 2, h, w]."""
        return torch.stack([torch.tensordot(self._weights, self._features(one, self._place), 1) for one in change])


def _coefficients(table: ColourTable, tilt_x: Tensor, tilt_y: Tensor) -> Tensor:
    """The table's polynomials at tilts in radians of any shape, for places in [0, 1): [18, ...], fp64."""
    M, D = table.coefficients.shape[:2]
    width, height = float(table.columns), float(table.rows)
    scale = np.array([width**2, height**2, width * height, width, height, 1.0])
    planes = torch.tensor((table.coefficients * scale).reshape(M, D, 18)).permute(2, 0, 1)[None]
    row = torch.hypot(tilt_x, tilt_y) / (math.pi / 2) * 2 - 1
    column = torch.atan2(tilt_y, tilt_x) / math.pi
    at = torch.stack([column, row], dim=-1).reshape(1, 1, -1, 2).double()
    found = functional.grid_sample(planes, at, mode="bilinear", padding_mode="border", align_corners=True)
    return found.reshape(18, *tilt_x.shape)


def _places(table: ColourTable, gel: Gel) -> tuple[Tensor, Tensor]:
    """Columns [w] and rows [h] in [0, 1), as :class:`TableColour` has them."""
    x, y = (
        (torch.arange(own, dtype=torch.float32) + 0.5) / own - 0.5 / size
        for own, size in ((gel.columns, table.columns), (gel.rows, table.rows))
    )
    return x, y


def _powers(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x * x, y * y, x * y, x, y, torch.ones_like(x)])


def _slopes(tilt: Tensor) -> Tensor:
    """Tilts in radians along x and y -> slopes, metres per metre, along axis 0."""
    size = tilt.norm(dim=0, keepdim=True)
    return tilt * torch.where(size > 1e-9, size.tan() / size.clamp(min=1e-9), torch.ones_like(size))
