"""The networks of RVT and RVT-2: pictures of virtual views -> heatmaps and key pose, one network per stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.rvt.blocks import MultiViewTransformer
from perceive.rvt.pose_head import PoseHead, PoseLogits, read_tokens
from perceive.rvt.upsample import ConvexUpsample, EnlargedConv
from sensors.errors import WiringError

__all__ = ["PoseLogits", "Rvt2Network", "RvtNetwork", "StageFeatures", "StageInput", "StageNetwork"]


@dataclass(frozen=True, eq=False)
class StageInput:
    """What a stage sees.

    Attributes:
        images: [B, V, C, S, S], rendered channels.
        xyz: [B, V, 3, S, S], normalised place of each pixel's point; 0 where nothing is.
        hit: bool [B, V, S, S].
        proprio: [B, P].
        language: [B, L, E], features of the instruction's tokens.
        language_valid: bool [B, L].
    """

    images: Tensor
    xyz: Tensor
    hit: Tensor
    proprio: Tensor
    language: Tensor
    language_valid: Tensor


@dataclass(frozen=True, eq=False)
class StageFeatures:
    """What a stage makes of it.

    Attributes:
        logits: [B, V, S, S], heatmap of the key position in each view.
        tokens: [B, V, C', g, g], features after the trunk.
        local: [B, V, F], features where the heatmap points, of networks that read them with the heatmap itself.
    """

    logits: Tensor
    tokens: Tensor
    local: Tensor | None = None


class StageNetwork(nn.Module, ABC):
    """One stage of a multi-view keyframe model.

    Args:
        views: V.
        size_px: S.
        with_pose: whether :meth:`pose` may be asked.
    """

    def __init__(self, views: int, size_px: int, with_pose: bool) -> None:
        super().__init__()
        self.views = views
        self.size_px = size_px
        self.with_pose = with_pose

    @abstractmethod
    def forward(self, stage: StageInput) -> StageFeatures:
        """Heatmaps and features.

        Raises:
            WiringError: the pictures are not those that the network was made for.
        """

    @abstractmethod
    def pose(self, features: StageFeatures, pixels: Tensor, rotation_bins: Tensor | None) -> PoseLogits:
        """Rotation, gripper and collision flag at a waypoint.

        Args:
            features: from :meth:`forward`.
            pixels: [B, V, 2], continuous (u, v) of the waypoint in each view, the middle of pixel ``i`` at ``i + 0.5``.
            rotation_bins: int64 [B, 3], the true bins (teacher forcing); None takes the likeliest one by one.

        Raises:
            WiringError: the stage was made without a pose head.
        """


@final
class Rvt2Network(StageNetwork):
    """A stage of RVT-2 (Goyal et al., RSS 2024): patches, multi-view transformer, convex upsampling, pose at a point.

    Args:
        views: V.
        size_px: S; a multiple of ``patch_px``.
        patch_px: side of a patch.
        channels: C of the pictures.
        proprio: P.
        language_width: E.
        language_tokens: how many tokens of instruction at most.
        token_width: C', channels of a token outside the blocks; a multiple of 8.
        width: channels inside the blocks.
        depth: number of blocks, the first half within views.
        heads: attention heads.
        head_width: channels of one head.
        mlp_ratio: hidden width of the feed-forward part over ``width``.
        dropout: on what attention adds.
        rotation: ``"bins"`` or ``"6d"``.
        conditional_rotation: predict one angle given the ones before.
        with_pose: with a pose head; the first of two stages has none.
        tint: instruction and proprioception scale and shift the patches' channels (FiLM); published: no.
        compat: as published: the learned table of positions covers pictures only, and the pose head normalises over
            the batch (BatchNorm) instead of over each sample's features (LayerNorm).

    Raises:
        WiringError: a size does not divide, or an unknown kind of rotation.
    """

    def __init__(
        self,
        views: int,
        size_px: int,
        patch_px: int = 14,
        channels: int = 10,
        proprio: int = 4,
        language_width: int = 512,
        language_tokens: int = 77,
        token_width: int = 128,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        head_width: int = 64,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        rotation: str = "bins",
        conditional_rotation: bool = True,
        with_pose: bool = True,
        tint: bool = False,
        compat: bool = False,
    ) -> None:
        super().__init__(views, size_px, with_pose)
        grid = _grid("Rvt2Network", size_px, patch_px, token_width)
        self._channels = channels
        self.patches = _patches(channels, token_width // 2, patch_px)
        self.trunk = MultiViewTransformer(
            views,
            grid,
            proprio,
            language_width,
            language_tokens,
            token_width,
            width,
            depth,
            heads,
            head_width,
            mlp_ratio,
            dropout,
            place_language=not compat,
            tint=tint,
        )
        self.upsample = ConvexUpsample(token_width, patch_px)
        self.head: PoseHead | None = None
        if with_pose:
            per_view = 2 * token_width  # the strongest of each channel, and the token at the waypoint
            norm = "batch" if compat else "layer"
            self.head = PoseHead(views * per_view, per_view, rotation, conditional_rotation, norm)

    def forward(self, stage: StageInput) -> StageFeatures:
        _check_pictures(stage.images, self.views, self._channels, self.size_px)
        pictures = self.patches(stage.images.flatten(0, 1)).unflatten(0, (-1, self.views))
        tokens = self.trunk(pictures, stage.proprio, stage.language, stage.language_valid)
        logits = self.upsample(tokens.flatten(0, 1)).view(-1, self.views, self.size_px, self.size_px)
        return StageFeatures(logits, tokens)

    def pose(self, features: StageFeatures, pixels: Tensor, rotation_bins: Tensor | None) -> PoseLogits:
        if self.head is None:
            raise _no_pose("Rvt2Network")
        here = read_tokens(features.tokens, pixels, self.size_px)
        both = torch.cat([features.tokens.flatten(3).amax(-1), here], -1).flatten(1)
        result: PoseLogits = self.head(both, rotation_bins)
        return result


@final
class RvtNetwork(StageNetwork):
    """RVT (Goyal et al., CoRL 2023): patches of embedded pixels, multi-view transformer, convolutional decoder.

    The pose is read from the decoder's features under the heatmap, so a waypoint given to :meth:`pose` is not used.

    Args:
        views: V.
        size_px: S; a multiple of ``patch_px``.
        patch_px: side of a patch; odd.
        channels: C of the pictures.
        proprio: P.
        language_width: E.
        language_tokens: how many tokens of instruction at most.
        token_width: C', channels of a token outside the blocks; a multiple of 8.
        width: channels inside the blocks.
        depth: number of blocks, the first half within views.
        heads: attention heads.
        head_width: channels of one head.
        mlp_ratio: hidden width of the feed-forward part over ``width``.
        dropout: on what attention adds.
        rotation: ``"bins"`` or ``"6d"``.
        conditional_rotation: predict one angle given the ones before (published with RVT-2).
        with_pose: with a pose head.
        tint: instruction and proprioception scale and shift the patches' channels (FiLM); published: no.
        compat: as published: the learned table of positions covers pictures only.

    Raises:
        WiringError: a size does not divide, an even patch, or an unknown kind of rotation.
    """

    def __init__(
        self,
        views: int,
        size_px: int,
        patch_px: int = 11,
        channels: int = 10,
        proprio: int = 4,
        language_width: int = 512,
        language_tokens: int = 77,
        token_width: int = 128,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        head_width: int = 64,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        rotation: str = "bins",
        conditional_rotation: bool = False,
        with_pose: bool = True,
        tint: bool = False,
        compat: bool = False,
    ) -> None:
        super().__init__(views, size_px, with_pose)
        grid = _grid("RvtNetwork", size_px, patch_px, token_width)
        half = token_width // 2
        self._channels = channels
        self.pixels = nn.Sequential(nn.Conv2d(channels, half, 1), nn.LeakyReLU(0.02))
        self.patches = _patches(half, half, patch_px)
        self.trunk = MultiViewTransformer(
            views,
            grid,
            proprio,
            language_width,
            language_tokens,
            token_width,
            width,
            depth,
            heads,
            head_width,
            mlp_ratio,
            dropout,
            place_language=not compat,
            tint=tint,
        )
        self.enlarge = nn.Sequential(
            nn.Conv2d(token_width, half, patch_px, padding=patch_px // 2),
            nn.LeakyReLU(0.02),
            EnlargedConv(half, half, patch_px, grid, patch_px),
            nn.LeakyReLU(0.02),
        )
        self.merge = nn.Sequential(nn.Conv2d(2 * half, half, 3, padding=1), nn.LeakyReLU(0.02))
        self.heatmap = nn.Conv2d(half, 1, 3, padding=1)
        self.head: PoseHead | None = None
        if with_pose:
            per_view = token_width + half  # the strongest of each channel, and what the heatmap points at
            self.head = PoseHead(views * per_view, per_view, rotation, conditional_rotation, "none")

    def forward(self, stage: StageInput) -> StageFeatures:
        _check_pictures(stage.images, self.views, self._channels, self.size_px)
        pixels = self.pixels(stage.images.flatten(0, 1))
        pictures = self.patches(pixels).unflatten(0, (-1, self.views))
        tokens = self.trunk(pictures, stage.proprio, stage.language, stage.language_valid)
        fine = self.merge(torch.cat([self.enlarge(tokens.flatten(0, 1)), pixels], 1))
        logits = self.heatmap(fine)
        local: Tensor | None = None
        if self.with_pose:
            # The pose may not bend the heatmap to its own ends, so no gradient flows through where it points.
            looked = logits.detach().flatten(1).softmax(-1).to(fine.dtype)
            local = (fine.flatten(2) @ looked[..., None])[..., 0].unflatten(0, (-1, self.views))
        return StageFeatures(logits.view(-1, self.views, self.size_px, self.size_px), tokens, local)

    def pose(self, features: StageFeatures, pixels: Tensor, rotation_bins: Tensor | None) -> PoseLogits:
        if self.head is None or features.local is None:
            raise _no_pose("RvtNetwork")
        both = torch.cat([features.tokens.flatten(3).amax(-1), features.local.to(features.tokens.dtype)], -1)
        result: PoseLogits = self.head(both.flatten(1), rotation_bins)
        return result


def _patches(channels: int, out: int, patch_px: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, patch_px, patch_px), nn.GroupNorm(4, out), nn.LeakyReLU(0.02))


def _grid(owner: str, size_px: int, patch_px: int, token_width: int) -> int:
    if size_px % patch_px:
        raise WiringError(owner, f"size_px a multiple of patch_px {patch_px}", str(size_px), "Change one.")
    if token_width % 8:
        raise WiringError(owner, "token_width a multiple of 8", str(token_width), "Change it.")
    return size_px // patch_px


def _check_pictures(images: Tensor, views: int, channels: int, size_px: int) -> None:
    expected = (views, channels, size_px, size_px)
    if tuple(images.shape[1:]) != expected:
        raise WiringError(
            "StageNetwork",
            f"pictures [B, {expected}]",
            str(tuple(images.shape)),
            "Render what the network was made for.",
        )


def _no_pose(owner: str) -> WiringError:
    return WiringError(owner, "a stage with a pose head", "with_pose=False", "Ask the last stage for the pose.")
