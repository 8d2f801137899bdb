"""What a policy loses that sees one fused cloud instead of two pictures: python -m tests.benchmarks.bench_cloud_policy.

Lift by imitation, both arms from the same episodes, which hold the two cameras and the cloud that is made of two such
cameras; with the same settings, steps and seed, and neither touch nor wrench:

- rgbd: patches of colour and depth of both cameras, and the joints (model=situated_vision);
- cloud: the fused cloud and the joints (experiment=lift_cloud).

Held-out episodes, each arm as trained; the cloud also unplugged, so that the joints are all there is; a third arm,
cloud_without_colour, is told where points are and not what colour they have. Everything is resumable; `--train-only`
shares the work among processes.
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

# All that either arm reads, at once: both are trained on the same episodes.
RIG = ["rig=lift", "+sensor@rig.sensors.cloud=fused_cloud"]
UNFELT = ["wrench", "touch_left", "touch_right"]
CLOUD = ["experiment=lift_cloud", *RIG, f"model.ignored_sensors=[front,wrist,{','.join(UNFELT)}]"]
ARMS = {
    "rgbd": [
        "experiment=lift",
        *RIG,
        "model=situated_vision",
        f"model.ignored_sensors=[cloud,{','.join(UNFELT)}]",
        *(f"~augment.sensor_dropout.{name}" for name in UNFELT),
    ],
    "cloud": CLOUD,
    "cloud_without_colour": [*CLOUD, "model.encoders.cloud.features=[]"],
}
CONDITIONS: dict[str, dict[str, Any]] = {"as trained": {}, "cloud unplugged": {"disabled": ["cloud"]}}
DEMONSTRATIONS, EPISODES, FIRST_SEED = 300, 100, 7_600_000
NO_COLOUR = ("cloud_without_colour", "as trained")
NEAR = 0.05  # goal: points by which the cloud may stay behind the pictures


def configured(arm: str, overrides: list[str]) -> dict[str, Any]:
    """The training config of an arm, with what `perceive demo` knows besides."""
    config = compose_config("train", [*ARMS[arm], "train.threads=1", *overrides])
    conditions = {
        name: {"label": f"{arm}, {name}", "episodes": EPISODES, "disabled": [], "shuffled": [], "moved": False} | how
        for name, how in CONDITIONS.items()
        if arm == "cloud" or not how
    }
    evaluation = {"first_seed": FIRST_SEED, "replan_s": 0.0, "workers": 0, "conditions": conditions}
    return {**config, "collect": {"episodes": DEMONSTRATIONS}, "evaluate": evaluation, "moved": {}}


def demonstrations(config: Mapping[str, Any], folder: Path) -> None:
    """Record what is missing of them."""
    plan = compose_config("collect", ["env=lift", f"episodes={DEMONSTRATIONS}", f"output={folder}"])
    print(collect({**plan, "env": config["env"], "progress": config["progress"]}), flush=True)


def trained(arm: str, config: Mapping[str, Any], episodes: Path, folder: Path) -> float:
    """Train an arm, or go on; returns the CPU seconds of all sittings."""
    path = folder / "cpu_s.json"
    spent, before = json.loads(path.read_text()) if path.is_file() else 0.0, cpu_seconds()
    print(arm, flush=True)
    train_stage(config, episodes, folder / "train")
    write_json(path, spent + cpu_seconds() - before)
    return float(spent + cpu_seconds() - before)


def claims(rates: Mapping[tuple[str, str], float]) -> dict[str, Figure | float]:
    """What the comparison is made for, as far as its arms were played; (arm, condition) -> success rate."""
    out: dict[str, Figure | float] = {}
    cloud = rates.get(("cloud", "as trained"))
    if cloud is None:
        return out
    if ("rgbd", "as trained") in rates:
        behind = 100 * (rates["rgbd", "as trained"] - cloud)
        out["cloud stays behind the pictures by"] = Figure(behind, "points", n=EPISODES, at_most=100 * NEAR)
    for name, other in {"the cloud is worth": ("cloud", "cloud unplugged"), "colour is worth": NO_COLOUR}.items():
        if other in rates:
            out[name] = Figure(100 * (cloud - rates[other]), "points", n=EPISODES)
    return out


def main(words: list[str] | None = None) -> None:
    """Run what is missing and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/cloud_policy.json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/cloud_policy"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--train-only", action="store_true", help="write no result; to share the work among processes")
    parser.add_argument("overrides", nargs="*", help="of perceive train, e.g. train.steps=600")
    given = parser.parse_args(words)
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
    config = configured("cloud", given.overrides)
    steps = config["train"]["steps"]
    chosen = "" if given.arms == list(ARMS) else f" --arms {' '.join(given.arms)}"
    chosen += f" -- {' '.join(given.overrides)}" if given.overrides else ""
    portable = {key: config[key] for key in ("env", "train", "augment", "model")}
    write_result(
        given.out, "A policy from a point cloud alone", figures | claims(rates),
        list(range(FIRST_SEED, FIRST_SEED + EPISODES)), portable, started=started,
        about=f"Lift, {DEMONSTRATIONS} demonstrations, {steps} steps, one training seed, {EPISODES} held-out episodes. "
        "The cloud is fused from the depth of the same two cameras that the other arm sees as pictures; both know "
        "the joints, neither feels anything.",
        command=f"python -m tests.benchmarks.bench_cloud_policy{chosen}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
