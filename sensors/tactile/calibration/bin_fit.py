"""A colour table bin by bin: the published way, with every pixel of a bin counted. For comparison with the splines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from sensors.tactile.calibration.samples import Samples, together
from sensors.tactile.calibration.spline_fit import TERMS, in_pixels, powers
from sensors.tactile.table import ColourTable

_RIDGE = 1e-2  # of a bin's equations, so that few pixels in one corner do not decide about the others


def fit_bins(presses: Sequence[Samples], rows: int, columns: int, bins: int = 125) -> ColourTable:
    """Six coefficients for each bin by least squares over all its pixels; empty bins take those of the nearest one.

    Taxim's program writes ``value[index] += ...`` with repeated indices, which in NumPy keeps one pixel of a bin;
    here the products of all of them are summed.

    Paper: Z. Si and W. Yuan, "Taxim: An Example-based Simulation Model for GelSight Tactile Sensors", RA-L 2022.
    """
    every = together(list(presses))
    along_x, along_y = every.slope.T
    angle = np.arctan(np.hypot(along_x, along_y)) * ((bins - 1) / (math.pi / 2))
    direction = (np.arctan2(along_y, along_x) + math.pi) * ((bins - 1) / (2 * math.pi))
    index = np.rint(angle).astype(int) * bins + np.rint(direction).astype(int)
    terms = powers(every.place)
    squares, products = np.zeros((bins * bins, TERMS, TERMS)), np.zeros((bins * bins, TERMS, 3))
    np.add.at(squares, index, terms[:, :, None] * terms[:, None])
    np.add.at(products, index, terms[:, :, None] * every.change[:, None])
    filled = squares[:, -1, -1] > 0
    # The constant is free; the others are held near 0 where a bin has few pixels.
    held = np.diag([_RIDGE] * (TERMS - 1) + [0.0])
    count = squares[filled][:, -1, -1][:, None, None]
    solved = np.zeros((bins * bins, TERMS, 3))
    solved[filled] = np.linalg.solve(squares[filled] + held * np.maximum(count, 30), products[filled])
    grid = solved.reshape(bins, bins, TERMS, 3).transpose(0, 1, 3, 2)
    # Directions go round: the empty ones next to +pi may lie nearest to those next to -pi.
    empty = np.tile(~filled.reshape(bins, bins), (1, 3))
    nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)[:, :, bins : 2 * bins]
    grid = grid[nearest[0], nearest[1] % bins]
    grid[0] = 0.0
    return ColourTable(np.asarray(in_pixels(grid, rows, columns), np.float64), rows, columns)
