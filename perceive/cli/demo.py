"""perceive demo: the main job in one command - demonstrations, training, evaluation on held-out seeds, a report.

Every stage leaves its work in the output folder, so that the command, interrupted and started again, goes on where it
was: finished episodes, the newest checkpoint and finished conditions are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from perceive.cli.app import App
from perceive.cli.changes import changes
from perceive.cli.collect import collect
from perceive.cli.demo_report import write_demo_report
from perceive.cli.evaluate import evaluate_seeds
from perceive.cli.train import train_imitation
from perceive.results import cpu_seconds, write_json
from policies.checkpoint import find_checkpoint
from sensors.errors import DataError, WiringError, nearest

SETTINGS_FILE, STAGES_FILE = "demo.json", "stages.json"
# What decides the outcome; the rest (workers, films, progress) may change between two sittings.
DECISIVE = ("env", "collect", "model", "augment", "train")
FREE = {
    ("train", "threads"),
    ("train", "device"),
    ("collect", "workers"),
    ("collect", "output"),
}


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "demo",
        "Teach a simulated robot to lift: collect demonstrations, train, evaluate, write a report. Started again, it "
        "goes on where it was.",
        (
            "perceive demo",
            "perceive demo output=runs/my_demo collect.episodes=200 train.steps=2000",
            "perceive demo model=index output=runs/demo_index collect.output=runs/demo/episodes",
        ),
        lambda config: demo(config),
    )


def demo(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run all stages that are not done yet.

    Args:
        config: resolved config of ``perceive demo`` (see perceive.cli.schema.DemoSchema).

    Returns:
        The record in ``result.json``.

    Raises:
        DataError: the output folder holds a demo of other settings.
    """
    folder = Path(config["output"])
    claim(folder, config)
    clock = StageClock(folder / STAGES_FILE)
    print(f"perceive demo: everything goes to {folder}", flush=True)
    episodes = Path(config["collect"]["output"] or folder / "episodes")
    with clock.stage("collect"):
        print(collect(_collect_config(config, episodes)), flush=True)
    with clock.stage("train"):
        run = train_stage(config, episodes, folder / "train")
    with clock.stage("evaluate"):
        outcomes = {
            name: condition_outcome(config, name, run, episodes, folder / "evaluation")
            for name in config["evaluate"]["conditions"]
        }
    with clock.stage("report"):
        record = write_demo_report(folder, config, outcomes, clock.seconds, run)
    full = next(iter(outcomes.values()))
    print(f"\nsuccess on held-out seeds: {full['successes']} of {full['episodes']}")
    print(f"report:  {folder / 'report.html'}\nresult:  {folder / 'result.json'}\nmodel:   {run}", flush=True)
    return record


def train_stage(config: Mapping[str, Any], episodes: Path, run: Path) -> Path:
    """Train, or go on training; returns the run folder."""
    plan = {**config, "data": str(episodes), "heads": ["action"], "history": 0, "skip_bad": False}
    result = train_imitation({**plan, "episodes": config["collect"]["episodes"]}, run, resume=True)
    size = result.parameters / 1e6
    print(f"trained {size:.2f} M parameters for {result.steps} steps in {result.wall_s:.0f} s; loss {result.loss:.3f}")
    return run


def moved_cameras(env: Mapping[str, Any], moved: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The environment's config with the mounts of some cameras moved at every reset.

    Raises:
        WiringError: a name that is not a sensor of the rig.
    """
    out = deepcopy(dict(env))
    sensors = out["rig"]["sensors"]
    for name, shift in moved.items():
        if name not in sensors:
            raise WiringError(
                "demo.moved", f"sensors of the rig {sorted(sensors)}", f"'{name}'", nearest(name, sensors)
            )
        sensors[name].update(shift)
    return out


class StageClock:
    """Wall and CPU seconds of each stage, summed over sittings and kept on disk.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside, also if it ends by an exception."""
        wall_s, cpu_s = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            spent = self.seconds.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0})
            spent["wall_s"] += time.perf_counter() - wall_s
            spent["cpu_s"] += cpu_seconds() - cpu_s
            write_json(self._path, self.seconds)


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the folder this demo's own, or make sure that it was before.

    Raises:
        DataError: it holds a demo of other settings.
    """
    mine = json.loads(json.dumps({key: config[key] for key in DECISIVE}))
    for section, key in FREE:
        mine[section].pop(key, None)
    path = folder / SETTINGS_FILE
    if not path.is_file():
        write_json(path, mine)
        return
    try:
        theirs = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(str(path), "the settings of this folder", str(error), "Use another output folder.") from None
    differing = changes(theirs, mine)
    if differing:
        raise DataError(
            f"the demo in '{folder}'", "the settings that it was started with", "; ".join(differing),
            "Use another output folder (output=...), or start it with the same settings.",
        )  # fmt: skip


def _collect_config(config: Mapping[str, Any], episodes: Path) -> dict[str, Any]:
    given = dict(config["collect"]) | {"output": str(episodes)}
    return {"keep_failures": False, "max_attempts": 0} | given | {"env": config["env"], "progress": config["progress"]}


def condition_outcome(config: Mapping[str, Any], name: str, run: Path, episodes: Path, folder: Path) -> dict[str, Any]:
    """The outcome of one condition, from disk if it is there."""
    path = folder / f"{name}.json"
    settings = config["evaluate"]
    condition = settings["conditions"][name]
    moved = config["moved"] if condition["moved"] else {}
    first = int(settings["first_seed"])
    how = {"episodes": condition["episodes"], "disabled": condition["disabled"], "moved": moved, "first_seed": first}
    how |= {"replan_s": settings["replan_s"], "step": find_checkpoint(run).step}
    if condition["shuffled"]:
        how["shuffled"] = condition["shuffled"]
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        if found.get("how") == how:
            return found
    plan = {"checkpoint": str(run), "device": "cpu", "use_ema": True, "head": "action", "ensemble": False}
    plan |= {"env": moved_cameras(config["env"], moved), "disabled": condition["disabled"]}
    plan |= {"shuffled": condition["shuffled"], "shuffled_from": str(episodes)}
    plan |= {"replan_s": settings["replan_s"], "workers": settings["workers"], "progress": config["progress"]}
    result = evaluate_seeds(plan, list(range(first, first + int(condition["episodes"]))), label=condition["label"])
    outcome = result.to_json() | {"label": condition["label"], "how": how}
    write_json(path, outcome)
    return outcome
