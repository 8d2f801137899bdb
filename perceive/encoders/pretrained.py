"""Pictures through a pretrained image backbone of ``transformers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.build import Resolved
from perceive.encoders.backbone import (
    ImageBackbone,
    colour_statistics,
    default_size,
    load_network,
    make_network,
    network_config,
)
from perceive.encoders.base import Encoder, field_shape, per_token
from perceive.encoders.camera import RayEmbedding, camera_of, colours_of
from perceive.geometry import camera_rays, full_precision
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError


class PretrainedImageEncoder(Encoder, Resolved):
    """One token per cell of a pretrained backbone's feature map.

    The picture is stretched to the square that the backbone wants; each cell of its feature map is projected to the
    width. With depth, the token sits at the mean surface point of its cell, and the shape of the surface is not read;
    a cell without depth, or a camera without, carries its camera ray and is not placed.

    Args:
        space: frame space with ``rgb`` [H, W, 3], ``intrinsics_px`` [4], ``base_from_camera`` [4, 4] and, if the
            camera has it, ``depth_m`` [H, W].
        history: T.
        width: D.
        backbone: local folder or hub name of any image model that ``AutoBackbone`` or ``AutoModel`` knows.
        trainable: fine-tune the backbone; otherwise only the projection learns.
        image_px: side of the square that the backbone sees; None = the size that it was made for, or, where it does
            not say (ResNet), the shorter side of the camera's picture.
        cells: average the feature map to this many rows and columns; None = as it comes.
        mean: of each colour channel in 0 to 1; None = from the model's ``preprocessor_config.json``.
        std: deviation of each colour channel; None = likewise.
        max_depth_m: farther surfaces count as no measurement.
        backbone_config: settings of a backbone whose weights come from this model's own checkpoint; saving writes it,
            so that loading needs neither the folder nor the hub.

    Raises:
        WiringError: a field is missing, or the backbone's output is not a grid.
        DataError: the pretrained model cannot be found or read.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        backbone: str,
        trainable: bool = False,
        image_px: int | None = None,
        cells: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        max_depth_m: float = 2.0,
        backbone_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        owner = "PretrainedImageEncoder"
        height_px, width_px, _ = field_shape(owner, space, "rgb", 3)
        field_shape(owner, space, "intrinsics_px", 1)
        field_shape(owner, space, "base_from_camera", 2)
        self._has_depth = "depth_m" in space.spaces
        if self._has_depth and field_shape(owner, space, "depth_m", 2) != (height_px, width_px):
            raise WiringError(owner, "depth_m registered to rgb", "pictures of two sizes", "Align depth to colour.")
        self._history = history
        self._max_depth_m = max_depth_m
        network = load_network(backbone) if backbone_config is None else make_network(backbone_config)
        self._image_px = image_px or default_size(network.config, min(height_px, width_px))
        if mean is None or std is None:
            mean, std = colour_statistics(backbone)
        self._resolved = {"backbone_config": network_config(network), "mean": list(mean), "std": list(std)}
        self.backbone = ImageBackbone(network, self._image_px, trainable)
        self._grid = self.backbone.grid if cells is None else (cells, cells)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean))[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(list(std))[:, None, None], persistent=False)
        self.project = nn.Sequential(nn.LayerNorm(self.backbone.channels), nn.Linear(self.backbone.channels, width))
        self.ray = RayEmbedding(width)
        self.norm = nn.LayerNorm(width)

    @property
    def num_tokens(self) -> int:
        return self._history * self._grid[0] * self._grid[1]

    def resolved_arguments(self) -> dict[str, Any]:
        """What replaces the folder or hub model when this encoder is built again."""
        return self._resolved

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: the backbone brings its own normalisation."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        rgb = colours_of(stream).permute(0, 3, 1, 2)  # [M, 3, H, W], M = B * T; h w c becomes c h w
        side = (self._image_px, self._image_px)
        pixels = nn.functional.interpolate(rgb.float() / 255.0, side, mode="bilinear", antialias=True)
        maps = self._pooled(self.backbone((pixels - self.mean) / self.std))  # [M, C, rows, columns]
        features = self.project(maps.flatten(2).transpose(1, 2))  # [M, cells, D]
        rays, position, placed = self._situate(stream, rgb.shape[2], rgb.shape[3])
        _, camera = camera_of(stream)
        features = features + torch.where(placed[..., None], 0.0, self.ray(rays, camera[:, None, :3, 3]))
        count = features.shape[1]
        return Tokens(
            self.norm(features).reshape(batch, steps * count, -1),
            position.reshape(batch, steps * count, 3),
            placed.reshape(batch, steps * count),
            per_token(stream.age_s, count),
            per_token(stream.valid, count),
        )

    def _situate(self, stream: BatchStream, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Per cell: mean ray [M, cells, 3] in base axes, mean surface point [M, cells, 3], has one [M, cells]."""
        intrinsics, camera = camera_of(stream)
        with full_precision(intrinsics.device):
            rays = camera_rays(intrinsics, height, width) @ camera[:, :3, :3].transpose(1, 2)  # [M, H * W, 3]
            mean_ray = self._cell_means(rays, height, width)
            if not self._has_depth:
                return mean_ray, torch.zeros_like(mean_ray), torch.zeros_like(mean_ray[..., 0], dtype=torch.bool)
            depth = stream.data["depth_m"].float().reshape(-1, height * width, 1)
            seen = (depth > 0) & (depth < self._max_depth_m) & stream.valid.flatten()[:, None, None]
            share = self._cell_means(seen.float(), height, width)  # of a cell's pixels that are measured
            offset = self._cell_means(rays * torch.where(seen, depth, 0.0), height, width) / share.clamp_min(1e-6)
            return mean_ray, camera[:, None, :3, 3] + offset, share[..., 0] > 0

    def _pooled(self, image: Tensor) -> Tensor:
        return image if image.shape[2:] == self._grid else nn.functional.adaptive_avg_pool2d(image, self._grid)

    def _cell_means(self, value: Tensor, height: int, width: int) -> Tensor:
        """[M, H * W, C] -> [M, cells, C]."""
        image = value.transpose(1, 2).reshape(value.shape[0], -1, height, width)
        return nn.functional.adaptive_avg_pool2d(image, self._grid).flatten(2).transpose(1, 2)
