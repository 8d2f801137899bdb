"""Milliseconds from Observation to Action, batch 1, one CPU thread: python -m tests.benchmarks.bench_latency.

With ``--checkpoint`` (a run, checkpoint or model folder) that policy is timed, otherwise a freshly built model of
conf/model on the rig of conf/rig; the weights do not change the time. Every call predicts a new chunk. Observations are
drawn from the rig's space. The goal is on CPU time, which is the wall time of a thread that nobody disturbs; the wall
time of this run stands beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from perceive.build import build
from perceive.model import PerceptionModel
from perceive.results import Figure, start_clock, write_result
from policies.learned import LearnedPolicy
from policies.schema import model_sensors
from sensors.action import ActionMode, ActionSpec
from sensors.observation import AGE, VALID, Observation, observation_space
from sensors.rig import SensorRig
from sensors.spec import box
from tests.contracts import load_composed

SPEC = ActionSpec(
    ActionMode.EE_POSE, box(-2, 2, (10,)), {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}, 1 / 12
)


def fresh_model(model: str, rig: str) -> PerceptionModel:
    """A model of the YAML tree with random weights."""
    built = build(load_composed("rig", rig))
    assert isinstance(built, SensorRig)
    config = load_composed("model", model)
    return PerceptionModel.from_config(config, built.sensor_spaces, built.history, SPEC).eval()


def observations(sensors: Mapping[str, spaces.Dict], history: Mapping[str, int], count: int) -> list[Observation]:
    """Random observations in which every sensor is there."""
    space = observation_space(sensors, history)
    space.seed(0)
    out = []
    for index in range(count):
        values = dict(space.sample())
        for key, value in values.items():
            if key.endswith(f"/{AGE}"):
                values[key] = np.zeros_like(value)
            elif key.endswith(f"/{VALID}"):
                values[key] = np.ones_like(value)
            elif "base_from_" in key:
                values[key] = np.broadcast_to(np.eye(4, dtype=value.dtype), value.shape).copy()
        out.append(Observation.from_dict(values, index / 12))
    return out


def measure(policy: LearnedPolicy, calls: int) -> dict[str, Figure]:
    """The figures."""
    history = {name: policy.model.config["history"][name] for name in policy.model.sensor_names}
    seen = observations(model_sensors(policy.model), history, 8)
    cpu_s, wall_s = [], []
    for call in range(calls + 10):
        policy.reset()
        before = time.process_time(), time.perf_counter()
        policy.act(seen[call % len(seen)])
        cpu_s.append(time.process_time() - before[0])
        wall_s.append(time.perf_counter() - before[1])
    cpu_ms, wall_ms = np.asarray(cpu_s[10:]) * 1e3, np.asarray(wall_s[10:]) * 1e3
    return {
        "p50, CPU time": Figure(float(np.percentile(cpu_ms, 50)), "ms", n=calls),
        "p95, CPU time": Figure(float(np.percentile(cpu_ms, 95)), "ms", n=calls, at_most=30.0),
        "p50, wall time": Figure(float(np.percentile(wall_ms, 50)), "ms", n=calls),
        "p95, wall time": Figure(float(np.percentile(wall_ms, 95)), "ms", n=calls),
    }


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/policy_latency.json"))
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--model", default="situated")
    parser.add_argument("--rig", default="lift")
    parser.add_argument("--calls", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = start_clock()
    if arguments.checkpoint is None:
        policy = LearnedPolicy(fresh_model(arguments.model, arguments.rig))
    else:
        policy = LearnedPolicy.load(arguments.checkpoint)
    figures = measure(policy, arguments.calls)
    parameters = sum(p.numel() for p in policy.model.parameters())
    config = {"model": policy.model.config["model"], "parameters": parameters, "calls": arguments.calls}
    about = "From Observation to Action on one CPU thread, batch 1, a new chunk predicted at every call."
    command = "python -m tests.benchmarks.bench_latency"
    write_result(arguments.out, "Policy latency", figures, [0], config, started=started, about=about, command=command)
    for name, figure in figures.items():
        print(f"{name}: {figure.value:.2f} {figure.unit}" + ("" if figure.met is None else f" (met: {figure.met})"))


if __name__ == "__main__":
    main()
