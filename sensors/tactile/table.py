"""Colour by a calibrated table: for each slope and its direction a polynomial over the place in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sensors.errors import DataError, SpecError
from sensors.tactile.gel import Gel
from sensors.tactile.smooth_light import SmoothLight

Lookup = Literal["floor", "nearest", "fine", "linear"]
_FINER = 4  # bins of a "fine" table for one of the calibration, along each axis


@final
@dataclass(frozen=True, eq=False)
class ColourTable:
    """Polynomials in the manner of Taxim, one for each bin of slope and direction and each colour.

    Bin (m, d) stands for the slope angle m * (pi / 2) / (M - 1) and the direction d * 2 pi / (D - 1) - pi, where the
    direction is atan2(dH/dy, dH/dx) of how far the face is pushed in, H. The numbers of bins are the table's own.

    Attributes:
        coefficients: float64 [M, D, 3, 6], red green blue, of x^2, y^2, x y, x, y, 1, where x is the column and y the
            row in a picture of ``rows`` x ``columns``; together they give the change of the grey value (0 to 255)
            against the untouched gel.
        rows: of the pictures that it was calibrated with.
        columns: likewise.

    Raises:
        SpecError: another shape, or a number that is not finite.

    Paper: Z. Si and W. Yuan, "Taxim: An Example-based Simulation Model for GelSight Tactile Sensors", RA-L 2022.
    """

    coefficients: NDArray[np.float64]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        shape = np.shape(self.coefficients)
        if len(shape) != 4 or shape[2:] != (3, 6) or min(shape[:2]) < 2:
            fix = "Stack the tables of red, green and blue along axis 2."
            raise SpecError("ColourTable, coefficients", "[M, D, 3, 6] with M, D >= 2", str(list(shape)), fix)
        if not np.isfinite(self.coefficients).all():
            raise SpecError("ColourTable, coefficients", "finite numbers", "some that are not", "Calibrate again.")
        if min(self.rows, self.columns) < 1:
            got = f"{self.rows} x {self.columns}"
            raise SpecError(
                "ColourTable", "pictures of 1 x 1 or more", got, "Give the size of the calibration pictures."
            )

    def save(self, path: str | Path) -> None:
        """Write it as an .npz file."""
        np.savez_compressed(path, coefficients=self.coefficients, size=np.array([self.rows, self.columns]))

    @staticmethod
    def load(path: str | Path, rows: int = 480, columns: int = 640) -> ColourTable:
        """Read a file of :meth:`save`, or the polycalib.npz of a Taxim calibration.

        Taxim's files name their colours in the wrong order, red and blue exchanged, and do not say the size of their
        pictures; that is ``rows`` x ``columns`` then.

        Raises:
            DataError: no such file, or not such a table.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                if "coefficients" in file:
                    size = file["size"]
                    return ColourTable(np.asarray(file["coefficients"], np.float64), int(size[0]), int(size[1]))
                colours = [np.asarray(file[f"grad_{name}"], np.float64) for name in "bgr"]
            return ColourTable(np.stack(colours, axis=2), rows, columns)
        except (OSError, KeyError, ValueError) as error:  # SpecError is a ValueError
            fix = "Give the .npz of ColourTable.save, or a polycalib.npz."
            raise DataError(f"colour table '{path.name}'", "a readable table", str(error), fix) from None

    @staticmethod
    def from_light(light: SmoothLight, bins: int = 125, rows: int = 480, columns: int = 640) -> ColourTable:
        """The table that a calibration against these lights would give: no real gel needed.

        The polynomials are least squares over the picture; for lights that fall off linearly they are exact.
        """
        angle = torch.linspace(0, math.pi / 2, bins, dtype=torch.float64)[:, None]
        direction = torch.linspace(-math.pi, math.pi, bins, dtype=torch.float64)[None]
        # At a right angle the slope is infinite; its limit stands for it.
        slope = angle.clamp(max=math.pi / 2 - 1e-6).tan()
        flat = slope * direction.cos(), slope * direction.sin()
        gel = light.gel
        with torch.no_grad():
            # A grid of 3 x 3 places over the picture is enough for six coefficients; see the light's fall.
            colours, basis = [], []
            for row in (0, rows // 2, rows - 1):
                for column in (0, columns // 2, columns - 1):
                    y_m = ((row + 0.5) / rows - 0.5) * gel.height_m
                    x_m = ((column + 0.5) / columns - 0.5) * gel.width_m
                    colours.append(light.at(*flat, x_m, y_m))
                    basis.append([column**2, row**2, row * column, column, row, 1.0])
        seen = torch.stack(colours).numpy()  # [9, 3, M, D]
        design = np.array(basis, float)
        scale = np.abs(design).max(axis=0)
        solved = np.linalg.lstsq(design / scale, seen.reshape(len(design), -1), rcond=None)[0] / scale[:, None]
        return ColourTable(solved.reshape(6, 3, bins, bins).transpose(2, 3, 1, 0).copy(), rows, columns)


def _finer(coefficients: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Bins between those along an axis, with what lies between their numbers."""
    bins = coefficients.shape[axis]
    at = np.linspace(0, bins - 1, (bins - 1) * _FINER + 1)
    low = np.minimum(at.astype(int), bins - 2)
    part = np.expand_dims(at - low, tuple(other for other in range(4) if other != axis))
    between: NDArray[np.float64] = coefficients.take(low, axis) * (1 - part) + coefficients.take(low + 1, axis) * part
    return between


@final
class TableColour(nn.Module):
    """Colours by a :class:`ColourTable`.

    Args:
        table: the calibration.
        gel: the pixels; places are taken over to those of the calibration's pictures.
        lookup: "floor" takes the bin below as published; "nearest" the nearest, which is right by half a bin more;
            "linear" goes between the four around, which alone has a gradient and no steps, and takes four times as
            long; "fine" takes the nearest bin of a table that was made four times as fine along both axes by going
            between them, which is nearly that in the time of the first two.

    Raises:
        SpecError: no such ``lookup``.
    """

    def __init__(self, table: ColourTable, gel: Gel, lookup: Lookup = "linear") -> None:
        super().__init__()
        if lookup not in get_args(Lookup):
            expected = f"one of {get_args(Lookup)}"
            raise SpecError("TableColour, lookup", expected, repr(lookup), "Take one of them.")
        self.gel = gel
        self.lookup: Lookup = lookup
        coefficients = _finer(_finer(table.coefficients, 0), 1) if lookup == "fine" else table.coefficients
        self._bins = coefficients.shape[:2]
        # Places in [0, 1): the coefficients then are grey values, and fp32 loses nothing in sums of squares of pixels.
        width, height = float(table.columns), float(table.rows)
        scale = np.array([width**2, height**2, width * height, width, height, 1.0])
        planes = (coefficients * scale).reshape(-1, 18).T
        self.register_buffer("_planes", torch.tensor(np.ascontiguousarray(planes)), persistent=False)
        self.register_buffer("_planes_fp32", torch.tensor(planes.astype(np.float32, order="C")), persistent=False)
        # As published, a smaller picture is the top left pixel of each block; else the middle of the pixel counts.
        inset = [
            0.0 if lookup == "floor" else 0.5 / own - 0.5 / size
            for own, size in zip((gel.columns, gel.rows), (width, height), strict=True)
        ]
        self.register_buffer(
            "_x", torch.arange(gel.columns, dtype=torch.float64) / gel.columns + inset[0], persistent=False
        )
        self.register_buffer("_y", torch.arange(gel.rows, dtype=torch.float64) / gel.rows + inset[1], persistent=False)

    def forward(self, along_x: Tensor, along_y: Tensor) -> Tensor:
        """Slopes [B, h, w] along x and y -> change of the grey values, float [B, 3, h, w]."""
        M, D = self._bins
        squared = along_x * along_x + along_y * along_y
        if torch.is_grad_enabled() and squared.requires_grad:
            # Where it is flat, root and direction have no gradient: they are taken elsewhere, and not used.
            tilted = squared > 0
            angle = torch.where(tilted, torch.where(tilted, squared, 1.0).sqrt().atan(), 0.0)
            direction = torch.atan2(along_y, torch.where(tilted, along_x, 1.0))
        else:
            angle, direction = squared.sqrt().atan(), torch.atan2(along_y, along_x)
        row = angle * ((M - 1) / (math.pi / 2))
        column = direction * ((D - 1) / (2 * math.pi)) + (D - 1) / 2
        if self.lookup == "linear":
            return self._between(row, column)
        if self.lookup in ("nearest", "fine"):
            row, column = row + 0.5, column + 0.5
        # A direction of just pi has the last bin to itself in published tables; rounding must not lead beyond it.
        index = row.to(torch.int32).clamp_(max=M - 1).mul_(D).add_(column.to(torch.int32).clamp_(0, D - 1))
        return self._polynomials(index, along_x.dtype)

    def _between(self, row: Tensor, column: Tensor) -> Tensor:
        M, D = self._bins
        low_row = row.detach().to(torch.int32).clamp_(max=M - 2)
        low_column = column.detach().to(torch.int32).clamp_(0, D - 2)
        down, right = (row - low_row)[:, None], (column - low_column)[:, None]
        index = low_row.mul_(D).add_(low_column)
        corners = [self._polynomials(index + step, row.dtype) for step in (0, 1, D, D + 1)]
        upper, lower = torch.lerp(corners[0], corners[1], right), torch.lerp(corners[2], corners[3], right)
        return torch.lerp(upper, lower, down)

    def _polynomials(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """The polynomials of bins int32 [B, h, w] at their pixels: [B, 3, h, w]."""
        B, h, w = index.shape
        planes = self.get_buffer("_planes_fp32" if dtype == torch.float32 else "_planes").to(dtype)
        x, y = self.get_buffer("_x").to(dtype), self.get_buffer("_y").to(dtype)[:, None]
        flat = index.reshape(-1)
        out = torch.empty(B, 3, h, w, dtype=dtype, device=index.device)
        for channel in range(3):
            # One power of one colour after the other: such a row of the table stays in the cache. Fetching a bin's
            # eighteen numbers at once is faster, but their sum then runs across memory; see bench_tactile.
            xx, yy, xy, by_x, by_y, one = (
                planes[6 * channel + power].index_select(0, flat).view(B, h, w) for power in range(6)
            )
            along = xx.mul_(x).addcmul_(xy, y).add_(by_x).mul_(x)
            torch.add(yy.mul_(y).add_(by_y).mul_(y).add_(one), along, out=out[:, channel])
        return out
