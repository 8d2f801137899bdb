"""Of which class it is, the whole of what is sensed: a shape that is felt, an object whose points are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from perceive.heads.base import Head, HeadContext
from perceive.points.files.collate import CloudBatch
from sensors.errors import SpecError, WiringError


@final
@dataclass(frozen=True, eq=False)
class ClassGuess:
    """Of which class it is.

    Attributes:
        logits: float [B, S], in the order of the head's ``classes``.
    """

    logits: Tensor


@final
class ClassHead(Head):
    """One class for each sample, read from one readout and, if asked, from the tokens themselves.

    Its target is an int64 tensor [B] of indices into ``classes``, -1 = not known; or labelled clouds, of which it takes
    the label.

    Args:
        width: D.
        classes: their names.
        hidden: width of the MLP.
        pooled: read beside the readout the greatest value that each channel has among the tokens, as Point-MAE does
            (Pang et al., ECCV 2022): what any part shows reaches the class at once, so it is learned in fewer steps.

    Raises:
        WiringError: fewer than two classes, one twice, or an MLP without width.
    """

    def __init__(self, width: int, classes: Sequence[str], hidden: int = 64, pooled: bool = False) -> None:
        super().__init__()
        self.classes = checked_classes("ClassHead", classes)
        if hidden < 1:
            raise WiringError("ClassHead.hidden", ">= 1", repr(hidden), "Correct it.")
        self._pooled = pooled
        self.out = nn.Sequential(
            nn.Linear(2 * width if pooled else width, hidden), nn.GELU(), nn.Linear(hidden, len(self.classes))
        )

    @property
    def num_readouts(self) -> int:
        return 1

    def fit(self, stats: Any) -> None:
        """Nothing to fit."""

    def forward(self, context: HeadContext) -> ClassGuess:
        readout = context.readouts[:, 0]
        return ClassGuess(self.out(torch.cat([readout, _greatest(context)], 1) if self._pooled else readout))

    def loss(self, context: HeadContext, target: Tensor | CloudBatch) -> dict[str, Tensor]:
        """``class``: cross entropy; ``_accuracy``: share that is right, of those that are known.

        Raises:
            SpecError: clouds without labels, a wrong shape, or an index that is no class.
        """
        label = _labels(target)
        logits = self(context).logits
        check_labels("ClassHead.loss", label, logits.shape[:1], len(self.classes))
        known = label >= 0
        counted = known.sum().clamp_min(1)
        each = nn.functional.cross_entropy(logits, label.clamp_min(0), reduction="none")
        right = (logits.argmax(-1) == label) & known
        return {"class": torch.where(known, each, 0.0).sum() / counted, "_accuracy": right.sum() / counted}


def _greatest(context: HeadContext) -> Tensor:
    """The greatest value of each channel among the tokens that are there, [B, D]; 0 where there are none."""
    tokens = context.tokens
    there = tokens.valid[..., None]
    none = torch.where(there, tokens.features, -torch.inf)
    padded = torch.cat([none, none.new_full((len(none), 1, none.shape[2]), -torch.inf)], 1)
    greatest = padded.amax(1)
    return torch.where(greatest.isfinite(), greatest, 0.0)


def checked_classes(owner: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of at least two different classes.

    Raises:
        WiringError: fewer, one twice, or one text in place of a list.
    """
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise WiringError(f"{owner}.classes", "two names at least, each once", f"{names}", "Correct them.")
    return names


def check_labels(where: str, label: Tensor, shape: Sequence[int], classes: int) -> None:
    """Refuse what is no index of a class and not -1.

    Raises:
        SpecError: another shape or type, or an index out of the range.
    """
    fix = "Give indices into the head's classes, -1 where it is not known."
    if label.dtype != torch.long or tuple(label.shape) != tuple(shape):
        raise SpecError(where, f"int64 {list(shape)}", f"{label.dtype} {list(label.shape)}", fix)
    if label.numel():
        low, high = (int(value) for value in torch.aminmax(label))
        if low < -1 or high >= classes:
            raise SpecError(where, f"int64 from -1 to {classes - 1}", f"from {low} to {high}", fix)


def _labels(target: Tensor | CloudBatch) -> Tensor:
    if isinstance(target, Tensor):
        return target
    if target.label is None:
        raise SpecError("ClassHead.loss", "clouds with a label each", "clouds without", "Use data with labels.")
    return target.label
