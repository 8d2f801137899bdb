"""Colour as a smooth function of slope and place, fitted to all pixels of all presses at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from sensors.errors import DataError
from sensors.geometry import FloatArray
from sensors.tactile.calibration.samples import Samples, together
from sensors.tactile.table import ColourTable

TERMS = 6  # x^2, y^2, x y, x, y, 1: the powers of a table
_KNOT_RAD = math.radians(8.0)  # between the splines' knots
_BEYOND_RAD = math.radians(8.0)  # how far colours are continued beyond the steepest slope seen, at most
_STEEPEST = 0.995  # quantile of the samples' slopes that counts as the steepest
_NOISE = 3.0  # grey values by which a pixel is off for reasons other than noise, about
_HUBER = 2.5  # standard deviations from which a pixel counts less
# How much the six coefficients bend from knot to knot, and how large those of the place are, as shares of the strength
# of the colours, about: what is believed before any pixel is seen. Places count from -1 to 1.
_BENDS = np.array([0.01, 0.01, 0.01, 0.03, 0.03, 0.06])
_SIZES = np.array([0.2, 0.2, 0.2, 0.5, 0.5, 10.0])
_ANCHOR = 1e4  # weight of "an untouched gel does not change"


def powers(place: FloatArray) -> FloatArray:
    """Places [N, 2] -> [N, 6], the powers of a table's polynomials."""
    x, y = place[:, 0], place[:, 1]
    return np.stack([x * x, y * y, x * y, x, y, np.ones_like(x)], axis=1)


def angles(slope: FloatArray) -> FloatArray:
    """Slopes [..., 2] -> the angles by which the face is tilted, along the same direction, radians."""
    size = np.hypot(slope[..., 0], slope[..., 1])[..., None]
    out: FloatArray = slope * np.where(size > 0, np.arctan(size) / np.where(size > 0, size, 1), 1.0)
    return out


@final
@dataclass(frozen=True, eq=False)
class SlopeColours:
    """Change of colour for slope and place: cubic splines over the two angles of tilt, times powers of the place.

    Attributes:
        weights: [K, K, 6, 3], of the splines along y and x, for each power and colour.
        steepest_rad: up to which angle there was something to fit.
    """

    weights: FloatArray
    steepest_rad: float

    def colours(self, slope: FloatArray, place: FloatArray) -> FloatArray:
        """Change of the grey values [N, 3] for slopes [N, 2] at places [N, 2]."""
        cell, basis = _splines(self._within(angles(slope)), self._reach_rad, len(self.weights))
        flat = self.weights.reshape(-1, TERMS, 3)
        chosen = flat[_neighbours(cell, len(self.weights))]  # [N, 16, 6, 3]
        out: FloatArray = np.einsum("ns,np,nspc->nc", basis, powers(place), chosen)
        return out

    def table(self, rows: int, columns: int, bins: int = 125) -> ColourTable:
        """The table over ``bins`` x ``bins`` of slope and direction for pictures of ``rows`` x ``columns``.

        An untouched gel gives exactly no change. Beyond the steepest slope of the presses the colours go on for a few
        degrees and stay as they are from there.
        """
        angle = np.linspace(0, math.pi / 2, bins)[:, None]
        direction = np.linspace(-math.pi, math.pi, bins)[None]
        tilt = np.stack([angle * np.cos(direction), angle * np.sin(direction)], axis=-1).reshape(-1, 2)
        cell, basis = _splines(self._within(tilt), self._reach_rad, len(self.weights))
        chosen = self.weights.reshape(-1, TERMS, 3)[_neighbours(cell, len(self.weights))]
        coefficients = np.einsum("ns,nspc->ncp", basis, chosen).reshape(bins, bins, 3, TERMS)
        coefficients -= coefficients[0, 0]
        coefficients[0] = 0.0
        return ColourTable(np.asarray(in_pixels(coefficients, rows, columns), np.float64), rows, columns)

    @property
    def _reach_rad(self) -> float:
        return self.steepest_rad + _BEYOND_RAD

    def _within(self, tilt: FloatArray) -> FloatArray:
        """Tilts steeper than those of the presses, drawn in: slowly further at first, then no more."""
        size = np.hypot(tilt[:, 0], tilt[:, 1])[:, None]
        over = np.maximum(size - self.steepest_rad, 0)
        drawn = np.minimum(size, self.steepest_rad) + 0.99 * _BEYOND_RAD * np.tanh(over / _BEYOND_RAD)
        out: FloatArray = tilt * (drawn / np.maximum(size, 1e-12))
        return out


