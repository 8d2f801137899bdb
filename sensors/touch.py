"""Simulated fingertip with a soft gel: how far each point of the gel is pressed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from gymnasium import spaces

from sensors.base import Sensor, World
from sensors.frames import TactileFrame
from sensors.pad import SLACK_M, PadGrid, pad_rules
from sensors.simulated import check_settings, not_negative, not_ready, require_world
from sensors.spec import box
from sensors.timeline import Timing


@final
class FingertipTouch(Sensor):
    """A layer of gel in front of a finger's hard pad, read out on a grid of taxels.

    Every taxel casts a ray out of the pad; an object nearer to the hard pad than the thickness of the gel presses it in
    by the difference. Shape and place of the contact are right, the gel's own deformation around it is not modelled.

    Args:
        timing: rate, delay, dropout, history.
        link: finger link that carries the pad.
        position_m: middle [3] of the hard pad in the link frame, metres.
        quaternion_xyzw: ``link_from_pad`` rotation [4]: +x right and +y down in the picture, +z out of the gel.
        rows: h, taxels down the picture.
        columns: w, taxels across.
        height_m: size of the sensing area along +y, metres.
        width_m: size of the sensing area along +x, metres.
        gel_m: thickness of the gel, metres; also the greatest indentation.
        noise_m: standard deviation of the indentation of a pressed taxel, metres; an untouched one stays 0.

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
        rows: int = 16,
        columns: int = 12,
        height_m: float = 0.016,
        width_m: float = 0.016,
        gel_m: float = 0.003,
        noise_m: float = 2e-5,
    ) -> None:
        check_settings(
            "FingertipTouch",
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
                **not_negative({"noise_m": noise_m}),
            },
        )
        self._timing = timing
        self._link = link
        self._grid = PadGrid(position_m, quaternion_xyzw, rows, columns, height_m, width_m, gel_m)
        self._noise_m = noise_m
        self._world: World | None = None
        self._rng: np.random.Generator | None = None

    @property
    def space(self) -> spaces.Dict:
        """indentation_m, base_from_pad, size_m; see :class:`sensors.frames.TactileFrame`."""
        return spaces.Dict(
            {
                "indentation_m": box(0.0, self._grid.gel_m, self._grid.shape),
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
        self._world = require_world("FingertipTouch", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Take the generator of this episode's noise."""
        self._rng = rng

    def read(self, now_s: float) -> TactileFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
        """
        if self._world is None or self._rng is None:
            raise not_ready("FingertipTouch")
        grid = self._grid
        base_from_pad = self._world.link_pose(self._link) @ grid.link_from_pad
        noise = self._rng.standard_normal(grid.shape, dtype=np.float32)  # drawn always: frame k has its own noise
        indentation = np.zeros(grid.shape, np.float32)
        if self._world.touches(self._link, grid.gel_m + SLACK_M):
            pressed = grid.reach_m(self._world, base_from_pad)
            noisy = np.clip(pressed + self._noise_m * noise, 0.0, grid.gel_m)
            indentation = np.where(pressed > 0, noisy, 0.0).astype(np.float32)
        return TactileFrame(
            stamp_s=now_s, indentation_m=indentation, base_from_pad=base_from_pad, size_m=grid.size_m.copy()
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None
