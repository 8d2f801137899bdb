"""The block of PTv3: a sparse convolution for position, attention inside of patches, and an MLP.

Paper: Wu et al., CVPR 2024, arXiv 2312.10035. Attention knows no positions: what stands where comes from the xCPE, a
submanifold convolution added before it.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from perceive.points.padding import Pieces
from perceive.points.ptv3.levels import Level
from perceive.points.sparse_conv import KernelMap, SubmanifoldConv3d
from sensors.errors import SpecError


def batch_norm(width: int) -> nn.BatchNorm1d:
    """The batch normalisation of the published model."""
    return nn.BatchNorm1d(width, eps=1e-3, momentum=0.01)


def normalised(norm: nn.BatchNorm1d, rows: Tensor) -> Tensor:
    """Rows [M, C] after batch normalisation; by the running statistics where fewer than two rows give none."""
    if norm.training and len(rows) < 2:
        return nn.functional.batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
    out: Tensor = norm(rows)
    return out


@final
class DropPath(nn.Module):
    """Leaves out the branch of a cell with a given probability in training, and scales up what is left.

    Args:
        rate: probability, 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Branch [M, C] with some rows zero."""
        if not self.training or self.rate == 0:
            return branch
        keep = 1.0 - self.rate
        return branch * (torch.rand(len(branch), 1, device=branch.device) < keep).to(branch.dtype) / keep


@final
class PatchAttention(nn.Module):
    """Multi-head self-attention inside of each patch.

    Args:
        width: C.
        heads: H, divides C.

    Raises:
        SpecError: it does not divide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise SpecError("PatchAttention.heads", f"a divisor of {width}", repr(heads), "Use one.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, features: Tensor, patches: Pieces, masked: bool) -> Tensor:
        """Features [M, C] of features [M, C].

        Args:
            features: of the cells.
            patches: which cells look at each other.
            masked: whether some place of a patch is no key.
        """
        if not len(features):
            empty: Tensor = self.project(features)
            return empty
        taken = patches.take(self.qkv(features))  # [S, L, 3C]
        patch, length = taken.shape[:2]
        query, key, value = taken.view(patch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # SDPA also scales by 1 / sqrt(C / H).
        seen = patches.key[:, None, None, :] if masked else None
        out = nn.functional.scaled_dot_product_attention(query, key, value, seen)
        result: Tensor = self.project(patches.give(out.transpose(1, 2).reshape(patch, length, -1)))
        return result


@final
class PositionConv(nn.Module):
    """The xCPE: where a cell stands among its neighbours, as features.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = SubmanifoldConv3d(width, width, 3, bias=True)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor, neighbours: KernelMap) -> Tensor:
        """Features [M, C] of features [M, C]."""
        out: Tensor = self.norm(self.linear(self.conv(features, neighbours)))
        return out


@final
class Mlp(nn.Module):
    """Two linear maps with a GELU between.

    Args:
        width: C.
        ratio: hidden channels over C.
    """

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.widen = nn.Linear(width, int(width * ratio))
        self.narrow = nn.Linear(int(width * ratio), width)

    def forward(self, features: Tensor) -> Tensor:
        """Features [M, C] of features [M, C]."""
        out: Tensor = self.narrow(nn.functional.gelu(self.widen(features)))
        return out


@final
class Block(nn.Module):
    """Position, then attention, then the MLP; each added to what came in, the latter two normalised before.

    Args:
        width: C.
        heads: of the attention.
        ratio: of the MLP.
        drop_path: probability of leaving out a branch in training.
    """

    def __init__(self, width: int, heads: int, ratio: float, drop_path: float) -> None:
        super().__init__()
        self.position = PositionConv(width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = PatchAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, ratio)
        self.drop = DropPath(drop_path)

    def forward(self, features: Tensor, level: Level, curve: int) -> Tensor:
        """Features [M, C] of features [M, C] of the cells of a level; attention along the given curve."""
        features = features + self.position(features, level.neighbours)
        attended = self.attention(self.attention_norm(features), level.patches[curve], level.masked)
        features = features + self.drop(attended)
        out: Tensor = features + self.drop(self.mlp(self.mlp_norm(features)))
        return out
