"""What is learned from point clouds of shapes: python -m tests.benchmarks.bench_point_learning.

Three parts, each on generated shapes of fifteen classes whose members differ in their proportions, one CPU thread,
three seeds. Shapes that are judged by are of another seed than any that is learned from.

- ``equal_size``: group tokens and a trunk against a PointNet (Qi et al., CVPR 2017), without and with T-nets, of as
  many parameters, taught alike: the same shapes, turns, steps, each with the better of the learning rates that were
  tried on other shapes (T-nets: with that of the groups). Clouds are noisy, have outliers, and a plane in a random
  direction cuts a third of their points away. Farthest point sampling makes outliers centres: 3 of 100 points, 30 of
  100 centres. So centres that stand alone are passed over; beside it what that is worth, to the tokens and to a
  PointNet that is not shown such points. Also beside it: the same tokens without their places, one group of all points,
  which has no neighbourhoods, and what all of them make of clouds with more and with fewer outliers.
- ``rotation``: shapes are learned upright and then seen turned freely; tokens of point-pair features without places
  (Drost et al., CVPR 2010; Yu et al., RoITr, CVPR 2023) against tokens of coordinates. Beside it: coordinates that
  were turned freely in training.
- ``masked``: with few labels, a model that was pretrained by guessing hidden groups (Pang et al., Point-MAE, ECCV 2022)
  against the same from scratch, with as many steps and with three times as many.

``--parts`` runs some of them. A part and seed that is done is kept in ``--work`` and not done again; the result file
holds whatever is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from perceive.results import Figure
from tests.benchmarks.point_learning_parts import (
    CLASS_NAMES,
    HELD_OUT,
    PARTIAL,
    RADIUS_M,
    WHOLE,
    Effort,
    equal_size,
    masked,
    rotation,
)
from tests.benchmarks.seeded_parts import Study, Values

CHANCE = 1 / len(CLASS_NAMES)
PARTS: dict[str, Callable[[Effort, int], Values]] = {"equal_size": equal_size, "rotation": rotation, "masked": masked}
UNITS = (", fraction", ", CPU s", ", times")
RIVALS = (
    "PointNet", "PointNet, stray points left out", "PointNet with T-nets", "groups without places",
    "one group of all points",
)  # fmt: skip
Claim = tuple[list[float], str, float | None, float | None]


def claims_of(part: str, runs: Sequence[Values], effort: Effort) -> dict[str, Claim]:
    """What a part claims: values of the seeds, unit, the least and the most that would do."""

    def gain(one: str, other: str) -> list[float]:
        return [run[one] - run[other] for run in runs]

    claims: dict[str, Claim] = {}
    if part == "equal_size":
        for amount in (effort.few_per_class, effort.many_per_class):
            told = f"{amount} shapes of a class: right, fraction"
            for other in RIVALS:
                name = f"groups and trunk, {amount} shapes of a class: gain over {other}"
                claims[name] = gain(f"groups and trunk, {told}", f"{other}, {told}"), "fraction", 0.03, None
    if part == "rotation":
        claims["pairs without places, lost when turned freely"] = (
            [run["pairs without places: lost, fraction"] for run in runs], "fraction", None, 0.01,
        )  # fmt: skip
        claims[f"xyz, right when turned freely (chance {CHANCE:.3f})"] = (
            [run["xyz: turned freely, fraction"] for run in runs], "fraction", None, 3 * CHANCE,
        )  # fmt: skip
        claims["turned freely: gain of pairs without places over xyz"] = (
            gain("pairs without places: turned freely, fraction", "xyz: turned freely, fraction"),
            "fraction", 0.2, None,
        )  # fmt: skip
    if part == "masked":
        for other in ("from scratch", "from scratch, 3 times the steps"):
            claims[f"pretrained: gain over {other}"] = (
                gain("pretrained: right, fraction", f"{other}: right, fraction"), "fraction", 0.03, None,
            )  # fmt: skip
    return claims


def figures_of(part: str, runs: Sequence[Values], effort: Effort) -> dict[str, Figure]:
    """Mean over the seeds, with the least and the greatest; and what the part claims, as a figure with a goal."""
    out = {}
    for key in runs[0]:
        values = [run[key] for run in runs]
        label, _, unit = key.rpartition(", ") if key.endswith(UNITS) else (key, "", "")
        if unit == "CPU s":
            values, unit = [value / 60 for value in values], "CPU minutes"
        out[f"{part}: {label}"] = Figure(float(np.mean(values)), unit, min(values), max(values), n=len(values))
    for name, (values, unit, least, most) in claims_of(part, runs, effort).items():
        out[f"{part}, claim: {name}"] = Figure(
            float(np.mean(values)), unit, min(values), max(values), len(values), at_least=least, at_most=most
        )
    return out


def about(effort: Effort) -> str:
    """What the result is of."""
    return (
        f"Generated shapes of {len(CLASS_NAMES)} classes (chance {CHANCE:.3f}), {PARTIAL.points} points within "
        f"{RADIUS_M} m; one CPU thread; the interval is the lowest and highest seed. Share of "
        f"{effort.test_per_class * len(CLASS_NAMES)} held-out shapes whose class is told right. Equal size and masked: "
        f"{PARTIAL.noise_m} m of noise, {PARTIAL.outlier_share:.0%} outliers, a third of the points cut away by a "
        f"plane. Rotation: whole shapes, {WHOLE.noise_m} m of noise. None of it is scanned from real things."
    )


STUDY = Study(
    "point_learning", "Learning from point clouds", PARTS, Effort(), figures_of, about,
    {"held-out seed": HELD_OUT, "partial": asdict(PARTIAL), "whole": asdict(WHOLE)},
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not done yet, write the result and print it."""
    STUDY.run(__doc__ or "", argv)


if __name__ == "__main__":
    main()
