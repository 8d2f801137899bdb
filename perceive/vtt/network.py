"""VttNetwork: patches of a picture and tokens of a wrench in one transformer."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from perceive.trunk import Block
from perceive.vtt.base import Fused, FusionNetwork, keep_scale
from sensors.errors import WiringError

ALIGNMENT, CONTACT = 0, 1  # the two learned tokens stand first, in this order
WRENCH_TOKENS = 2


@final
class VttNetwork(FusionNetwork):
    """Visuo-Tactile Transformer (Chen, Sipos, Van der Merwe, Fazeli, CoRL 2022, arXiv 2210.00121).

    Its touch is one force and torque at the wrist, not a picture of a gel. 40 tokens: one for alignment, one for
    contact, 36 patches of a picture of 84 x 84 in rows, 2 of the wrench. All attend to all, so attention crosses the
    senses in every layer. Every token is then compressed on its own, and what is left of all of them becomes the
    feature. This is the published network with its sizes as defaults. What the paper leaves open is the usual: GELU,
    layer normalisation before every part and at the end, no bias of queries, keys and values.

    What is not there is no key of any query, and its tokens are left out of the feature. The two learned tokens are
    always there, so that attention has a key.

    A trunk that reads pictures of a gel beside cameras is another thing: that is perceive.model.PerceptionModel with
    touch encoders, whose tokens stand at their places in metres.

    Args:
        image_px: S, edge of the picture.
        patch_px: edge of a patch; must divide S.
        token_width: D.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward part over D.
        compressed: numbers that each token becomes in the end.
        width: W, of the feature.

    Raises:
        WiringError: sizes that do not divide.
    """

    def __init__(
        self,
        image_px: int = 84,
        patch_px: int = 14,
        token_width: int = 384,
        depth: int = 6,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        compressed: int = 32,
        width: int = 288,
    ) -> None:
        super().__init__()
        if image_px % patch_px:
            raise WiringError(
                "VttNetwork", "an image_px that patch_px divides", f"{image_px} and {patch_px}", "Change one."
            )
        if token_width % heads:
            raise WiringError(
                "VttNetwork", "a token_width that heads divide", f"{token_width} and {heads}", "Change one."
            )
        self._image_px, self._width = image_px, width
        self._patches = (image_px // patch_px) ** 2
        count = 2 + self._patches + WRENCH_TOKENS
        self.patch = nn.Conv2d(3, token_width, patch_px, patch_px)
        self.wrench = nn.Linear(6, WRENCH_TOKENS * token_width)
        self.learned = nn.Parameter(torch.randn(2, token_width) * 0.02)
        # Of the size of what a patch's content adds: far smaller ones take thousands of steps to tell patches apart.
        self.place = nn.Parameter(torch.randn(count, token_width) * 0.2)
        self.blocks = nn.ModuleList(_block(token_width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(token_width)
        self.compress = nn.Sequential(
            nn.Linear(token_width, 3 * compressed), nn.GELU(), nn.Linear(3 * compressed, compressed)
        )
        half = count * compressed // 2
        self.leave = nn.Sequential(nn.Linear(count * compressed, half), nn.GELU(), nn.Linear(half, width))
        self.alignment = nn.Linear(token_width, 1)
        self.contact = nn.Linear(token_width, 1)
        for part in (self.patch, self.wrench, self.compress, self.leave):
            keep_scale(part)

    @property
    def image_px(self) -> int:
        return self._image_px

    @property
    def width(self) -> int:
        return self._width

    @property
    def bare(self) -> tuple[str, ...]:
        return ("place", "learned")

    @property
    def image_tokens(self) -> slice:
        """Which tokens are the picture's, row by row."""
        return slice(2, 2 + self._patches)

    @property
    def wrench_tokens(self) -> slice:
        """Which tokens are the wrench's."""
        return slice(2 + self._patches, 2 + self._patches + WRENCH_TOKENS)

    def tokens(self, image: Tensor, wrench: Tensor) -> Tensor:
        """The tokens [B, N, D] before the first block; see :meth:`forward`, but all is there."""
        patches = self.patch(image).flatten(2).transpose(1, 2)
        felt = self.wrench(wrench).unflatten(1, (WRENCH_TOKENS, -1))
        learned = self.learned.expand(len(image), -1, -1).to(patches.dtype)
        placed: Tensor = torch.cat([learned, patches, felt], 1) + self.place
        return placed

    def forward(self, image: Tensor, wrench: Tensor, image_there: Tensor, wrench_there: Tensor) -> Fused:
        # Selected before the first layer: a NaN that reached its weights' gradient would stay.
        image = torch.where(image_there[:, None, None, None], image, 0.0)
        wrench = torch.where(wrench_there[:, None], wrench, 0.0)
        features = self.tokens(image, wrench)
        there = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        there[:, self.image_tokens] = image_there[:, None]
        there[:, self.wrench_tokens] = wrench_there[:, None]
        for block in self.blocks:
            features = block(features, None, there[:, None, None])
        features = self.norm(features)
        small = torch.where(there[..., None], gelu(self.compress(features)), 0.0)
        return Fused(
            self.leave(small.flatten(1)),
            self.alignment(features[:, ALIGNMENT])[:, 0],
            self.contact(features[:, CONTACT])[:, 0],
        )


def _block(width: int, heads: int, mlp_ratio: float) -> Block:
    block = Block(width, heads, mlp_ratio, dropout=0.0)
    block.query_key_value = nn.Linear(width, 3 * width, bias=False)
    return block
