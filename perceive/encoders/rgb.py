"""RGB patches without depth: each carries its camera ray."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, per_token
from perceive.encoders.camera import PatchGrid, RayEmbedding, camera_of, colours_of
from perceive.normalize import FieldStats
from perceive.tokens import Tokens


class RgbPatchEncoder(Encoder):
    """Square patches of a colour picture; a token knows from where and in which direction it was seen, not how far.

    The patch is embedded as by :class:`perceive.encoders.rgbd.RgbdPatchEncoder`, from scratch, and its ray (direction
    in base axes and camera centre) is added. No token is placed.

    Args:
        space: frame space with ``rgb`` [H, W, 3], ``intrinsics_px`` [4], ``base_from_camera`` [4, 4].
        history: T.
        width: D.
        patch_px: side of a patch; must divide H and W.
        cell_px: side of a cell; must divide ``patch_px``.
        cell_width: channels of a cell.

    Raises:
        WiringError: a field is missing, or a size does not divide.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        patch_px: int = 12,
        cell_px: int = 3,
        cell_width: int = 48,
    ) -> None:
        super().__init__()
        self.grid = PatchGrid("RgbPatchEncoder", space, patch_px, cell_px)
        self._history = history
        self.cell = nn.Linear(3 * self.grid.cell_pixels, cell_width)
        self.patch = nn.Linear(cell_width * self.grid.cells, width)
        self.ray = RayEmbedding(width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self.grid.patches

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours have a natural scale."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        rgb = self.grid.split(colours_of(stream)).float() / 255.0 - 0.5  # [M, P, pixels, 3], M = B * T
        cells = rgb.reshape(*rgb.shape[:2], self.grid.cells, -1)
        features = self.patch(nn.functional.gelu(self.cell(cells)).flatten(2))
        intrinsics, camera = camera_of(stream)
        features = features + self.ray(self.grid.rays(intrinsics, camera).mean(2), camera[:, None, :3, 3])
        count = features.shape[1]
        return Tokens(
            self.norm(features).reshape(batch, steps * count, -1),
            features.new_zeros(batch, steps * count, 3, dtype=torch.float32),
            features.new_zeros(batch, steps * count, dtype=torch.bool),
            per_token(stream.age_s, count),
            per_token(stream.valid, count),
        )
