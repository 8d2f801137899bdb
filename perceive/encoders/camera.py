"""What every camera encoder shares: the grid of patches over a picture, and the rays of its pixels."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.base import field_shape, grid_shape
from perceive.geometry import full_precision


class PatchGrid(nn.Module):
    """Square patches of a picture; the pixels of a patch are ordered cell by cell.

    Args:
        owner: class that asks, for errors.
        space: frame space with ``rgb`` [H, W, 3], ``intrinsics_px`` [4], ``base_from_camera`` [4, 4].
        patch_px: side of a patch; must divide H and W.
        cell_px: side of a cell; must divide ``patch_px``.

    Raises:
        WiringError: a field is missing, or a size does not divide.
    """

    def __init__(self, owner: str, space: spaces.Dict, patch_px: int, cell_px: int) -> None:
        super().__init__()
        height, width, _ = field_shape(owner, space, "rgb", 3)
        field_shape(owner, space, "intrinsics_px", 1)
        field_shape(owner, space, "base_from_camera", 2)
        self._rows, self._columns = grid_shape(owner, (height, width), (patch_px, patch_px))
        self._cells = grid_shape(owner, (patch_px, patch_px), (cell_px, cell_px))[0]
        self._cell_px = cell_px
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        self.pixels: Tensor  # (u, v) of every pixel in patch order, [P, pixels, 2]
        self.register_buffer("pixels", self.split(torch.stack([u, v], -1)[None]).float()[0], persistent=False)

    @property
    def patches(self) -> int:
        """P, patches of one picture."""
        return self._rows * self._columns

    @property
    def cells(self) -> int:
        """Cells of one patch."""
        return self._cells**2

    @property
    def cell_pixels(self) -> int:
        """Pixels of one cell."""
        return self._cell_px**2

    def split(self, image: Tensor) -> Tensor:
        """Pictures [M, H, W, C] -> [M, P, pixels, C]."""
        split = (self._rows, self._cells, self._cell_px, self._columns, self._cells, self._cell_px)
        grid = image.reshape(image.shape[0], *split, image.shape[-1])
        return grid.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(image.shape[0], self.patches, -1, image.shape[-1])

    def rays(self, intrinsics_px: Tensor, base_from_camera: Tensor) -> Tensor:
        """Base-frame vectors [M, P, pixels, 3] from the camera to depth 1 m, for [M, 4] and [M, 4, 4]."""
        with full_precision(intrinsics_px.device):
            focal, centre = intrinsics_px[:, None, None, :2], intrinsics_px[:, None, None, 2:]
            rays = nn.functional.pad((self.pixels - centre) / focal, (0, 1), value=1.0)
            turned = rays.flatten(1, 2) @ base_from_camera[:, :3, :3].transpose(1, 2)
            return turned.reshape(rays.shape)


class RayEmbedding(nn.Module):
    """Feature of a camera ray, for pictures without depth.

    The ray enters as a line: unit direction, moment (centre x direction; both are Pluecker coordinates, the same for
    every point of the line) and the camera's centre.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(9, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, ray: Tensor, centre_m: Tensor) -> Tensor:
        """[..., D] from directions [..., 3] of any length and camera centres [..., 3] in the base frame."""
        direction = nn.functional.normalize(ray, dim=-1)
        centre = centre_m.expand_as(direction)
        embedded: Tensor = self.embed(torch.cat([direction, torch.linalg.cross(centre, direction), centre], -1))
        return embedded


def camera_of(stream: BatchStream) -> tuple[Tensor, Tensor]:
    """Intrinsics [B * T, 4] and base_from_camera [B * T, 4, 4], with harmless values where a frame is not valid.

    Selected before any weight sees them: an absent frame is all zeros or NaN, and NaN times 0 is NaN.
    """
    there = stream.valid.flatten()
    intrinsics = torch.where(there[:, None], stream.data["intrinsics_px"].flatten(0, 1).float(), 1.0)
    camera = stream.data["base_from_camera"].flatten(0, 1).float()
    return intrinsics, torch.where(there[:, None, None], camera, torch.eye(4, device=camera.device))


def colours_of(stream: BatchStream) -> Tensor:
    """Pictures [B * T, H, W, 3] as they came (0 to 255), with zeros where a frame is not valid."""
    rgb = stream.data["rgb"].flatten(0, 1)
    return torch.where(stream.valid.flatten()[:, None, None, None], rgb, rgb.new_zeros(()))
