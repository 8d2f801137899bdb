"""The optimizer's parts: AdamW groups, learning rate over the steps, averaged weights."""

from __future__ import annotations

import copy
import math

import torch

from perceive.model_base import Model


def make_optimizer(model: Model, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over the model's parameter groups.

    A group's ``lr_scale``, if the model gives one (a slower pretrained backbone), is a factor of ``lr``.
    """
    groups = model.parameter_groups(weight_decay)
    for group in groups:
        group.setdefault("lr_scale", 1.0)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), foreach=True)


def learning_rate(step: int, steps: int, lr: float, warmup_steps: int, cosine: bool, floor: float = 0.02) -> float:
    """Learning rate of step 0, 1, ...: a rise over ``warmup_steps``, then half a cosine down to ``floor * lr``."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    if not cosine:
        return lr
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group to ``lr`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class Averaged:
    """Exponential moving average of a model's weights (Polyak and Juditsky, 1992).

    Args:
        model: what is averaged; a copy of it is made.
        decay: weight of the old average in a step; smaller in the first steps, so that the start is soon forgotten.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Take in the weights after step 0, 1, ...; buffers are copied."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            if theirs.requires_grad:  # what is frozen is its own average
                mine.lerp_(theirs, weight)
        for own, other in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(other)
