"""Shear under a given load: how far a gel gives way sideways until it carries what a rigid contact carries.

A simulator with rigid bodies knows the force through a contact and none of the small motion in a gel that it does not
simulate. But the gel lies between finger and object, so the same force and torque go through it. They determine how far
the object has shifted and turned on the gel (three numbers), and these how far each piece is dragged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensors.tactile.checks import constants, finite, not_negative
from sensors.tactile.shear import ShearState, slip

_MOST = 0.999  # of what friction can hold: at the limit itself the way would be without bound
_DENTED = 0.25  # the limit surface of a square or uneven contact lies a little inside of the ellipsoid
_STEPS, _HALVINGS = 20, 8
_TINY = 1e-30


def carry(
    state: ShearState,
    normal_N: Tensor,  # noqa: N803  (units keep their own capital letter, design convention 4)
    load_N: Tensor,  # noqa: N803
    twist_Nm: Tensor,  # noqa: N803
    places_m: Tensor,
    stiffness_N_m: float,  # noqa: N803
    friction: Tensor,
) -> tuple[Tensor, ShearState]:
    """Drag the gel's surface as a rigid body until it carries a load, or as much of it as friction holds.

    The forces are the slope of a convex function of the rigid motion, so there is one answer, found by Newton's method
    with halved steps. A torque beyond the limit surface (taken as an ellipsoid in force and torque about the centre of
    pressure, Howe and Cutkosky, IJRR 1996) is cut down to it, since the force is what holds a weight.

    Args:
        state: what the gel remembers.
        normal_N: float [B, h, w] >= 0, newton.
        load_N: float [B, 2], force on the gel along x and y of the pad, newton.
        twist_Nm: float [B], torque on the gel about the pad's +z through its middle, newton metres.
        places_m: float [h, w, 2], x and y of each piece, metres.
        stiffness_N_m: of the spring of one piece.
        friction: float [B] >= 0, Coulomb's coefficient.

    Returns:
        Force float [B, h, w, 2] on each piece of the gel, newton; and the new state.

    Raises:
        SpecError: a stiffness that is not positive, negative friction, or an array that is not finite.
    """
    where = "carry"
    constants(where, stiffness_N_m=stiffness_N_m)
    not_negative(f"{where}, normal_N", normal_N, 3)
    not_negative(f"{where}, friction", friction, 1)
    wanted = torch.cat([finite(f"{where}, load_N", load_N, 2), finite(f"{where}, twist_Nm", twist_Nm, 1)[:, None]], 1)
    reach_m = float(places_m.square().sum(-1).max().sqrt()) or 1.0
    wanted = _held(wanted, normal_N, places_m, friction) / wanted.new_tensor([1.0, 1.0, reach_m])
    # Ways [h * w * 2, 3] of each piece, along x and y, for a unit of (dx, dy, reach * turn).
    turned = torch.stack([-places_m[..., 1], places_m[..., 0]], -1) / reach_m
    ways = torch.cat(
        [torch.eye(2, dtype=places_m.dtype).to(places_m).expand(*places_m.shape, 2), turned[..., None]], -1
    ).flatten(0, 2)
    limit_m = friction[:, None, None] * normal_N / stiffness_N_m
    start = torch.where((normal_N > 0)[..., None], state.stretch_m, torch.zeros_like(state.stretch_m))
    pull, motion = wanted / stiffness_N_m, torch.zeros_like(wanted)
    close = 1e-10 * pull.abs().amax(1, keepdim=True) + 1e-18
    for _ in range(_STEPS):
        stretch = start + _way(ways, motion, start)
        length = stretch.square().sum(-1).clamp(min=_TINY).sqrt()
        share = (limit_m / length).clamp(max=1.0)
        missing = pull - (stretch * share[..., None]).flatten(1) @ ways
        if bool((missing.abs() <= close).all()):
            break
        bend = _bend(stretch / length[..., None], share, ways)
        floor = 1e-9 * torch.diagonal(bend, dim1=1, dim2=2).sum(-1).clamp(min=_TINY)
        step = torch.linalg.solve(bend + floor[:, None, None] * torch.eye(3).to(bend), missing)
        motion = _downhill(
            motion, step, lambda way: _cost(start + _way(ways, way, start), limit_m) - (way * pull).sum(1)
        )
    return slip(start + _way(ways, motion, start), normal_N, stiffness_N_m, friction)


def _held(wanted: Tensor, normal: Tensor, places_m: Tensor, friction: Tensor) -> Tensor:
    """The part of force and torque [B, 3] that friction can hold."""
    total = normal.sum((1, 2)).clamp(min=_TINY)
    centre = torch.einsum("bhw,hwi->bi", normal, places_m) / total[:, None]
    arm_m = (places_m - centre[:, None, None]).square().sum(-1).sqrt()
    most, most_twist = _MOST * friction * total, _MOST * friction * (normal * arm_m).sum((1, 2))
    force = wanted[:, :2]
    force = force * (most / force.square().sum(1).clamp(min=_TINY).sqrt()).clamp(max=1.0)[:, None]
    used = force.square().sum(1) / most.square().clamp(min=_TINY)
    left = (1.0 - used).clamp(min=0.0).sqrt() * (1.0 - _DENTED * used) * most_twist
    lever = centre[:, 0] * force[:, 1] - centre[:, 1] * force[:, 0]
    twist = torch.maximum(torch.minimum(wanted[:, 2] - lever, left), -left) + lever
    return torch.cat([force, twist[:, None]], 1)


def _downhill(motion: Tensor, step: Tensor, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """The motion [B, 3] after a step, halved until it leads down; each sample by itself."""
    before, share = cost(motion), torch.ones_like(motion[:, :1])
    for _ in range(_HALVINGS):
        # To rounding: at the bottom the cost does not change any more, while the slope still can.
        high = cost(motion + share * step) > before + 1e-12 * before.abs()
        if not bool(high.any()):
            break
        share = torch.where(high[:, None], share / 2, share)
    return motion + share * step


def _way(ways: Tensor, motion: Tensor, like: Tensor) -> Tensor:
    """How far [B, h, w, 2] a rigid motion [B, 3] drags each piece."""
    return (motion @ ways.T).view_as(like)


def _cost(stretch: Tensor, limit_m: Tensor) -> Tensor:
    """Energy [B] over stiffness: a parabola that goes on straight where the spring slips."""
    length = stretch.square().sum(-1).sqrt()
    held = torch.minimum(length, limit_m)
    return (held * length - held.square() / 2).sum((1, 2))


def _bend(towards: Tensor, share: Tensor, ways: Tensor) -> Tensor:
    """Second derivatives [B, 3, 3] of the energy by the rigid motion; the first are the forces' sums over the ways.

    Sticking pieces resist every way, slipping ones only ways across their slip.
    """
    bend = ways.T @ (share.flatten(1).repeat_interleave(2, 1)[..., None] * ways)
    slips = torch.where(share < 1.0, share, torch.zeros_like(share)).flatten(1)
    if bool(slips.any()):
        along = (towards.flatten(1)[..., None] * ways).reshape(len(towards), -1, 2, 3).sum(2)  # [B, h * w, 3]
        bend = bend - along.mT @ (slips[..., None] * along)
    return bend