@final
@dataclass(frozen=True, eq=False)
class SplineFit:
    """A fit and how far it is off.

    Attributes:
        colours: the result.
        left_out: [presses], mean of the absolute error of a press's pixels, grey values, by the fit to all the others.
        spread: standard deviation of a pixel about the fit, grey values.
    """

    colours: SlopeColours
    left_out: FloatArray
    spread: float


def fit_splines(presses: Sequence[Samples], *, leave_out: bool = True) -> SplineFit:
    """Fit colours to presses by weighted least squares over every pixel.

    Penalised splines: as many as are needed anywhere, held together by a penalty on their second differences, so that
    slopes and places that no press showed are filled smoothly (P. Eilers and B. Marx, "Flexible Smoothing with
    B-splines and Penalties", Statistical Science 11(2), 1996). Pixels that are far off (dust, gloss) count less, after
    Huber. A gel that is not tilted is held to show no change.

    Args:
        presses: one :class:`Samples` each.
        leave_out: also fit without each press in turn, to judge it by the others.

    Raises:
        DataError: too few pixels.
    """
    everything = together(list(presses))
    if len(everything) < 500:
        fix = "Press deeper, take a larger ball or more pictures."
        raise DataError("colours of slopes", "500 pixels on the ball or more", str(len(everything)), fix)
    tilt = angles(everything.slope)
    steepest = float(np.quantile(np.hypot(tilt[:, 0], tilt[:, 1]), _STEEPEST))
    strength = float(np.quantile(np.abs(everything.change), 0.98))
    problem = _Problem(steepest, max(strength, 1.0))
    weights = [np.ones(len(press)) for press in presses]
    colours, spread = problem.solve(problem.normal(presses, weights)), _NOISE
    for _ in range(2):
        off = [np.sqrt(((problem.at(colours, press) - press.change) ** 2).mean(axis=1)) for press in presses]
        spread = float(np.sqrt(np.mean(np.minimum(np.concatenate(off), 6 * np.median(np.concatenate(off))) ** 2)))
        limit = _HUBER * max(spread, 0.3)
        weights = [np.minimum(1.0, limit / np.maximum(error, 1e-9)) for error in off]
        whole = problem.normal(presses, weights)
        colours = problem.solve(whole)
    left_out = np.zeros(0)
    if leave_out and len(presses) > 1:
        errors = []
        for press, weight in zip(presses, weights, strict=True):
            own = problem.normal([press], [weight])
            others = problem.solve((whole[0] - own[0], whole[1] - own[1]))
            errors.append(float(np.abs(problem.at(others, press) - press.change).mean()) if len(press) else 0.0)
        left_out = np.array(errors)
    return SplineFit(colours, left_out, spread)


Normal = tuple[FloatArray, FloatArray]


