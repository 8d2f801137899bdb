"""The whole shared transformer: rotary attention over metric position and age, the attention rule, the blocks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision, widened
from perceive.tokens import Tokens
from sensors.errors import WiringError


class BaseTrunk(nn.Module, ABC):
    """What takes the tokens of all sensors, and the readouts of all heads, and lets them know of each other."""

    @abstractmethod
    def forward(self, tokens: Tokens, origin_m: Tensor, readout_groups: Sequence[slice] = ()) -> Tensor:
        """Features [B, N, D]; absent tokens change nothing, and nothing sees the readouts of another head.

        Args:
            tokens: clean tokens, sensors first, then the readouts of each head.
            origin_m: [B, 3], the point that positions are relative to.
            readout_groups: the slices of ``tokens`` that are one head's readouts each.
        """


class Trunk(BaseTrunk):
    """Pre-norm transformer over situated tokens (Vaswani et al., 2017; rotary embedding: Su et al., 2021).

    Each pair of channels of a query or key is turned by an angle proportional to the token's position (x, y, z,
    relative to the origin) or age, so attention depends on *differences* of metres and seconds. Positions also enter
    as Fourier features relative to the origin. ``position="index"`` replaces both by a learned vector per token index
    (the classic alternative, for ablations).

    Args:
        width: D.
        num_tokens: N + R, tokens and readouts; used by ``position="index"`` only.
        depth: number of blocks.
        heads: attention heads; ``width / heads`` must be even and at least 16.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: on both residual branches, in training.
        position: ``"metric"`` or ``"index"``.
        shortest_m: shortest wavelength of position.
        longest_m: longest wavelength of position.
        longest_s: wavelength of age.

    Raises:
        WiringError: the width does not divide, or an unknown kind of position.
    """

    def __init__(
        self,
        width: int,
        num_tokens: int,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 3.0,
        dropout: float = 0.0,
        position: str = "metric",
        shortest_m: float = 0.05,
        longest_m: float = 2.0,
        longest_s: float = 2.0,
    ) -> None:
        super().__init__()
        if position not in ("metric", "index"):
            raise WiringError("Trunk.position", "'metric' or 'index'", repr(position), "Choose one.")
        if width % heads or (width // heads) % 2 or width // heads < 16:
            raise WiringError("Trunk", "width / heads even and >= 16", f"width {width}, heads {heads}", "Change one.")
        self._metric = position == "metric"
        if self._metric:
            self.situate = MetricPosition(width, width // heads, shortest_m, longest_m, longest_s)
        else:
            self.index = nn.Parameter(torch.randn(num_tokens, width) * 0.5)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tokens, origin_m: Tensor, readout_groups: Sequence[slice] = ()) -> Tensor:
        """Features [B, N, D] after the blocks; see :meth:`BaseTrunk.forward`."""
        features = tokens.features
        rotation: Tensor | None = None
        if self._metric:
            position = torch.where(tokens.placed[..., None], tokens.position_m - origin_m[:, None], 0.0)
            with full_precision(features.device):
                added, rotation = self.situate(position, tokens.age_s, tokens.placed)
            features = features + added
        else:
            features = features + self.index
        allowed = attention_rule(tokens.valid, readout_groups)[:, None]
        for block in self.blocks:
            features = block(features, rotation, allowed)
        result: Tensor = self.norm(features)
        return result


def attention_rule(valid: Tensor, readout_groups: Sequence[slice]) -> Tensor:
    """Which query may see which key, bool [B, N, N].

    Every query sees the valid tokens and itself; a readout also sees the readouts of its own head; nothing else sees
    a readout, so that one head cannot change another (Octo, 2024).
    """
    count = valid.shape[1]
    sensor_key = valid.clone()
    own = torch.eye(count, dtype=torch.bool, device=valid.device)
    for group in readout_groups:
        sensor_key[:, group] = False
        own[group, group] = True
    return sensor_key[:, None, :] | own[None]


class MetricPosition(nn.Module):
    """Position [B, N, 3] and age [B, N] -> added features [B, N, D] and the rotary turns, complex [B, N, C / 2].

    Args:
        width: D.
        head_width: channels of one attention head; a quarter of its pairs each for x, y, z and age.
        shortest_m: shortest wavelength.
        longest_m: longest wavelength.
        longest_s: longest wavelength of age.
    """

    def __init__(self, width: int, head_width: int, shortest_m: float, longest_m: float, longest_s: float) -> None:
        super().__init__()
        pairs = head_width // 2
        of_age = max(pairs // 8, 1)
        per_axis = (pairs - of_age) // 3
        table = torch.zeros(pairs, 4)  # angle per metre (x y z) or second; pairs left over stay unturned
        for axis in range(3):
            table[axis * per_axis : (axis + 1) * per_axis, axis] = (
                2 * math.pi / _geometric(shortest_m * 4, longest_m, per_axis)
            )
        table[3 * per_axis : 3 * per_axis + of_age, 3] = 2 * math.pi / _geometric(longest_s / 4, longest_s, of_age)
        bands = 6
        self.rotary: Tensor
        self.fourier: Tensor
        self.register_buffer("rotary", table, persistent=False)
        self.register_buffer("fourier", 2 * math.pi / _geometric(shortest_m, longest_m, bands), persistent=False)
        self.embed = nn.Linear(3 + 3 * 2 * bands + 2, width)

    def forward(self, position_m: Tensor, age_s: Tensor, placed: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.cat([position_m, age_s[..., None]], -1) @ self.rotary.T  # [B, N, pairs]
        waves = (position_m[..., None] * self.fourier).flatten(-2)
        there = placed[..., None].to(position_m.dtype)
        parts = [position_m * 5, waves.sin(), waves.cos()]
        inputs = torch.cat([*(part * there for part in parts), there, age_s[..., None].clamp_max(5)], -1)
        return self.embed(inputs), torch.polar(torch.ones_like(angle), angle)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self._heads = heads
        hidden = int(width * mlp_ratio)
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, features: Tensor, rotation: Tensor | None, allowed: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``rotation`` complex [B, N, C / 2]; ``allowed`` bool [B, 1, N, N]."""
        batch, count, width = features.shape
        packed = self.query_key_value(self.norm_attention(features)).view(batch, count, 3, self._heads, -1)
        pair, value = packed[:, :, :2], packed[:, :, 2]
        if rotation is not None:
            pair = rotate(pair, rotation[:, :, None, None])
        query, key = pair.permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value.transpose(1, 2), allowed)
        features = features + self.drop(self.out(attended.transpose(1, 2).reshape(batch, count, width)))
        result: Tensor = features + self.drop(self.mlp(self.norm_mlp(features)))
        return result


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Attention of [B, H, N, C] under a mask [B, 1, N, N]."""
    if query.dtype is torch.bfloat16 and query.device.type == "cpu":
        # Of the fused kernel the backward pass takes several times as long in half precision as in full on CPUs.
        with full_precision(query.device):  # autocast would widen every score, at twice the cost
            score = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
            return score.masked_fill(~allowed, -math.inf).softmax(-1) @ value
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)


def rotate(value: Tensor, turn: Tensor) -> Tensor:
    """Turn the channel pairs (2i, 2i + 1) of [..., C] by unit complex numbers [..., C / 2]."""
    # Complex products are one pass over memory each way; half precision has none, so it is widened.
    pairs = torch.view_as_complex(widened(value).reshape(*value.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(value.dtype)


def _geometric(shortest: float, longest: float, count: int) -> Tensor:
    if count == 1:
        return torch.tensor([longest])
    return shortest * (longest / shortest) ** (torch.arange(count) / (count - 1))
