"""RGB-D patches that sit at their surface point."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, field_shape, per_token
from perceive.encoders.camera import PatchGrid, camera_of, colours_of
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError


class RgbdPatchEncoder(Encoder):
    """Square patches of an RGB-D picture, each placed at the mean of its surface points.

    Each pixel enters with its colour and with where its surface point lies *relative to the patch's point* in the base
    frame, so a token looks the same from wherever the camera stands. Two linear maps with a GELU between them (cells
    of ``cell_px`` pixels, then the whole patch) embed the patch. Patches without any depth carry the direction of
    their camera ray and are not placed.

    Args:
        space: frame space with ``rgb`` [H, W, 3], ``depth_m`` [H, W], ``intrinsics_px`` [4] and
            ``base_from_camera`` [4, 4].
        history: T.
        width: D.
        patch_px: side of a patch; must divide H and W.
        cell_px: side of a cell; must divide ``patch_px``.
        cell_width: channels of a cell.
        reach_m: relative positions are divided by this and clipped to +-2.
        max_depth_m: farther surfaces count as no measurement.
        geometry: ``"metric"`` as described; ``"depth"`` gives each pixel its depth only and places no token (the
            classic alternative, for ablations).

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
        reach_m: float = 0.05,
        max_depth_m: float = 2.0,
        geometry: str = "metric",
    ) -> None:
        super().__init__()
        owner = "RgbdPatchEncoder"
        self.grid = PatchGrid(owner, space, patch_px, cell_px)
        if field_shape(owner, space, "depth_m", 2) != field_shape(owner, space, "rgb", 3)[:2]:
            raise WiringError(owner, "depth_m registered to rgb", "pictures of two sizes", "Align depth to colour.")
        if geometry not in ("metric", "depth"):
            raise WiringError(f"{owner}.geometry", "'metric' or 'depth'", repr(geometry), "Choose one.")
        self._history = history
        self._reach_m = reach_m
        self._max_depth_m = max_depth_m
        self._metric = geometry == "metric"
        channels = 7 if self._metric else 5  # colour 3, relative point 3 (or depth 1), measured 1
        self.cell = nn.Linear(channels * self.grid.cell_pixels, cell_width)
        self.patch = nn.Linear(cell_width * self.grid.cells, width)
        self.ray = nn.Linear(3, width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self.grid.patches

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours and metres have natural scales."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        rgb = self.grid.split(colours_of(stream)).float() / 255.0 - 0.5  # [M, P, pixels, 3], M = B * T
        depth = self.grid.split(stream.data["depth_m"].flatten(0, 1)[..., None].float())
        mask = (depth > 0) & (depth < self._max_depth_m) & stream.valid.flatten()[:, None, None, None]
        depth = torch.where(mask, depth, 0.0)
        count = mask.sum(2)  # [M, P, 1]
        placed = count[..., 0] > 0
        if self._metric:
            intrinsics, camera = camera_of(stream)
            rays = self.grid.rays(intrinsics, camera)
            offsets = rays * depth  # from the camera to the surface; zero where nothing was measured
            mean = offsets.sum(2) / count.clamp_min(1)  # [M, P, 3]
            relative = torch.where(mask, (offsets - mean[:, :, None]) / self._reach_m, 0.0).clamp(-2, 2)
            position = camera[:, None, :3, 3] + mean
        else:
            relative = depth
            position = rgb.new_zeros(*placed.shape, 3)
        # Pixels come cell by cell, so a cell is a run of cell_px^2 pixels.
        pixels = torch.cat([rgb, relative, mask.to(rgb.dtype)], -1)
        cells = pixels.reshape(*placed.shape, self.grid.cells, -1)
        features: Tensor = self.patch(nn.functional.gelu(self.cell(cells)).flatten(2))
        if self._metric:
            direction = nn.functional.normalize(rays.mean(2), dim=-1)
            features = features + torch.where(placed[..., None], 0.0, self.ray(direction))
        else:
            placed = torch.zeros_like(placed)
        patches = self.grid.patches
        return Tokens(
            self.norm(features).reshape(batch, steps * patches, -1),
            position.reshape(batch, steps * patches, 3),
            placed.reshape(batch, steps * patches),
            per_token(stream.age_s, patches),
            per_token(stream.valid, patches),
        )
