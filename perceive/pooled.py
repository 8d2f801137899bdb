"""PooledTrunk: each sensor on its own, then all sensors at once - what attention over all tokens is compared to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from perceive.geometry import full_precision, widened
from perceive.tokens import Tokens
from perceive.trunk import BaseTrunk, MetricPosition
from perceive.vtt.product_of_experts import LEAST_VARIANCE, SURE, product_of_gaussians
from sensors.errors import WiringError

FUSIONS = ("concatenation", "product_of_experts")


@final
class PooledTrunk(BaseTrunk):
    """Late fusion of the same tokens, with the same places, as :class:`perceive.trunk.Trunk` has.

    Half of the blocks change each token by itself; then each sensor's tokens are summed up by attention of a learned
    query, the sensors' sums are fused to one vector, which is added to every token; the other half of the blocks
    follow. So a token of one sensor meets those of another in that one vector only. Two ways to fuse:

    - "concatenation": one sum beside the other, then an MLP (Lee et al., "Making Sense of Vision and Touch", ICRA
      2019); a sensor that is absent counts as zeros;
    - "product_of_experts": each sensor says a Gaussian, and the mean of their product and a standard one goes through
      the MLP (Hinton, Neural Computation 2002; Lee et al., T-RO 2020); an absent sensor is no factor. Nothing is drawn
      from the product.

    Args:
        width: D.
        num_tokens: not used, nothing is numbered here.
        sensors: S, how many sensors there are; a model says it.
        fusion: how.
        depth: number of blocks, even.
        heads: of the attention that sums a sensor up.
        hidden: width of the MLP after the fusion.
        mlp_ratio: hidden width of a block over D.
        shortest_m: shortest wavelength of position.
        longest_m: longest wavelength of position.
        longest_s: wavelength of age.

    Raises:
        WiringError: a size that does not divide, or an unknown fusion.
    """

    def __init__(
        self,
        width: int,
        num_tokens: int,
        sensors: int = 1,
        fusion: str = "concatenation",
        depth: int = 4,
        heads: int = 4,
        hidden: int = 256,
        mlp_ratio: float = 3.0,
        shortest_m: float = 0.05,
        longest_m: float = 2.0,
        longest_s: float = 2.0,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise WiringError("PooledTrunk.fusion", f"one of {FUSIONS}", repr(fusion), "Choose one.")
        if width % heads or depth < 2 or depth % 2 or sensors < 1:
            got = f"width {width}, heads {heads}, depth {depth}, sensors {sensors}"
            raise WiringError("PooledTrunk", "width / heads whole, an even depth, sensors >= 1", got, "Change one.")
        self._heads, self._sensors, self._product = heads, sensors, fusion == "product_of_experts"
        self.situate = MetricPosition(width, 2 * (width // 2), shortest_m, longest_m, longest_s)
        self.before = nn.ModuleList(TokenBlock(width, mlp_ratio) for _ in range(depth // 2))
        self.after = nn.ModuleList(TokenBlock(width, mlp_ratio) for _ in range(depth // 2))
        self.query = nn.Parameter(torch.randn(sensors, heads, width // heads) * 0.5)
        self.pooled = nn.LayerNorm(width)
        if self._product:
            self.say = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(sensors))
        joined = width if self._product else sensors * width
        self.fuse = nn.Sequential(nn.Linear(joined, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tokens, origin_m: Tensor, readout_groups: Sequence[slice] = ()) -> Tensor:
        """Features [B, N, D] after the blocks; see :meth:`perceive.trunk.BaseTrunk.forward`.

        Raises:
            WiringError: tokens of another number of sensors.
        """
        position = torch.where(tokens.placed[..., None], tokens.position_m - origin_m[:, None], 0.0)
        with full_precision(position.device):
            added, _ = self.situate(position, tokens.age_s, tokens.placed)
        features = tokens.features + added
        for block in self.before:
            features = block(features)
        features = features + self._fused(replace(tokens, features=features), readout_groups)[:, None]
        for block in self.after:
            features = block(features)
        result: Tensor = self.norm(features)
        return result

    def _fused(self, tokens: Tokens, readout_groups: Sequence[slice]) -> Tensor:
        """One vector [B, D] of all sensors."""
        first = min((group.start for group in readout_groups), default=tokens.valid.shape[1])
        groups = [group for group in tokens.groups.values() if group.stop <= first] or [slice(0, first)]
        if len(groups) != self._sensors:
            fix = "Make it with sensors=... of the model."
            raise WiringError("PooledTrunk", f"tokens of {self._sensors} sensors", f"of {len(groups)}", fix)
        pairs = [self._summed(tokens, group, query) for group, query in zip(groups, self.query, strict=True)]
        sums, there = torch.stack([pair[0] for pair in pairs], 1), torch.stack([pair[1] for pair in pairs], 1)
        if self._product:
            said = torch.stack([say(sums[:, index]) for index, say in enumerate(self.say)], 1)
            with full_precision(said.device):
                means, spread = widened(said).chunk(2, -1)
                joined, _ = product_of_gaussians(means, softplus(spread - SURE) + LEAST_VARIANCE, there)
        else:
            joined = torch.where(there[..., None], sums, 0.0).flatten(1)
        fused: Tensor = self.fuse(joined)
        return fused

    def _summed(self, tokens: Tokens, group: slice, query: Tensor) -> tuple[Tensor, Tensor]:
        """A sensor's tokens as one vector [B, D], and whether there was any, bool [B]."""
        valid = tokens.valid[:, group]
        features = tokens.features[:, group]
        parts = features.reshape(*features.shape[:2], self._heads, -1)
        score = torch.einsum("bnhc,hc->bnh", parts, query) / math.sqrt(query.shape[-1])
        weight = score.masked_fill(~valid[..., None], torch.finfo(score.dtype).min).softmax(1)
        summed: Tensor = self.pooled(torch.einsum("bnh,bnhc->bhc", weight, parts).flatten(1))
        return summed, valid.any(1)


class TokenBlock(nn.Module):
    """The feed-forward part of a pre-norm transformer block: each token by itself."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, features: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        result: Tensor = features + self.mlp(self.norm(features))
        return result
