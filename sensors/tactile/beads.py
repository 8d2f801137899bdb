"""Simulated low-cost fingertip: a few soft beads whose squeezing is read coarsely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.frames import PressureFrame
from sensors.geometry import FloatArray
from sensors.pad import PadGrid, pad_rules
from sensors.simulated import check_settings, not_negative, not_ready, positive, require_world
from sensors.spec import box
from sensors.tactile.normal_load import NormalLoad, load_rules
from sensors.timeline import Timing


@final
class BeadArray(Sensor):
    """Soft beads under a skin, each squeezed by what presses on it and around it.

    Low fidelity on purpose, as of a sensor made of hydrogel beads and a cheap camera (BeadSight): the load runs from
    one bead into the next, no two beads are alike, and a reading is one of a few levels. The frame is a
    :class:`sensors.frames.PressureFrame`.

    Args:
        timing: rate, delay, dropout, history.
        link: finger link that carries the pad.
        position_m: middle [3] of the hard pad in the link frame, metres.
        quaternion_xyzw: ``link_from_pad`` rotation [4]: +x right and +y down in the picture, +z out of the skin.
        rows: h, beads down the picture.
        columns: w, beads across.
        height_m: size of the sensing area along +y, metres.
        width_m: size of the sensing area along +x, metres.
        gel_m: thickness of the skin over the beads, metres.
        load: "engine" or "gel", see :class:`sensors.tactile.normal_load.NormalLoad`.
        stiffness_N_m3: pressure per overlap of the skin, Pa / m.
        points: rays along each side of a bead's cell.
        blur_m: standard deviation of the bell by which a load spreads over the beads, metres.
        gain_spread: standard deviation of the beads' gains, drawn at every reset, as a share.
        noise: standard deviation of a reading, as a share of itself.
        noise_N: the same of a bead at rest, newton.
        max_N: a bead's greatest reading, newton.
        levels: how many different readings there are, 0 and the greatest among them.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        link: str,
        position_m: Sequence[float],
        quaternion_xyzw: Sequence[float],
        rows: int = 3,
        columns: int = 3,
        height_m: float = 0.016,
        width_m: float = 0.016,
        gel_m: float = 0.003,
        load: str = "engine",
        stiffness_N_m3: float = 6e7,  # noqa: N803  (units keep their own capital letter)
        points: int = 5,
        blur_m: float = 0.003,
        gain_spread: float = 0.15,
        noise: float = 0.1,
        noise_N: float = 0.1,  # noqa: N803
        max_N: float = 8.0,  # noqa: N803
        levels: int = 16,
    ) -> None:
        check_settings(
            "BeadArray",
            {
                **pad_rules(
                    link=link,
                    position_m=position_m,
                    quaternion_xyzw=quaternion_xyzw,
                    rows=rows,
                    columns=columns,
                    height_m=height_m,
                    width_m=width_m,
                    gel_m=gel_m,
                ),
                **load_rules(load, stiffness_N_m3),
                **positive({"blur_m": blur_m, "max_N": max_N}),
                **not_negative({"gain_spread": gain_spread, "noise": noise, "noise_N": noise_N}),
                "points": (points >= 1, points, "at least 1"),
                "levels": (levels >= 2, levels, "at least 2"),
            },
        )
        self._timing = timing
        grid = PadGrid(position_m, quaternion_xyzw, rows * points, columns * points, height_m, width_m, gel_m)
        beads = PadGrid(position_m, quaternion_xyzw, rows, columns, height_m, width_m, gel_m)
        self._normal = NormalLoad(grid, link, load, stiffness_N_m3)
        self._shape = (rows, columns)
        self._spread = _spread(beads.places_m.reshape(-1, 2), grid.places_m.reshape(-1, 2), blur_m)
        self._gain_spread, self._noise, self._noise_at_rest = gain_spread, noise, noise_N
        self._max, self._step = max_N, max_N / (levels - 1)
        self._gain: FloatArray = np.ones(self._shape)
        self._world: World | None = None
        self._rng: np.random.Generator | None = None

    @property
    def space(self) -> spaces.Dict:
        """normal_N, base_from_pad, size_m; see :class:`sensors.frames.PressureFrame`."""
        return spaces.Dict(
            {
                "normal_N": box(0.0, self._max, self._shape),
                "base_from_pad": box(-1000.0, 1000.0, (4, 4)),
                "size_m": box(0.0, 1.0, (2,)),
            }
        )

    @property
    def timing(self) -> Timing:
        """Rate, delay, dropout and history."""
        return self._timing

    def open(self, world: World | None) -> None:
        """Take the world whose objects are felt.

        Raises:
            SensorError: there is none.
        """
        self._world = require_world("BeadArray", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw this episode's beads and take the generator of its noise."""
        self._rng = rng
        self._gain = np.maximum(1.0 + self._gain_spread * rng.standard_normal(self._shape), 0.0)

    def read(self, now_s: float) -> PressureFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
            SpecError: the robot has no such link.
        """
        if self._world is None or self._rng is None:
            raise not_ready("BeadArray")
        base_from_pad = self._normal.place(self._world)
        own, rest = self._rng.standard_normal((2, *self._shape))  # drawn always: frame k has its own noise
        squeezed = (self._spread @ self._normal.total(self._world, base_from_pad).ravel()).reshape(self._shape)
        told = self._gain * squeezed * (1.0 + self._noise * own) + self._noise_at_rest * rest
        told = np.clip(np.rint(told / self._step) * self._step, 0.0, self._max)
        return PressureFrame(
            stamp_s=now_s,
            normal_N=told.astype(np.float32),
            base_from_pad=base_from_pad,
            size_m=self._normal.grid.size_m.copy(),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None


def _spread(beads_m: FloatArray, points_m: FloatArray, blur_m: float) -> FloatArray:
    """Share [beads, points] of the load on each point that each bead takes; the beads together take all of it."""
    square = ((beads_m[:, None] - points_m[None]) ** 2).sum(-1)
    # Relative to the nearest bead, or a narrow bell would be 0 at every bead.
    weight = np.exp((square.min(axis=0) - square) / (2 * blur_m**2))
    share: FloatArray = weight / weight.sum(axis=0)
    return share
