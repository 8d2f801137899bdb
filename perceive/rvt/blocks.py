"""The multi-view transformer of RVT: attention inside each view first, then over all views and the instruction."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision
from perceive.rvt.tint import Tint
from sensors.errors import WiringError


@final
class GegluBlock(nn.Module):
    """Pre-norm attention and a gated feed-forward part (GEGLU: Shazeer, 2020).

    Args:
        width: D.
        heads: attention heads.
        head_width: channels of one head.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: on what attention adds, in training.
    """

    def __init__(self, width: int, heads: int, head_width: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self._heads = heads
        inner, hidden = heads * head_width, int(width * mlp_ratio)
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.drop = nn.Dropout(dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.value_gate = nn.Linear(width, 2 * hidden)
        self.shrink = nn.Linear(hidden, width)

    def forward(self, features: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; ``allowed`` bool [B, 1, 1, N] names the keys that may be seen, None all."""
        B, N, _ = features.shape
        packed = self.query_key_value(self.norm_attention(features)).view(B, N, 3, self._heads, -1)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        attended = attend_keys(query, key, value, allowed)
        features = features + self.drop(self.out(attended.transpose(1, 2).reshape(B, N, -1)))
        passed, gate = self.value_gate(self.norm_mlp(features)).chunk(2, -1)
        result: Tensor = features + self.shrink(passed * nn.functional.gelu(gate))
        return result


def attend_keys(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention of [B, H, N, C] under a mask [B, 1, 1, N]."""
    if query.dtype is not torch.bfloat16 or query.device.type != "cpu":
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    # In half precision on CPUs the fused kernel takes up to twice as long forward and five times backward. Autocast
    # would widen the scores to single precision, which costs as much again; softmax sums in single precision anyway.
    with full_precision(query.device):
        score = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        if allowed is not None:
            score = score.masked_fill(~allowed, -math.inf)
        return score.softmax(-1) @ value


@final
class MultiViewTransformer(nn.Module):
    """Image tokens of all views, joints and instruction -> image features (Goyal et al., CoRL 2023 and RSS 2024).

    The first half of the blocks attends within each view; the second half over the tokens of all views and of the
    instruction. The instruction skips the first half, and its tokens are dropped at the end.

    Args:
        views: V.
        grid: g, tokens per view and axis.
        proprio: P, values of proprioception.
        language_width: E.
        language_tokens: how many tokens of instruction at most.
        token_width: channels of a token outside the blocks: half from the picture, half from proprioception.
        width: D, inside the blocks.
        depth: number of blocks.
        heads: attention heads.
        head_width: channels of one head.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: on what attention adds.
        place_language: the learned table of positions covers the instruction too (published: pictures only, which
            leaves the instruction without an order of words beyond what its encoder put in).
        tint: instruction and proprioception also scale and shift the patches' channels (see perceive.rvt.tint);
            published: no.

    Raises:
        WiringError: ``token_width`` is odd.
    """

    def __init__(
        self,
        views: int,
        grid: int,
        proprio: int,
        language_width: int,
        language_tokens: int,
        token_width: int,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        mlp_ratio: float,
        dropout: float,
        place_language: bool,
        tint: bool = False,
    ) -> None:
        super().__init__()
        if token_width % 2:
            raise WiringError("MultiViewTransformer.token_width", "an even number", str(token_width), "Change it.")
        self._language_tokens = language_tokens
        self.proprio = nn.Sequential(nn.Linear(proprio, token_width // 2), nn.LeakyReLU(0.02))
        self.language = nn.Sequential(nn.Linear(language_width, token_width), nn.LeakyReLU(0.02))
        self.place = nn.Parameter(torch.randn(views, grid * grid, token_width) * 0.5)
        self.place_language = nn.Parameter(torch.randn(language_tokens, token_width) * 0.5) if place_language else None
        self.widen = nn.Linear(token_width, width)
        self.tint = Tint(proprio, language_width, width) if tint else None
        within = depth // 2
        self.within = nn.ModuleList(GegluBlock(width, heads, head_width, mlp_ratio, dropout) for _ in range(within))
        self.across = nn.ModuleList(
            GegluBlock(width, heads, head_width, mlp_ratio, dropout) for _ in range(depth - within)
        )
        self.narrow = nn.Linear(width, token_width)

    def forward(self, pictures: Tensor, proprio: Tensor, language: Tensor, language_valid: Tensor) -> Tensor:
        """Features [B, V, C', g, g].

        Args:
            pictures: patch features [B, V, C' / 2, g, g].
            proprio: [B, P].
            language: [B, L, E]; what is not valid is never read.
            language_valid: bool [B, L].
        """
        B, V, half, g, _ = pictures.shape
        joints = self.proprio(proprio)[:, None, None].expand(-1, V, g * g, -1)
        patches = pictures.flatten(3).transpose(2, 3)
        features = self.widen(torch.cat([patches, joints.to(patches.dtype)], -1) + self.place)
        if self.tint is not None:
            features = self.tint(features, proprio, language, language_valid)
        features = features.view(B * V, g * g, -1)
        for block in self.within:
            features = block(features)
        words = self._words(language, language_valid)
        allowed = torch.cat([language_valid.new_ones(B, V * g * g), language_valid], 1)[:, None, None]
        features = torch.cat([features.view(B, V * g * g, -1), words.to(features.dtype)], 1)
        for block in self.across:
            features = block(features, allowed)
        tokens = self.narrow(features[:, : V * g * g])
        result: Tensor = tokens.view(B, V, g, g, 2 * half).permute(0, 1, 4, 2, 3)
        return result

    def _words(self, language: Tensor, valid: Tensor) -> Tensor:
        count = language.shape[1]
        if count > self._language_tokens:
            raise WiringError(
                "MultiViewTransformer.language",
                f"at most {self._language_tokens} tokens",
                str(count),
                "Shorten the instruction or raise language_tokens.",
            )
        words = self.language(torch.where(valid[..., None], language, 0.0))
        if self.place_language is not None:
            words = words + self.place_language[:count]
        result: Tensor = self.widen(words)
        return result
