"""The demo's policy while its sensors fail: python -m tests.benchmarks.bench_faults (after `make demo`).

Every fault of conf/fault acts on both cameras at once; those that begin in the midst of an episode (freeze, disconnect)
do so while the hand is on its way, since Lift takes about a second. Success over held-out seeds; trained on none of the
faults but absent sensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perceive.cli.compose import compose_config
from perceive.cli.evaluate import evaluate_seeds
from perceive.cli.faults import with_faults
from perceive.results import Figure, start_clock, success_figure, write_result
from tests.contracts import config_files, load_plain

CAMERAS = ("front", "wrist")
BEGIN_S = 0.3
FIRST_SEED = 6_000_000


def main() -> None:
    """Evaluate under each fault and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/demo/train"))
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("results/faults.json"))
    given = parser.parse_args()
    started = start_clock()
    config = compose_config("evaluate", [f"checkpoint={given.checkpoint}", "env=lift"])
    seeds = list(range(FIRST_SEED, FIRST_SEED + given.episodes))
    faults = {path.stem: load_plain(path) for path in config_files("fault")}
    for name in ("freeze", "disconnect"):
        faults[name]["when"]["start_s"] = BEGIN_S
    figures: dict[str, Figure | float] = {}
    for name, fault in {"none": None, **faults}.items():
        chosen = {} if fault is None else dict.fromkeys(CAMERAS, fault)
        result = evaluate_seeds({**config, "env": with_faults(config["env"], chosen)}, seeds, label=name)
        figures[f"success, fault of both cameras: {name}"] = success_figure(result.successes, result.count)
        print(f"{name}: {result.successes} of {result.count}", flush=True)
    write_result(
        given.out, "Failing cameras", figures, seeds, {"env": config["env"], "faults": faults}, started=started,
        about="The demo's policy in Lift while both cameras fail in the ways of conf/fault; trained on none of them "
        "but absent sensors.",
        command="python -m tests.benchmarks.bench_faults",
    )  # fmt: skip


if __name__ == "__main__":
    main()
