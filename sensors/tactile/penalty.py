"""The gel as a bed of springs: pressure that grows with how far something reaches in (Winkler foundation).

Each piece of the gel is pressed by what stands in it and knows nothing of its neighbours. That is the force field of
TacSL (Akinola et al., T-RO 2025, arXiv 2408.06506), and what a thin compressible layer does (K. L. Johnson, Contact
Mechanics, 1985, section 4.3). A ball's force grows with the square of its depth; see :mod:`sensors.tactile.elastic` for
a gel whose pieces hold on to each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensors.errors import SpecError
from sensors.tactile.checks import constants, not_negative


@dataclass(frozen=True)
class BedStiffness:
    """How much pressure a displacement of a gel's surface costs.

    Attributes:
        normal_N_m3: pressure per overlap, Pa / m.
        shear_N_m3: shear stress per displacement sideways, Pa / m.
    """

    normal_N_m3: float  # noqa: N815  (units keep their own capital letter, design convention 4)
    shear_N_m3: float  # noqa: N815


def layer_stiffness(modulus_Pa: float, poisson: float, thickness_m: float) -> BedStiffness:  # noqa: N803
    """Stiffness of a layer that is bonded to a hard ground and much thinner than the contact is wide.

    Its sides cannot give way, so it is pressed by the oedometric modulus, which grows beyond all bounds as ``poisson``
    goes to 1/2; sideways by the shear modulus.

    Raises:
        SpecError: a number is out of its range.
    """
    constants("layer_stiffness", modulus_Pa=modulus_Pa, thickness_m=thickness_m)
    if not 0 <= poisson < 0.5:
        fix = "A gel that keeps its volume has no stiffness of its own per area; use sensors.tactile.elastic."
        raise SpecError("layer_stiffness, poisson", "0 <= poisson < 0.5", repr(poisson), fix)
    oedometric = modulus_Pa * (1 - poisson) / ((1 + poisson) * (1 - 2 * poisson))
    return BedStiffness(oedometric / thickness_m, modulus_Pa / (2 * (1 + poisson)) / thickness_m)


def winkler_pressure(overlap_m: Tensor, stiffness_N_m3: float) -> Tensor:  # noqa: N803
    """Pressure of springs that stand side by side.

    Args:
        overlap_m: float [B, h, w] >= 0, metres.
        stiffness_N_m3: pressure per overlap, Pa / m.

    Returns:
        Pressure float [B, h, w], Pa.

    Raises:
        SpecError: a negative stiffness, or an overlap that is negative or not finite.
    """
    constants("winkler_pressure", zero=True, stiffness_N_m3=stiffness_N_m3)
    return stiffness_N_m3 * not_negative("winkler_pressure, overlap_m", overlap_m, 3)


def winkler_under_load(overlap_m: Tensor, stiffness_N_m3: float, point_m2: float, load_N: Tensor) -> Tensor:  # noqa: N803
    """Pressure of the same springs when it is known how hard they are pressed.

    A simulator with rigid bodies knows the force and the shapes, but not how deep a shape is pressed into a gel that it
    does not simulate. The depth follows from the force: the shape moves along the pad's normal, in or out, until the
    springs carry just the load. Where it did not overlap before it does not press: how far off it is there is unknown.

    Args:
        overlap_m: float [B, h, w] >= 0, metres.
        stiffness_N_m3: pressure per overlap, Pa / m.
        point_m2: area of one point of the grid, square metres.
        load_N: float [B] >= 0, newton.

    Returns:
        Pressure float [B, h, w], Pa. Times ``point_m2`` its sum is the load, wherever there is any overlap.

    Raises:
        SpecError: a constant that is not positive, or an array that is negative or not finite.
    """
    where = "winkler_under_load"
    constants(where, stiffness_N_m3=stiffness_N_m3, point_m2=point_m2)
    shape = not_negative(f"{where}, overlap_m", overlap_m, 3).shape
    load = not_negative(f"{where}, load_N", load_N, 1).to(overlap_m)
    flat = overlap_m.flatten(1)
    # With n springs pressed, the shape has to move by (load / (k A) - their sum) / n. Springs are pressed from the
    # deepest down, so the right n is the largest that leaves the shallowest of them pressed.
    deep, order = flat.sort(dim=1, descending=True, stable=True)
    count = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    move = (load[:, None] / (stiffness_N_m3 * point_m2) - deep.cumsum(1)) / count
    pressed = (deep > 0) & (deep + move > 0) & (load > 0)[:, None]  # rounding would leave a trace of no load
    last = (pressed.sum(1) - 1).clamp(min=0)
    depth = torch.where(
        pressed.any(1, keepdim=True) & (deep > 0), deep + move.gather(1, last[:, None]), torch.zeros_like(deep)
    )
    return stiffness_N_m3 * torch.zeros_like(flat).scatter(1, order, depth.clamp(min=0)).view(shape)
