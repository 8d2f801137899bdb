"""Wide crops kept in little memory, and the crops that are cut out of them again: shifted, scaled, turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from perceive.geometry import turn_z

DEPTH_M = 1e-4  # one step of a stored depth


@final
@dataclass(frozen=True, eq=False)
class CropSource:
    """B wide crops (see :class:`perceive.pose.crop.CropView`), each with its object's centre on its axis.

    Attributes:
        rgb: uint8 [B, W, W, 3].
        depth: uint16 [B, W, W] in steps of :data:`DEPTH_M` along the axis; 0 = none.
        mask: bool [B, V, V], visible pixels of the object; V divides W.
        coordinates: uint16 [B, V, V, 3], from the lower to the upper corner of the object's box; 0 outside the mask.
        focal_px: float [B] of the picture of W pixels; the principal point is its middle.
        crop_from_object: float [B, 4, 4], the pose in the wide crop's camera.
        middle_px: float [B, 2], the middle of the box of the visible pixels, in the picture of W pixels.
        surface_m: float [B], the median distance of the visible surface along the axis.
        blind_m: float [B], the distance that would be guessed without depth.
        low_m: float [B, 3], lower corner of the object's box.
        high_m: float [B, 3], upper corner.
        diameter_m: float [B].
        nowhere: bool [B, K], which of all objects are not in the whole picture.
    """

    rgb: Tensor
    depth: Tensor
    mask: Tensor
    coordinates: Tensor
    focal_px: Tensor
    crop_from_object: Tensor
    middle_px: Tensor
    surface_m: Tensor
    blind_m: Tensor
    low_m: Tensor
    high_m: Tensor
    diameter_m: Tensor
    nowhere: Tensor

    @property
    def slant(self) -> Tensor:
        """[B], length of the ray of ``middle_px`` to depth 1."""
        off = (self.middle_px - (self.rgb.shape[1] - 1) / 2) / self.focal_px[:, None]
        return (off.square().sum(-1) + 1).sqrt()


@final
@dataclass(frozen=True, eq=False)
class Recut:
    """B crops of S pixels with their truth at h = S / 2 pixels.

    Attributes:
        rgb: uint8 [B, S, S, 3].
        depth_m: float [B, S, S].
        intrinsics_px: float [B, 4].
        frame_from_crop: float [B, 4, 4].
        mask: bool [B, h, h].
        coordinates_m: float [B, h, h, 3].
        frame_from_object: float [B, 4, 4].
    """

    rgb: Tensor
    depth_m: Tensor
    intrinsics_px: Tensor
    frame_from_crop: Tensor
    mask: Tensor
    coordinates_m: Tensor
    frame_from_object: Tensor


def recut(
    source: CropSource, size_px: int, middle_px: Tensor, distance_m: Tensor, extent_m: Tensor, turn_rad: Tensor
) -> Recut:
    """Crops out of wide ones, by turning their cameras: exact but for the rounding to pixels.

    Args:
        source: B wide crops.
        size_px: S, even.
        middle_px: float [B, 2], the pixel of the wide crop through which the axis goes.
        distance_m: float [B], of the origin of the crop's frame along the axis.
        extent_m: float [B], width of the crop at that distance.
        turn_rad: float [B], about the axis.
    """
    size, wide = len(source.rgb), source.rgb.shape[1]
    focal = size_px * distance_m / extent_m
    turn = _towards(middle_px, source.focal_px, wide, turn_rad)  # crop from wide crop
    place, stretch = _places(turn, focal, size_px, source.focal_px, wide)
    grid = (2 * place + 1) / wide - 1
    picture = source.rgb.permute(0, 3, 1, 2).float()
    rgb = nn.functional.grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    index, inside = _nearest(place, wide)
    depth = source.depth.flatten(1).to(torch.int32).gather(1, index).view(inside.shape)
    depth_m = torch.where(inside, depth * DEPTH_M * stretch, 0.0)
    small, held = size_px // 2, source.mask.shape[1]
    place, _ = _places(turn, focal / 2, small, source.focal_px * held / wide, held)
    index, inside = _nearest(place, held)
    mask = source.mask.flatten(1).gather(1, index).view(inside.shape) & inside
    # Between pixels coordinates are averaged, those off the object left out.
    plane = torch.cat([source.coordinates.to(torch.int32) / 65535.0, source.mask[..., None].float()], -1)
    plane = torch.where(source.mask[..., None], plane, 0.0).permute(0, 3, 1, 2)
    mixed = nn.functional.grid_sample(plane, (2 * place + 1) / held - 1, padding_mode="zeros", align_corners=False)
    share = (mixed[:, :3] / mixed[:, 3:].clamp_min(1e-6)).permute(0, 2, 3, 1)
    span = (source.high_m - source.low_m)[:, None, None]
    coordinates = torch.where(mask[..., None], source.low_m[:, None, None] + share * span, 0.0)
    middle = torch.full_like(focal, (size_px - 1) / 2)
    frame_from_crop = torch.eye(4).repeat(size, 1, 1)
    frame_from_crop[:, 2, 3] = -distance_m
    turned = torch.eye(4).repeat(size, 1, 1)
    turned[:, :3, :3] = turn
    return Recut(
        rgb.permute(0, 2, 3, 1).round().to(torch.uint8),
        depth_m,
        torch.stack([focal, focal, middle, middle], -1),
        frame_from_crop,
        mask,
        coordinates,
        frame_from_crop @ turned @ source.crop_from_object,
    )


def _towards(middle_px: Tensor, focal_px: Tensor, wide: int, turn_rad: Tensor) -> Tensor:
    """Rotations [B, 3, 3] of cameras that look along the ray of a pixel and are turned about it."""
    ray = nn.functional.pad((middle_px - (wide - 1) / 2) / focal_px[:, None], (0, 1), value=1.0)
    ahead = nn.functional.normalize(ray, dim=-1)
    right = torch.zeros_like(ahead)
    right[:, 0] = 1.0
    right = nn.functional.normalize(right - ahead[:, :1] * ahead, dim=-1)
    level = torch.stack([right, torch.linalg.cross(ahead, right), ahead], 1)
    return turn_z(turn_rad)[:, :3, :3] @ level


def _places(turn: Tensor, focal: Tensor, size: int, wide_focal: Tensor, wide: int) -> tuple[Tensor, Tensor]:
    """Pixels [B, S, S, 2] (u, v) of the wide picture that crops show, and depth in the crop over depth there."""
    step = (torch.arange(size) - (size - 1) / 2)[None] / focal[:, None]
    u, v = step[:, None, :].expand(-1, size, -1), step[:, :, None].expand(-1, -1, size)
    ray = torch.stack([u, v, torch.ones_like(u)], -1).flatten(1, 2) @ turn  # back into the wide crop
    depth = ray[..., 2:].clamp_min(1e-3)
    place = ray[..., :2] / depth * wide_focal[:, None, None] + (wide - 1) / 2
    return place.view(len(turn), size, size, 2), (1 / depth).view(len(turn), size, size)


def _nearest(place: Tensor, wide: int) -> tuple[Tensor, Tensor]:
    """Indices [B, S * S] of the nearest pixels of the wide picture, and which places [B, S, S] are inside it."""
    near = place.round().long()
    inside = ((near >= 0) & (near < wide)).all(-1)
    near = near.clamp(0, wide - 1)
    return (near[..., 1] * wide + near[..., 0]).flatten(1), inside
