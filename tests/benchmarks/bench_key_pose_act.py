"""From an observation to a key pose, whole: python -m tests.benchmarks.bench_key_pose_act.

Times ``KeyPosePolicy.act`` of models with random weights on a scene of StackBlocks: cloud, virtual views, networks of
all stages, readout. On a GPU, where there is one, also the same, the rendering of a batch of 24 and samples of training
per second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch

import envs  # noqa: F401  (makes the ids known)
from perceive.batch import ActionTarget, collate
from perceive.cli.compose import compose_config
from perceive.loading import build_model
from perceive.results import Figure, start_clock, write_result
from perceive.rvt.model import KeyPoseModel
from perceive.rvt.renderer import channels, render
from perceive.rvt.views import views_named
from policies.key_pose_policy import KeyPosePolicy
from sensors.observation import Observation

MODELS = {"rvt_trunk": None, "rvt_small": 200.0, "rvt2": 2000.0, "rvt": None}  # and the goal in ms
SEED = 7
TRAIN_BATCH, RENDER_BATCH = 24, 24


def make(name: str, env: gymnasium.Env[object, object], device: str) -> KeyPoseModel:
    """The model of a config for the environment's sensors."""
    plan = compose_config("train", ["experiment=rvt_stack_blocks", f"model={name}"])["model"]
    robot = env.unwrapped
    torch.manual_seed(0)
    model = build_model(plan, robot.rig.sensor_spaces, robot.rig.history, robot.action_spec)  # type: ignore[attr-defined]
    assert isinstance(model, KeyPoseModel)
    return model.to(device).eval()


def timed(job: Callable[[], object], rounds: int, device: str) -> tuple[float, float, float]:
    """Wall time in ms of one call: median, fastest, slowest."""
    job()
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        job()
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(took), min(took), max(took)


def on_gpu(model: KeyPoseModel, observation: Observation) -> dict[str, Figure]:
    """Rendering and training of a batch on a GPU."""
    batch = collate([observation] * TRAIN_BATCH, "cuda")
    values = torch.zeros(TRAIN_BATCH, 1, 11, device="cuda")
    values[..., :9] = torch.tensor([0.5, 0.0, 0.1, 1.0, 0, 0, 0, -1.0, 0], device="cuda")
    target = ActionTarget(values, torch.ones(TRAIN_BATCH, 1, dtype=torch.bool, device="cuda"))
    model.train()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model.loss(batch, {"action": target})["loss"]
        loss.backward()  # type: ignore[no-untyped-call]

    spent, *_ = timed(step, 10, "cuda")
    views, size = views_named(model.faces), model.stages[0].size_px
    points = torch.rand(RENDER_BATCH, 65_536, 3, device="cuda") * 2 - 1
    there = torch.ones(RENDER_BATCH, 65_536, dtype=torch.bool, device="cuda")
    draw, *_ = timed(lambda: channels(render(points, points, there, views, int(size)), views), 30, "cuda")  # type: ignore[arg-type]
    return {
        "training on the GPU, bf16": Figure(1e3 * TRAIN_BATCH / spent, "samples/s"),
        f"rendering {RENDER_BATCH} clouds of 65,536 points on the GPU": Figure(draw, "ms"),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/key_pose_latency.json"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    given = parser.parse_args()
    started = start_clock()
    env = gymnasium.make("perceive/StackBlocks-v0", action_mode="key_pose")
    values, info = env.reset(seed=SEED)
    observation = Observation.from_dict({key: np.asarray(value) for key, value in values.items()}, info["now_s"])
    figures: dict[str, Figure | float] = {}
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for name in given.models:
        for device in devices:
            model = make(name, env, device)
            policy = KeyPosePolicy(model, most_blind=None)
            for threads in (1, 2) if device == "cpu" else (1,):
                torch.set_num_threads(threads)
                goal = MODELS[name] if threads == 2 and device == "cpu" else None
                middle, low, high = timed(lambda policy=policy: policy.act(observation), given.rounds, device)  # type: ignore[misc]
                label = f"{threads} threads" if device == "cpu" else "GPU"
                figures[f"act, {name}, {label}"] = Figure(middle, "ms", low, high, given.rounds, at_most=goal)
            figures[f"parameters, {name}"] = sum(p.numel() for p in model.parameters()) / 1e6
            if device == "cuda":
                figures |= {f"{name}: {key}": value for key, value in on_gpu(model, observation).items()}
    env.close()
    write_result(
        given.out, "Time of a key pose", figures, [SEED], {"rounds": given.rounds}, started=started,
        about="KeyPosePolicy.act with random weights, three cameras of 128 px, wall time: median, fastest and slowest.",
        command="python -m tests.benchmarks.bench_key_pose_act",
    )  # fmt: skip


if __name__ == "__main__":
    main()
