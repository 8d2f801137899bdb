"""A circle through points of which some do not belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray

_LEAST_POINTS = 5


@final
@dataclass(frozen=True)
class Circle:
    """A circle in the plane of the gel.

    Attributes:
        x_m: its middle, metres to the right of the gel's.
        y_m: likewise, downwards.
        radius_m: its radius, metres.
    """

    x_m: float
    y_m: float
    radius_m: float

    def distances_m(self, points_m: FloatArray) -> FloatArray:
        """How far points [N, 2] lie outside it, negative = inside: [N]."""
        out: FloatArray = np.hypot(points_m[:, 0] - self.x_m, points_m[:, 1] - self.y_m) - self.radius_m
        return out


def algebraic_circle(points_m: FloatArray) -> Circle | None:
    """The circle of Taubin's approximation to the distances: least squares in closed form, nearly free of bias.

    Args:
        points_m: [N, 2], at least 3.

    Returns:
        The circle, or None where the points lie on a line.

    Paper: G. Taubin, "Estimation of Planar Curves, Surfaces, and Nonplanar Space Curves Defined by Implicit Equations
    with Applications to Edge and Range Image Segmentation", IEEE Trans. PAMI 13(11), 1991.
    """
    middle = points_m.mean(axis=0)
    off = points_m - middle
    size = float(np.sqrt((off**2).sum(axis=1).mean()))
    if size == 0:
        return None
    off = off / size
    squared = (off**2).sum(axis=1)
    mean = squared.mean()  # 1 by construction; kept for the formula's sake
    design = np.column_stack([(squared - mean) / (2 * np.sqrt(mean)), off])
    quadratic, *linear = np.linalg.svd(design, full_matrices=False)[2][-1]
    quadratic /= 2 * np.sqrt(mean)
    if abs(quadratic) < 1e-9:
        return None
    constant = -mean * quadratic
    x, y = (-part / (2 * quadratic) for part in linear)
    radius = np.sqrt(max(x * x + y * y - constant / quadratic, 0.0))
    return Circle(float(middle[0] + size * x), float(middle[1] + size * y), float(size * radius))


def fit_circle(
    points_m: FloatArray, tolerance_m: float, rng: np.random.Generator, tries: int = 80
) -> tuple[Circle, NDArray[np.bool_]] | None:
    """The circle that most points agree on, and which they are.

    Three points at random make a circle; that with most points within ``tolerance_m`` wins (M. Fischler and R. Bolles,
    "Random Sample Consensus", Communications of the ACM 24(6), 1981), and is refined over them: algebraically, then by
    their true distances.

    Args:
        points_m: [N, 2].
        tolerance_m: how far from the circle a point may lie that belongs to it.
        rng: draws the triples.
        tries: how many triples.

    Returns:
        The circle and bool [N]; None if there are too few points, or no circle goes through any of them.
    """
    if len(points_m) < _LEAST_POINTS:
        return None
    best = _most_agreed(points_m, tolerance_m, rng, tries)
    if best.sum() < _LEAST_POINTS:
        return None
    refined: Circle | None = None
    for _ in range(3):
        start = algebraic_circle(points_m[best])
        if start is None:
            return None
        refined = _geometric(points_m[best], start)
        near = np.abs(refined.distances_m(points_m)) < tolerance_m
        if near.sum() < _LEAST_POINTS:
            return None
        settled = bool((near == best).all())
        best = near
        if settled:
            break
    assert refined is not None
    return refined, best


def _most_agreed(points_m: FloatArray, tolerance_m: float, rng: np.random.Generator, tries: int) -> NDArray[np.bool_]:
    """The points near the best of the circles through three of them, bool [N]; all triples at once."""
    triples = points_m[rng.integers(len(points_m), size=(tries, 3))]
    origin, one, two = triples[:, 0], triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0]
    area = 2 * (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    size = (one**2).sum(axis=1) + (two**2).sum(axis=1)
    proper = np.abs(area) > 1e-9 * size  # no line, and no point twice
    squared = np.stack([(one**2).sum(axis=1), (two**2).sum(axis=1)], axis=1)
    safe = np.where(proper, area, 1.0)
    middle = np.stack(
        [
            (two[:, 1] * squared[:, 0] - one[:, 1] * squared[:, 1]) / safe,
            (one[:, 0] * squared[:, 1] - two[:, 0] * squared[:, 0]) / safe,
        ],
        axis=1,
    )
    radius = np.hypot(middle[:, 0], middle[:, 1])
    off = points_m[None] - (origin + middle)[:, None]
    near = (np.abs(np.hypot(off[..., 0], off[..., 1]) - radius[:, None]) < tolerance_m) & proper[:, None]
    out: NDArray[np.bool_] = near[near.sum(axis=1).argmax()]
    return out


def _geometric(points_m: FloatArray, start: Circle) -> Circle:
    """Gauss and Newton's steps to the least squares of the distances."""
    now = np.array([start.x_m, start.y_m, start.radius_m])
    for _ in range(10):
        off = points_m - now[:2]
        far = np.maximum(np.hypot(off[:, 0], off[:, 1]), 1e-12)
        design = np.column_stack([-off / far[:, None], -np.ones(len(off))])
        step = np.linalg.lstsq(design, now[2] - far, rcond=None)[0]
        now = now + step
        if np.abs(step).max() < 1e-9 * abs(now[2]):
            break
    return Circle(float(now[0]), float(now[1]), float(abs(now[2])))
