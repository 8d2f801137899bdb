"""perceive evaluate: the success of a trained policy on held-out seeds, as a result file, with films."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from perceive.build import build
from perceive.cli.app import App, portable_command
from perceive.cli.faults import with_faults
from perceive.cli.key_pose_report import write_key_pose_report
from perceive.cli.policy import env_maker, for_policy, policy_maker, skill_maker
from perceive.cli.train import RECORDED_IN
from perceive.results import Figure, start_clock, success_figure, write_json, write_result
from perceive.viewing.film import write_mp4
from policies.checkpoint import checkpoint_folders, find_checkpoint
from policies.evaluation import EvaluationResult, evaluate
from policies.rollout import EpisodeResult
from sensors.action import ActionMode
from sensors.errors import SpecError
from sensors.rig import SensorRig

LOG = logging.getLogger(__name__)
RESULT_FILE = "result.json"
EPISODES_FILE = "episodes.json"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "evaluate",
        "Measure a trained policy, or a skill, on held-out seeds; writes result.json, episodes.json and films.",
        (
            "perceive evaluate checkpoint=runs/train/2026-01-31_12-00-00 env=lift films=4",
            "perceive evaluate checkpoint=runs/lift disabled=[front]",
            "perceive evaluate checkpoint=runs/lift +fault@faults.front=freeze +fault@faults.wrist=drop",
            "perceive evaluate checkpoint=runs/peg shuffled=[touch_left,touch_right] shuffled_from=runs/peg_episodes",
            "perceive evaluate skill=pick_by_pose env=pick_named films=4",
            "perceive evaluate checkpoint=runs/lift rig.sensors.front.mount_shift_m=0.1",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Evaluate as the config says and print where the result is.

    Raises:
        SpecError: neither a checkpoint nor a skill, or both.
    """
    started = start_clock()
    if (config["checkpoint"] is None) == (config["skill"] is None):
        got = "neither" if config["skill"] is None else "both"
        raise SpecError("perceive evaluate", "a checkpoint or a skill", got, "Pass checkpoint=<run> or skill=<name>.")
    warn_of_another_task(config)
    config = {**config, "env": with_faults(config["env"], config["faults"])}
    if config["skill"] is None:
        config["env"] = for_policy(config["checkpoint"], config["env"])
    seeds = list(range(config["first_seed"], config["first_seed"] + config["episodes"]))
    result = evaluate_seeds(config, seeds)
    output = Path(config["output"])
    path = Path(config["result"]) if config["result"] else output / RESULT_FILE
    figures = {
        "success": success_figure(result.successes, result.count),
        "steps per episode": Figure(float(np.mean([episode.steps for episode in result.episodes])), n=result.count),
        "CPU from observation to action, median": Figure(result.latency_ms(50), "ms"),
        "CPU from observation to action, p95": Figure(result.latency_ms(95), "ms"),
    }
    if config["env"].get("action_mode") == ActionMode.KEY_POSE.value or any(e.failed_plans for e in result.episodes):
        figures["failures with a failed plan"] = Figure(result.planner_failures, "episodes", n=result.count)
        own = result.count - result.successes - result.planner_failures
        figures["failures of the policy alone"] = Figure(own, "episodes", n=result.count)
    without = f" without {', '.join(sorted(config['disabled']))}" if config["disabled"] else ""
    without += f" with faults of {', '.join(sorted(config['faults']))}" if config["faults"] else ""
    without += f" with {', '.join(sorted(config['shuffled']))} of other episodes" if config["shuffled"] else ""
    task = config["env"]["task"]["_target_"].rpartition(".")[2]
    what, unseen = ("A trained policy", ", seeds it has not seen") if config["skill"] is None else ("A skill", "")
    about = f"{what} in {task}{without}{unseen}."
    command = portable_command("evaluate")
    write_result(path, config["name"], figures, seeds, config, started=started, about=about, command=command)
    write_json(output / EPISODES_FILE, result.to_json())
    films = write_films(config, result, output)
    page = write_key_pose_report(config, result, output) if config["films"] and config["skill"] is None else None
    low, high = result.interval
    print(
        f"success {100 * result.success_rate:.1f} % ({100 * low:.1f} to {100 * high:.1f} %) of {result.count} episodes"
    )
    print("\n".join(f"written: {file}" for file in (path, output / EPISODES_FILE, *films, page) if file is not None))


