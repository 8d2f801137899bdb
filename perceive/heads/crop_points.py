"""Crops in heads: their side, their tokens, and what their camera measured, pixel by pixel, in the crop's frame."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Tensor

from perceive.batch import BatchStream
from perceive.encoders.base import field_shape
from perceive.geometry import camera_rays, full_precision
from perceive.tokens import Tokens
from sensors.errors import WiringError, nearest


def square_crop(
    owner: str, sensor_spaces: Mapping[str, spaces.Dict], crop: str, other: str, patch_px: int
) -> tuple[int, int]:
    """Side S of a square crop, and of its grid of patches.

    Args:
        owner: of the errors.
        sensor_spaces: frame spaces by sensor name.
        crop: sensor with ``rgb``.
        other: a sensor that has to be there as well.
        patch_px: side of a patch; a multiple of 4 that divides S.

    Raises:
        WiringError: a sensor or field is missing, the crop is not square, or patches do not fill it.
    """
    for name in (crop, other):
        if name not in sensor_spaces:
            raise WiringError(owner, f"one of {sorted(sensor_spaces)}", f"'{name}'", nearest(name, sensor_spaces))
    height, wide, _ = field_shape(owner, sensor_spaces[crop], "rgb", 3)
    if height != wide or patch_px < 4 or patch_px % 4 or height % patch_px:
        got = f"{height} x {wide} px in patches of {patch_px}"
        raise WiringError(owner, "a square crop, patch_px a multiple of 4 that divides it", got, "Correct it.")
    return height, height // patch_px


def newest_tokens(owner: str, tokens: Tokens, name: str, count: int) -> tuple[Tensor, Tensor]:
    """The tokens [B, count, D] of the newest frame of a sensor, and which of them are valid [B, count].

    Raises:
        WiringError: the sensor has fewer.
    """
    group = tokens.groups.get(name)
    if group is None or group.stop - group.start < count:
        got = "none" if group is None else str(group.stop - group.start)
        raise WiringError(owner, f"{count} tokens of '{name}'", got, "Set patch_px of its encoder to that of the head.")
    return tokens.features[:, group][:, -count:], tokens.valid[:, group][:, -count:]


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
