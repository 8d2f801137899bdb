"""What `import perceive` costs beside `import torch`: CPU seconds of fresh interpreters, in turns.

python -m tests.benchmarks.bench_import [--runs 11] [--out results/import_time.json]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from perceive.results import Figure, start_clock, write_result

STATEMENTS = {"torch": "import torch", "perceive": "import perceive"}
GOAL_S = 0.5


def measure(runs: int) -> dict[str, list[float]]:
    """CPU seconds of each statement's process (imports run in one thread, so a quiet machine's wall time is the same).

    In turns, so that a busy moment hits all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for run in range(runs + 1):
        for name, statement in STATEMENTS.items():
            before_s = _children_s()
            subprocess.run([sys.executable, "-c", statement], check=True)
            if run:  # the first round fills the disk cache and writes byte code
                seconds[name].append(_children_s() - before_s)
    return seconds


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path("results/import_time.json"))
    flags = parser.parse_args()
    runs = flags.runs
    started = start_clock()
    seconds = measure(runs)
    extra = np.array(seconds["perceive"]) - np.array(seconds["torch"])
    figures = {
        "import perceive, beyond import torch": Figure(
            float(np.median(extra)), "s", float(extra.min()), float(extra.max()), runs, at_most=GOAL_S
        ),
        "import torch": Figure(float(np.median(seconds["torch"])), "s", n=runs),
        "import perceive": Figure(float(np.median(seconds["perceive"])), "s", n=runs),
    }
    about = "CPU seconds of fresh interpreters in turns: medians; the interval spans the differences of all pairs."
    command = f"python -m tests.benchmarks.bench_import --runs {runs}"
    write_result(flags.out, "Import time", figures, [], {"runs": runs}, started=started, about=about, command=command)
    for name, figure in figures.items():
        print(f"{name}: {figure.value:.2f} s")


if __name__ == "__main__":
    main()