class _Problem:
    """The linear equations: what is believed beforehand, and what pixels add."""

    def __init__(self, steepest_rad: float, strength: float) -> None:
        self._steepest = steepest_rad
        self._reach = steepest_rad + _BEYOND_RAD
        self._count = math.ceil(2 * self._reach / _KNOT_RAD) + 3
        K = self._count
        second = np.diff(np.eye(K), n=2, axis=0)
        first = np.diff(np.eye(K), axis=0)
        # Both second derivatives and, twice, the mixed one: the bending of a thin plate, whatever its direction.
        plate = (
            np.kron(np.eye(K), second.T @ second)
            + np.kron(second.T @ second, np.eye(K))
            + 2 * np.kron(first.T @ first, first.T @ first)
        )
        scale = _NOISE / strength
        prior = np.kron(plate, np.diag((scale / _BENDS) ** 2)) + np.kron(np.eye(K * K), np.diag((scale / _SIZES) ** 2))
        anchor = Samples(
            np.zeros((9, 2)), np.array([[x, y] for x in (-1.0, 0, 1) for y in (-1.0, 0, 1)]), np.zeros((9, 3))
        )
        held = self.normal([anchor], [np.full(9, _ANCHOR)])[0]
        self._prior = prior + held

    def normal(self, presses: Sequence[Samples], weights: Sequence[FloatArray]) -> Normal:
        """Sums over every pixel of its weighted products: [n, n] and [n, 3]."""
        K = self._count
        matrix = np.zeros((K * K, TERMS, K * K, TERMS))
        vector = np.zeros((K * K, TERMS, 3))
        for press, weight in zip(presses, weights, strict=True):
            cell, basis = _splines(angles(press.slope), self._reach, K)
            design = (basis[:, :, None] * powers(press.place)[:, None]).reshape(len(press), -1)
            order = np.argsort(cell, kind="stable")
            # Pixels between the same knots meet the same 16 splines: one product of matrices for each such cell.
            starts = np.flatnonzero(np.diff(cell[order]) > 0) + 1
            for rows in np.split(order, starts) if len(order) else []:
                near = _neighbours(cell[rows[:1]], K)[0]
                part, weighted = design[rows], design[rows] * weight[rows, None]
                block = (weighted.T @ part).reshape(len(near), TERMS, len(near), TERMS)
                matrix[near[:, None], :, near[None], :] += block.transpose(0, 2, 1, 3)
                vector[near] += (weighted.T @ press.change[rows]).reshape(len(near), TERMS, 3)
        size = K * K * TERMS
        return matrix.reshape(size, size), vector.reshape(size, 3)

    def solve(self, normal: Normal) -> SlopeColours:
        K = self._count
        solved = cho_solve(cho_factor(normal[0] + self._prior, overwrite_a=True, check_finite=False), normal[1])
        return SlopeColours(solved.reshape(K, K, TERMS, 3), self._steepest)

    def at(self, colours: SlopeColours, press: Samples) -> FloatArray:
        return colours.colours(press.slope, press.place)


def _splines(tilt: FloatArray, reach_rad: float, count: int) -> tuple[NDArray[np.int64], FloatArray]:
    """The cell between knots [N] that tilts [N, 2] lie in, and the 16 cubic splines there [N, 16]."""
    cells = count - 3
    at = (tilt / reach_rad + 1) * (cells / 2)
    low = np.clip(np.floor(at).astype(np.int64), 0, cells - 1)
    t = np.clip(at - low, 0.0, 1.0)
    cubic = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1
    ) / 6  # fmt: skip
    basis = (cubic[:, 1, :, None] * cubic[:, 0, None, :]).reshape(len(tilt), 16)
    return low[:, 1] * cells + low[:, 0], basis


def _neighbours(cell: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The numbers of the 16 splines over cells [N]: [N, 16]."""
    row, column = cell // (count - 3), cell % (count - 3)
    step = np.arange(4)
    grid = (row[:, None, None] + step[:, None]) * count + (column[:, None, None] + step[None])
    return np.asarray(grid.reshape(len(cell), 16), np.int64)


def in_pixels(coefficients: FloatArray, rows: int, columns: int) -> FloatArray:
    """Polynomials over places in [-1, 1], [..., 6], as such over the numbers of columns and rows."""
    # x' = a x + b and y' = c y + d, put into the six powers.
    a, b, c, d = 2 / columns, 1 / columns - 1, 2 / rows, 1 / rows - 1
    xx, yy, xy, x, y, one = (coefficients[..., power] for power in range(TERMS))
    return np.stack(
        [
            a * a * xx,
            c * c * yy,
            a * c * xy,
            2 * a * b * xx + a * d * xy + a * x,
            2 * c * d * yy + c * b * xy + c * y,
            b * b * xx + d * d * yy + b * d * xy + b * x + d * y + one,
        ],
        axis=-1,
    )
