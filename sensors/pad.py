"""PadGrid: where the points of a fingertip's gel are, and how far something reaches in at each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from sensors.base import World
from sensors.geometry import FloatArray, pose, transform_points
from sensors.simulated import Rule, positive

_BEHIND_M = 0.004  # rays start this far inside the finger: an object that sinks in a little is still met from outside
SLACK_M = 0.001  # rays are cast a little earlier than needed: collision shapes are rounder than the mesh


def pad_rules(
    *,
    link: str,
    position_m: Sequence[float],
    quaternion_xyzw: Sequence[float],
    rows: int,
    columns: int,
    height_m: float,
    width_m: float,
    gel_m: float,
) -> dict[str, Rule]:
    """What every simulated fingertip asks of the place of its pad, for :func:`sensors.simulated.check_settings`."""
    return {
        "link": (bool(link), link, "the name of a finger link"),
        "position_m": (len(position_m) == 3, position_m, "3 numbers"),
        "quaternion_xyzw": (len(quaternion_xyzw) == 4, quaternion_xyzw, "4 numbers, x y z w"),
        "rows": (rows >= 1, rows, "at least 1"),
        "columns": (columns >= 1, columns, "at least 1"),
        **positive({"height_m": height_m, "width_m": width_m, "gel_m": gel_m}),
    }


@final
class PadGrid:
    """A layer of gel in front of a finger's hard pad, looked at through rays on a grid.

    The pad frame has its origin in the middle of the hard pad, +x to the right of the picture, +y down, +z out of the
    gel towards what is touched.

    Args:
        position_m: middle [3] of the hard pad in the link frame, metres.
        quaternion_xyzw: ``link_from_pad`` rotation [4].
        rows: h, points down the picture.
        columns: w, points across.
        height_m: size of the area along +y, metres.
        width_m: size of the area along +x, metres.
        gel_m: thickness of the gel, metres; also the greatest overlap.

    Attributes:
        link_from_pad: [4, 4].
        shape: (h, w).
        size_m: [2], height and width.
        gel_m: thickness of the gel.
        places_m: [h, w, 2], x and y of every point in the pad frame, metres.
        point_m2: area that one point stands for, square metres.
    """

    def __init__(
        self,
        position_m: Sequence[float],
        quaternion_xyzw: Sequence[float],
        rows: int,
        columns: int,
        height_m: float,
        width_m: float,
        gel_m: float,
    ) -> None:
        self.link_from_pad = pose(position_m, quaternion_xyzw)
        self.shape = (rows, columns)
        self.size_m = np.array([height_m, width_m])
        self.gel_m = gel_m
        self.point_m2 = height_m * width_m / (rows * columns)
        y, x = np.meshgrid(
            ((np.arange(rows) + 0.5) / rows - 0.5) * height_m,
            ((np.arange(columns) + 0.5) / columns - 0.5) * width_m,
            indexing="ij",
        )
        self.places_m = np.stack([x, y], axis=-1)
        # Both ends of the rays [h * w, 3] in the pad frame.
        self._starts_m = np.stack([x.ravel(), y.ravel(), np.full(x.size, -_BEHIND_M)], axis=-1)
        self._ends_m = self._starts_m + np.array([0.0, 0.0, _BEHIND_M + gel_m])

    def reach_m(self, world: World, base_from_pad: FloatArray, bodies: Sequence[int] | None = None) -> FloatArray:
        """How far [h, w] something reaches in from the gel's surface, metres; <= 0 = it does not, -inf = nothing near.

        It may be more than the gel is thick, where something stands in the hard pad. ``bodies``: only these are met.
        """
        starts = transform_points(base_from_pad, self._starts_m)
        ends = transform_points(base_from_pad, self._ends_m)
        # Without a choice of bodies the question is the plain one, which every World has always answered.
        met = world.ray_cast(starts, ends) if bodies is None else world.ray_cast(starts, ends, bodies=bodies)
        return _BEHIND_M + self.gel_m - met.reshape(self.shape)
