"""What touch is worth in a task that cannot be seen: python -m tests.benchmarks.bench_touch.

InsertPeg by imitation, all arms from the same episodes, with the same settings and seed:

- touch: cameras, joints and force fields through the shared trunk (experiment=insert_peg);
- vision: the same without touch (experiment=insert_peg_vision);
- concatenation, product_of_experts: as touch, with late fusion of about as many parameters in the trunk's place.

Held-out episodes, each arm as trained; those that feel also with both fingertips unplugged, and with both saying what
they said in one of the demonstrations. Everything is resumable; `--train-only` shares the work among processes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceive.cli.collect import collect
from perceive.cli.compose import compose_config
from perceive.cli.demo import condition_outcome, train_stage
from perceive.results import Figure, cpu_seconds, start_clock, success_figure, write_json, write_result

FINGERS = ["touch_left", "touch_right"]
ARMS = {
    "touch": ["experiment=insert_peg"],
    "vision": ["experiment=insert_peg_vision"],
    "concatenation": ["experiment=insert_peg", "trunk@model.trunk=concatenation"],
    "product_of_experts": ["experiment=insert_peg", "trunk@model.trunk=product_of_experts"],
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "as trained": {},
    "touch of other episodes": {"shuffled": FINGERS},
    "touch unplugged": {"disabled": FINGERS},
}
NOISE = {"position_m": 0.002, "rotation_rad": 0.02, "burst_probability": 0.3, "burst_steps": 1.5}
DEMONSTRATIONS, EPISODES, FIRST_SEED = 300, 100, 7_500_000
EARNS, LOSES = 0.15, 0.10  # goals: points by which touch beats vision, and that it loses when it is another episode's


def configured(arm: str, overrides: list[str]) -> dict[str, Any]:
    """The training config of an arm, with what `perceive demo` knows besides."""
    config = compose_config("train", [*ARMS[arm], "train.threads=1", *overrides])
    conditions = {
        name: {"label": f"{arm}, {name}", "episodes": EPISODES, "disabled": [], "shuffled": [], "moved": False} | how
        for name, how in CONDITIONS.items()
        if arm != "vision" or not how
    }
    evaluation = {"first_seed": FIRST_SEED, "replan_s": 0.0, "workers": 0, "conditions": conditions}
    return {**config, "collect": {"episodes": DEMONSTRATIONS}, "evaluate": evaluation, "moved": {}}


def demonstrations(config: Mapping[str, Any], folder: Path) -> None:
    """Record what is missing of them."""
    plan = compose_config("collect", ["env=insert_peg", f"episodes={DEMONSTRATIONS}", f"output={folder}"])
    print(collect({**plan, "env": config["env"], "noise": {**plan["noise"], **NOISE}}), flush=True)


def trained(arm: str, config: Mapping[str, Any], episodes: Path, folder: Path) -> float:
    """Train an arm, or go on; returns the CPU seconds of all sittings."""
    path = folder / "cpu_s.json"
    spent, before = json.loads(path.read_text()) if path.is_file() else 0.0, cpu_seconds()
    print(arm, flush=True)
    train_stage(config, episodes, folder / "train")
    write_json(path, spent + cpu_seconds() - before)
    return float(spent + cpu_seconds() - before)


def main() -> None:
    """Run what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/touch.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/touch"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--train-only", action="store_true", help="write no result; to share the work among processes")
    parser.add_argument("overrides", nargs="*", help="of perceive train, e.g. train.steps=600")
    given = parser.parse_args()
    started = start_clock()
    episodes, figures = given.folder.resolve() / "episodes", dict[str, Figure | float]()
    rates: dict[tuple[str, str], float] = {}
    for arm in given.arms:
        config, folder = configured(arm, given.overrides), given.folder.resolve() / arm
        demonstrations(config, episodes)
        spent_s = trained(arm, config, episodes, folder)
        if given.train_only:
            continue
        for name in config["evaluate"]["conditions"]:
            outcome = condition_outcome(config, name, folder / "train", episodes, folder / "evaluation")
            figures[f"{arm}, {name}"] = success_figure(outcome["successes"], outcome["episodes"])
            rates[arm, name] = outcome["success_rate"]
            print(f"{arm}, {name}: {outcome['successes']} of {outcome['episodes']}", flush=True)
        figures[f"{arm}, training, CPU time"] = Figure(spent_s / 60, "min")
    if given.train_only:
        return
    if ("vision", "as trained") in rates and ("touch", "as trained") in rates:
        whole = rates["touch", "as trained"]
        gain, lost = whole - rates["vision", "as trained"], whole - rates["touch", "touch of other episodes"]
        figures["touch beats vision by"] = Figure(100 * gain, "points", n=EPISODES, at_least=100 * EARNS)
        figures["touch of other episodes loses"] = Figure(100 * lost, "points", n=EPISODES, at_least=100 * LOSES)
    config = configured("touch", given.overrides)
    portable = {key: config[key] for key in ("env", "train", "augment", "model")} | {"noise": NOISE}
    write_result(
        given.out, "What touch is worth", figures, list(range(FIRST_SEED, FIRST_SEED + EPISODES)), portable,
        started=started,
        about=f"InsertPeg (1 mm clearance, the hole under a hood and up to 10 mm beside its middle), {DEMONSTRATIONS} "
        f"demonstrations, one training seed, {EPISODES} held-out episodes. The wrench at the wrist is not read.",
        command="python -m tests.benchmarks.bench_touch",
    )  # fmt: skip


if __name__ == "__main__":
    main()
