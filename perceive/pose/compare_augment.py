"""Pairs of seen and drawn pictures changed in ways that leave the change of pose between them known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from perceive.batch import Batch, BatchStream
from perceive.heads.pose_change_target import ChangeTarget
from perceive.pose.compare import DIAMETER_M
from sensors.errors import SpecError

_HOLES_PX = 6  # side of a hole in the depth
_LEAST_LEFT = 0.3  # of the visible pixels, once something is put in front of them
_SIGMAS = 3.0


@final
class PoseCompareAugment:
    """Changes what is seen (background, occluders, light, depth), and both pictures together (mirror, quarter turns,
    colours), which makes other objects of the known ones.

    Args:
        seen: the sensor with what was seen.
        drawn: the sensor with the drawing.
        plain: share of the samples whose seen picture stays as it is; what there is to learn is learned from them.
        blind: share of the samples without depth, also of those that are plain otherwise.
        background: share of the samples whose background is another's.
        occluder: share of the samples with something in front.
        dyed: share of the samples whose colour channels change places, in both pictures.
        whole: whether both pictures are mirrored and turned by quarters.
        brightness: of all seen colours, as a share.
        colour_gain: of each seen colour channel.
        gamma: bound of the logarithm of the exponent of seen brightness.
        colour_noise: deviation of a pixel, in counts of 255.
        depth_noise: deviation of depth, in diameters.
        holes: largest share of the depth that is missing.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        seen: str = "seen",
        drawn: str = "drawn",
        plain: float = 0.3,
        blind: float = 0.5,
        background: float = 0.3,
        occluder: float = 0.3,
        dyed: float = 0.5,
        whole: bool = True,
        brightness: float = 0.3,
        colour_gain: float = 0.1,
        gamma: float = 0.2,
        colour_noise: float = 4.0,
        depth_noise: float = 0.01,
        holes: float = 0.2,
    ) -> None:
        shares = {
            "plain": plain,
            "blind": blind,
            "background": background,
            "occluder": occluder,
            "dyed": dyed,
            "holes": holes,
        }
        for name, value in (shares | {"brightness": brightness, "colour_gain": colour_gain}).items():
            if not 0 <= value <= 1:
                raise SpecError(f"PoseCompareAugment.{name}", "a share from 0 to 1", repr(value), "Correct it.")
        for name, value in {"gamma": gamma, "colour_noise": colour_noise, "depth_noise": depth_noise}.items():
            if not 0 <= value < math.inf:
                raise SpecError(f"PoseCompareAugment.{name}", "0 or more", repr(value), "Correct it.")
        self._seen, self._drawn, self._whole = seen, drawn, whole
        self._plain, self._blind, self._background = plain, blind, background
        self._occluder, self._dyed = occluder, dyed
        self._brightness, self._colour_gain, self._gamma = brightness, colour_gain, gamma
        self._colour_noise, self._depth_noise, self._holes = colour_noise, depth_noise, holes

    def __call__(self, batch: Batch, target: ChangeTarget, generator: torch.Generator) -> tuple[Batch, ChangeTarget]:
        """A changed copy of a batch and its target, on the CPU."""
        streams = {name: dict(batch.stream(name).data) for name in (self._seen, self._drawn)}
        seen, drawn = streams[self._seen], streams[self._drawn]
        rgb, depth = seen["rgb"][:, 0].float(), seen["depth_m"][:, 0]
        size, pixels = depth.shape[:2]

        def draw(*shape: int) -> Tensor:
            return torch.rand(size, *shape, generator=generator)

        mask = target.mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
        other, away = torch.randperm(size, generator=generator), -seen["base_from_camera"][:, 0, 2, 3]
        plain, untouched = (draw() < self._plain)[:, None, None], (rgb, depth)
        swap = (draw() < self._background)[:, None, None] & ~mask & ~plain
        foreign = torch.where(depth[other] > 0, depth[other] + (away - away[other])[:, None, None], 0.0)
        rgb = torch.where(swap[..., None], rgb[other], rgb)
        depth = torch.where(swap, foreign.clamp_min(0), depth)
        patch = _blobs(pixels, draw(5)) & (draw() < self._occluder)[:, None, None] & ~plain
        patch &= ((mask & ~patch).sum((1, 2)) >= _LEAST_LEFT * mask.sum((1, 2)))[:, None, None]
        nearer = (away - (0.4 + draw()) * DIAMETER_M).clamp_min(0.01)[:, None, None]
        rgb = torch.where(patch[..., None], rgb[other].roll(pixels // 2, 2), rgb)
        depth = torch.where(patch & (depth > 0), torch.minimum(nearer, depth), depth)
        gain = (1 + (draw(1, 1, 1) * 2 - 1) * self._brightness) * (1 + (draw(1, 1, 3) * 2 - 1) * self._colour_gain)
        rgb = 255 * ((rgb * gain).clamp(0, 255) / 255) ** ((draw(1, 1, 1) * 2 - 1) * self._gamma).exp()
        rgb = rgb + torch.randn(rgb.shape, generator=generator) * (self._colour_noise * draw(1, 1, 1))
        noise = torch.randn(depth.shape, generator=generator).clamp_(-_SIGMAS, _SIGMAS)
        noisy = depth + noise * (DIAMETER_M * self._depth_noise * draw(1, 1))
        coarse = -(-pixels // _HOLES_PX)
        gone = draw(coarse, coarse) < draw(1, 1) * self._holes
        gone = gone.repeat_interleave(_HOLES_PX, 1).repeat_interleave(_HOLES_PX, 2)[:, :pixels, :pixels]
        rgb, noisy = torch.where(plain[..., None], untouched[0], rgb), torch.where(plain, untouched[1], noisy)
        gone = (gone & ~plain) | (draw() < self._blind)[:, None, None]
        seen["rgb"] = rgb.clamp(0, 255).round().to(torch.uint8)[:, None]
        seen["depth_m"] = torch.where((depth > 0) & ~gone, noisy.clamp_min(1e-3), 0.0)[:, None]
        target = replace(target, mask=target.mask & ~patch[:, ::2, ::2])
        order = draw(3).argsort(1)
        order = torch.where((draw() < self._dyed)[:, None], order, torch.arange(3))
        mirror, quarters = draw() < 0.5, (4 * draw()).long().clamp_max(3)
        for data in (seen, drawn):
            data["rgb"] = data["rgb"].gather(-1, order[:, None, None, None].expand_as(data["rgb"]))
            if self._whole:
                data["rgb"] = _turned(data["rgb"][:, 0], mirror, quarters)[:, None]
                data["depth_m"] = _turned(data["depth_m"][:, 0], mirror, quarters)[:, None]
        if self._whole:
            target = _turned_target(target, mirror, quarters)
        made = {n: BatchStream(d, batch.stream(n).age_s, batch.stream(n).valid) for n, d in streams.items()}
        return Batch({**batch.streams, **made}), target


def _turned(image: Tensor, mirror: Tensor, quarters: Tensor) -> Tensor:
    """Square pictures [B, S, S, ...], some mirrored left to right, then turned by quarters from right to down."""
    out = image.clone()
    out[mirror] = image[mirror].flip(2)
    for count in (1, 2, 3):
        same = quarters == count
        out[same] = torch.rot90(out[same], -count, (1, 2))
    return out


def _turned_target(target: ChangeTarget, mirror: Tensor, quarters: Tensor) -> ChangeTarget:
    size = len(mirror)
    motion = torch.eye(3).repeat(size, 1, 1)
    motion[:, 0, 0] = torch.where(mirror, -1.0, 1.0)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for count in (1, 2, 3):
        same = quarters == count
        motion[same] = torch.linalg.matrix_power(quarter, count) @ motion[same]
    return replace(
        target,
        turn=motion @ target.turn @ motion.mT,
        shift=(motion[:, :2, :2] @ target.shift[..., None])[..., 0],
        points=target.points @ motion.mT,
        mask=_turned(target.mask, mirror, quarters),
    )


def _blobs(pixels: int, luck: Tensor) -> Tensor:
    """Turned ellipses, bool [B, S, S], with 5 numbers from 0 to 1 each: middle, half axes, angle."""
    step = torch.linspace(0, 1, pixels)
    x, y = step[None, None, :] - luck[:, 0, None, None], step[None, :, None] - luck[:, 1, None, None]
    angle = math.pi * luck[:, 4, None, None]
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    half = (0.08 + 0.25 * luck[:, 2:4])[..., None, None]
    inside: Tensor = (along / half[:, 0]) ** 2 + (across / half[:, 1]) ** 2 < 1
    return inside
