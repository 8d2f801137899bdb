"""What is read out of a touch: where and how an object is pressed in.

Of which shape it is, :class:`perceive.heads.classification.ClassHead` tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perceive.heads.base import Head, HeadContext
from sensors.errors import WiringError


@dataclass(frozen=True, eq=False)
class PressPose:
    """Where an object stands in the gel, in the frame of the pad.

    Attributes:
        xy_m: float [B, 2], from the middle of the pad, +x to the right of the picture and +y down.
        yaw_rad: float [B], from +x towards +y, within half a period around 0.
        depth_m: float [B], how deep its lowest point stands in the untouched gel.
    """

    xy_m: Tensor
    yaw_rad: Tensor
    depth_m: Tensor


@dataclass(frozen=True, eq=False)
class PressTarget:
    """What a pose head is to learn.

    Attributes:
        xy_m: float [B, 2].
        yaw_rad: float [B], whatever where it is not known.
        depth_m: float [B].
        yaw_known: bool [B]; False of round shapes.
    """

    xy_m: Tensor
    yaw_rad: Tensor
    depth_m: Tensor
    yaw_known: Tensor


class PressPoseHead(Head):
    """In-hand pose of what is pressed in.

    The place is pointed at, as by :class:`perceive.heads.pointing.PointingHead`: a weighted mean of the places of the
    tokens and of a small offset that each proposes, so that geometry enters linearly and holds for pads of any size.

    Args:
        width: D.
        hidden: width of the MLPs.
        period_rad: turn after which the shapes look the same: pi for bars and boxes.
        offset_m: bound of each token's offset, per axis; about a patch.
        depth_scale_m: depth that is 1.

    Raises:
        WiringError: a number is not positive.
    """

    def __init__(
        self,
        width: int,
        hidden: int = 128,
        period_rad: float = math.pi,
        offset_m: float = 0.003,
        depth_scale_m: float = 0.0005,
    ) -> None:
        super().__init__()
        if min(period_rad, offset_m, depth_scale_m) <= 0:
            got = f"{period_rad}, {offset_m}, {depth_scale_m}"
            raise WiringError("PressPoseHead", "period_rad, offset_m, depth_scale_m > 0", got, "Correct them.")
        self._harmonic = 2 * math.pi / period_rad
        self._offset_m, self._depth_scale_m = offset_m, depth_scale_m
        self._scale = 1 / math.sqrt(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.propose = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 2))
        self.out = nn.Sequential(nn.Linear(2 * width, hidden), nn.GELU(), nn.Linear(hidden, 5))

    @property
    def num_readouts(self) -> int:
        return 1

    def fit(self, stats: Any) -> None:
        """Nothing to fit: the scales are given."""

    def forward(self, context: HeadContext) -> PressPose:
        place, direction, depth = self._latent(context)
        yaw = torch.atan2(direction[:, 1], direction[:, 0]) / self._harmonic
        return PressPose(place * self._offset_m, yaw, depth * self._depth_scale_m)

    def loss(self, context: HeadContext, target: PressTarget) -> dict[str, Tensor]:
        """``place``, ``yaw``, ``depth``: smooth L1 in units of the scales, the yaw as a direction.

        Logged only: ``_place_m``, ``_yaw_rad`` and ``_depth_m``, mean absolute errors (the place's by distance).
        """
        place, direction, depth = self._latent(context)
        angle = self._harmonic * target.yaw_rad
        wanted = torch.stack([angle.cos(), angle.sin()], -1)
        known = target.yaw_known
        counted = known.sum().clamp_min(1)
        off = nn.functional.smooth_l1_loss(direction, torch.where(known[:, None], wanted, 0.0), reduction="none").sum(1)
        terms = {
            "place": nn.functional.smooth_l1_loss(place, target.xy_m / self._offset_m),
            "yaw": torch.where(known, off, 0.0).sum() / counted,
            "depth": nn.functional.smooth_l1_loss(depth, target.depth_m / self._depth_scale_m),
        }
        with torch.no_grad():
            errors = pose_errors(self(context), target, 2 * math.pi / self._harmonic)
            yaw = torch.where(known, errors["yaw_rad"], 0.0).sum() / counted
            terms |= {
                "_place_m": errors["place_m"].mean(),
                "_yaw_rad": yaw,
                "_depth_m": errors["depth_m"].mean(),
            }
        return terms

    def _latent(self, context: HeadContext) -> tuple[Tensor, Tensor, Tensor]:
        """Place [B, 2], direction [B, 2] and depth [B], in units of the scales."""
        tokens, readout = context.tokens, context.readouts[:, 0]
        usable = tokens.valid & tokens.placed
        score = (self.key(tokens.features) @ self.query(readout)[..., None])[..., 0] * self._scale
        score = torch.where(usable, score, torch.finfo(score.dtype).min)
        # A sample without usable tokens has equal scores everywhere; selecting afterwards makes its weights zero.
        weights = torch.where(usable, score.softmax(-1), 0.0)[:, None]
        place = (tokens.position_m - context.origin_m[:, None])[..., :2] / self._offset_m
        place = torch.where(usable[..., None], place + self.propose(tokens.features).tanh(), 0.0)
        seen = weights @ torch.where(usable[..., None], self.value(tokens.features), 0.0)
        out: Tensor = self.out(torch.cat([readout, seen[:, 0]], -1))
        return (weights @ place)[:, 0] + out[:, :2], out[:, 2:4], out[:, 4]


def pose_errors(pose: PressPose, target: PressTarget, period_rad: float = math.pi) -> dict[str, Tensor]:
    """Absolute errors of each sample [B]: ``place_m`` (distance), ``yaw_rad`` (of a turn that repeats), ``depth_m``."""
    turn = (pose.yaw_rad - target.yaw_rad + period_rad / 2).remainder(period_rad) - period_rad / 2
    place = (pose.xy_m - target.xy_m).norm(dim=-1)
    return {"place_m": place, "yaw_rad": turn.abs(), "depth_m": (pose.depth_m - target.depth_m).abs()}
