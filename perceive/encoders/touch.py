"""Fingertip touch: patches of the gel, each placed where it is on the finger."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, field_shape, grid_shape, per_token
from perceive.geometry import transform_points
from perceive.normalize import FieldStats
from perceive.tokens import Tokens


class TouchPatchEncoder(Encoder):
    """Rectangular patches of an indentation picture.

    Args:
        space: frame space with ``indentation_m`` [h, w], ``base_from_pad`` [4, 4], ``size_m`` [2].
        history: T.
        width: D.
        patch_rows: height of a patch in taxels; must divide h.
        patch_columns: width of a patch in taxels; must divide w.
        scale_m: indentation that becomes 1.

    Raises:
        WiringError: a field is missing, or a size does not divide.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        patch_rows: int = 8,
        patch_columns: int = 6,
        scale_m: float = 0.001,
    ) -> None:
        super().__init__()
        size = field_shape("TouchPatchEncoder", space, "indentation_m", 2)
        field_shape("TouchPatchEncoder", space, "base_from_pad", 2)
        field_shape("TouchPatchEncoder", space, "size_m", 1)
        self._patch = (patch_rows, patch_columns)
        self._grid = grid_shape("TouchPatchEncoder", size, self._patch)
        self._history = history
        self._scale_m = scale_m
        self.embed = nn.Sequential(nn.Linear(patch_rows * patch_columns, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        # Middle of each patch as a fraction of the pad, from its centre: (x to the right, y down).
        rows = (torch.arange(self._grid[0]) + 0.5) / self._grid[0] - 0.5
        columns = (torch.arange(self._grid[1]) + 0.5) / self._grid[1] - 0.5
        middle = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        self.middle: torch.Tensor
        self.register_buffer("middle", middle.flip(-1), persistent=False)

    @property
    def num_tokens(self) -> int:
        return self._history * self._grid[0] * self._grid[1]

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: the scale is given in metres."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, steps = stream.valid.shape
        image = torch.where(stream.valid[..., None, None], stream.data["indentation_m"].float(), 0.0) / self._scale_m
        (rows, columns), (high, wide) = self._grid, self._patch
        patches = image.reshape(batch * steps, rows, high, columns, wide).transpose(2, 3).flatten(3).flatten(1, 2)
        size = stream.data["size_m"].float().flatten(0, 1)[:, None].flip(-1)  # (width, height)
        local = nn.functional.pad(self.middle[None] * size, (0, 1))
        position = transform_points(stream.data["base_from_pad"].float().flatten(0, 1), local)
        features = self.norm(self.embed(patches))
        return Tokens(
            features.reshape(batch, self.num_tokens, -1),
            position.reshape(batch, self.num_tokens, 3),
            torch.ones(batch, self.num_tokens, dtype=torch.bool, device=image.device),
            per_token(stream.age_s, rows * columns),
            per_token(stream.valid, rows * columns),
        )
