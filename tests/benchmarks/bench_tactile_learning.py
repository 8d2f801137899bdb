"""What is learned from gel pictures carries over: python -m tests.benchmarks.bench_tactile_learning.

Three parts, each on simulated presses of simple bodies at 64 x 64 pixels, one CPU thread, three seeds:

- ``transfer``: a trunk that learned on three kinds of fingertips learns a fourth from 2,000 pictures better than one
  that begins there (the claim of T3, Zhao et al., CoRL 2024). Beside it: a trunk pretrained without labels, and the
  one from scratch with three times the steps.
- ``codes``: a code book trained on pictures of one box restores those of other bodies (the claim of UniT, Xu et al.,
  RA-L). Beside it: the mean picture, codes that never learn under a network that does, and training on all shapes.
- ``alignment``: contacts are found again among 64 by what a camera saw of the same place, and the other way round.

``--parts`` runs some of them. A part and seed that is done is kept in ``--work`` and not done again; the result file
holds whatever is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from perceive.results import Figure
from tests.benchmarks.seeded_parts import Study, Values
from tests.benchmarks.tactile_parts import GALLERY, RANGES, Effort, alignment, codes, transfer
from tests.benchmarks.tactile_worlds import KNOWN, NEW

PARTS: dict[str, Callable[[Effort, int], Values]] = {"transfer": transfer, "codes": codes, "alignment": alignment}


def figures_of(part: str, runs: Sequence[Values]) -> dict[str, Figure]:
    """Mean over the seeds, with the least and the greatest; and what the part claims, as a figure with a goal."""
    out = {}
    for key in runs[0]:
        values = [run[key] for run in runs]
        label, _, unit = key.rpartition(", ") if ", " in key.rpartition(":")[2] or ", CPU" in key else (key, "", "")
        out[f"{part}: {label}"] = Figure(float(np.mean(values)), unit, min(values), max(values), n=len(values))
    claims: dict[str, tuple[list[float], str, float | None, float | None]] = {}
    if part == "transfer":
        for quantity in ("place, mm", "yaw, degrees", "depth, mm"):
            ratio = [r[f"pretrained, new stem like digit: {quantity}"] / r[f"from scratch: {quantity}"] for r in runs]
            claims[f"error of {quantity.split(',')[0]}, pretrained over from scratch"] = ratio, "times", None, 0.9
    if part == "codes":
        for where in ("whole picture", "where it is touched"):
            for other in ("mean picture", "codes that never learn"):
                gain = [r[f"trained on one box: {where}, dB"] - r[f"{other}: {where}, dB"] for r in runs]
                claims[f"other bodies, {where}: gain over {other}"] = gain, "dB", 1.0, None
    if part == "alignment":
        found = [float(np.mean([v for k, v in r.items() if "anywhere" in k])) for r in runs]
        claims[f"found among {GALLERY}, mean of both ways and kinds (chance {1 / GALLERY:.3f})"] = (
            found,
            "fraction",
            0.5,
            None,
        )
    for name, (values, unit, least, most) in claims.items():
        out[f"{part}, claim: {name}"] = Figure(
            float(np.mean(values)), unit, min(values), max(values), len(values), at_least=least, at_most=most
        )
    return out


ABOUT = (
    "Simulated gel pictures, 64 x 64 pixels, of simple bodies with random sizes, places, turns and depths; one CPU "
    "thread; the interval is the lowest and highest seed. Transfer: errors on held-out presses of a fingertip that "
    "was not pretrained on, after learning from 2,000 pictures of it. Codes: PSNR of restored pictures of bodies "
    "that were not trained on. Alignment: top-1 retrieval among 64 held-out contacts. None of it is from a device."
)
STUDY = Study(
    "tactile_learning", "Learning from touch", PARTS, Effort(), lambda part, runs, _: figures_of(part, runs),
    lambda _: ABOUT, {"pretrained on": list(KNOWN), "new": NEW, "varied by": asdict(RANGES)},
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not done yet, write the result and print it."""
    STUDY.run(__doc__ or "", argv)


if __name__ == "__main__":
    main()
