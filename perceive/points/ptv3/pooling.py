"""From one level of PTv3 to the next coarser one, and back.

Paper: Wu et al., CVPR 2024, arXiv 2312.10035. Cells that share all but the last three bits of their code are one cell
of the coarser level; so they are on every curve, for a prefix of any is a cell of the octree.
"""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from perceive.points.ptv3.blocks import batch_norm, normalised
from perceive.points.ptv3.levels import Level
from perceive.points.scatter import segment_max


@final
class GridPool(nn.Module):
    """A linear map, the largest of each coarser cell, batch normalisation and a GELU.

    Args:
        in_width: C.
        out_width: D.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_width, out_width)
        self.norm = batch_norm(out_width)

    def forward(self, features: Tensor, coarse: Level) -> Tensor:
        """Features [M', D] of the cells of ``coarse``, of features [M, C] of those one level finer."""
        assert coarse.child_of is not None  # only the finest level has none
        pooled = segment_max(self.project(features), coarse.child_of, len(coarse.cell))
        return nn.functional.gelu(normalised(self.norm, pooled))


@final
class GridUnpool(nn.Module):
    """Each coarser cell's features for its cells, added to what these had before; both mapped and normalised.

    Args:
        in_width: channels of the coarser level.
        skip_width: channels of the finer one in the encoder.
        out_width: D.
    """

    def __init__(self, in_width: int, skip_width: int, out_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_width, out_width)
        self.norm = batch_norm(out_width)
        self.skip = nn.Linear(skip_width, out_width)
        self.skip_norm = batch_norm(out_width)

    def forward(self, features: Tensor, skip: Tensor, coarse: Level) -> Tensor:
        """Features [M, D] of the finer cells, of [M', C'] of ``coarse`` and [M, C] of the finer in the encoder."""
        assert coarse.child_of is not None
        up = nn.functional.gelu(normalised(self.norm, self.project(features)))
        own = nn.functional.gelu(normalised(self.skip_norm, self.skip(skip)))
        return own + up.index_select(0, coarse.child_of)
