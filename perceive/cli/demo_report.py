"""The report of the demo: figures into ``result.json``, pictures and tables into ``report.html``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.build import build
from perceive.report import Clip, Rate, Report, encode_gif, write_report
from perceive.results import Figure, machine, success_figure, versions, write_result
from policies.learned import LearnedPolicy
from policies.rollout import robot_of, rollout

SUCCESS = 0.9  # goal of the main condition


def write_demo_report(
    folder: Path,
    config: Mapping[str, Any],
    outcomes: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, Mapping[str, float]],
    run: Path,
) -> dict[str, Any]:
    """Write ``result.json`` (and ``config["result"]``, if named) and ``report.html``; returns the record.

    Args:
        folder: where to.
        config: resolved config of the demo.
        outcomes: condition -> what :meth:`EvaluationResult.to_json` gave, with its ``label``; the main one first.
        seconds: stage -> wall_s and cpu_s.
        run: folder of the trained policy.
    """
    main = next(iter(outcomes.values()))
    figures = demo_figures(config, outcomes, seconds)
    seeds = [row["seed"] for row in main["by_seed"]]
    record: dict[str, Any] = {}
    for path in [folder / "result.json", *([Path(config["result"])] if config["result"] else [])]:
        record = write_result(
            path, config["name"], figures, seeds, _portable(config), about=config["about"], command=config["command"]
        )
    clips = _clips(config, main, run)
    if clips:
        (folder / "demo.gif").write_bytes(clips[0].gif)
    low, high = main["interval"]
    moved = [name for name, condition in config["evaluate"]["conditions"].items() if condition["moved"]]
    missing = [name for name, condition in config["evaluate"]["conditions"].items() if condition["disabled"]]
    main_name = next(iter(outcomes))
    tables = {
        "Moved cameras": (
            "The cameras never moved in training. Their pose is known to the policy, which sees where each token is.",
            [_rate(outcomes[name]) for name in (main_name, *moved)],
        ),
        "Missing sensors": (
            "The same policy with sensors unplugged. With everything but the joints gone it must fail: it sees.",
            [_rate(outcomes[name]) for name in (main_name, *missing)],
        ),
    }
    report = Report(
        title=config["name"],
        lead=f"{main['successes']} of {main['episodes']} held-out episodes succeed "
        f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %).",
        headline=_rate(main),
        tables={heading: table for heading, table in tables.items() if len(table[1]) > 1},
        curve=_curve(run / "metrics.jsonl"),
        clips=clips,
        timings_s={f"{name} (wall)": spent["wall_s"] for name, spent in seconds.items()},
        facts=_facts(config, main),
        config=config,
    )
    write_report(folder / "report.html", report)
    return record


def demo_figures(
    config: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, Mapping[str, float]]
) -> dict[str, Figure | float]:
    """The figures of a demo: success of every condition, what is kept of it, times and latency."""
    names = list(outcomes)
    main = outcomes[names[0]]
    figures: dict[str, Figure | float] = {
        "success": success_figure(main["successes"], main["episodes"], at_least=SUCCESS)
    }
    for name in names[1:]:
        outcome = outcomes[name]
        figures[f"success_{name}"] = success_figure(outcome["successes"], outcome["episodes"])
        if main["successes"]:
            kept = outcome["success_rate"] / main["success_rate"]
            goal = config["evaluate"]["conditions"][name]["keeps"]
            figures[f"kept_{name}"] = Figure(kept, "fraction", n=outcome["episodes"], at_least=goal)
    for name, spent in seconds.items():
        figures[f"{name}_wall"] = Figure(spent["wall_s"], "s")
        figures[f"{name}_cpu"] = Figure(spent["cpu_s"], "s")
    figures["whole_wall"] = Figure(sum(spent["wall_s"] for spent in seconds.values()), "s", at_most=20 * 60.0)
    return figures


def _rate(outcome: Mapping[str, Any]) -> Rate:
    low, high = outcome["interval"]
    return Rate(outcome["label"], outcome["successes"], outcome["episodes"], low, high)


def _clips(config: Mapping[str, Any], main: Mapping[str, Any], run: Path) -> list[Clip]:
    """Films of some successes and some failures of the main condition, played again."""
    count = int(config["films"])
    good = [row["seed"] for row in main["by_seed"] if row["success"]][:count]
    bad = [row["seed"] for row in main["by_seed"] if not row["success"]][:count]
    if not good and not bad:
        return []
    env = build(config["env"])
    policy = LearnedPolicy.load(run, replan_s=config["evaluate"]["replan_s"])
    clips = []
    try:
        for seed in good + bad:
            frames: list[NDArray[np.uint8]] = []
            result = rollout(env, policy, seed, on_step=lambda seen, *_, to=frames: to.append(_frame(env, seen)))
            word = "success" if result.success else "failure"
            gif = encode_gif(frames, 1.0 / robot_of(env).action_spec.period_s)
            clips.append(Clip(f"seed {seed}: {word} after {result.steps} steps", result.success, gif))
    finally:
        env.close()
    return clips


def _frame(env: Any, seen: Any) -> NDArray[np.uint8]:
    """What people look at: the scene, and beside it what the cameras saw."""
    scene = env.render()
    half = scene.shape[0] // 2
    small: list[NDArray[np.uint8]] = []
    for stream in seen.streams.values():
        if "rgb" in stream.data and stream.data["rgb"].ndim == 4 and len(small) < 2:
            rgb = stream.data["rgb"][-1]
            rows = np.arange(half) * rgb.shape[0] // half
            small.append(rgb[rows][:, np.arange(half) * rgb.shape[1] // half])
    blank = np.zeros((half, half, 3), np.uint8)
    beside = np.concatenate([*small, *[blank] * (2 - len(small))], 0)
    return np.concatenate([scene, beside], 1).astype(np.uint8)


def _curve(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _facts(config: Mapping[str, Any], main: Mapping[str, Any]) -> dict[str, str]:
    host = machine()
    return {
        "policy latency, p50 / p95": f"{main['latency_ms_p50']:.1f} / {main['latency_ms_p95']:.1f} ms of CPU a step",
        "mean episode": f"{main['mean_steps']:.1f} control steps",
        "held-out seeds": f"{main['by_seed'][0]['seed']} to {main['by_seed'][-1]['seed']}",
        "training seed": str(config["train"]["seed"]),
        "machine": ", ".join(f"{key}: {value}" for key, value in host.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without this machine's folders."""
    return {key: value for key, value in config.items() if key not in ("output", "result")}
