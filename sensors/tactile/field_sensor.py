"""Simulated fingertip that feels a field of forces, shear included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from sensors.base import Sensor, World
from sensors.frames import ForceFieldFrame
from sensors.geometry import FloatArray, invert
from sensors.pad import PadGrid, pad_rules
from sensors.simulated import check_settings, not_negative, not_ready, positive, require_world
from sensors.spec import box
from sensors.tactile.normal_load import NormalLoad, load_rules
from sensors.tactile.pressed import Pressed, shared_shear
from sensors.tactile.series import carry
from sensors.tactile.shear import ShearState, drag
from sensors.timeline import Timing


@final
class ForceFieldTouch(Sensor):
    """The forces on each piece of a fingertip's gel: pressing (a bed of springs) and shear that remembers.

    Pressing is explained by :class:`sensors.tactile.normal_load.NormalLoad`. Shear follows the same choice: with the
    load of the "engine" the gel gives way until it carries the simulator's own friction force and torque
    (:mod:`sensors.tactile.series`), so a held weight is read at rest; with that of the "gel" it is dragged along by the
    motion of the body against the pad between two readings (:mod:`sensors.tactile.shear`).

    The field of TacSL (Akinola et al., T-RO 2025, arXiv 2408.06506), with springs in place of its viscous shear.

    Args:
        timing: rate, delay, dropout, history.
        link: finger link that carries the pad.
        position_m: middle [3] of the hard pad in the link frame, metres.
        quaternion_xyzw: ``link_from_pad`` rotation [4]: +x right and +y down in the picture, +z out of the gel.
        rows: h, pieces down the picture.
        columns: w, pieces across.
        height_m: size of the sensing area along +y, metres.
        width_m: size of the sensing area along +x, metres.
        gel_m: thickness of the gel, metres.
        load: "engine" or "gel".
        stiffness_N_m3: pressure per overlap, Pa / m; of a gel about its Young's modulus over its thickness.
        shear_stiffness_N_m3: shear stress per displacement, Pa / m; about its shear modulus over its thickness.
        friction: Coulomb's coefficient between gel and objects; None = the world's.
        max_N: greatest force along each axis that a piece can tell, newton.
        noise_N: standard deviation along each axis of a pressed piece, newton; an untouched one stays 0.

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
        rows: int = 20,
        columns: int = 25,
        height_m: float = 0.016,
        width_m: float = 0.016,
        gel_m: float = 0.003,
        load: str = "engine",
        stiffness_N_m3: float = 6e7,  # noqa: N803  (units keep their own capital letter)
        shear_stiffness_N_m3: float = 2e7,  # noqa: N803
        friction: float | None = None,
        max_N: float = 5.0,  # noqa: N803
        noise_N: float = 2e-4,  # noqa: N803
    ) -> None:
        check_settings(
            "ForceFieldTouch",
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
                **positive({"shear_stiffness_N_m3": shear_stiffness_N_m3, "max_N": max_N}),
                **not_negative({"friction": 0.0 if friction is None else friction, "noise_N": noise_N}),
            },
        )
        self._timing = timing
        grid = PadGrid(position_m, quaternion_xyzw, rows, columns, height_m, width_m, gel_m)
        self._normal = NormalLoad(grid, link, load, stiffness_N_m3)
        self._places_m = torch.from_numpy(grid.places_m)
        self._piece_N_m = shear_stiffness_N_m3 * grid.point_m2
        self._shear_to_normal = shear_stiffness_N_m3 / stiffness_N_m3
        self._friction = friction
        self._max = max_N
        self._noise = noise_N
        self._memory: dict[int, tuple[ShearState, FloatArray]] = {}  # body -> its shear, and pad_from_body then
        self._world: World | None = None
        self._rng: np.random.Generator | None = None

    @property
    def space(self) -> spaces.Dict:
        """force_N, base_from_pad, size_m; see :class:`sensors.frames.ForceFieldFrame`."""
        return spaces.Dict(
            {
                "force_N": box(-self._max, self._max, (*self._normal.grid.shape, 3)),
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
        self._world = require_world("ForceFieldTouch", world)

    def reset(self, rng: np.random.Generator) -> None:
        """Take the generator of this episode's noise; the gel forgets all shear."""
        self._rng = rng
        self._memory = {}

    def read(self, now_s: float) -> ForceFieldFrame:
        """Measure.

        Raises:
            SensorError: not open, or not reset.
            SpecError: the robot has no such link.
        """
        if self._world is None or self._rng is None:
            raise not_ready("ForceFieldTouch")
        grid = self._normal.grid
        base_from_pad = self._normal.place(self._world)
        noise = self._rng.standard_normal((*grid.shape, 3), dtype=np.float32)  # drawn always: frame k has its own noise
        force = np.zeros((*grid.shape, 3))
        memory: dict[int, tuple[ShearState, FloatArray]] = {}
        for pressed, normal in self._normal.read(self._world, base_from_pad):
            body, pad_from_body = pressed.touching.body, invert(base_from_pad) @ pressed.touching.base_from_body
            shear, state = self._shear(pressed, normal, base_from_pad, pad_from_body)
            memory[body] = state, pad_from_body
            force[..., :2] += shear[0].numpy()
            force[..., 2] -= normal[0].numpy()
        self._memory = memory  # what is not in the gel any more is forgotten
        noisy = np.where(force[..., 2:] != 0, force + self._noise * noise, 0.0)
        return ForceFieldFrame(
            stamp_s=now_s,
            force_N=np.clip(noisy, -self._max, self._max).astype(np.float32),
            base_from_pad=base_from_pad,
            size_m=grid.size_m.copy(),
        )

    def close(self) -> None:
        """Let go of the world."""
        self._world = None

    def _shear(
        self, pressed: Pressed, normal: Tensor, base_from_pad: FloatArray, pad_from_body: FloatArray
    ) -> tuple[Tensor, ShearState]:
        """Force [1, h, w, 2] along the pad, and what the gel remembers of it."""
        touching = pressed.touching
        friction = normal.new_tensor([touching.friction if self._friction is None else self._friction])
        rows, columns = self._normal.grid.shape
        fresh = ShearState.at_rest((1, rows, columns), normal.dtype), pad_from_body
        state, before = self._memory.get(touching.body, fresh)
        if self._normal.load == "engine":
            force, twist = shared_shear(pressed, base_from_pad, self._shear_to_normal)
            load, turn = normal.new_tensor(force)[None], normal.new_tensor([twist])
            return carry(state, normal, load, turn, self._places_m, self._piece_N_m, friction)
        slide = _slide_m(self._normal.grid, pressed.overlap_m, before, pad_from_body)
        return drag(state, normal, torch.from_numpy(slide)[None], self._piece_N_m, friction)


def _slide_m(grid: PadGrid, overlap_m: FloatArray, before: FloatArray, now: FloatArray) -> FloatArray:
    """How far [h, w, 2] the body's surface under each piece has moved along the pad between two ``pad_from_body``."""
    here = np.concatenate([grid.places_m, (grid.gel_m - overlap_m)[..., None]], axis=-1)
    moved = before @ invert(now)
    slide: FloatArray = (here - here @ moved[:3, :3].T - moved[:3, 3])[..., :2]
    return slide
