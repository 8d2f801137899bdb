"""PointNet as published, a classifier of point clouds: the baseline that every claim about clouds stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from sensors.errors import SpecError, WiringError

LAYERS = ((64, 64), (64, 128, 1024))  # before and after the features are turned; as published
HIDDEN = (512, 256)


@final
class PointNetClassifier(nn.Module):
    """Qi et al., "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", CVPR 2017.

    The same layers for every point, the largest answer of each channel, and layers that tell the class; with batch
    normalisation, and dropout before the last layer. ``transform`` adds the paper's two T-nets, small PointNets that
    turn the coordinates and, after the first layers, the features; :meth:`loss` then keeps the latter's matrix close to
    a rotation. :class:`perceive.diffusion.pointnet.PointNet` is another network of that name: no T-nets, layer
    normalisation, one vector for an action head.

    Points that are not valid are left out before the first layer, statistics of batch normalisation included.

    Args:
        classes: S.
        inputs: numbers per point; of these the first three are the place.
        layers: widths of the shared layers before and after the features are turned.
        hidden: widths of the layers after the maximum.
        dropout: before the last layer.
        transform: whether there are T-nets. Theirs have the widths of the shared layers and of ``hidden``.

    Raises:
        WiringError: a number out of its range.
    """

    def __init__(
        self,
        classes: int,
        inputs: int = 3,
        layers: tuple[Sequence[int], Sequence[int]] = LAYERS,
        hidden: Sequence[int] = HIDDEN,
        dropout: float = 0.3,
        transform: bool = False,
    ) -> None:
        super().__init__()
        first, second = layers
        if min([classes, *first, *second, *hidden]) < 1 or inputs < 3 or not (first and second and hidden):
            got = f"{classes} classes, {inputs} inputs, layers {layers}, hidden {hidden}"
            raise WiringError("PointNetClassifier", "3 inputs, 1 class and 1 channel at least", got, "Correct them.")
        if not 0 <= dropout < 1:
            raise WiringError("PointNetClassifier.dropout", "a share from 0 to below 1", f"{dropout}", "Correct it.")
        self.turn_points = _TNet(3, 3, [*first[:1], *second[1:]], hidden) if transform else None
        self.first = _shared([inputs, *first])
        self.turn_features = _TNet(first[-1], first[-1], [*first[:1], *second[1:]], hidden) if transform else None
        self.second = _shared([first[-1], *second])
        self.head = nn.Sequential(_shared([second[-1], *hidden]), nn.Dropout(dropout), nn.Linear(hidden[-1], classes))

    def forward(self, points: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits [B, S].

        Args:
            points: float [B, P, inputs]; anything where not valid.
            valid: bool [B, P]; None = all are there. A cloud without points counts as one whose largest answers are 0.

        Raises:
            SpecError: shapes that do not fit, no valid point at all, or in training a batch of one cloud, of which
                batch normalisation has no statistics.
        """
        return self._told(points, valid)[0]

    def loss(self, points: Tensor, label: Tensor, valid: Tensor | None = None, weight: float = 1e-3) -> Tensor:
        """Cross entropy, and ``weight`` times how far the features' matrix is from a rotation (the paper's 0.001).

        Args:
            points: as of :meth:`forward`.
            label: int64 [B]; -1 = not known.
            valid: as of :meth:`forward`.
            weight: of the second term.
        """
        logits, turn = self._told(points, valid)
        known = label >= 0
        total = nn.functional.cross_entropy(logits, label.clamp_min(0), reduction="none")
        total = torch.where(known, total, 0.0).sum() / known.sum().clamp_min(1)
        if turn is None:
            return total
        gap = torch.eye(turn.shape[-1], dtype=turn.dtype, device=turn.device) - turn @ turn.transpose(1, 2)
        return total + weight * gap.square().sum((1, 2)).mean()

    def _told(self, points: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        rows = _Rows.of(points, valid, self.first[0].in_features)  # type: ignore[arg-type]  # a Linear
        if self.training and rows.size < 2:
            raise SpecError("PointNetClassifier", "two clouds at least in training", "one", "Make the batch larger.")
        values = rows.values
        if self.turn_points is not None:
            turned = rows.times(values[:, :3], self.turn_points(values[:, :3], rows))
            values = torch.cat([turned, values[:, 3:]], -1)
        values = self.first(values)
        turn: Tensor | None = None
        if self.turn_features is not None:
            turn = self.turn_features(values, rows)
            values = rows.times(values, turn)
        logits: Tensor = self.head(rows.largest(self.second(values)))
        return logits, turn


class _Rows:
    """The points of all clouds below each other; ``index`` int64 [n] says where each stood, None = all are there."""

    def __init__(self, values: Tensor, index: Tensor | None, size: int, room: int) -> None:
        self.values, self.index, self.size, self.room = values, index, size, room

    @staticmethod
    def of(points: Tensor, valid: Tensor | None, inputs: int) -> _Rows:
        if points.dim() != 3 or points.shape[2] != inputs or (valid is not None and valid.shape != points.shape[:2]):
            got = f"{tuple(points.shape)}, valid {None if valid is None else tuple(valid.shape)}"
            raise SpecError("PointNetClassifier", f"points [B, P, {inputs}], valid [B, P]", got, "Correct them.")
        size, room = points.shape[:2]
        there = points.isfinite().all(-1)
        if valid is not None:
            there &= valid
        flat = points.flatten(0, 1)
        index = there.flatten().nonzero()[:, 0]
        if not len(index):
            raise SpecError("PointNetClassifier", "a point that is valid and finite", "none", "Leave the batch out.")
        return _Rows(flat, None, size, room) if len(index) == len(flat) else _Rows(flat[index], index, size, room)

    def padded(self, values: Tensor, fill: float) -> Tensor:
        """Rows [n, C] as clouds [B, P, C]."""
        if self.index is not None:
            room = values.new_full((self.size * self.room, values.shape[1]), fill)
            values = room.index_copy(0, self.index, values)
        return values.view(self.size, self.room, -1)

    def largest(self, values: Tensor) -> Tensor:
        """The largest answers [B, C] of the rows [n, C] of each cloud; 0 of a cloud without."""
        most = self.padded(values, -torch.inf).amax(1)
        return most if self.index is None else torch.where(most.isfinite(), most, 0.0)

    def times(self, values: Tensor, matrix: Tensor) -> Tensor:
        """Rows [n, C] times their cloud's matrix [B, C, C]."""
        turned = (self.padded(values, 0.0) @ matrix).flatten(0, 1)
        return turned if self.index is None else turned[self.index]


class _TNet(nn.Module):
    """A PointNet that says by which matrix [B, C, C] its inputs are to be turned; at the start the identity."""

    def __init__(self, inputs: int, side: int, layers: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        self._side = side
        self.shared = _shared([inputs, *layers])
        self.head = _shared([layers[-1], *hidden])
        self.matrix = nn.Linear(hidden[-1], side * side)
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, values: Tensor, rows: _Rows) -> Tensor:
        told = self.matrix(self.head(rows.largest(self.shared(values)))).view(-1, self._side, self._side)
        same: Tensor = told + torch.eye(self._side, dtype=told.dtype, device=told.device)
        return same


def _shared(widths: Sequence[int]) -> nn.Sequential:
    """Linear, batch normalisation, ReLU for each step from one width to the next."""
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        parts += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)
