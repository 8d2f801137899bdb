"""Rotations as three bins of Euler angles, the classes of PerAct and RVT."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from perceive.geometry import full_precision
from sensors.errors import SpecError

BINS = 72


@final
class RotationBins:
    """Rotation matrices <-> three bins, one per Euler angle (Shridhar et al., CoRL 2022; Goyal et al., CoRL 2023).

    The angles are roll, pitch, yaw about the *fixed* axes x, y, z in that order: ``R = Rz(yaw) Ry(pitch) Rx(roll)``,
    which scipy calls ``"xyz"`` (lower case, extrinsic). Bin ``i`` stands for the angle ``i * 360 / bins - 180``
    degrees and holds what is nearest to it, so 180 degrees falls into bin 0, like -180.

    Gimbal rule: with the pitch at +-90 degrees roll and yaw turn about one axis, and one rotation has many pairs of
    angles. Within ``gimbal_deg`` of there the pitch counts as +-90, the yaw as 0, and the roll takes the whole turn,
    so that equal rotations have equal bins.

    Args:
        bins: bins per angle; a multiple of 4, so that 0 and +-90 degrees are bin centres.
        gimbal_deg: how near to +-90 degrees the pitch counts as there.

    Raises:
        SpecError: ``bins`` is not a positive multiple of 4, or ``gimbal_deg`` is not less than half a bin.
    """

    def __init__(self, bins: int = BINS, gimbal_deg: float = 1.0) -> None:
        if bins < 4 or bins % 4:
            raise SpecError("RotationBins.bins", "a positive multiple of 4", str(bins), "Use 72 for bins of 5 degrees.")
        if not 0 <= gimbal_deg <= 180 / bins:
            raise SpecError(
                "RotationBins.gimbal_deg", f"0 to {180 / bins:g}, half a bin", str(gimbal_deg), "Use 1 degree."
            )
        self.bins = bins
        self._step_rad = 2 * math.pi / bins
        self._gimbal_rad = math.radians(gimbal_deg)

    def encode(self, rotation: Tensor) -> Tensor:
        """Bins int64 [..., 3] (roll, pitch, yaw) of rotation matrices [..., 3, 3]."""
        angles = euler_of(rotation, self._gimbal_rad)
        return ((angles + math.pi) / self._step_rad).round().long() % self.bins

    def decode(self, bins: Tensor) -> Tensor:
        """Rotation matrices float32 [..., 3, 3] at the centres of bins [..., 3]."""
        return matrix_of(bins.double() * self._step_rad - math.pi).float()


def euler_of(rotation: Tensor, gimbal_rad: float = 0.0) -> Tensor:
    """Roll, pitch, yaw [..., 3] in radians, double precision, of ``Rz(yaw) Ry(pitch) Rx(roll)`` [..., 3, 3].

    Args:
        rotation: rotation matrices.
        gimbal_rad: within this of +-pi/2 the pitch is taken as there, and the yaw as 0.
    """
    r = rotation.double()
    sine, cosine = -r[..., 2, 0], torch.hypot(r[..., 0, 0], r[..., 1, 0])
    roll = torch.atan2(r[..., 2, 1], r[..., 2, 2])
    pitch = torch.atan2(sine, cosine)  # well-conditioned everywhere, unlike asin
    yaw = torch.atan2(r[..., 1, 0], r[..., 0, 0])
    # These sums are (1 + |sin pitch|) times sine and cosine of roll - yaw (pitch up) or roll + yaw (pitch down).
    up = sine > 0
    sine_turn = torch.where(up, r[..., 0, 1] - r[..., 1, 2], -r[..., 0, 1] - r[..., 1, 2])
    cosine_turn = torch.where(up, r[..., 1, 1] + r[..., 0, 2], r[..., 1, 1] - r[..., 0, 2])
    quarter = math.pi / 2
    locked = quarter - pitch.abs() <= gimbal_rad
    return torch.stack(
        [
            torch.where(locked, torch.atan2(sine_turn, cosine_turn), roll),
            torch.where(locked, torch.where(up, quarter, -quarter), pitch),
            torch.where(locked, 0.0, yaw),
        ],
        -1,
    )


def matrix_of(euler_rad: Tensor) -> Tensor:
    """``Rz(yaw) Ry(pitch) Rx(roll)`` [..., 3, 3] of roll, pitch, yaw [..., 3]."""
    sine, cosine = euler_rad.sin(), euler_rad.cos()
    (sx, sy, sz), (cx, cy, cz) = sine.unbind(-1), cosine.unbind(-1)
    with full_precision(euler_rad.device):
        rows = (
            (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
            (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
            (-sy, cy * sx, cy * cx),
        )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
