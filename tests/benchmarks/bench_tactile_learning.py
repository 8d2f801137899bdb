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

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from perceive.results import Figure, start_clock, write_json, write_result
from tests.benchmarks.tactile_parts import GALLERY, RANGES, Effort, Values, alignment, codes, transfer
from tests.benchmarks.tactile_worlds import KNOWN, NEW

SEEDS = (0, 1, 2)

PARTS: dict[str, Callable[[Effort, int], Values]] = {"transfer": transfer, "codes": codes, "alignment": alignment}


def done(work: Path, part: str, seed: int, effort: Effort) -> Values | None:
    """What an earlier run found with the same effort."""
    path = work / f"{part}_{seed}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return record["values"] if record["effort"] == asdict(effort) else None


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


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not done yet, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/tactile_learning.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/tactile_learning"), help="parts that are done")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    for name, value in asdict(Effort()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    arguments = parser.parse_args(argv)
    effort = Effort(**{name: getattr(arguments, name) for name in asdict(Effort())})
    torch.set_num_threads(1)
    started = start_clock()
    for part in arguments.parts:
        for seed in arguments.seeds:
            if done(arguments.work, part, seed, effort) is None:
                values = PARTS[part](effort, seed)
                write_json(arguments.work / f"{part}_{seed}.json", {"effort": asdict(effort), "values": values})
    figures: dict[str, Figure] = {}
    for part in PARTS:
        found = [done(arguments.work, part, seed, effort) for seed in arguments.seeds]
        if all(found):
            figures |= figures_of(part, [values for values in found if values is not None])
    about = (
        "Simulated gel pictures, 64 x 64 pixels, of simple bodies with random sizes, places, turns and depths; one CPU "
        "thread; the interval is the lowest and highest seed. Transfer: errors on held-out presses of a fingertip that "
        "was not pretrained on, after learning from 2,000 pictures of it. Codes: PSNR of restored pictures of bodies "
        "that were not trained on. Alignment: top-1 retrieval among 64 held-out contacts. None of it is from a device."
    )
    command = "python -m tests.benchmarks.bench_tactile_learning"
    config = {**asdict(effort), "pretrained on": list(KNOWN), "new": NEW, "varied by": asdict(RANGES)}
    write_result(
        arguments.out,
        "Learning from touch",
        figures,
        arguments.seeds,
        config,
        started=started,
        about=about,
        command=command,
    )
    for name, one in figures.items():
        print(f"{name}: {one.value:.4g} {one.unit}" + ("" if one.met is None else f" (met: {one.met})"))


if __name__ == "__main__":
    main()
