"""PatchFeatures: what one cell of a cut-out looks like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from perceive.encoders.backbone import ImageBackbone, colour_statistics, load_network
from perceive.pose.templates.crops import Crops
from sensors.errors import DataError, SpecError

_CHROMA = 4.0  # how much a hue counts against being coloured at all


class PatchFeatures(ABC):
    """Describes the cells of square pictures; cells are compared by the product of their features."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What tells these features from others, settings included; part of the fingerprint of stored templates."""

    @property
    @abstractmethod
    def cells(self) -> int:
        """Cells along a side."""

    @property
    @abstractmethod
    def pixels(self) -> int:
        """Pixels along a side of the pictures that it wants."""

    @property
    @abstractmethod
    def turns_query(self) -> bool:
        """Whether it is cheap enough that the query is turned; otherwise the templates are, once."""

    @abstractmethod
    def describe(self, crops: Crops) -> Tensor:
        """Features float32 [N, C, cells, cells]; zero where the object is not. A cell has length 1 at most."""


@final
class SurfaceFeatures(PatchFeatures):
    """Normals and colours of the cells: nothing is learned, no weights are needed.

    Normals come from the differences of the cells' mean depths, for pictures and templates alike. Colours count by
    their hue and by their brightness relative to the whole object, so that a light of another strength changes
    nothing. Without depth only the colours are left.

    Args:
        cells: along a side.
        samples: pixels along a side of a cell.
        normal_share: weight of the normals; the colours have the rest.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(self, cells: int = 16, samples: int = 3, normal_share: float = 0.5) -> None:
        if not 4 <= cells <= 64 or not 1 <= samples <= 16 or not 0 <= normal_share <= 1:
            raise SpecError(
                "SurfaceFeatures", "cells 4 to 64, samples 1 to 16, normal_share 0 to 1",
                f"{cells}, {samples}, {normal_share}", "Correct it.",
            )  # fmt: skip
        self._cells, self._samples, self._share = cells, samples, normal_share

    @property
    def name(self) -> str:
        return f"surface {self._cells} {self._samples} {self._share:.4f}"

    @property
    def cells(self) -> int:
        return self._cells

    @property
    def pixels(self) -> int:
        return self._cells * self._samples

    @property
    def turns_query(self) -> bool:
        return True

    def describe(self, crops: Crops) -> Tensor:
        colour = self._colours(crops)
        placed = torch.from_numpy(crops.placed)
        if not bool(placed.any()):
            return torch.cat([torch.zeros_like(colour[:, :3]), colour], 1)
        normal = self._normals(torch.from_numpy(crops.depth_m), placed, crops.step_m * self._samples)
        return torch.cat([self._share**0.5 * normal, (1 - self._share) ** 0.5 * colour], 1)

    def _colours(self, crops: Crops) -> Tensor:
        mask = torch.from_numpy(crops.mask)
        rgb = torch.from_numpy(crops.rgb).permute(0, 3, 1, 2)
        mean, share = cell_means(rgb, mask, self._cells)
        return colour_features(mean, share > 0)

    def _normals(self, depth_m: Tensor, placed: Tensor, edge_m: float) -> Tensor:
        mean, share = cell_means(depth_m[:, None], placed, self._cells)
        z, there = mean[:, 0], share[:, 0] > 0
        slope_x, has_x = _slope(z, there, 2)
        slope_y, has_y = _slope(z, there, 1)
        normal = torch.stack([slope_x / edge_m, slope_y / edge_m, -torch.ones_like(z)], 1)
        normal = torch.nn.functional.normalize(normal, dim=1)
        return torch.where((has_x & has_y)[:, None], normal, 0.0)


@final
class BackboneFeatures(PatchFeatures):
    """Cells of the feature map of a pretrained ``transformers`` image model, e.g. DINOv2 (Ornek et al., ECCV 2024).

    Args:
        backbone: local folder, or hub name.
        image_px: side of the pictures that it sees.
        local_only: never reach for the hub: a hub name is looked for among what was downloaded before.
        batch: pictures at a time.
        mean: of each colour channel in 0 to 1; None = from the model's ``preprocessor_config.json``.
        std: deviation of each colour channel; None = likewise.

    Raises:
        DataError: there is no such model, or it cannot be read.
        WiringError: its output is not a grid.
    """

    def __init__(
        self,
        backbone: str,
        image_px: int = 224,
        local_only: bool = True,
        batch: int = 16,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        folder = _downloaded(backbone) if local_only else backbone
        self._network = ImageBackbone(load_network(folder), image_px, trainable=False)
        if mean is None or std is None:
            mean, std = colour_statistics(folder)
        self._mean, self._std = (torch.tensor(list(v), dtype=torch.float32)[:, None, None] for v in (mean, std))
        self._pixels, self._batch = image_px, max(batch, 1)
        if self._network.grid[0] != self._network.grid[1]:
            raise SpecError("BackboneFeatures", "a square grid", str(self._network.grid), "Use another backbone.")
        with torch.no_grad():  # other weights are other features
            weights = sum(float(p.double().abs().sum()) for p in self._network.parameters())
        self._name = f"backbone {Path(backbone).name} {image_px} {weights:.6e}"

    @property
    def name(self) -> str:
        return self._name

    @property
    def cells(self) -> int:
        return self._network.grid[0]

    @property
    def pixels(self) -> int:
        return self._pixels

    @property
    def turns_query(self) -> bool:
        return False

    def describe(self, crops: Crops) -> Tensor:
        mask = torch.from_numpy(crops.mask)
        rgb = torch.from_numpy(crops.rgb).permute(0, 3, 1, 2)
        rgb = torch.where(mask[:, None], (rgb - self._mean) / self._std, 0.0)  # what is around it is not the object
        maps = [self._network(rgb[first : first + self._batch]) for first in range(0, len(rgb), self._batch)]
        features = torch.nn.functional.normalize(torch.cat(maps), dim=1)
        share = cell_means(mask[:, None].float(), mask, self.cells)[1]
        return torch.where(share > 0, features, 0.0)


def cell_means(value: Tensor, weight: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Means [N, C, G, G] of the pixels that count, and their share [N, 1, G, G].

    Args:
        value: float [N, C, S, S].
        weight: bool [N, S, S].
        cells: G.
    """
    pool = torch.nn.functional.adaptive_avg_pool2d
    count = weight[:, None].to(value.dtype)
    share = pool(count, cells)
    return pool(value * count, cells) / share.clamp_min(1e-6), share


