"""Crops of objects changed in ways that leave their pose known: other cuts, backgrounds, occluders, light and depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from perceive.batch import Batch, BatchStream
from perceive.heads.object_coordinates_target import PoseTarget
from perceive.pose.crop_source import CropSource, Recut, recut
from sensors.errors import SpecError, WiringError

_HOLES_PX = 6  # side of a hole in the depth
_LEAST_LEFT = 0.3  # of the visible pixels, once something is put in front of them
_SIGMAS = 3.0


@final
class PoseCropAugment:
    """Cuts crops anew out of what a dataset kept around them, and changes what they show.

    An in-plane turn and a shift turn the crop's camera, so rays, depth and pose stay exact. Some samples lose all
    depth: their crop is then aimed as it would be without. Some are asked for an object that is not in the picture.

    Args:
        crop: the sensor with the crops.
        asked: the sensor that says which object is asked for.
        extent: width of a crop, in diameters of its object.
        shift: of the crop's middle, along each axis, in diameters; besides that, it lies anywhere between the middle of
            what is seen of the object and the object's centre.
        scale: of the crop, as a share.
        turn_rad: largest turn about the axis.
        blind: share of the samples without depth.
        blind_scale: further change of scale of these, whose distance has to be guessed.
        absent: share of the samples that are asked for an object that is not there.
        background: share of the samples whose background is another's.
        occluder: share of the samples with something in front.
        brightness: of all colours, as a share.
        colour_gain: of each colour channel.
        hue_rad: turn of all colours about grey.
        gamma: bound of the logarithm of the exponent of brightness.
        colour_noise: deviation of a pixel, in counts of 255.
        depth_noise: deviation of depth at 1 m, in metres, which grows with the square of the depth.
        holes: largest share of the depth that is missing.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        crop: str = "crop",
        asked: str = "object",
        extent: float = 1.4,
        shift: float = 0.1,
        scale: float = 0.15,
        turn_rad: float = 0.5,
        blind: float = 0.2,
        blind_scale: float = 0.1,
        absent: float = 0.05,
        background: float = 0.3,
        occluder: float = 0.3,
        brightness: float = 0.3,
        colour_gain: float = 0.1,
        hue_rad: float = 0.1,
        gamma: float = 0.2,
        colour_noise: float = 4.0,
        depth_noise: float = 0.002,
        holes: float = 0.2,
    ) -> None:
        shares = {"blind": blind, "absent": absent, "background": background, "occluder": occluder, "holes": holes}
        shares |= {"scale": scale, "brightness": brightness, "colour_gain": colour_gain}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise SpecError(f"PoseCropAugment.{name}", "a share from 0 to 1", repr(value), "Correct it.")
        sizes = {"shift": shift, "turn_rad": turn_rad, "blind_scale": blind_scale, "hue_rad": hue_rad}
        sizes |= {"gamma": gamma, "colour_noise": colour_noise, "depth_noise": depth_noise}
        for name, value in sizes.items():
            if not 0 <= value < math.inf:
                raise SpecError(f"PoseCropAugment.{name}", "0 or more", repr(value), "Correct it.")
        if not 0.2 <= extent < math.inf:
            raise SpecError("PoseCropAugment.extent", "0.2 or more diameters", repr(extent), "Correct it.")
        self._crop, self._asked, self._extent = crop, asked, extent
        self._shift, self._scale, self._turn_rad = shift, scale, turn_rad
        self._blind, self._blind_scale, self._absent = blind, blind_scale, absent
        self._background, self._occluder = background, occluder
        self._brightness, self._colour_gain, self._hue_rad = brightness, colour_gain, hue_rad
        self._gamma, self._colour_noise, self._depth_noise, self._holes = gamma, colour_noise, depth_noise, holes

    def __call__(self, batch: Batch, target: PoseTarget, generator: torch.Generator) -> tuple[Batch, PoseTarget]:
        """A changed copy of a batch and its target, on the CPU.

        Raises:
            WiringError: the target does not hold what its crops were cut out of.
        """
        source = target.source
        if source is None:
            raise WiringError("PoseCropAugment", "a target with its source", "none", "Use dataset=poses.")
        stream = batch.stream(self._crop)
        size, pixels = len(source.rgb), stream.data["rgb"].shape[2]

        def draw(*shape: int) -> Tensor:
            return torch.rand(size, *shape, generator=generator)

        blind = draw() < self._blind
        new = self._recut(source, pixels, blind, draw(6))
        mask = new.mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
        rgb, depth = new.rgb.float(), new.depth_m
        away = -new.frame_from_crop[:, 2, 3]
        other = torch.randperm(size, generator=generator)
        swap = (draw() < self._background)[:, None, None] & ~mask
        foreign = torch.where(depth[other] > 0, depth[other] - (away[other] - away)[:, None, None], 0.0)
        rgb, depth = torch.where(swap[..., None], rgb[other], rgb), torch.where(swap, foreign.clamp_min(0), depth)
        patch = _blobs(pixels, draw(5)) & (draw() < self._occluder)[:, None, None]
        left = (mask & ~patch).sum((1, 2)) >= _LEAST_LEFT * mask.sum((1, 2))
        patch &= left[:, None, None]
        stuff = rgb[other].roll(pixels // 2, 2)
        nearer = (away - (0.4 + draw()) * source.diameter_m).clamp_min(0.05)
        rgb = torch.where(patch[..., None], stuff, rgb)
        depth = torch.where(patch & (depth > 0), torch.minimum(nearer[:, None, None], depth), depth)
        mask = new.mask & ~patch[:, ::2, ::2]
        depth = self._measured(depth, draw, generator)
        data = dict(stream.data) | {
            "rgb": self._recoloured(rgb, draw, generator)[:, None],
            "depth_m": torch.where(blind[:, None, None], 0.0, depth)[:, None],
            "intrinsics_px": new.intrinsics_px[:, None],
            "base_from_camera": new.frame_from_crop[:, None],
        }
        which, present, asked = self._asked_for(batch, target, source, draw(2))
        streams = {**batch.streams, self._crop: BatchStream(data, stream.age_s, stream.valid), self._asked: asked}
        mask = mask & present[:, None, None]
        return Batch(streams), replace(
            target,
            which=which,
            present=present,
            mask=mask,
            coordinates_m=torch.where(mask[..., None], new.coordinates_m, 0.0),
            frame_from_object=new.frame_from_object,
            source=None,
        )

    def _recut(self, source: CropSource, pixels: int, blind: Tensor, luck: Tensor) -> Recut:
        centre = torch.full_like(source.middle_px, (source.rgb.shape[1] - 1) / 2)
        middle = torch.lerp(source.middle_px, centre, luck[:, :1])
        diameter_px = source.focal_px * source.diameter_m / source.surface_m
        middle = middle + (luck[:, 1:3] * 2 - 1) * (self._shift * diameter_px)[:, None]
        true = source.crop_from_object[:, :3, 3].norm(dim=-1)
        guess = torch.lerp(source.blind_m * source.slant, true, luck[:, 3])
        distance = torch.where(blind, guess, source.surface_m * source.slant)
        wide = self._scale + self._blind_scale * blind
        distance = distance * torch.where(blind, (wide * (luck[:, 4] * 2 - 1)).exp(), 1.0)
        extent = self._extent * source.diameter_m * torch.where(blind, 1.0, (wide * (luck[:, 4] * 2 - 1)).exp())
        return recut(source, pixels, middle, distance, extent, (luck[:, 5] * 2 - 1) * self._turn_rad)

    def _asked_for(
        self, batch: Batch, target: PoseTarget, source: CropSource, luck: Tensor
    ) -> tuple[Tensor, Tensor, BatchStream]:
        stream = batch.stream(self._asked)
        able = source.nowhere.any(1)
        wrong = able & (luck[:, 0] < self._absent)
        # The number of the n-th of those that are not there.
        order = source.nowhere.cumsum(1)
        rank = (luck[:, 1] * order[:, -1]).long() + 1
        strange = (order >= rank[:, None]).to(torch.uint8).argmax(1)
        which = torch.where(wrong, strange, target.which)
        one = nn.functional.one_hot(which, source.nowhere.shape[1]).to(torch.float32)
        return which, target.present & ~wrong, BatchStream({"which": one[:, None]}, stream.age_s, stream.valid)

    def _recoloured(self, rgb: Tensor, draw: Callable[..., Tensor], generator: torch.Generator) -> Tensor:
        gain = (1 + (draw(1) * 2 - 1) * self._brightness) * (1 + (draw(3) * 2 - 1) * self._colour_gain)
        angle = (draw(1) * 2 - 1)[..., None] * self._hue_rad
        cosine, sine = angle.cos(), angle.sin() / math.sqrt(3)
        cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
        turn = cosine * torch.eye(3) + (1 - cosine) / 3 + sine * cross
        value = (rgb.flatten(1, 2) @ (turn.mT * gain[:, None])).clamp(0, 255).view(rgb.shape)
        value = 255 * (value / 255) ** ((draw(1, 1, 1) * 2 - 1) * self._gamma).exp()
        noise = torch.randn(rgb.shape, generator=generator).mul_(self._colour_noise * draw(1, 1, 1))
        return (value + noise).clamp(0, 255).round().to(torch.uint8)

    def _measured(self, depth: Tensor, draw: Callable[..., Tensor], generator: torch.Generator) -> Tensor:
        noise = torch.randn(depth.shape, generator=generator).clamp_(-_SIGMAS, _SIGMAS)
        noisy = depth + depth.square() * noise * (self._depth_noise * draw(1, 1))
        coarse = -(-depth.shape[1] // _HOLES_PX)
        gone = draw(coarse, coarse) < draw(1, 1) * self._holes
        gone = gone.repeat_interleave(_HOLES_PX, 1).repeat_interleave(_HOLES_PX, 2)[
            :, : depth.shape[1], : depth.shape[2]
        ]
        return torch.where((depth > 0) & ~gone, noisy.clamp_min(1e-3), 0.0)


def _blobs(pixels: int, luck: Tensor) -> Tensor:
    """Turned ellipses, bool [B, S, S], with 5 numbers from 0 to 1 each: middle, half axes, angle."""
    step = torch.linspace(0, 1, pixels)
    x, y = step[None, None, :] - luck[:, 0, None, None], step[None, :, None] - luck[:, 1, None, None]
    angle = math.pi * luck[:, 4, None, None]
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    half = (0.08 + 0.25 * luck[:, 2:4])[..., None, None]
    inside: Tensor = (along / half[:, 0]) ** 2 + (across / half[:, 1]) ** 2 < 1
    return inside
