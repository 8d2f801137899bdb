"""What the camera of a crop measured, pixel by pixel, in the crop's frame."""

from __future__ import annotations

import torch
from torch import Tensor

from perceive.batch import BatchStream
from perceive.geometry import camera_rays, full_precision


def crop_points(stream: BatchStream, size_px: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colours [B, S, S, 3] about 0, points [B, S, S, 3] in the crop's frame, and where they were measured.

    Where nothing was measured, the point is that of the pixel's ray in the plane of the frame's origin.

    Args:
        stream: fields of an RgbdFrame [B, T, ...], of which the newest is read.
        size_px: S.
    """
    data, valid = {name: value[:, -1] for name, value in stream.data.items()}, stream.valid[:, -1]
    picture = valid[:, None, None]
    rgb = torch.where(picture[..., None], data["rgb"].float() / 255.0 - 0.5, 0.0)
    depth = torch.where(picture, data["depth_m"].float(), 0.0)
    hit = depth > 0  # False for NaN
    with full_precision(depth.device):
        intrinsics = torch.where(valid[:, None], data["intrinsics_px"].float(), float(size_px))
        upright = torch.eye(4, device=depth.device)
        pose = torch.where(valid[:, None, None], data["base_from_camera"].float(), upright)
        away = pose[:, :3, 3].norm(dim=-1)[:, None, None]
        ray = camera_rays(intrinsics, size_px, size_px)
        along = torch.where(hit, depth, away).flatten(1)[..., None]
        points = (ray * along) @ pose[:, :3, :3].mT + pose[:, None, :3, 3]
    return rgb, points.view(*depth.shape, 3), hit
