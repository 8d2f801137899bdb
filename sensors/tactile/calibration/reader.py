"""From a picture of the gel back to its slopes, normals and depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile.calibration.fill import fill
from sensors.tactile.calibration.inverse import STEEPEST_RAD, Regressor, TableSearch
from sensors.tactile.gel import Gel
from sensors.tactile.integrate import integrate
from sensors.tactile.slopes import normals
from sensors.tactile.table import ColourTable

Way = Literal["search", "regressor"]
_RIM = 0.04  # share of the picture, at each border, whose median is the height 0


@final
@dataclass(frozen=True, eq=False)
class Reading:
    """What pictures show of the gel.

    Attributes:
        along_x: [B, h, w], metres per metre: slope along +x of how far the gel's face is pushed in.
        along_y: likewise along +y.
        depth_m: [B, h, w], how far the gel's face is pushed in, metres; 0 = the median along the borders.
        good: bool [B, h, w]; False = the pixel was dead, its slope is what lies between its neighbours.
    """

    along_x: Tensor
    along_y: Tensor
    depth_m: Tensor
    good: Tensor

    @property
    def normals(self) -> Tensor:
        """Unit normals [B, 3, h, w] of the gel's inner face; see :func:`sensors.tactile.slopes.normals`."""
        return normals(self.along_x, self.along_y)


@final
class GelReader:
    """Reads depth from pictures of a calibrated fingertip.

    Colours give slopes (``way``), pixels that are dead or clipped are filled, and slopes integrate to depth by
    Poisson's equation with free borders (:func:`sensors.tactile.integrate.integrate`).

    Args:
        table: its colours.
        background: the untouched gel, [h, w, 3], grey values.
        gel: its size and pixels.
        noise: of its camera, standard deviation of a pixel, grey values.
        dead: bool [h, w], pixels that do not work; None = all do.
        way: "search" looks for the slope whose colour, at its place, comes nearest; "regressor" is a polynomial fitted
            to the table beforehand: faster, and less exact.
        steepest_rad: the greatest tilt that is looked for.

    Raises:
        SpecError: sizes that differ, or no such way.
    """

    def __init__(
        self,
        table: ColourTable,
        background: NDArray[np.floating],
        gel: Gel,
        noise: float = 1.5,
        dead: NDArray[np.bool_] | None = None,
        way: Way = "search",
        steepest_rad: float = STEEPEST_RAD,
    ) -> None:
        shape = (gel.rows, gel.columns, 3)
        if background.shape != shape or (dead is not None and dead.shape != shape[:2]):
            got = f"{list(background.shape)}, {None if dead is None else list(dead.shape)}"
            raise SpecError("GelReader, background and dead", f"{list(shape)}, {list(shape[:2])}", got, "Calibrate it.")
        if way not in get_args(Way):
            raise SpecError("GelReader, way", f"one of {get_args(Way)}", repr(way), "Take one of them.")
        self.gel = gel
        self._background = torch.tensor(np.asarray(background, np.float32)).permute(2, 0, 1)
        self._works = torch.ones(gel.rows, gel.columns, dtype=torch.bool) if dead is None else torch.tensor(~dead)
        kind = TableSearch if way == "search" else Regressor
        self._inverse = kind(table, gel, noise, steepest_rad)

    @torch.no_grad()
    def read(self, pictures: NDArray[np.uint8] | Tensor) -> Reading:
        """Slopes and depth of pictures, uint8 [h, w, 3] or [B, h, w, 3].

        Raises:
            SpecError: pictures of another size or type.
        """
        given = torch.as_tensor(pictures)
        given = given[None] if given.ndim == 3 else given
        if given.dtype != torch.uint8 or tuple(given.shape[1:]) != (self.gel.rows, self.gel.columns, 3):
            expected = f"uint8 [B, {self.gel.rows}, {self.gel.columns}, 3]"
            fix = "Read pictures of the camera and size that it was calibrated with."
            raise SpecError("GelReader.read", expected, f"{given.dtype} {list(given.shape)}", fix)
        planes = given.permute(0, 3, 1, 2)
        clipped = ((planes == 0) & (self._background > 2)) | ((planes == 255) & (self._background < 253))
        good = self._works & ~clipped.all(dim=1)
        slope = self._inverse(planes.float() - self._background)
        slope = fill(slope, good)
        depth = integrate(slope[:, 0], slope[:, 1], self.gel)
        return Reading(slope[:, 0], slope[:, 1], depth - _level(depth), good)


def _level(depth_m: Tensor) -> Tensor:
    """The median height along the borders, [B, 1, 1]."""
    h, w = depth_m.shape[1:]
    rows, columns = max(1, math.ceil(_RIM * h)), max(1, math.ceil(_RIM * w))
    rim = torch.cat(
        [
            part.flatten(1)
            for part in (depth_m[:, :rows], depth_m[:, -rows:], depth_m[:, :, :columns], depth_m[:, :, -columns:])
        ],
        dim=1,
    )
    return rim.median(dim=1).values[:, None, None]