def evaluate_seeds(
    config: Mapping[str, Any], seeds: Sequence[int], film: Sequence[str] = (), label: str = "evaluate"
) -> EvaluationResult:
    """Roll the policy of a config out on the given seeds.

    Args:
        config: resolved config of ``perceive evaluate`` (see perceive.cli.schema.EvaluateSchema).
        seeds: of the environment.
        film: cameras whose pictures to keep.
        label: of the progress bar.

    Raises:
        DataError: no whole checkpoint at ``checkpoint``.
        SpecError: sensors of a skill are to be shuffled.
        WiringError: the policy does not fit the environment's sensors or actions.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    path, skill = config["checkpoint"], config.get("skill")
    if skill is not None and config.get("shuffled"):
        raise SpecError("shuffled sensors", "a policy trained by imitation", "a skill", "Leave shuffled away.")
    return evaluate(
        partial(build, config["env"], where="env") if skill is not None else env_maker(path, config["env"]),
        skill_maker(skill) if skill is not None else policy_maker(path, config),
        seeds,
        workers=config["workers"] or cores,
        disabled=frozenset(config["disabled"]),
        film=film,
        film_seeds=seeds if film else (),
        progress=config["progress"],
        label=label,
    )


def write_films(config: Mapping[str, Any], result: EvaluationResult, folder: Path) -> list[Path]:
    """Play some episodes again, failures first, and write a film of each: all cameras side by side."""
    chosen = sorted(result.episodes, key=lambda episode: episode.success)[: config["films"]]
    rig = build(config["rig"], where="rig")
    assert isinstance(rig, SensorRig)
    cameras = [name for name, space in rig.sensor_spaces.items() if _is_picture(space)]
    if not chosen or not cameras:
        return []
    whole_moves = config["env"].get("action_mode") == ActionMode.KEY_POSE.value
    hz = 1.0 if whole_moves else float(config["env"].get("control_hz", 12.0))
    again = evaluate_seeds(config, [episode.seed for episode in chosen], cameras, "film")
    return [_film(episode, cameras, folder, hz) for episode in again.episodes]


def warn_of_another_task(config: Mapping[str, Any]) -> None:
    """Say so when the policy was trained in another task than that of ``env``: it would fail without a word."""
    if config["checkpoint"] is None:
        return
    path = Path(config["checkpoint"])
    if not checkpoint_folders(path) and not path.name.startswith("step_"):
        return
    trained = find_checkpoint(path).state["config"].get(RECORDED_IN, {})
    then, now = (str(env.get("task", {}).get("_target_", "")) for env in (trained, config["env"]))
    if then and then != now:
        LOG.warning("the policy was trained in %s and is evaluated in %s; choose with env=...", then, now)


def _is_picture(space: spaces.Dict) -> bool:
    """Whether frames hold a picture [H, W, 3]; points have colours, too."""
    colours = space.spaces.get("rgb")
    return colours is not None and len(colours.shape or ()) == 3


def _film(episode: EpisodeResult, cameras: Sequence[str], folder: Path, hz: float) -> Path:
    from perceive.viewing.draw import mosaic

    word = "success" if episode.success else "failure"
    frames = (
        mosaic({name: episode.film[name][step] for name in cameras}, len(cameras), 252, 252)
        for step in range(episode.steps + 1)
    )
    return write_mp4(folder / f"{word}_{episode.seed}.mp4", frames, hz)
