"""Training of a matcher on prepared pairs of clouds; no motion needs to be drawn, for none changes what it sees."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from perceive.points.registration.matcher import PairMatcher
from perceive.points.registration.matcher_loss import MatcherLoss, MatcherObjective
from perceive.points.registration.scan import ScanGeometry
from sensors.errors import SpecError

_WARM_SHARE = 0.05  # of the steps, in which the rate rises


def fit_matcher(
    matcher: PairMatcher,
    source: ScanGeometry,
    target: ScanGeometry,
    target_from_source: Tensor,
    objective: MatcherObjective,
    steps: int,
    batch: int = 8,
    rate: float = 1e-3,
    seed: int = 0,
    report: Callable[[int, MatcherLoss], None] | None = None,
) -> None:
    """Train in place: AdamW, a rate that rises and falls by a cosine, pairs in a new order each time round.

    Args:
        matcher: to be trained.
        source: N clouds.
        target: N clouds.
        target_from_source: float [N, 4, 4].
        objective: what is minimised.
        steps: of the optimiser.
        batch: pairs of a step.
        rate: the highest.
        seed: of the order.
        report: called after each step with its number and loss.

    Raises:
        SpecError: differently many clouds and transforms, or a number out of its range.
    """
    count = len(target_from_source)
    if not count or len(source.valid) != count or len(target.valid) != count:
        got = f"{len(source.valid)}, {len(target.valid)}, {count}"
        raise SpecError("fit_matcher", "as many sources, targets and transforms, at least one", got, "Correct them.")
    if steps < 1 or batch < 1 or not rate > 0:
        raise SpecError("fit_matcher", "steps, batch >= 1, rate > 0", f"{steps}, {batch}, {rate}", "Correct them.")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(matcher.parameters(), lr=rate, weight_decay=1e-4)
    warm = max(1, round(_WARM_SHARE * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    order = torch.randperm(count, generator=generator)
    place = 0
    for step in range(steps):
        if place + batch > count and place:
            order, place = torch.randperm(count, generator=generator), 0
        chosen = order[place : place + batch].to(source.valid.device)
        place += batch
        loss = objective(matcher, source.rows(chosen), target.rows(chosen), target_from_source[chosen])
        optimiser.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch has no types
        torch.nn.utils.clip_grad_norm_(matcher.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if report is not None:
            report(step, loss)
