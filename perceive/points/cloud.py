"""Cloud: coloured points in the base frame, fused from the RGB-D cameras of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceive.batch import Batch
from perceive.geometry import full_precision
from sensors.errors import WiringError

FIELDS = ("rgb", "depth_m", "intrinsics_px", "base_from_camera")


@dataclass(frozen=True, eq=False)
class Cloud:
    """Coloured points of B samples.

    Attributes:
        xyz_m: float32 [B, P, 3] in the base frame; anything where not valid.
        rgb: float32 [B, P, 3] in [0, 1].
        valid: bool [B, P]; False = no depth was measured there, or the camera is absent.
    """

    xyz_m: Tensor
    rgb: Tensor
    valid: Tensor

    def within(self, low_m: Tensor, high_m: Tensor) -> Tensor:
        """Which points are valid and inside the box from ``low_m`` [3] to ``high_m`` [3], bool [B, P]."""
        inside = self.valid
        for value, low, high in zip(self.xyz_m.unbind(-1), low_m, high_m, strict=True):
            inside = inside & (value >= low) & (value <= high)
        return inside


def fuse(batch: Batch, cameras: Sequence[str], max_depth_m: float = 3.0) -> Cloud:
    """The newest frames of several RGB-D cameras as one cloud; each pixel is one point, camera after camera.

    Args:
        batch: with ``rgb`` [B, T, H, W, 3] (0 to 255), ``depth_m`` [B, T, H, W] (0 or NaN = not measured),
            ``intrinsics_px`` [B, T, 4] and ``base_from_camera`` [B, T, 4, 4] of each camera.
        cameras: names of the sensors.
        max_depth_m: farther surfaces count as not measured.

    Raises:
        WiringError: a sensor is missing, or is no RGB-D camera.
    """
    places, colours, there = [], [], []
    for name in cameras:
        stream = batch.stream(name)
        missing = [field for field in FIELDS if field not in stream.data]
        if missing:
            raise WiringError(
                f"fuse, sensor '{name}'", f"an RGB-D camera with {list(FIELDS)}", f"no {missing}", "Name another."
            )
        rgb, depth, intrinsics, camera = (stream.data[field][:, -1] for field in FIELDS)
        size, height, width = depth.shape
        # Comparisons are written so that NaN counts as not measured.
        measured = (depth > 0) & (depth < max_depth_m) & stream.valid[:, -1, None, None]
        depth = torch.where(measured, depth, 0.0).float()
        with full_precision(depth.device):
            # Rays are sums of a part of the column and one of the row, so no pixel is multiplied by a matrix.
            fx, fy, cx, cy = intrinsics.float()[:, :, None].unbind(1)
            right = (torch.arange(width, device=depth.device) - cx) / fx
            down = (torch.arange(height, device=depth.device) - cy) / fy
            x, y, z, origin = camera[:, None, :3].float().unbind(-1)
            ray = (down[..., None] * y + z)[:, :, None] + (right[..., None] * x)[:, None]
            places.append(torch.addcmul(origin[:, None], ray, depth[..., None]).flatten(1, 2))
        colours.append(rgb.reshape(size, -1, 3).float() / 255.0)
        there.append(measured.reshape(size, -1))
    return Cloud(torch.cat(places, 1), torch.cat(colours, 1), torch.cat(there, 1))
