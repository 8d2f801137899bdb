"""A stage of a multi-view keyframe model on the project's own trunk: a view is just tokens with places."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import full_precision
from perceive.rvt.network import StageFeatures, StageInput, StageNetwork
from perceive.rvt.pose_head import PoseHead, PoseLogits, read_tokens
from perceive.rvt.tint import Tint
from perceive.rvt.upsample import ConvexUpsample
from perceive.rvt.views import View, views_named
from perceive.tokens import Tokens
from perceive.trunk import Trunk
from sensors.errors import WiringError


@final
class TrunkNetwork(StageNetwork):
    """Patches of virtual views as situated tokens in the shared trunk; heatmap and pose are read as in RVT-2.

    A patch stands where its points are (in the cube's units): in the middle of the patch across the view, at the mean
    depth of what it shows along it, and in the middle of the cube where it shows nothing. So two views of one surface
    have tokens in one place, and attention sees how far apart things are and not which index they have. The tool is a
    token at its own place; the instruction's tokens have none. Instruction and tool also scale and shift the
    channels of all patches (FiLM: Perez et al., AAAI 2018), so that what is meant by "red" is found patch by patch.

    Args:
        views: V.
        size_px: S; a multiple of ``patch_px``.
        faces: names of the V views, in their order.
        patch_px: side of a patch.
        cell_px: side of a cell; must divide ``patch_px``.
        cell_width: channels of a cell.
        channels: C of the pictures.
        proprio: P; entries 1 to 3 are the tool's place in the cube.
        language_width: E.
        language_tokens: how many tokens of instruction there are; only ``position="index"`` needs to know.
        token_width: channels of a token for heatmap and pose.
        width: D of the trunk.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward part over ``width``.
        dropout: on both residual branches.
        position: ``"metric"``, or ``"index"`` for learned index positions (the classic alternative, for ablations).
        rotation: ``"bins"`` or ``"6d"``.
        conditional_rotation: predict one angle given the ones before.
        with_pose: with a pose head; the first of two stages has none.

    Raises:
        WiringError: a size does not divide, or other faces than views.
    """

    def __init__(
        self,
        views: int,
        size_px: int,
        faces: list[str],
        patch_px: int = 14,
        cell_px: int = 2,
        cell_width: int = 32,
        channels: int = 10,
        proprio: int = 10,
        language_width: int = 128,
        language_tokens: int = 16,
        token_width: int = 64,
        width: int = 192,
        depth: int = 6,
        heads: int = 6,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        position: str = "metric",
        rotation: str = "bins",
        conditional_rotation: bool = True,
        with_pose: bool = True,
    ) -> None:
        super().__init__(views, size_px, with_pose)
        if size_px % patch_px or patch_px % cell_px:
            got = f"{size_px}, {patch_px}, {cell_px}"
            raise WiringError("TrunkNetwork", "cell_px divides patch_px, and that size_px", got, "Change one.")
        if len(faces) != views:
            raise WiringError("TrunkNetwork.faces", f"{views} names of faces", f"{faces}", "Name every view.")
        self._faces: tuple[View, ...] = views_named(faces)
        self._grid = size_px // patch_px
        self._patch, self._cell = patch_px, cell_px
        # A patch is mostly background: what is rare in it has to be told apart before it is summed up.
        self.cells = nn.Sequential(nn.Conv2d(channels, cell_width, cell_px, cell_px), nn.GELU())
        self.patches = nn.Conv2d(cell_width, width, patch_px // cell_px, patch_px // cell_px)
        self.patch_norm = nn.LayerNorm(width)
        self.view_embedding = nn.Parameter(torch.randn(views, width) * 0.5)
        self.tell = nn.Linear(language_width, width)
        self.tell_embedding = nn.Parameter(torch.randn(width) * 0.5)
        self.tint = Tint(proprio, language_width, width)
        self.own = nn.Linear(proprio, width)
        count = views * self._grid**2 + 1 + language_tokens
        self.trunk = Trunk(
            width, count, depth, heads, mlp_ratio, dropout, position, shortest_m=0.1, longest_m=4.0
        )  # in units of the cube
        self.out = nn.Linear(width, token_width)
        self.upsample = ConvexUpsample(token_width, patch_px, token_width)
        self.head: PoseHead | None = None
        if with_pose:
            self.head = PoseHead(views * 2 * token_width, 2 * token_width, rotation, conditional_rotation, "layer")

    def forward(self, stage: StageInput) -> StageFeatures:
        size, views = stage.images.shape[:2]
        grid, device = self._grid, stage.images.device
        if views != self.views or stage.images.shape[-1] != self.size_px:
            raise WiringError(
                "TrunkNetwork", f"{self.views} views of {self.size_px} px", f"{tuple(stage.images.shape)}",
                "Render what the network was made for.",
            )  # fmt: skip
        cells = self.cells(stage.images.flatten(0, 1))
        patches = self.patches(cells).flatten(2).transpose(1, 2)
        pictures = self.patch_norm(patches).view(size, views, grid * grid, -1) + self.view_embedding[:, None]
        tool = self.own(stage.proprio)[:, None]
        told = tool[:, :0]
        if stage.language.shape[1]:
            told = self.tell(stage.language.to(tool.dtype)) + self.tell_embedding
        pictures = self.tint(pictures, stage.proprio, stage.language, stage.language_valid)
        features = torch.cat([pictures.flatten(1, 2), tool, told], 1)
        with full_precision(device):
            places = self.places(stage.xyz, stage.hit)
            position = torch.cat([places, stage.proprio[:, None, 1:4], places.new_zeros(*told.shape[:2], 3)], 1)
        count, words = features.shape[1], told.shape[1]
        placed = torch.ones(size, count, dtype=torch.bool, device=device)
        valid = placed.clone()
        if words:
            placed[:, -words:] = False
            valid[:, -words:] = stage.language_valid
        tokens = Tokens(features, position, placed, position.new_zeros(size, count), valid).cleaned()
        after = self.out(self.trunk(tokens, position.new_zeros(size, 3))[:, : views * grid * grid])
        maps = after.view(size, views, grid, grid, -1).permute(0, 1, 4, 2, 3)
        logits = self.upsample(maps.flatten(0, 1)).view(size, views, self.size_px, self.size_px)
        return StageFeatures(logits, maps)

    def pose(self, features: StageFeatures, pixels: Tensor, rotation_bins: Tensor | None) -> PoseLogits:
        if self.head is None:
            raise WiringError("TrunkNetwork", "a stage with a pose head", "with_pose=False", "Ask the last stage.")
        here = read_tokens(features.tokens, pixels, self.size_px)
        both = torch.cat([features.tokens.flatten(3).amax(-1), here], -1).flatten(1)
        result: PoseLogits = self.head(both, rotation_bins)
        return result

    def places(self, xyz: Tensor, hit: Tensor) -> Tensor:
        """Where the patches stand [B, V * g * g, 3] in units of the cube.

        Args:
            xyz: [B, V, 3, S, S], normalised place of each pixel's point.
            hit: bool [B, V, S, S].
        """
        size, views = hit.shape[:2]
        grid, patch = self._grid, self._patch
        share = nn.functional.avg_pool2d(hit.float(), patch).view(size, views, -1)
        middles = (torch.arange(grid, device=hit.device) + 0.5) * (2 / grid) - 1
        rows, columns = (axis.flatten() for axis in torch.meshgrid(middles, middles, indexing="ij"))
        out = xyz.new_zeros(size, views, grid * grid, 3)
        for number, face in enumerate(self._faces):
            along = torch.where(hit[:, number], xyz[:, number, face.towards.index], 0.0)
            depth = nn.functional.avg_pool2d(along[:, None], patch).flatten(1) / share[:, number].clamp_min(1e-6)
            out[:, number, :, face.towards.index] = torch.where(share[:, number] > 0, depth, 0.0)
            out[:, number, :, face.right.index] = columns * face.right.sign
            out[:, number, :, face.down.index] = rows * face.down.sign
        return out.flatten(1, 2)
