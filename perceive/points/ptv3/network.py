"""Point Transformer V3 (Wu et al., CVPR 2024, arXiv 2312.10035): a U-net over the cells of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from perceive.points.ptv3.blocks import Block, batch_norm, normalised
from perceive.points.ptv3.levels import GridCloud, Level, Levels, build_levels
from perceive.points.ptv3.pooling import GridPool, GridUnpool
from perceive.points.serialise import CURVES, Curve
from perceive.points.sparse_conv import KernelMap, SubmanifoldConv3d
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class GridFeatures:
    """What the network says about cells.

    Attributes:
        features: float [M, D]; in the order of the given rows after the decoder, of the level's cells without one.
        cell: int64 [M, 3].
        sample: int64 [M].
        position_m: float [M, 3] in the frame of the points.
        samples: B.
    """

    features: Tensor
    cell: Tensor
    sample: Tensor
    position_m: Tensor
    samples: int


@final
class Stem(nn.Module):
    """A convolution over a wide kernel, batch normalisation, GELU.

    Args:
        in_width: C.
        out_width: D.
        kernel: cells along its edges.
    """

    def __init__(self, in_width: int, out_width: int, kernel: int) -> None:
        super().__init__()
        self.conv = SubmanifoldConv3d(in_width, out_width, kernel, bias=False)
        self.norm = batch_norm(out_width)

    def forward(self, features: Tensor, neighbours: KernelMap) -> Tensor:
        """Features [M, D] of features [M, C]."""
        return nn.functional.gelu(normalised(self.norm, self.conv(features, neighbours)))


@final
class EncoderStage(nn.Module):
    """Pooling, except at the finest level, then blocks.

    Args:
        in_width: channels of the level before; None at the finest.
        width: C.
        heads: of the attention.
        ratio: of the MLP.
        drop_path: of each block.
    """

    def __init__(self, in_width: int | None, width: int, heads: int, ratio: float, drop_path: Sequence[float]) -> None:
        super().__init__()
        self.down = None if in_width is None else GridPool(in_width, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, rate) for rate in drop_path)

    def forward(self, features: Tensor, level: Level) -> Tensor:
        """Features of the cells of ``level``, of those of the level before."""
        if self.down is not None:
            features = self.down(features, level)
        return _through(self.blocks, features, level)


@final
class DecoderStage(nn.Module):
    """Unpooling, then blocks.

    Args:
        in_width: channels of the coarser level.
        skip_width: channels of this level in the encoder.
        width: C.
        heads: of the attention.
        ratio: of the MLP.
        drop_path: of each block.
    """

    def __init__(
        self, in_width: int, skip_width: int, width: int, heads: int, ratio: float, drop_path: Sequence[float]
    ) -> None:
        super().__init__()
        self.up = GridUnpool(in_width, skip_width, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, rate) for rate in drop_path)

    def forward(self, features: Tensor, skip: Tensor, coarse: Level, level: Level) -> Tensor:
        """Features of the cells of ``level``, of those of ``coarse`` and of what the encoder had here."""
        return _through(self.blocks, self.up(features, skip, coarse), level)


@final
class PointTransformerV3(nn.Module):
    """Features of grid cells, each out of its whole surroundings; the defaults are the published 46.2 M parameters.

    In evaluation the same cloud gives the same bits, in whatever order its rows come; other clouds of the batch only
    change the rounding. In training the curves are shuffled at each level and branches are dropped, both from torch's
    generator. A cloud of fewer cells than a patch is one patch; the published model without flash attention shrinks
    all patches of the batch to its smallest cloud instead.

    Args:
        in_width: channels of the given features.
        encoder_blocks: blocks of each stage; its length is the number of levels.
        encoder_width: channels of each stage.
        encoder_heads: heads of each stage.
        decoder_blocks: blocks of each stage, from the finest level; one stage fewer than the encoder, or none at all
            for the encoder alone.
        decoder_width: channels of each.
        decoder_heads: heads of each.
        patch: cells that look at each other.
        mlp_ratio: hidden channels of the MLPs over channels.
        drop_path: chance of dropping a branch in the last block; it grows linearly from 0 in the first.
        curves: block i of a stage attends along curve ``i % len(curves)``.
        shuffle: whether training permutes the curves; evaluation never does.
        stem_kernel: cells along the first kernel, odd, at least 3.

    Raises:
        SpecError: lengths that do not fit, heads that do not divide, values out of range.
    """

    def __init__(
        self,
        in_width: int = 6,
        encoder_blocks: Sequence[int] = (2, 2, 2, 6, 2),
        encoder_width: Sequence[int] = (32, 64, 128, 256, 512),
        encoder_heads: Sequence[int] = (2, 4, 8, 16, 32),
        decoder_blocks: Sequence[int] = (2, 2, 2, 2),
        decoder_width: Sequence[int] = (64, 64, 128, 256),
        decoder_heads: Sequence[int] = (4, 4, 8, 16),
        patch: int = 1024,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.3,
        curves: Sequence[Curve] = CURVES,
        shuffle: bool = True,
        stem_kernel: int = 5,
    ) -> None:
        super().__init__()
        _check(encoder_blocks, encoder_width, encoder_heads, len(encoder_blocks), "encoder")
        _check(
            decoder_blocks, decoder_width, decoder_heads, len(encoder_blocks) - 1 if decoder_blocks else 0, "decoder"
        )
        if patch < 1 or not 0 <= drop_path < 1 or stem_kernel < 3 or not curves or in_width < 1 or mlp_ratio <= 0:
            raise SpecError(
                "PointTransformerV3",
                "patch, in_width >= 1, 0 <= drop_path < 1, stem_kernel >= 3, mlp_ratio > 0, a curve",
                f"{patch}, {in_width}, {drop_path}, {stem_kernel}, {mlp_ratio}, {list(curves)}",
                "Correct them.",
            )
        self.in_width = in_width
        self.patch = patch
        self.curves = tuple(curves)
        self.shuffle = shuffle
        self.stem_kernel = stem_kernel
        self.blocks_per_level = [
            max(blocks, *decoder_blocks[number : number + 1], 0) for number, blocks in enumerate(encoder_blocks)
        ]
        self.stem = Stem(in_width, encoder_width[0], stem_kernel)
        rates = _ramp(encoder_blocks, drop_path)
        self.encoder = nn.ModuleList(
            EncoderStage(encoder_width[s - 1] if s else None, encoder_width[s], encoder_heads[s], mlp_ratio, rates[s])
            for s in range(len(encoder_blocks))
        )
        rates = _ramp(decoder_blocks, drop_path)
        below = [*decoder_width[1:], encoder_width[-1]]
        # Numbered by level, so used from the last to the first; within a stage the rates fall.
        self.decoder = nn.ModuleList(
            DecoderStage(below[s], encoder_width[s], decoder_width[s], decoder_heads[s], mlp_ratio, rates[s][::-1])
            for s in range(len(decoder_blocks))
        )
        self.out_width = decoder_width[0] if decoder_blocks else encoder_width[-1]

    def levels(self, cloud: GridCloud) -> Levels:
        """The geometry that :meth:`forward` works on; see :func:`perceive.points.ptv3.levels.build_levels`."""
        shuffle = self.shuffle and self.training
        return build_levels(cloud, self.blocks_per_level, self.patch, self.curves, self.stem_kernel, shuffle)

    def forward(self, cloud: GridCloud) -> GridFeatures:
        """Features of the given cells, in their order; of the encoder alone, those of the coarsest level's cells.

        Raises:
            SpecError: features of another width, or see :meth:`levels`.
        """
        if cloud.features.shape[-1] != self.in_width:
            raise SpecError(
                "PointTransformerV3", f"{self.in_width} channels", f"{cloud.features.shape[-1]}", "Set in_width."
            )
        geometry = self.levels(cloud)
        features: Tensor = self.stem(cloud.features.index_select(0, geometry.first), geometry.stem)
        skips: list[Tensor] = []
        for stage, level in zip(self.encoder, geometry.levels, strict=True):
            features = stage(features, level)
            skips.append(features)
        if not len(self.decoder):
            last = geometry.levels[-1]
            return GridFeatures(features, last.cell, last.sample, last.position_m, last.samples)
        for number in range(len(self.decoder) - 1, -1, -1):
            coarse, level = geometry.levels[number + 1], geometry.levels[number]
            features = self.decoder[number](features, skips[number], coarse, level)
        features = features.index_select(0, geometry.row)
        return GridFeatures(features, cloud.cell, cloud.sample, cloud.position_m, cloud.samples)


def _through(blocks: nn.ModuleList, features: Tensor, level: Level) -> Tensor:
    curves = len(level.codes)
    for number, block in enumerate(blocks):
        features = block(features, level, number % curves)
    return features


def _ramp(blocks: Sequence[int], last: float) -> list[list[float]]:
    """For each stage the rates of its blocks, evenly from 0 to ``last`` over all."""
    steps = max(1, sum(blocks) - 1)
    rates = [last * number / steps for number in range(sum(blocks))]
    ends = [sum(blocks[: number + 1]) for number in range(len(blocks))]
    return [rates[end - count : end] for end, count in zip(ends, blocks, strict=True)]


def _check(blocks: Sequence[int], width: Sequence[int], heads: Sequence[int], stages: int, which: str) -> None:
    lengths = {len(blocks), len(width), len(heads)}
    if lengths != {stages} or (which == "encoder" and not stages) or any(count < 0 for count in blocks):
        raise SpecError(
            f"PointTransformerV3.{which}",
            f"blocks, widths and heads of {stages or 'one or more'} stages",
            f"{list(blocks)}, {list(width)}, {list(heads)}",
            "The decoder has one stage fewer than the encoder, or none.",
        )
