"""Simulated array of a few force cells under a fingertip's skin."""

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
class TaxelArray(Sensor):
    """Cells side by side, each of which tells how hard it is pressed, with the faults of real ones.

    A cell lags behind its load by a share of it (rubber and conductive foam read less while they are pressed than while
    they are let go), saturates, and may be dead. The frame is a :class:`sensors.frames.PressureFrame`.

    Args:
        timing: rate, delay, dropout, history.
        link: finger link that carries the pad.
        position_m: middle [3] of the hard pad in the link frame, metres.
        quaternion_xyzw: ``link_from_pad`` rotation [4]: +x right and +y down in the picture, +z out of the skin.
        rows: h, cells down the picture.
        columns: w, cells across.
        height_m: size of the sensing area along +y, metres.
        width_m: size of the sensing area along +x, metres.
        gel_m: thickness of the skin, metres.
        load: "engine" or "gel", see :class:`sensors.tactile.normal_load.NormalLoad`.
        stiffness_N_m3: pressure per overlap of the skin, Pa / m.
        points: rays along each side of a cell.
        max_N: a cell's greatest reading, newton.
        noise_N: standard deviation of a cell that works, newton; readings below 0 are given as 0.
        hysteresis: share of its load by which a cell lags behind, 0 to below 1.
        dead: [row, column] of every cell that always reads 0.

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
        rows: int = 6,
        columns: int = 4,
        height_m: float = 0.016,
        width_m: float = 0.016,
        gel_m: float = 0.003,
        load: str = "engine",
        stiffness_N_m3: float = 6e7,  # noqa: N803  (units keep their own capital letter)
        points: int = 4,
        max_N: float = 5.0,  # noqa: N803
        noise_N: float = 0.02,  # noqa: N803
        hysteresis: float = 0.05,
        dead: Sequence[Sequence[int]] = (),
    ) -> None:
        there = all(len(cell) == 2 and 0 <= cell[0] < rows and 0 <= cell[1] < columns for cell in dead)
        check_settings(
            "TaxelArray",
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
                **positive({"max_N": max_N}),
                **not_negative({"noise_N": noise_N}),
                "points": (points >= 1, points, "at least 1"),
                "hysteresis": (0 <= hysteresis < 1, hysteresis, "0 to below 1"),
                "dead": (there, dead, f"[row, column] of cells, rows below {rows} and columns below {columns}"),
            },
        )
        self._timing = timing
        grid = PadGrid(position_m, quaternion_xyzw, rows * points, columns * points, height_m, width_m, gel_m)
        self._normal = NormalLoad(grid, link, load, stiffness_N_m3)
        self._shape = (rows, columns)
        self._max, self._noise, self._hysteresis = max_N, noise_N, hysteresis
        self._alive = np.ones(self._shape, dtype=bool)
        for row, column in dead:
            self._alive[row, column] = False
        self._shown: FloatArray = np.zeros(self._shape)  # readings before noise and saturation
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
        self._world = require_world("TaxelArray", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Take the generator of this episode's noise; no cell lags."""
        self._rng = rng
        self._shown = np.zeros(self._shape)

    def read(self, now_s: float) -> PressureFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
            SpecError: the robot has no such link.
        """
        if self._world is None or self._rng is None:
            raise not_ready("TaxelArray")
        base_from_pad = self._normal.place(self._world)
        noise = self._rng.standard_normal(self._shape)  # drawn always: frame k has its own noise
        load = per_cell(self._normal.total(self._world, base_from_pad), self._shape)
        # Play: the reading stays where it is until the load has gone far enough up or down to move it.
        self._shown = np.clip(self._shown, load * (1 - self._hysteresis), load * (1 + self._hysteresis))
        told = np.clip(self._shown + self._noise * noise, 0.0, self._max)
        return PressureFrame(
            stamp_s=now_s,
            normal_N=np.where(self._alive, told, 0.0).astype(np.float32),
            base_from_pad=base_from_pad,
            size_m=self._normal.grid.size_m.copy(),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None


def per_cell(force: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Sums [h, w] over the equal rectangles of points that a finer field is divided into."""
    rows, columns = shape
    summed: FloatArray = force.reshape(rows, force.shape[0] // rows, columns, force.shape[1] // columns).sum((1, 3))
    return summed
