"""Small rigid motions as six numbers, and rigid transforms applied to many points."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-2  # squared angle below which the series is used: its first left-out term is under 1e-17


def exp_twist(twist: Tensor) -> Tensor:
    """Rigid transforms [..., 4, 4] of twists [..., 6]: rotation vector in radians, then velocity in metres.

    The exponential map of SE(3) in closed form (Murray, Li and Sastry, 1994), exact and differentiable through zero.
    """
    turn, shift = twist[..., :3], twist[..., 3:]
    square = (turn * turn).sum(-1)[..., None, None]
    small = square < _SMALL
    # The other branch gets a harmless angle, so that its gradient is finite where it is not taken.
    angle = torch.where(small, 1.0, square).sqrt()
    t = torch.where(small, square, 0.0)
    # sin(a)/a, (1 - cos a)/a^2 and (a - sin a)/a^3
    first = torch.where(small, _series(t, (1, 6, 120, 5040, 362880, 39916800)), angle.sin() / angle)
    second = torch.where(
        small, _series(t, (2, 24, 720, 40320, 3628800, 479001600)), 2 * (angle / 2).sin() ** 2 / angle**2
    )
    third = torch.where(
        small, _series(t, (6, 120, 5040, 362880, 39916800, 6227020800)), (angle - angle.sin()) / angle**3
    )
    skew = skew_of(turn)
    twice = skew @ skew
    eye = torch.eye(3, dtype=twist.dtype, device=twist.device)
    rotation = eye + first * skew + second * twice
    moved = (eye + second * skew + third * twice) @ shift[..., None]
    return rigid(rotation, moved[..., 0])


def skew_of(vector: Tensor) -> Tensor:
    """The matrices [..., 3, 3] that multiply as the cross product with vectors [..., 3]."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape, 3)


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """Transforms [..., 4, 4] of 3x3 matrices [..., 3, 3] and translations [..., 3]."""
    top = torch.cat([rotation, translation[..., None]], -1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1.0
    return torch.cat([top, bottom], -2)


def invert_rigid(a_from_b: Tensor) -> Tensor:
    """``b_from_a`` [..., 4, 4] of rigid transforms [..., 4, 4]."""
    back = a_from_b[..., :3, :3].transpose(-1, -2)
    return rigid(back, -(back @ a_from_b[..., :3, 3:])[..., 0])


def _series(t: Tensor, divisors: tuple[int, ...]) -> Tensor:
    """The alternating sum of t^k / divisors[k]."""
    total = torch.zeros_like(t)
    for power, divisor in reversed(list(enumerate(divisors))):
        total = (-1.0) ** power / divisor + t * total
    return total
