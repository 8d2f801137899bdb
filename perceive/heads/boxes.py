"""3D boxes, centre-based, on tokens instead of a dense map: every token says what it is of, and where its box is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from perceive.heads.base import Head, HeadContext
from perceive.heads.box_peaks import (
    AXIS,
    CODE,
    EDGES,
    FRONT,
    OFFSET,
    VELOCITY,
    BoxGuess,
    encode,
    pick,
    swapped,
)
from perceive.heads.box_targets import BoxAssignment, BoxTruth, assign, read_truth
from perceive.normalize import FieldStats
from perceive.points.files.collate import CloudBatch
from sensors.errors import WiringError

_RARE = 0.02  # the score that every token starts with
_EDGE_M = 0.8  # and the edges of its box


@final
class BoxHead(Head):
    """Centre-based detection (CenterPoint: Yin et al., CVPR 2021) on tokens (as VoxelNeXt: Chen et al., CVPR 2023).

    Each valid, placed token of any sensor gives a score per class and a box relative to its own place: the offset to
    the middle, the logarithms of the edges, cosine and sine of twice the yaw (the axis of the box), of the yaw (which
    end of the axis is the front) and the velocity. What a token says goes with it wherever it is put.

    Scores learn by the penalty-reduced focal loss of CenterPoint against the heat of
    :func:`perceive.heads.box_targets.assign`; boxes by the smooth L1 loss of their code. Of a class without a front
    (``frontless``), a box that is called by its other side is the same box: the better of both counts, and which end of
    an axis is ahead is not learned.

    Args:
        width: D.
        classes: names, in the order of the labels of the boxes.
        frontless: names of the classes whose boxes have no front.
        hidden: width of the layers.
        most: K, most boxes of a scene.
        candidates: how many votes are looked at.
        reach_m: a token is at most so far from the middle of its box, along each axis.
        least_points: boxes with fewer measured points are neither asked for nor punished.
        margin_m: boxes are grown by this on all sides when tokens inside are looked for.
        spread: how fast heat falls from the middle of a box, in halves of its diagonal.
        apart: votes of one class that are nearer than this times their mean radius are one box.
        merge: whether votes for one box are averaged.
        least_score: lower scores are no boxes.
        box_weight: of the loss of the boxes against that of the scores.
        velocity_weight: of the velocity within the loss of the boxes.

    Raises:
        WiringError: no class, one twice, an unknown one without a front, or a number out of its range.
    """

    def __init__(
        self,
        width: int,
        classes: Sequence[str],
        frontless: Sequence[str] = (),
        hidden: int = 128,
        most: int = 64,
        candidates: int = 192,
        reach_m: float = 3.0,
        least_points: int = 5,
        margin_m: float = 0.1,
        spread: float = 0.5,
        apart: float = 0.8,
        merge: bool = True,
        least_score: float = 0.02,
        box_weight: float = 2.0,
        velocity_weight: float = 0.2,
    ) -> None:
        super().__init__()
        if not classes or len(set(classes)) != len(classes):
            raise WiringError("BoxHead.classes", "different names, one at least", f"{list(classes)}", "Correct them.")
        strange = sorted(set(frontless) - set(classes))
        if strange:
            raise WiringError("BoxHead.frontless", f"some of {list(classes)}", f"{strange}", "Correct the names.")
        for name, value, least in (
            ("hidden", hidden, 1),
            ("most", most, 1),
            ("candidates", candidates, most),
            ("least_points", least_points, 0),
        ):
            if value < least:
                raise WiringError(f"BoxHead.{name}", f">= {least}", repr(value), "Correct it.")
        numbers = {"reach_m": reach_m, "spread": spread, "box_weight": box_weight}
        numbers_from_0 = {"margin_m": margin_m, "apart": apart, "velocity_weight": velocity_weight}
        for name, number in {**numbers, **numbers_from_0}.items():
            if not math.isfinite(number) or number < 0 or (number == 0 and name in numbers):
                raise WiringError(f"BoxHead.{name}", "> 0" if name in numbers else ">= 0", repr(number), "Correct it.")
        if not 0 <= least_score < 1:
            raise WiringError("BoxHead.least_score", "from 0 to less than 1", repr(least_score), "Correct it.")
        self.classes = tuple(classes)
        self._most, self._candidates, self._reach_m = most, candidates, float(reach_m)
        self._least_points, self._margin_m, self._spread = least_points, float(margin_m), float(spread)
        self._apart, self._merge, self._least_score = float(apart), merge, float(least_score)
        self._box_weight, self._velocity_weight = float(box_weight), float(velocity_weight)
        self._frontless: Tensor
        self.register_buffer("_frontless", torch.tensor([name in frontless for name in classes]), persistent=False)
        self.scene = nn.Linear(width, hidden, bias=False)
        self.token = nn.Linear(width, hidden)
        self.score = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, len(classes)))
        self.box = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, CODE))
        with torch.no_grad():
            last_score, last_box = self.score[-1], self.box[-1]
            assert isinstance(last_score, nn.Linear)
            assert isinstance(last_box, nn.Linear)
            last_score.bias.fill_(math.log(_RARE / (1 - _RARE)))
            last_box.bias.zero_()
            last_box.bias[EDGES] = math.log(_EDGE_M)

    @property
    def num_readouts(self) -> int:
        """One, which tells every token of the scene as a whole."""
        return 1

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        """Nothing to fit: metres have a natural scale."""

    def forward(self, context: HeadContext) -> BoxGuess:
        logits, code, place, usable = self._said(context)
        score = torch.where(usable[..., None], logits.sigmoid(), 0.0)
        return pick(
            score,
            code,
            place,
            most=self._most,
            candidates=self._candidates,
            least_score=self._least_score,
            apart=self._apart,
            reach_m=self._reach_m,
            frontless=self._frontless,
            merge=self._merge,
        )

    def loss(self, context: HeadContext, target: CloudBatch) -> dict[str, Tensor]:
        """``heat`` and ``box``; logged: ``_centre_m``, mean distance of the guessed middles from the true ones.

        Raises:
            SpecError: the target has no boxes, those of another batch, or of unknown classes.
        """
        logits, code, place, usable = self._said(context)
        truth = read_truth(target, len(place), len(self.classes), self._least_points)
        truth = replace(truth, boxes=truth.boxes.to(place.dtype))
        wanted = assign(place, usable, truth, len(self.classes), self._margin_m, self._spread)
        heat = _focal(logits, wanted, usable) / wanted.found
        each, far_m = self._box_errors(code, place, wanted, truth)
        weight = wanted.weight
        box = torch.where(weight > 0, weight * each, 0.0).sum() / wanted.found
        centre_m = torch.where(weight > 0, weight * far_m, 0.0).sum() / wanted.found
        return {"heat": heat, "box": self._box_weight * box, "_centre_m": centre_m.detach()}

    def _said(self, context: HeadContext) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits [B, N, S], codes [B, N, 12], places [B, N, 3] and whether a token may vote [B, N]."""
        tokens = context.tokens.cleaned()
        usable = tokens.valid & tokens.placed
        mixed = self.token(tokens.features) + self.scene(context.readouts[:, :1])
        return self.score(mixed), self.box(mixed), tokens.position_m, usable

    def _box_errors(
        self, code: Tensor, place_m: Tensor, wanted: BoxAssignment, truth: BoxTruth
    ) -> tuple[Tensor, Tensor]:
        """Loss and distance of the middles, [B, N] each, of every token against its own box."""
        if truth.boxes.shape[1] == 0:
            nothing = code.sum(-1) * 0.0
            return nothing, nothing
        own = truth.boxes.gather(1, wanted.owner[..., None].expand(-1, -1, 9))
        label = truth.label.gather(1, wanted.owner).clamp_min(0)
        answer = encode(own, place_m)
        frontless = self._frontless[label]
        one, other = self._error(code, answer, frontless), self._error(code, swapped(answer), frontless)
        error = torch.where(frontless, torch.minimum(one, other), one)
        return error, (code[..., OFFSET] - answer[..., OFFSET]).norm(dim=-1)

    def _error(self, code: Tensor, answer: Tensor, frontless: Tensor) -> Tensor:
        """[...]: the smooth L1 loss of codes [..., 12], with 1 for the middle and for all that is said about size."""
        known = answer.isfinite()
        parts = torch.where(known, code - torch.where(known, answer, 0.0), 0.0)
        loss = nn.functional.smooth_l1_loss(parts, torch.zeros_like(parts), reduction="none", beta=0.1)
        front = torch.where(frontless, 0.0, loss[..., FRONT].sum(-1))
        shape = loss[..., OFFSET].sum(-1) + loss[..., EDGES].sum(-1) + 0.5 * loss[..., AXIS].sum(-1)
        return shape + 0.2 * front + self._velocity_weight * loss[..., VELOCITY].sum(-1)


def _focal(logits: Tensor, wanted: BoxAssignment, usable: Tensor) -> Tensor:
    """The penalty-reduced focal loss, summed (Law and Deng, ECCV 2018, as in CenterPoint)."""
    score = logits.sigmoid()
    peak = wanted.heat == 1
    hit = (1 - score).square() * nn.functional.logsigmoid(logits)
    miss = (1 - wanted.heat).pow(4) * score.square() * nn.functional.logsigmoid(-logits)
    judged = usable[..., None] & (peak | ~wanted.ignored[..., None])
    return -torch.where(judged, torch.where(peak, hit, miss), 0.0).sum()
