"""A label for every point of a cloud: what the trunk knows of the scene, at the sharpness of the points themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from perceive.batch import BatchStream
from perceive.encoders.point_frame import PointReader
from perceive.geometry import full_precision
from perceive.heads.base import Head, HeadContext
from perceive.heads.classification import check_labels, checked_classes
from perceive.heads.point_detail import CellNet, cell_levels
from perceive.points.files.collate import CloudBatch
from perceive.points.voxels import voxelise
from sensors.errors import SpecError, WiringError, nearest

_CELLS = 1 << 16  # cells on each side of the base; points beyond are not valid
_HIGHEST = 10.0  # heights are clipped to so many times the height that is 1


@final
@dataclass(frozen=True, eq=False)
class PointLabels:
    """What each point lies on.

    Attributes:
        logits: float [B, P, S], in the order of the head's ``classes``; 0 where not valid.
        valid: bool [B, P]; False = no point, one that is not finite or 2^16 cells away, or an absent frame.
    """

    logits: Tensor
    valid: Tensor


@final
class PointLabelHead(Head):
    """Labels of the points of one sensor's newest frame.

    Tokens are a few centimetres apart, edges of things are not. So the head looks at the points once more: they are
    pooled to the cells of a fine grid, and a small U-net of submanifold convolutions runs over them; its coarsest cells
    attend to the tokens next to them, of whatever sensor, and to the head's readout. Each point is then labelled from
    its cell and its own measurement. It is learned by cross entropy and the Lovasz-Softmax loss (Berman et al., CVPR
    2018), which is intersection over union made continuous: most points of a table scene are table, and small things
    count as much.

    Nothing but heights and the tokens tells where in the base frame a point is: a scene that moves along x and y with
    its tokens by whole cells of the coarsest level is labelled alike.

    Args:
        width: D.
        sensor: name of the sensor, with ``xyz_m`` [P, 3] and ``count`` [1].
        classes: their names.
        sensor_spaces: frame spaces by sensor name.
        edge_m: edge of a cell of the finest level; each further level doubles it.
        channels: of each level of the U-net.
        blocks: residual blocks of each level.
        near_tokens: how many tokens a cell of the coarsest level looks at.
        heads: of that attention.
        reach_m: distance of a token that is far.
        height_m: height above the base that is 1; None = heights are not told.
        lovasz: weight of the Lovasz-Softmax loss beside the cross entropy.
        class_weights: of each class in the cross entropy; None = all alike.
        features: what else a point tells, see :class:`perceive.encoders.point_frame.PointReader`; None = all there is.

    Raises:
        WiringError: an unknown sensor, one without points, or a number that is out of its range.
    """

    def __init__(
        self,
        width: int,
        sensor: str,
        classes: Sequence[str],
        sensor_spaces: Mapping[str, spaces.Dict],
        edge_m: float = 0.02,
        channels: Sequence[int] = (32, 64, 96),
        blocks: Sequence[int] = (1, 1, 1),
        near_tokens: int = 8,
        heads: int = 4,
        reach_m: float = 0.1,
        height_m: float | None = 0.1,
        lovasz: float = 1.0,
        class_weights: Sequence[float] | None = None,
        features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        owner = "PointLabelHead"
        self.classes = checked_classes(owner, classes)
        if sensor not in sensor_spaces:
            raise WiringError(
                f"{owner}.sensor", f"one of {sorted(sensor_spaces)}", f"'{sensor}'", nearest(sensor, sensor_spaces)
            )
        self._reader = PointReader(owner, sensor_spaces[sensor], features)
        lengths = (edge_m, 1.0 if height_m is None else height_m)
        if not all(0 < value < float("inf") for value in lengths) or not 0 <= lovasz < float("inf"):
            got = f"edge_m {edge_m}, height_m {height_m}, lovasz {lovasz}"
            raise WiringError(owner, "lengths above 0, lovasz >= 0", got, "Correct them.")
        weights = [1.0] * len(self.classes) if class_weights is None else [float(one) for one in class_weights]
        if len(weights) != len(self.classes) or not all(0 <= one < float("inf") for one in weights):
            raise WiringError(f"{owner}.class_weights", f"{len(self.classes)} numbers >= 0", f"{weights}", "Correct.")
        self._sensor, self._edge_m, self._height_m, self._lovasz = sensor, float(edge_m), height_m, float(lovasz)
        self._levels = len(channels)
        self.class_weights: Tensor
        self.register_buffer("class_weights", torch.tensor(weights), persistent=False)
        told = 3 + (height_m is not None) + self._reader.channels
        self.net = CellNet(told + 1, width, channels, blocks, near_tokens, heads, reach_m)
        self.own = nn.Linear(told, channels[0])
        self.of_cell = nn.Linear(channels[0], channels[0])
        self.out = nn.Linear(channels[0], len(self.classes))

    @property
    def num_readouts(self) -> int:
        return 1

    def fit(self, stats: Any) -> None:
        """Nothing to fit: colours, cells and metres have natural scales."""

    def forward(self, context: HeadContext) -> PointLabels:
        points = self._reader.read(_newest(context.batch.stream(self._sensor)))
        with full_precision(points.xyz_m.device):
            base = points.in_base(points.xyz_m) if self._reader.posed else points.xyz_m
            # Far enough for any sensor, and near enough that one number can name every cell of any batch.
            end_m = self._edge_m * _CELLS
            voxels = voxelise(base, self._edge_m, valid=points.valid, low_m=[-end_m] * 3, high_m=[end_m] * 3)
            valid = voxels.of_point >= 0
            share = base / self._edge_m
            told = [share - share.floor() - 0.5, points.features]
            if self._height_m is not None:
                told.append((base[..., 2:] / self._height_m).clamp(-_HIGHEST, _HIGHEST))
            each = torch.where(valid[..., None], torch.cat(told, -1), 0.0)
            held = voxels.count.to(base.dtype).log1p()[:, None]
            levels = cell_levels(voxels, voxels.means(base), self._levels)
        readout = context.readouts[:, 0]
        seen = self.net(torch.cat([voxels.means(each), held], 1), levels, context.tokens, readout)
        hidden = nn.functional.gelu(voxels.to_points(self.of_cell(seen)) + self.own(each))
        return PointLabels(torch.where(valid[..., None], self.out(hidden), 0.0), valid)

    def loss(self, context: HeadContext, target: CloudBatch) -> dict[str, Tensor]:
        """``labels``: cross entropy plus weighted Lovasz-Softmax; ``_accuracy``: share of known points that is right.

        Raises:
            SpecError: clouds without labels of points, of another size, or with an index that is no class.
        """
        truth = target.semantic
        if truth is None:
            raise SpecError("PointLabelHead.loss", "clouds with 'semantic'", "clouds without", "Use labelled data.")
        guess: PointLabels = self(context)
        check_labels("PointLabelHead.loss", truth, guess.valid.shape, len(self.classes))
        known = guess.valid & (truth >= 0)
        index = truth.clamp_min(0)
        logits = guess.logits.flatten(0, 1)
        each = nn.functional.cross_entropy(logits, index.flatten(), reduction="none")
        weight = torch.where(known, self.class_weights[index], 0.0).flatten()
        loss = torch.where(weight > 0, weight * each, 0.0).sum() / weight.sum().clamp_min(
            torch.finfo(weight.dtype).tiny
        )
        if self._lovasz:
            rows = known.flatten().nonzero()[:, 0]
            share = logits.index_select(0, rows).softmax(-1)
            loss = loss + self._lovasz * lovasz_softmax(share, index.flatten().index_select(0, rows))
        right = (guess.logits.argmax(-1) == truth) & known
        return {"labels": loss, "_accuracy": right.sum() / known.sum().clamp_min(1)}


def lovasz_softmax(share: Tensor, truth: Tensor) -> Tensor:
    """Mean over the classes that are there of the Lovasz extension of 1 - IoU; 0 without points.

    Berman, Triki and Blaschko, "The Lovasz-Softmax loss", CVPR 2018, arXiv 1705.08790, algorithm 1: errors of a class,
    from the largest, weighted by how much the Jaccard loss grows when each point joins the wrong ones. Of shares that
    are 0 and 1, it is exactly 1 - IoU.

    Args:
        share: float [N, S], what the classes get of each point, from 0 to 1.
        truth: int64 [N], 0 to S - 1.
    """
    if not len(truth):
        return share.sum()
    of_class = nn.functional.one_hot(truth, share.shape[1]).T.to(share.dtype).contiguous()  # [S, N]
    error, order = (of_class - share.T).abs().sort(dim=1, descending=True, stable=True)
    there = of_class.gather(1, order)
    total = there.sum(1, keepdim=True)
    # Whole numbers below 2^24 are exact in single precision.
    met = there.cumsum(1)
    number = torch.arange(1, len(truth) + 1, device=truth.device, dtype=share.dtype)
    loss = 1 - (total - met) / (total + number - met)
    growth = torch.cat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], 1)
    present = total[:, 0] > 0
    of_each = torch.where(present, (error * growth).sum(1), 0.0)
    return of_each.sum() / present.sum()


def _newest(stream: BatchStream) -> BatchStream:
    data = {name: value[:, -1:] for name, value in stream.data.items()}
    return BatchStream(data, stream.age_s[:, -1:], stream.valid[:, -1:])
