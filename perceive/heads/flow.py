"""Action chunks by flow matching: noise is carried to an action along a learned flow."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceive.batch import ActionTarget
from perceive.heads.base import ActionChunk, Head, HeadContext
from perceive.heads.codec import ActionCodec
from perceive.normalize import FieldStats
from perceive.trunk import Block
from sensors.action import ActionSpec
from sensors.errors import WiringError


class FlowMatchingHead(Head):
    """Conditional flow matching (Lipman et al., ICLR 2023) with straight paths (Liu et al., 2023), as in pi0 (2024).

    With x_1 the wanted chunk in the codec's latent space, x_0 standard normal noise and x_t = (1 - t) x_0 + t x_1, a
    small transformer over the K steps learns to tell x_1 from x_t, t and one readout per step; the velocity of the
    flow is (x_1 - x_t) / (1 - t). (Told this way, what the network has to say stays of order one for all t: Li and He,
    2025.) An answer integrates the velocity from t = 0 to 1 by Euler's method. Unlike a regressed mean, it can be one
    of several ways to do a task.

    The noise of an answer is fixed by ``seed``, so the same observation gives the same action, alone or in a batch.
    Training draws its noise and times from torch's global generator.

    Args:
        width: D.
        action_spec: meaning of the entries.
        chunk: K.
        depth: blocks of the network.
        attention_heads: of each block; must divide ``width``.
        steps: Euler steps of an answer.
        reach_m: offset from the tool that becomes 1, so that positions are about as large as the noise.
        seed: of an answer's noise; None = new noise from torch's global generator each time.

    Raises:
        WiringError: ``steps`` below 1, or heads that do not divide the width.
    """

    def __init__(
        self,
        width: int,
        action_spec: ActionSpec,
        chunk: int = 8,
        depth: int = 2,
        attention_heads: int = 4,
        steps: int = 8,
        reach_m: float = 0.2,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise WiringError("FlowMatchingHead.steps", "at least 1", f"{steps}", "More steps follow the flow closer.")
        if width % attention_heads:
            raise WiringError(
                "FlowMatchingHead.attention_heads",
                f"a divisor of the width {width}",
                f"{attention_heads}",
                "Change it.",
            )
        self._chunk = chunk
        self._steps = steps
        self._fixed = seed is not None
        self.codec = ActionCodec(action_spec, reach_m)
        bands = 8
        self.enter = nn.Sequential(nn.Linear(action_spec.size + 2 * bands, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, attention_heads, 2.0, 0.0) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, action_spec.size))
        self.noise: Tensor
        self.frequency: Tensor
        # Drawn on the CPU, so that it is the same on every device.
        noise = torch.randn(1, chunk, action_spec.size, generator=torch.Generator().manual_seed(seed or 0))
        self.register_buffer("noise", noise, persistent=False)
        # Periods from 4 down to about 0.03 of the way.
        self.register_buffer("frequency", 0.5 * math.pi * 2.0 ** torch.arange(bands), persistent=False)

    @property
    def num_readouts(self) -> int:
        return self._chunk

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Fit the action normaliser."""
        self.codec.fit(stats)

    def forward(self, context: HeadContext) -> ActionChunk:
        shape = (context.readouts.shape[0], self._chunk, self.noise.shape[-1])
        noise = self.noise.expand(shape) if self._fixed else torch.randn(shape, device=self.noise.device)
        latent = noise.to(context.readouts.dtype)
        everything = torch.ones(shape[:2], dtype=torch.bool, device=latent.device)
        for step in range(self._steps):
            time = latent.new_full((shape[0],), step / self._steps)
            end = self._end(latent, time, everything, context)
            # (end - latent) / (1 - t) for 1 / steps of time; the last step arrives at the end itself.
            latent = latent + (end - latent) / (self._steps - step)
        return ActionChunk(self.codec.decode(latent, context))

    def loss(self, context: HeadContext, target: ActionTarget) -> dict[str, Tensor]:
        """``flow``: mean squared error of the flow's end over the valid steps, in latent units."""
        keep = target.valid[..., None]
        # Steps beyond an episode's end may hold anything: selected to zero, and hidden from the other steps below.
        wanted = torch.where(keep, self.codec.encode(target.values, context), 0.0)
        noise = torch.randn_like(wanted)
        time = torch.rand(wanted.shape[0], device=wanted.device, dtype=wanted.dtype)
        between = torch.lerp(noise, wanted, time[:, None, None])
        error = self._end(between, time, target.valid, context) - wanted
        squared = torch.where(keep, error, 0.0).square().sum()
        return {"flow": squared / (target.valid.sum().clamp_min(1) * wanted.shape[-1])}

    def _end(self, latent: Tensor, time: Tensor, valid: Tensor, context: HeadContext) -> Tensor:
        """Where the flow through [B, K, A] at times [B] ends; a step sees the valid steps [B, K] and itself."""
        angle = time[:, None] * self.frequency.to(time.dtype)
        clock = torch.cat([angle.sin(), angle.cos()], -1)[:, None].expand(-1, self._chunk, -1)
        features = context.readouts + self.enter(torch.cat([latent, clock], -1))
        own = torch.eye(self._chunk, dtype=torch.bool, device=valid.device)
        allowed = (valid[:, None, :] | own)[:, None]
        for block in self.blocks:
            features = block(features, None, allowed)
        end: Tensor = self.leave(features)
        return end
