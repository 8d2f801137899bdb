"""What benchmarks share that learn in several parts over several seeds, and go on where they were interrupted."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perceive.results import Figure, start_clock, write_json, write_result

SEEDS = (0, 1, 2)
Values = dict[str, float]


@dataclass(frozen=True, eq=False)
class Study:
    """A benchmark whose work is kept part by part and seed by seed.

    Attributes:
        name: of its files: ``results/<name>.json``, ``runs/<name>/``, ``bench_<name>``.
        title: of its result.
        parts: name -> what it finds with an effort and a seed.
        effort: a dataclass of whole numbers; each is an option of the command.
        figures_of: a part's values of all seeds, and the effort -> figures.
        about: of the result, told the effort.
        config: of the result, besides the effort.
    """

    name: str
    title: str
    parts: Mapping[str, Callable[[Any, int], Values]]
    effort: Any
    figures_of: Callable[[str, Sequence[Values], Any], dict[str, Figure]]
    about: Callable[[Any], str]
    config: Mapping[str, Any]

    def run(self, description: str, argv: Sequence[str] | None) -> None:
        """Run what is not done yet, write the result and print it."""
        parser = argparse.ArgumentParser(description=description.splitlines()[0])
        parser.add_argument("--out", type=Path, default=Path(f"results/{self.name}.json"))
        parser.add_argument("--work", type=Path, default=Path(f"runs/{self.name}"), help="parts that are done")
        parser.add_argument("--parts", nargs="+", choices=list(self.parts), default=list(self.parts))
        parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
        options = asdict(self.effort)
        for name, value in options.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
        given = parser.parse_args(argv)
        effort = type(self.effort)(**{name: getattr(given, name) for name in options})
        torch.set_num_threads(1)
        started = start_clock()
        for part in given.parts:
            for seed in given.seeds:
                if done(given.work, part, seed, effort) is None:
                    values = self.parts[part](effort, seed)
                    write_json(given.work / f"{part}_{seed}.json", {"effort": asdict(effort), "values": values})
        figures: dict[str, Figure] = {}
        for part in self.parts:
            kept = [done(given.work, part, seed, effort) for seed in given.seeds]
            found = [values for values in kept if values is not None]
            if len(found) == len(given.seeds):
                figures |= self.figures_of(part, found, effort)
        # As anyone would run it: what is not the default, and no folders.
        changed = [f"--{n.replace('_', '-')} {v}" for n, v in asdict(effort).items() if v != options[n]]
        if tuple(given.seeds) != SEEDS:
            changed.append(f"--seeds {' '.join(map(str, given.seeds))}")
        write_result(
            given.out, self.title, figures, given.seeds, {**asdict(effort), **self.config}, started=started,
            about=self.about(effort), command=" ".join([f"python -m tests.benchmarks.bench_{self.name}", *changed]),
        )  # fmt: skip
        for name, one in figures.items():
            print(f"{name}: {one.value:.4g} {one.unit}" + ("" if one.met is None else f" (met: {one.met})"))


def done(work: Path, part: str, seed: int, effort: Any) -> Values | None:
    """What an earlier run found with the same effort."""
    path = work / f"{part}_{seed}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    values: Values = record["values"]
    return values if record["effort"] == asdict(effort) else None
