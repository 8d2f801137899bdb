"""Pixels of presses whose slopes are known: within the circle of its contact the gel lies on the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from sensors.geometry import FloatArray
from sensors.tactile.calibration.contact import Contact, Rgb
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.gel import Gel

_DARK, _BRIGHT = 2, 253  # beyond, a pixel may have been clipped


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels with known slopes, those of one press or of several together.

    Attributes:
        slope: [N, 2], metres per metre along +x and +y of how far the gel's face is pushed in.
        place: [N, 2], column and row; in [-1, 1] over the picture, see :func:`place_of`.
        change: [N, 3], grey values against the untouched gel.
    """

    slope: FloatArray
    place: FloatArray
    change: FloatArray

    def __len__(self) -> int:
        return len(self.slope)


def place_of(pixels: FloatArray, gel: Gel) -> FloatArray:
    """Columns and rows [..., 2] -> the same over the picture, from -1 at its left and upper to 1 at its other edges."""
    out: FloatArray = (2 * pixels + 1) / [gel.columns, gel.rows] - 1
    return out


def press_samples(
    picture: Rgb,
    background: NDArray[np.floating],
    contact: Contact,
    settings: TouchSettings,
    dead: NDArray[np.bool_] | None = None,
) -> Samples:
    """The pixels within ``settings.inner`` of a contact's radius, but for clipped and dead ones.

    A ball of radius R stands sqrt(R^2 - r^2) deep at the distance r from its middle, whatever its depth: its slopes are
    known from the middle of the circle alone.

    Args:
        picture: uint8 [h, w, 3].
        background: the untouched gel, [h, w, 3], grey values.
        contact: its circle.
        settings: fingertip and ball.
        dead: bool [h, w], pixels to leave out.
    """
    gel, circle, ball = settings.gel, contact.circle, settings.ball_radius_m
    y, x = (part.numpy().astype(np.float64) for part in gel.centres())
    off_x, off_y = x - circle.x_m, y - circle.y_m
    squared = off_x**2 + off_y**2
    chosen = squared < min(settings.inner * circle.radius_m, 0.98 * ball) ** 2
    chosen &= ((picture >= _DARK) & (picture <= _BRIGHT)).all(axis=2)
    if dead is not None:
        chosen &= ~dead
    rows, columns = np.nonzero(chosen)
    down = np.sqrt(ball**2 - squared[rows, columns])
    slope = -np.stack([off_x[0, columns] / down, off_y[rows, 0] / down], axis=1)
    change = picture[rows, columns].astype(np.float64) - background[rows, columns]
    return Samples(slope, place_of(np.stack([columns, rows], axis=1).astype(np.float64), gel), change)


def together(parts: list[Samples]) -> Samples:
    """Those of several presses."""
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("slope", "place", "change")))
