"""A code book of gel pictures: convolutions to codes, and back to the picture."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from perceive.build import TARGET, build
from perceive.objectives.quantise import CodeBook, Quantised
from perceive.saved import Description, fill, read_model, write_model
from sensors.errors import DataError, SpecError


@final
@dataclass(frozen=True)
class CodeBookSettings:
    """Sizes of a code book of pictures.

    Attributes:
        codes: how many.
        width: of a code.
        channels: of the convolutions at the full picture; they double with every halving, up to four times.
        halvings: of the picture until the codes; a code stands for 2^halvings pixels squared.
        blocks: residual blocks on the codes' grid, before and after.
        decay: see :class:`perceive.objectives.quantise.CodeBook`.
        commitment: likewise.
        revive_below: likewise.
        learn: likewise.

    Raises:
        SpecError: a size is below 1.
    """

    codes: int = 256
    width: int = 32
    channels: int = 16
    halvings: int = 3
    blocks: int = 2
    decay: float = 0.95
    commitment: float = 0.25
    revive_below: float = 0.5
    learn: bool = True

    def __post_init__(self) -> None:
        least = min(self.channels, self.halvings, self.width)
        if least < 1 or self.blocks < 0:
            got = f"{self.channels}, {self.halvings}, {self.width}, {self.blocks}"
            raise SpecError("CodeBookSettings", "channels, halvings, width >= 1, blocks >= 0", got, "Correct them.")

    @property
    def stages(self) -> list[int]:
        """Channels at the full picture and after each halving."""
        return [self.channels * min(2**i, 4) for i in range(self.halvings + 1)]

    def to_config(self) -> dict[str, Any]:
        """Plain data from which :func:`perceive.build.build` makes these settings again."""
        return {TARGET: f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)}


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(min(8, channels), channels), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(min(8, channels), channels), nn.GELU(), nn.Conv2d(channels, channels, 1),
        )  # fmt: skip

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = value + self.body(value)
        return result


@final
class PictureCodes(nn.Module):
    """Pictures -> a grid of codes. What a policy needs of a code book; see :class:`TouchCodeBook`.

    Args:
        settings: sizes.
    """

    def __init__(self, settings: CodeBookSettings) -> None:
        super().__init__()
        stages = settings.stages
        layers: list[nn.Module] = [nn.Conv2d(3, stages[0], 3, padding=1)]
        for one, other in itertools.pairwise(stages):
            layers += [nn.GELU(), nn.Conv2d(one, other, 4, 2, 1)]
        layers += [_Residual(stages[-1]) for _ in range(settings.blocks)]
        self.convolutions = nn.Sequential(*layers, nn.Conv2d(stages[-1], settings.width, 1))
        self.book = CodeBook(
            settings.codes, settings.width, settings.decay, settings.commitment, settings.revive_below, settings.learn
        )
        self.settings = settings

    def forward(self, picture: Tensor, counts: Tensor | None = None) -> Quantised:
        """Codes [B, rows, columns, width] of pictures float [B, 3, H, W], grey values over 127.5 less 1.

        Args:
            picture: H and W are multiples of 2^halvings.
            counts: bool [B], which pictures may change the codes.
        """
        # Vectors and codes of one length, so that an untrained network does not fall onto one short code.
        vectors = nn.functional.layer_norm(self.convolutions(picture).movedim(1, -1), (self.settings.width,))
        each = None if counts is None else counts[:, None, None].expand(vectors.shape[:-1])
        found: Quantised = self.book(vectors, each)
        return found


@dataclass(frozen=True, eq=False)
class Restored:
    """What is left of pictures that went through their codes.

    Attributes:
        picture: float [B, 3, H, W], grey values over 127.5 less 1, not clipped.
        codes: the codes.
    """

    picture: Tensor
    codes: Quantised


@final
class TouchCodeBook(nn.Module):
    """Autoencoder of gel pictures whose middle is a grid of codes.

    After UniT (Z. Xu, R. Uppuluri, X. Zhang et al., "UniT: Data Efficient Tactile Representation with Generalization
    to Unseen Objects", RA-L): a code book that was trained on pictures of one simple object restores those of others,
    and its codes serve policies. Trained here on the pictures' error and the commitment to codes only; the perceptual
    and the adversarial loss of VQGAN, which UniT takes over, are left out, so pictures come out smoother.

    Args:
        settings: sizes.
    """

    def __init__(self, settings: CodeBookSettings) -> None:
        super().__init__()
        stages = settings.stages[::-1]
        self.codes = PictureCodes(settings)
        layers: list[nn.Module] = [nn.Conv2d(settings.width, stages[0], 3, padding=1)]
        layers += [_Residual(stages[0]) for _ in range(settings.blocks)]
        for one, other in itertools.pairwise(stages):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(one, other, 3, padding=1), nn.GELU()]
        self.restore = nn.Sequential(*layers, nn.Conv2d(stages[-1], 3, 3, padding=1))
        self.settings = settings

    def forward(self, rgb: Tensor, counts: Tensor | None = None) -> Restored:
        """Pictures uint8 [B, H, W, 3] through their codes.

        Args:
            rgb: H and W are multiples of 2^halvings.
            counts: bool [B], which of them may change the codes; None = all.

        Raises:
            SpecError: not such pictures.
        """
        codes: Quantised = self.codes(scaled(rgb, 2**self.settings.halvings), counts)
        return Restored(self.restore(codes.values.movedim(-1, 1)), codes)

    def loss(self, rgb: Tensor, counts: Tensor | None = None) -> dict[str, Tensor]:
        """``picture``: mean absolute plus mean squared error; ``commitment``; their sum ``loss``; ``_perplexity``."""
        restored = self(rgb, counts)
        off = restored.picture - scaled(rgb, 2**self.settings.halvings)
        each = (off.abs() + off.square()).mean((1, 2, 3))
        there = torch.ones(len(rgb), dtype=torch.bool, device=rgb.device) if counts is None else counts
        picture = torch.where(there, each, 0.0).sum() / there.sum().clamp_min(1)
        terms = {"picture": picture, "commitment": restored.codes.commitment, "_perplexity": restored.codes.perplexity}
        return {"loss": picture + restored.codes.commitment, **terms}

    @torch.no_grad()
    def restored(self, rgb: Tensor) -> Tensor:
        """Pictures uint8 [B, H, W, 3] as they come back."""
        found: Restored = self(rgb)
        picture = found.picture.movedim(1, -1)
        return ((picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors``."""
        plan = {TARGET: f"{type(self).__module__}.{type(self).__qualname__}", "settings": self.settings.to_config()}
        return write_model(folder, Description(plan, {}, {}, None).to_json(), self.state_dict())

    @staticmethod
    def from_pretrained(folder: str | Path, device: str = "cpu") -> TouchCodeBook:
        """The inverse of :meth:`save_pretrained`, in evaluation mode.

        Raises:
            DataError: a file is missing, damaged, or of another model.
        """
        place, was, state = read_model(folder, device)
        own = f"{TouchCodeBook.__module__}.{TouchCodeBook.__qualname__}"
        if was.plan.get(TARGET) != own:
            raise DataError(str(place), f"a {own}", f"{was.plan.get(TARGET)}", "Name the folder of one.")
        model = build(was.plan, where=str(place))
        assert isinstance(model, TouchCodeBook)
        fill(model, state, place)
        return model.to(device).eval()


def scaled(rgb: Tensor, multiple: int) -> Tensor:
    """Pictures uint8 [B, H, W, 3] -> float [B, 3, H, W], grey values over 127.5 less 1.

    Raises:
        SpecError: not such pictures, or sides that are no multiples.
    """
    shape = tuple(rgb.shape)
    if rgb.dtype != torch.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] % multiple or shape[2] % multiple:
        fix = "Resize the pictures, or halve less often."
        expected = f"uint8 [B, H, W, 3] with sides that {multiple} divides"
        raise SpecError("TouchCodeBook, rgb", expected, f"{rgb.dtype} {list(shape)}", fix)
    return rgb.movedim(-1, 1).float() / 127.5 - 1


def psnr(picture: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, [B], of pictures uint8 [B, H, W, 3].

    Args:
        picture: one.
        truth: the other.
        where: bool [B, H, W], which pixels count; None = all. A picture without any is NaN.
    """
    square = (picture.float() - truth.float()).square().mean(-1)
    weight = torch.ones_like(square) if where is None else where.float()
    mean = (square * weight).sum((1, 2)) / weight.sum((1, 2))
    ratio: Tensor = 255.0**2 / mean.clamp_min(1e-4)
    return 10 * ratio.log10()
