"""Pictures of an object whose pose in them is known: the context out of which another picture of it is understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import Encoder, field_shape
from perceive.encoders.camera import PatchGrid, camera_of, colours_of
from perceive.geometry import full_precision, matrix_to_rotation_6d
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.errors import WiringError

_BANDS = 5  # waves of a place, from 4 down to 1/4 of the object's radius


@final
class ReferenceViewEncoder(Encoder):
    """A set of posed RGB-D pictures of one object, its pixels cut out, as the context of a neural process.

    A reference is a picture whose base is the *object's* frame, with no depth where something else is seen. Each patch
    with depth gives a token that says what its pixels look like, how they lie about their mean point as the camera sees
    it and as the object's frame has it, how the camera was turned, and where in the object's frame the mean point lies
    (Fourier features). That is the place of the token too, as if the object's frame were the query's. So the object
    should be stated in a frame near the query's, or in several of which one is near; what is left between the two is
    what a network looks for.

    Besides its patches every picture gets one token with the latent of the whole context: the mean over all patches of
    all pictures, whatever their order and number (conditional neural processes: Garnelo et al., ICML 2018; for poses of
    unknown objects: Li et al., "Category-agnostic 6D pose estimation with conditional neural processes", 2022).

    Args:
        space: frame space with ``rgb`` [H, W, 3], ``depth_m`` [H, W], ``intrinsics_px`` [4] and ``base_from_camera``
            [4, 4], the object's frame from the camera.
        history: K, the most pictures.
        width: D.
        patch_px: side of a patch; must divide H and W.
        cell_px: side of a cell; must divide ``patch_px``.
        cell_width: channels of a cell.
        reach_m: places relative to the patch's point are divided by this and clipped to +-2.
        object_m: places in the object's frame are divided by this.

    Raises:
        WiringError: a field is missing, or a size does not divide.
    """

    def __init__(
        self,
        space: spaces.Dict,
        history: int,
        width: int,
        patch_px: int = 8,
        cell_px: int = 4,
        cell_width: int = 48,
        reach_m: float = 0.05,
        object_m: float = 0.05,
    ) -> None:
        super().__init__()
        owner = "ReferenceViewEncoder"
        self.grid = PatchGrid(owner, space, patch_px, cell_px)
        if field_shape(owner, space, "depth_m", 2) != field_shape(owner, space, "rgb", 3)[:2]:
            raise WiringError(owner, "depth_m registered to rgb", "pictures of two sizes", "Align depth to colour.")
        if not (reach_m > 0 and object_m > 0 and cell_width >= 1):
            got = f"reach_m {reach_m}, object_m {object_m}, cell_width {cell_width}"
            raise WiringError(owner, "lengths above 0 and at least 1 channel", got, "Correct them.")
        self._history, self._reach_m, self._object_m = history, reach_m, object_m
        self.cell = nn.Linear(10 * self.grid.cell_pixels, cell_width)  # colour, point as seen, point in object, there
        self.patch = nn.Linear(cell_width * self.grid.cells, width)
        self.place = nn.Linear(3 + 6 * _BANDS + 6, width)
        self.norm = nn.LayerNorm(width)
        self.each = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.latent = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.is_latent = nn.Parameter(torch.randn(width) * 0.5)

    @property
    def num_tokens(self) -> int:
        return self._history * (self.grid.patches + 1)

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: colours and metres have natural scales."""

    def forward(self, stream: BatchStream) -> Tokens:
        batch, views = stream.valid.shape
        rgb = self.grid.split(colours_of(stream)).float() / 255.0 - 0.5  # [M, P, pixels, 3], M = B * K
        depth = self.grid.split(stream.data["depth_m"].flatten(0, 1)[..., None].float())
        mask = (depth > 0) & stream.valid.flatten()[:, None, None, None]
        depth = torch.where(mask, depth, 0.0)
        count = mask.sum(2)  # [M, P, 1]
        intrinsics, camera = camera_of(stream)
        upright = torch.eye(4, device=camera.device).expand_as(camera)
        offsets = self.grid.rays(intrinsics, upright) * depth  # in the camera's frame
        mean = offsets.sum(2) / count.clamp_min(1)
        seen = torch.where(mask, (offsets - mean[:, :, None]) / self._reach_m, 0.0).clamp(-2, 2)
        with full_precision(depth.device):
            turn = camera[:, :3, :3]
            lying = (seen.flatten(1, 2) @ turn.mT).view(seen.shape)
            position = mean @ turn.mT + camera[:, None, :3, 3]  # [M, P, 3] in the object's frame
        pixels = torch.cat([torch.where(mask, rgb, 0.0), seen, lying, mask.to(rgb.dtype)], -1)
        cells = pixels.reshape(*count.shape[:2], self.grid.cells, -1)
        features = self.patch(nn.functional.gelu(self.cell(cells)).flatten(2))
        turned = matrix_to_rotation_6d(turn)[:, None].expand(-1, position.shape[1], -1)
        features = self.norm(features + self.place(torch.cat([self._waves(position), turned], -1)))
        there = (count[..., 0] > 0).view(batch, -1)  # [B, K * P]
        said = torch.where(there[..., None], self.each(features).view(batch, there.shape[1], -1), 0.0)
        share = there.sum(1, keepdim=True).clamp_min(1)
        latent = self.latent(said.sum(1) / share) + self.is_latent
        latents = latent[:, None, None].expand(-1, views, -1, -1)
        features = torch.cat([features.view(batch, views, -1, latent.shape[-1]), latents], 2)
        position = nn.functional.pad(position.view(batch, views, -1, 3), (0, 0, 0, 1))
        there = there.view(batch, views, -1)
        placed = nn.functional.pad(there, (0, 1))  # all but the latents
        known = torch.cat([there, stream.valid[..., None]], 2).flatten(1)
        each = self.grid.patches + 1
        return Tokens(
            features.flatten(1, 2),
            position.flatten(1, 2),
            placed.flatten(1),
            stream.age_s.repeat_interleave(each, 1),
            known,
        )

    def _waves(self, position_m: Tensor) -> Tensor:
        """Places [..., 3] as themselves and as waves [..., 3 + 6 * bands]."""
        place = (position_m / self._object_m).clamp(-4, 4)
        pitch = 2 ** torch.arange(_BANDS, device=place.device, dtype=place.dtype)
        angle = (place[..., None] * (0.5 * torch.pi * pitch)).flatten(-2)
        return torch.cat([place, angle.sin(), angle.cos()], -1)