def colour_features(rgb: Tensor, there: Tensor) -> Tensor:
    """Unit features [N, 4, ...] of colours that a light of another strength leaves as they are.

    Args:
        rgb: float [N, 3, ...] in 0 to 1.
        there: bool [N, 1, ...], which of them belong to the object; the others give zeros.
    """
    red, green, blue = rgb.unbind(1)
    bright = rgb.sum(1)
    inside = there[:, 0]
    rest = tuple(range(1, bright.ndim))
    usual = (bright * inside).sum(rest, keepdim=True) / inside.sum(rest, keepdim=True).clamp_min(1)
    total = bright + 0.15  # dark colours have a noisy hue
    one = _CHROMA * (red - green) / total
    two = _CHROMA * (red + green - 2 * blue) / (2 * total)
    three = (bright / usual.clamp_min(1e-3) - 1).clamp(-1, 1)
    length = torch.rsqrt(one * one + two * two + three * three + 1)
    length = torch.where(inside, length, 0.0)
    return torch.stack([one * length, two * length, three * length, length], 1)


def _slope(z: Tensor, there: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Difference to the neighbours in cells [N, G, G], from both sides where both are there."""
    after, before = torch.roll(z, -1, axis), torch.roll(z, 1, axis)
    has_after, has_before = torch.roll(there, -1, axis).clone(), torch.roll(there, 1, axis).clone()
    has_after.select(axis, -1).fill_(False)
    has_before.select(axis, 0).fill_(False)
    one = torch.where(has_after, after - z, torch.where(has_before, z - before, 0.0))
    slope = torch.where(has_after & has_before, (after - before) / 2, one)
    return slope, there & (has_after | has_before)


def _downloaded(backbone: str) -> str:
    """The local folder of a model."""
    if Path(backbone).is_dir():
        return backbone
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(backbone, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "BackboneFeatures", "a model on this machine", repr(backbone),
            "Pass its folder, download it, or set local_only=False; SurfaceFeatures need no weights.",
        ) from error  # fmt: skip
