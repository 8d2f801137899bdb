"""perceive run: a robot driven by a policy in real time, with limits in between; prints how it went."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perceive.build import build
from perceive.cli.app import App
from perceive.cli.policy import policy_maker, skill_maker
from perceive.results import machine, versions, write_json
from perceive.viewing.live import LiveView, live_view
from policies.runtime.clock import MonotonicClock
from policies.runtime.hold import HoldPolicy
from policies.runtime.loop import ControlLoop
from policies.runtime.robot import RobotLink
from policies.runtime.safety import SafetyLimiter
from policies.runtime.summary import RunSummary
from sensors.errors import SafetyStop, SpecError

SUMMARY_FILE = "run.json"
HOLD = "hold"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "run",
        "Drive a robot with a trained policy or a skill, at a fixed rate, within limits of place and speed.",
        (
            "perceive run robot=sim_panda policy=runs/lift",
            "perceive run robot=sim_panda policy=runs/lift env=lift seed=1000003 disabled=[front]",
            "perceive run robot=sim_panda policy=hold duration_s=5",
            "perceive run robot=sim_panda env=pick_named skill=pick_by_pose skill.threaded=true duration_s=60",
            "perceive run robot=sim_panda policy=runs/lift view=rerun",
        ),
        job,
    )


def job(config: dict[str, Any]) -> None:
    """Run as the config says, print and write the summary.

    Raises:
        SafetyStop: the run ended because going on would not have been safe.
        KeyboardInterrupt: it was ended by Ctrl-C.
    """
    summary = run(config)
    path = Path(config["result"]) if config["result"] else Path(config["output"]) / SUMMARY_FILE
    record = {**summary.to_json(), "config": plain_paths(config), "versions": versions(), "machine": machine()}
    write_json(path, record)
    print(summary)
    print(f"written: {path}")
    if summary.ended == "safety":
        raise SafetyStop("perceive run", "a run that ends by itself", summary.reason, "The robot was stopped.")
    if summary.ended == "interrupt":
        raise KeyboardInterrupt


def run(config: Mapping[str, Any]) -> RunSummary:
    """Connect, drive, stop, disconnect.

    Args:
        config: resolved config of ``perceive run`` (see perceive.cli.schema.RunSchema).

    Raises:
        DataError: no whole checkpoint at ``policy``.
        SafetyStop: the robot cannot be reached.
        SpecError: neither a policy nor a skill, or both.
        WiringError: the policy does not fit the robot's sensors or actions.
    """
    path, skill = config["policy"], config.get("skill")
    if (path is None) == (skill is None):
        got = "neither" if skill is None else "both"
        raise SpecError("perceive run", "a policy or a skill", got, "Pass policy=<run>, policy=hold or skill=<name>.")
    threads = torch.get_num_threads()
    torch.set_num_threads(max(int(config["threads"]), 1))
    # What can fail without a robot fails before there is one.
    learned = None if path is None or path == HOLD else policy_maker(path, config, follow=True)()
    limits = build(config["safety"], where="safety")
    # Given as data: a simulated robot's world is built in its own process.
    env = {} if config["env"] is None else {"env": config["env"]}
    robot: RobotLink = build(config["robot"], where="robot", **env)
    shown = ExitStack()
    view: LiveView | None = None
    try:
        spec = robot.action_spec
        if skill is not None:
            policy = skill_maker(skill).make(spec)
        else:
            policy = learned or HoldPolicy(spec, limits.proprioception, limits.gripper_open_m)
        limiter = SafetyLimiter(robot.action_spec, limits)
        if config["view"] is not None:
            view = shown.enter_context(live_view(config["view"], config["output"], "run"))
        observer = None if view is None else view.show
        loop = ControlLoop(robot, policy, limiter, MonotonicClock(), **config["loop"], observer=observer)
        done = (lambda: bool(robot.report().get("is_success", False))) if config["until_success"] else None
        summary = loop.run(float(config["duration_s"]), done)
    finally:
        robot.close()
        shown.close()  # after the robot: a viewer may take its time to end
        torch.set_num_threads(threads)
    return summary if view is None else replace(summary, view=view.counts())


def plain_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the folders of this machine."""
    text = json.dumps(config, default=str)
    data: dict[str, Any] = json.loads(text)
    for key in ("output", "result", "policy"):
        if data.get(key):
            data[key] = Path(data[key]).name
    return data
