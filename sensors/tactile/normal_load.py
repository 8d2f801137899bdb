"""NormalLoad: how hard each point of a simulated pad is pressed, by every body that presses it."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from sensors.base import World
from sensors.geometry import FloatArray
from sensors.pad import PadGrid
from sensors.simulated import Rule, positive
from sensors.tactile.penalty import winkler_pressure, winkler_under_load
from sensors.tactile.pressed import Pressed, pressed_bodies

LOADS = ("engine", "gel")


def load_rules(load: str, stiffness_N_m3: float) -> dict[str, Rule]:  # noqa: N803  (units keep their capital letter)
    """What sensors with a load ask of it, for :func:`sensors.simulated.check_settings`."""
    return {"load": (load in LOADS, load, f"one of {LOADS}"), **positive({"stiffness_N_m3": stiffness_N_m3})}


@final
class NormalLoad:
    """The gel of a pad as a bed of springs.

    Where the load comes from is a choice, as the simulated bodies are rigid and the gel is not one of them:

    - "engine": the simulator's own contact force presses the pad, and the gel says only how it spreads. Sums are those
      of the simulator. What stands in the gel without touching the hard finger behind it is not felt.
    - "gel": the springs press as far as something stands in the gel, as in published penalty fields. A light touch is
      felt, but the force is not one that the simulator knows: nothing is held back by it.

    Args:
        grid: the pad's points.
        link: that carries it.
        load: "engine" or "gel".
        stiffness_N_m3: pressure per overlap of the springs, Pa / m.
    """

    def __init__(self, grid: PadGrid, link: str, load: str, stiffness_N_m3: float) -> None:  # noqa: N803
        self.grid, self.link, self.load = grid, link, load
        self.stiffness_N_m3 = stiffness_N_m3  # units keep their own capital letter

    def place(self, world: World) -> FloatArray:
        """``base_from_pad`` [4, 4] now."""
        return world.link_pose(self.link) @ self.grid.link_from_pad

    def read(self, world: World, base_from_pad: FloatArray) -> list[tuple[Pressed, Tensor]]:
        """Each body that stands in the gel, and the force float64 [1, h, w] with which it presses each point, newton.

        Raises:
            SpecError: the world gives numbers that are not finite.
        """
        found = []
        for pressed in pressed_bodies(world, self.link, self.grid, base_from_pad):
            overlap = torch.from_numpy(pressed.overlap_m.astype(np.float64))[None]
            if self.load == "engine":
                load = torch.tensor([pressed.normal_N], dtype=torch.float64)
                pressure = winkler_under_load(overlap, self.stiffness_N_m3, self.grid.point_m2, load)
            else:
                pressure = winkler_pressure(overlap, self.stiffness_N_m3)
            found.append((pressed, pressure * self.grid.point_m2))
        return found

    def total(self, world: World, base_from_pad: FloatArray) -> FloatArray:
        """The force float64 [h, w] of all bodies together."""
        out = np.zeros(self.grid.shape)
        for _, normal in self.read(world, base_from_pad):
            out += normal[0].numpy()
        return out
