"""Shear with memory: springs along the gel's surface whose far ends slip when friction gives way.

Each piece of the gel is dragged along by what presses it. It remembers how far it has been dragged since it was first
touched, so a hand that holds a weight at rest reads the weight. (The published penalty field, TacSL, Akinola et al.,
T-RO 2025, multiplies the present *velocity*, and reads nothing at rest.) When the spring would pull harder than Coulomb
allows, its end slips along and the spring keeps the length at which it slips: the return mapping of an elastic, ideally
plastic material, whose loading and unloading differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensors.tactile.checks import constants, finite, not_negative

_TINY = 1e-30  # instead of a division by zero


@dataclass(frozen=True, eq=False)
class ShearState:
    """What the gel remembers.

    Attributes:
        stretch_m: float [B, h, w, 2], how far each piece is dragged along x and y of the pad; 0 where untouched.
        touched: bool [B, h, w], which pieces were pressed at the last step.
    """

    stretch_m: Tensor
    touched: Tensor

    @classmethod
    def at_rest(cls, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device | str = "cpu") -> ShearState:
        """A gel [B, h, w] that nothing touches."""
        stretch = torch.zeros(*shape, 2, dtype=dtype, device=device)
        return cls(stretch, torch.zeros(shape, dtype=torch.bool, device=device))

    def reset(self, which: Tensor) -> ShearState:
        """The same, with the samples bool [B] in ``which`` at rest."""
        keep = ~which[:, None, None]
        return ShearState(
            torch.where(keep[..., None], self.stretch_m, torch.zeros_like(self.stretch_m)), self.touched & keep
        )


def drag(
    state: ShearState,
    normal_N: Tensor,  # noqa: N803  (units keep their own capital letter, design convention 4)
    slide_m: Tensor,
    stiffness_N_m: float,  # noqa: N803
    friction: Tensor,
) -> tuple[Tensor, ShearState]:
    """Drag the gel's surface along by a given way.

    A piece that was not touched before begins with a spring at rest: it does not know how much of the way it had been
    touched for.

    Args:
        state: what the gel remembers.
        normal_N: float [B, h, w] >= 0, force that presses each piece, newton.
        slide_m: float [B, h, w, 2], how far what touches has moved along the pad since the last step, metres.
        stiffness_N_m: of the spring of one piece.
        friction: float [B] >= 0, Coulomb's coefficient.

    Returns:
        Force float [B, h, w, 2] on each piece of the gel, newton, along the way that it is dragged; and the new state.

    Raises:
        SpecError: a negative stiffness or friction, or an array that is not finite.
    """
    where = "drag"
    constants(where, zero=True, stiffness_N_m=stiffness_N_m)
    not_negative(f"{where}, normal_N", normal_N, 3)
    finite(f"{where}, slide_m", slide_m, 4)
    not_negative(f"{where}, friction", friction, 1)
    moved = torch.where(state.touched[..., None], state.stretch_m + slide_m, torch.zeros_like(slide_m))
    return slip(moved, normal_N, stiffness_N_m, friction)


def slip(
    stretch_m: Tensor,
    normal_N: Tensor,  # noqa: N803
    stiffness_N_m: float,  # noqa: N803
    friction: Tensor,
) -> tuple[Tensor, ShearState]:
    """Let the ends of springs slip until friction holds them; arguments and results as of :func:`drag`."""
    limit = friction[:, None, None] * normal_N
    pull = stiffness_N_m * stretch_m.square().sum(-1).clamp(min=_TINY).sqrt()
    share = (limit / pull.clamp(min=_TINY)).clamp(max=1.0)
    kept = stretch_m * share[..., None]
    return stiffness_N_m * kept, ShearState(kept, normal_N > 0)
