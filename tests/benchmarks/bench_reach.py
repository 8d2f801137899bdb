"""Reach from state by SAC and hindsight replay, through the trunk and through stable-baselines3's own network.

    python -m tests.benchmarks.bench_reach [--seeds 0 1 2] [--steps 4000] [--work runs/bench_reach] [--one ARM SEED]

Both learn with the same settings (conf/algorithm/sac.yaml), differing in the network only: a PerceptionModel as the
features extractor, or all observations in one vector; the latter once more with five times the steps. Each is trained
once a seed, on one thread, and tested on goals of held-out seeds. Interrupted and started again, it goes on with what
is missing; ``--one`` does one training only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from perceive.build import build
from perceive.cli.compose import compose_config
from perceive.results import Figure, Started, start_clock, success_figure, write_json, write_result
from policies.evaluation import evaluate
from policies.goals import GoalsAsSensors
from policies.logbook import read_metrics
from policies.rl import train_rl
from policies.rl_policy import RlPolicy
from policies.rl_settings import RlSettings

# arm -> (network, how many times the steps, words)
ARMS = {
    "perception": ("perception", 1, "through the trunk"),
    "flat": ("flat", 1, "stable-baselines3's network"),
    "flat_longer": ("flat", 5, "stable-baselines3's network, five times the steps"),
}
FIRST_HELD_OUT, EPISODES, GOAL = 1_000_000, 100, 0.95


def goal_env(env: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """The environment with its goal as a sensor."""
    return GoalsAsSensors(build(env))


def one(config: Mapping[str, Any], settings: RlSettings, work: Path) -> dict[str, Any]:
    """Train and test once, or read what was found before."""
    name = f"{settings.network}_{settings.steps}_{settings.seed}"
    path, run = work / f"{name}.json", work / name
    mine = dataclasses.asdict(settings) | {"hidden": list(settings.hidden)}
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        if found["settings"] == mine:
            return found
    shutil.rmtree(run, ignore_errors=True)
    result = train_rl("sac", partial(build, config["env"]), config["model"], settings, run, progress=True)
    seeds = range(FIRST_HELD_OUT, FIRST_HELD_OUT + EPISODES)
    tested = evaluate(partial(goal_env, config["env"]), partial(RlPolicy.load, run), seeds)
    curve = [(row["step"], row["rollout/success_rate"]) for row in read_metrics(run) if "rollout/success_rate" in row]
    # Of the last 100 episodes; the first rows rest on fewer.
    learned = next((step for step, rate in curve if rate >= GOAL and step > 500), None)
    found = {
        "settings": mine,
        "successes": tested.successes,
        "episodes": tested.count,
        "steps_per_success": float(np.mean([e.steps for e in tested.episodes if e.success] or [np.nan])),
        "cpu_s": result.cpu_s,
        "steps_to_95": learned,
        "parameters": result.parameters,
        "curve": curve,
    }
    write_json(path, found)
    return found


def figures(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Figure]:
    """Arm -> its runs, as figures."""
    out: dict[str, Figure] = {}
    for arm, runs in found.items():
        network, _, who = ARMS[arm]
        goal = GOAL if network == "perception" else None
        pooled = sum(run["successes"] for run in runs), sum(run["episodes"] for run in runs)
        out[f"success {who}, all seeds"] = success_figure(*pooled, at_least=goal)
        for run in runs:
            seed = run["settings"]["seed"]
            out[f"success {who}, seed {seed}"] = success_figure(run["successes"], run["episodes"], at_least=goal)
        minutes = [run["cpu_s"] / 60 for run in runs]
        out[f"CPU minutes {who}"] = Figure(float(np.mean(minutes)), "min", min(minutes), max(minutes), len(minutes))
        learned = [run["steps_to_95"] for run in runs if run["steps_to_95"] is not None]
        if learned:
            label = f"steps until 95 % of the training episodes succeed {who}"
            out[label] = Figure(float(np.mean(learned)), "steps", min(learned), max(learned), len(learned))
        out[f"parameters of the actor {who}"] = Figure(runs[0]["parameters"], "")
    return out


def main() -> None:
    """Train, test, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/reach_sac.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/bench_reach"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"))
    arguments = parser.parse_args()
    clock = start_clock()
    config = compose_config("train", ["algorithm=sac", "env=reach"])
    settings: RlSettings = build(config["rl"])
    settings = dataclasses.replace(
        settings, steps=arguments.steps or settings.steps, checkpoint_every=0, tensorboard=False
    )
    arguments.work.mkdir(parents=True, exist_ok=True)

    def run(arm: str, seed: int) -> dict[str, Any]:
        network, times, _ = ARMS[arm]
        own = dataclasses.replace(settings, network=network, seed=seed, steps=settings.steps * times)
        return one(config, own, arguments.work)

    if arguments.one is not None:
        run(arguments.one[0], int(arguments.one[1]))
        return
    found = {arm: [run(arm, seed) for seed in arguments.seeds] for arm in arguments.arms}
    about = (
        f"Reach from state, SAC with hindsight replay, {settings.steps} environment steps, one thread, the same "
        f"settings for both networks; success over {EPISODES} held-out goals a seed, without exploration. CPU minutes "
        "are those of training, with the lowest and highest seed. The settings were chosen for the trunk and nothing "
        "was tuned for the other network, which takes the observations as they are: not normalised, and the goal not "
        "relative to the tool. So the gap is that of the whole input side, not of attention alone."
    )
    # The trainings may have been other processes, at other times: their CPU time counts, their wall time is not known.
    spent_s = sum(run["cpu_s"] for runs in found.values() for run in runs)
    started = Started(clock.wall_s, clock.cpu_s - spent_s)
    kept = {
        "wall time": "of putting the runs together only; CPU time is of all trainings",
        "env": config["env"],
        "model": config["model"],
        "rl": dataclasses.asdict(settings),
    }
    command = f"python -m tests.benchmarks.bench_reach --arms {' '.join(arguments.arms)}"
    write_result(
        arguments.out, "Reach by reinforcement learning", figures(found), arguments.seeds, kept,
        started=started, about=about, command=command,
    )  # fmt: skip
    for name, figure in figures(found).items():
        print(f"{name}: {figure.value:.4g} {figure.unit}" + ("" if figure.met is None else f" (met: {figure.met})"))


if __name__ == "__main__":
    main()
