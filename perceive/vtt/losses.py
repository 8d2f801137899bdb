"""What VTT and its baselines learn besides their task: which pictures and wrenches belong together, and contact."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from perceive.geometry import widened
from sensors.errors import SpecError


def shuffled_partners(size: int) -> Tensor:
    """For each of ``size`` samples the number of another one, int64 [size]: a random cycle through all of them.

    Nobody is its own partner, and all is drawn from torch's global generator.

    Raises:
        SpecError: fewer than two samples.
    """
    if size < 2:
        raise SpecError("shuffled_partners", "two samples or more", f"{size}", "Use larger batches.")
    order = torch.randperm(size)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner


def alignment_loss(logit: Tensor, together: Tensor, counts: Tensor) -> Tensor:
    """Binary cross entropy of "measured together", the mean over pairs of one kind plus that over the other.

    Args:
        logit: [N].
        together: bool [N], True for pairs as they were measured, False for shuffled ones.
        counts: bool [N]; a pair of which one half is absent does not.

    Returns:
        A scalar; 2 ln 2 = 1.39 is chance. 0 unless there are pairs of both kinds: those of one kind alone would teach
        one and the same answer to all.
    """
    error = binary_cross_entropy_with_logits(widened(logit), together.float(), reduction="none")
    true, false = together & counts, ~together & counts
    both = true.any() & false.any()
    return torch.where(both, _mean(error, true) + _mean(error, false), 0.0)


def contact_label(force: Tensor, threshold_N: float) -> Tensor:  # noqa: N803  (units keep their own capital letter)
    """Whether forces [..., 3] in newton are of a contact, bool [...]: they are longer than a threshold."""
    return force.square().sum(-1).sqrt() > threshold_N


def contact_loss(logit: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    """Binary cross entropy of contact, the mean over the samples that count; 0 if none does.

    Args:
        logit: [B].
        label: bool [B].
        counts: bool [B]; a sample without a wrench does not.
    """
    return _mean(binary_cross_entropy_with_logits(widened(logit), label.float(), reduction="none"), counts)


def prior_divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """KL divergence of Gaussians [B, W] from the standard one, mean over all numbers."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).mean()


def accuracy(logit: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    """Part of the answers that are right, of those that count; 0 if none does."""
    return _mean(((logit > 0) == label).float(), counts).detach()


def _mean(value: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts, value, 0.0).sum() / counts.sum().clamp_min(1)
