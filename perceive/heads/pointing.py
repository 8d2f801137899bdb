"""Pointing: the target position is read as an attention-weighted mean of token positions plus a small offset."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceive.batch import ActionTarget
from perceive.heads.base import ActionChunk, Head, HeadContext
from perceive.heads.codec import ActionCodec, chunk_l1
from perceive.normalize import FieldStats
from sensors.action import ActionSpec
from sensors.errors import WiringError


class PointingHead(Head):
    """Action chunks whose position is pointed at, so that geometry enters linearly.

    For step k with readout r_k: weights w_kn = softmax over the valid, placed tokens n of a scaled dot product of
    r_k and the token's feature; position = sum_n w_kn (p_n + o_n) + d_k, with p_n the token's place, o_n a bounded
    offset that the token proposes (its patch knows where inside it the object is), and d_k an offset from the readout
    (how high above the object to hover). Rotation, gripper and the rest are regressed from readout and what was
    pointed at. A model without any placed token falls back to d_k from the origin.

    Args:
        width: D.
        action_spec: needs the part ``position_m``.
        chunk: K.
        hidden: width of the MLPs.
        offset_m: bound of each token's proposed offset, per axis.

    Raises:
        WiringError: the action mode has no position in metres.
    """

    def __init__(
        self, width: int, action_spec: ActionSpec, chunk: int = 8, hidden: int = 128, offset_m: float = 0.06
    ) -> None:
        super().__init__()
        if "position_m" not in action_spec.parts:
            raise WiringError(
                "PointingHead",
                "an action with a position in metres (mode ee_pose)",
                f"mode {action_spec.mode.value}",
                "Record with action_mode=ee_pose, or use the regression head.",
            )
        self._chunk = chunk
        self._offset_m = offset_m
        self._scale = 1.0 / math.sqrt(width)
        self._position = action_spec.part("position_m")
        self.codec = ActionCodec(action_spec)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.propose = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 3))
        self.waves: Tensor
        wavelengths_m = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.8])
        self.register_buffer("waves", 2 * math.pi / wavelengths_m, persistent=False)
        inputs = 2 * width + 3 + 6 * len(wavelengths_m)
        self.out = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, action_spec.size))

    @property
    def num_readouts(self) -> int:
        return self._chunk

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the action normaliser."""
        self.codec.fit(stats)

    def forward(self, context: HeadContext) -> ActionChunk:
        return ActionChunk(self.codec.decode(self._latent(context), context))

    def loss(self, context: HeadContext, target: ActionTarget) -> dict[str, Tensor]:
        """``position`` and ``rest``: L1 in latent units; ``_position_m``: mean absolute error per axis in metres."""
        latent = self._latent(context)
        wanted = self.codec.encode(target.values, context)
        rest = [i for i in range(latent.shape[-1]) if i not in range(self._position.start, self._position.stop)]
        position = chunk_l1(latent[..., self._position], wanted[..., self._position], target.valid)
        terms = {"position": position, "_position_m": position.detach() * self.codec.reach_m}
        if rest:
            terms["rest"] = chunk_l1(latent[..., rest], wanted[..., rest], target.valid)
        return terms

    def weights(self, context: HeadContext) -> Tensor:
        """Pointing weights [B, K, N]; 0 on tokens that are invalid or without a place."""
        tokens = context.tokens
        usable = (tokens.valid & tokens.placed)[:, None]
        score = self.query(context.readouts) @ self.key(tokens.features).transpose(1, 2) * self._scale
        score = torch.where(usable, score, torch.finfo(score.dtype).min)
        # A sample without usable tokens has equal scores everywhere; selecting afterwards makes its weights zero.
        return torch.where(usable, score.softmax(-1), 0.0)

    def _latent(self, context: HeadContext) -> Tensor:
        tokens = context.tokens
        weights = self.weights(context)
        place = tokens.position_m - context.origin_m[:, None] + self._offset_m * self.propose(tokens.features).tanh()
        place = torch.where((tokens.valid & tokens.placed)[..., None], place, 0.0)
        pointed_m = weights @ place
        # What to do depends on where the tool is from there (high beside a box, low above it), so d_k is told.
        waves = (pointed_m[..., None] * self.waves).flatten(-2)
        seen = weights @ self.value(tokens.features)
        inputs = [context.readouts, seen, pointed_m / self._offset_m, waves.sin(), waves.cos()]
        latent: Tensor = self.out(torch.cat(inputs, -1))
        pointed = torch.zeros_like(latent)
        pointed[..., self._position] = pointed_m / self.codec.reach_m
        return latent + pointed
