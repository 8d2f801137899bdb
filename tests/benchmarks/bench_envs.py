"""Rendering and stepping figures of the environments.

``python -m tests.benchmarks.bench_envs render --out results/render.json``
``python -m tests.benchmarks.bench_envs step --out results/step_rate.json``
``python -m tests.benchmarks.bench_envs touch --out results/step_rate_touch.json``
``python -m tests.benchmarks.bench_envs experts --out results/experts.json``

Rates are per CPU-second of this process: best of several blocks, since other work on the machine only ever makes a
block slower. Stock and light meshes are drawn in turns, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from envs import touch_presets
from envs.base import RobotEnv
from envs.experts.base import Expert
from envs.presets import FRONT_CAMERA, MAX_STEPS, make
from envs.robots.kinematics import SerialChain
from envs.robots.panda import ARM_JOINTS, Panda
from envs.robots.panda_model import TOOL_OFFSET_M
from envs.scene import Table
from envs.tasks.grasp_force import GraspForce
from envs.tasks.held_tool import HeldTool
from envs.tasks.insert_peg import InsertPeg
from envs.world import PyBulletWorld
from perceive.build import build
from perceive.cli.compose import compose_config
from perceive.results import Figure, start_clock, success_figure, write_result
from sensors.action import ActionMode
from sensors.geometry import FloatArray, intrinsics_from_fov, look_at, pose

SIDE_PX, FOV_DEG = 84, 50.0
POSES, FRAMES, BLOCKS = 24, 60, 5
MEDIUM_N = 6.0  # the fixed grip that holds most cans


def scene(fraction: float) -> PyBulletWorld:
    """Arm, table and a box, with a share of the stock visual triangles."""
    world = PyBulletWorld(renderer="tiny")
    Panda(mesh_fraction=fraction).attach(world)
    Table(world)
    world.add_box((0.02, 0.02, 0.02), (0.5, 0.05, 0.02), 0.3, mass_kg=0.05, rgba=(0.8, 0.1, 0.1, 1.0))
    return world


def arm_poses(count: int, seed: int) -> list[FloatArray]:
    """Joint positions [7] all over the limits whose hand is above the table."""
    chain = SerialChain(Panda().description.urdf, ARM_JOINTS, "panda_hand", TOOL_OFFSET_M)
    rng = np.random.default_rng(seed)
    found: list[FloatArray] = []
    while len(found) < count:
        joints = rng.uniform(chain.low, chain.high)
        if chain.forward(joints)[2, 3] > 0.05:
            found.append(joints)
    return found


def views(count: int, seed: int) -> list[FloatArray]:
    """``base_from_camera`` all around the arm; the first is the front camera of the demo."""
    rng = np.random.default_rng(seed)
    found = [pose(FRONT_CAMERA["position_m"], FRONT_CAMERA["quaternion_xyzw"])]
    while len(found) < count:
        turn, height, distance = rng.uniform((-2.5, 0.2, 1.0), (2.5, 1.2, 1.5))
        eye = (0.3 + distance * np.cos(turn), distance * np.sin(turn), height)
        found.append(look_at(eye, (0.3, 0.0, 0.35)))
    return found


def arm_mask(world: PyBulletWorld, camera: FloatArray, finer: int) -> NDArray[np.bool_]:
    """Pixels [84, 84] of the arm, drawn ``finer`` (odd) times finer and taken at the pixel centres.

    At 84 px the software renderer leaves holes where a triangle is smaller than a pixel; 5 times finer it does not.
    """
    fx, fy, cx, cy = intrinsics_from_fov(SIDE_PX, SIDE_PX, FOV_DEG) * finer
    half = (finer - 1) / 2
    side = SIDE_PX * finer
    picture = world.render(camera, np.array([fx, fy, cx + half, cy + half]), side, side, 0.05, 3.0)
    mask: NDArray[np.bool_] = (picture.body == 0)[int(half) :: finer, int(half) :: finer]
    return mask


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((first & second).sum() / (first | second).sum())


def silhouettes(light: PyBulletWorld, stock: PyBulletWorld, seed: int) -> dict[str, list[float]]:
    """IoU of the arm at 84 px, over pairs of a pose and a view.

    ``light``: light meshes against the true outline of the stock meshes; ``stock``: stock meshes, drawn at 84 px,
    against that same outline; ``drawn``: light against stock meshes, both drawn at 84 px.
    """
    found: dict[str, list[float]] = {"light": [], "stock": [], "drawn": []}
    for joints, camera in zip(arm_poses(POSES, seed), views(POSES, seed + 1), strict=True):
        light.place_joints(joints, 0.05)
        stock.place_joints(joints, 0.05)
        true = arm_mask(stock, camera, finer=5)
        new, old = arm_mask(light, camera, finer=1), arm_mask(stock, camera, finer=1)
        found["light"].append(overlap(new, true))
        found["stock"].append(overlap(old, true))
        found["drawn"].append(overlap(new, old))
    return found


def frame_rate(world: PyBulletWorld, frames: int) -> float:
    """Frames (RGB, depth, segmentation) per CPU-second from the front camera, arm over the table."""
    camera, intrinsics = views(1, 0)[0], intrinsics_from_fov(SIDE_PX, SIDE_PX, FOV_DEG)
    begin = time.process_time()
    for _ in range(frames):
        world.render(camera, intrinsics, SIDE_PX, SIDE_PX, 0.05, 3.0)
    return frames / (time.process_time() - begin)


def measure_render(seed: int = 0) -> dict[str, Figure]:
    """Frame rates with light and stock meshes, and how alike their outlines are."""
    light, stock = scene(0.05), scene(1.0)
    alike = silhouettes(light, stock, seed)
    robot_pose = np.array([0.0, -0.2, 0.0, -2.45, 0.0, 2.25, 0.785])
    for world in (light, stock):
        world.place_joints(robot_pose, 0.08)
        frame_rate(world, 5)
    pairs = [(frame_rate(light, FRAMES), frame_rate(stock, FRAMES // 5)) for _ in range(BLOCKS)]
    fast, slow = (max(pair[index] for pair in pairs) for index in (0, 1))
    light.close()
    stock.close()
    return {
        "frames_per_cpu_s": Figure(fast, "frames/CPU-s", n=BLOCKS, at_least=240.0),
        "stock_frames_per_cpu_s": Figure(slow, "frames/CPU-s", n=BLOCKS),
        "speed_up": Figure(fast / slow, "x", n=BLOCKS),
        "silhouette_iou_mean": Figure(float(np.mean(alike["light"])), n=POSES, at_least=0.97),
        "silhouette_iou_worst": Figure(float(np.min(alike["light"])), n=POSES),
        "silhouette_iou_stock_drawn_at_84_px": Figure(float(np.mean(alike["stock"])), n=POSES),
        "silhouette_iou_both_drawn_at_84_px": Figure(float(np.mean(alike["drawn"])), n=POSES),
    }


def recorded(env: RobotEnv, seeds: Sequence[int]) -> list[list[NDArray[np.float32]]]:
    """The expert's actions in the episodes of these seeds."""
    episodes = []
    for seed in seeds:
        env.reset(seed=seed)
        expert, actions, over = env.expert(), [], False
        while not over:
            action = expert.act().values
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            actions.append(action)
        episodes.append(actions)
    return episodes


def step_rate(env: RobotEnv, seeds: Sequence[int], episodes: list[list[NDArray[np.float32]]]) -> float:
    """Env steps per CPU-second of whole episodes, resets counted in the time and not in the steps."""
    steps = 0
    begin = time.process_time()
    for seed, actions in zip(seeds, episodes, strict=True):
        env.reset(seed=seed)
        for action in actions:
            env.step(action)
        steps += len(actions)
    return steps / (time.process_time() - begin)


def measure_steps(seeds: Sequence[int] = range(20)) -> dict[str, Figure]:
    """Lift without cameras at 20 physics steps per env step, while the expert's recorded actions are replayed."""
    env = make("lift", cameras=False)
    assert isinstance(env, RobotEnv)
    episodes = recorded(env, seeds)
    whole = max(step_rate(env, seeds, episodes) for _ in range(BLOCKS))
    begin = time.process_time()
    for _ in range(50):
        env.reset()
    reset_ms = (time.process_time() - begin) / 50 * 1e3
    env.reset(seed=0)
    begin = time.process_time()
    env.world.step(2000)
    physics = 2000 / (time.process_time() - begin) / 20
    env.close()
    return {
        "env_steps_per_cpu_s": Figure(whole, "steps/CPU-s", n=BLOCKS, at_least=450.0),
        "bare_physics_per_cpu_s": Figure(physics, "x 20 substeps/CPU-s"),
        "reset_ms": Figure(reset_ms, "CPU-ms", n=50, at_most=30.0),
    }


def feeling_env(gel_rows: int, gel_columns: int) -> RobotEnv:
    """InsertPeg with one RGB-D camera, and a gel camera and a field of forces on each finger."""
    words = ["env=insert_peg", "~sensor@rig.sensors.wrist", "env.renderer=tiny"]
    for side in ("left", "right"):
        words += [f"+sensor@rig.sensors.gel_{side}=digit_{side}_sim"]
        words += [f"rig.sensors.gel_{side}.{key}={value}" for key, value in
                  (("height", gel_rows), ("width", gel_columns), ("ray_rows", 32), ("ray_columns", 24))]  # fmt: skip
    env = build(compose_config("view", words)["env"])
    assert isinstance(env, RobotEnv)
    return env


def measure_touch(seeds: Sequence[int] = range(6)) -> dict[str, Figure]:
    """Whole environments that feel and see, on one thread, while the expert's recorded actions are replayed."""
    torch.set_num_threads(1)
    figures = {}
    for rows, columns in ((64, 48), (64, 64), (160, 120)):
        env = feeling_env(rows, columns)
        episodes = recorded(env, seeds)
        rate = max(step_rate(env, seeds, episodes) for _ in range(3))
        goal = 60.0 if (rows, columns) == (64, 64) else None
        figures[f"gel_{rows}x{columns}_env_steps_per_cpu_s"] = Figure(rate, "steps/CPU-s", n=3, at_least=goal)
        env.close()
    return figures


def played(env: RobotEnv, seeds: Sequence[int], make_expert: Callable[[], Expert]) -> tuple[int, float]:
    """How many episodes an expert solves, and their mean length."""
    lengths, solved = [], 0
    for seed in seeds:
        env.reset(seed=seed)
        expert, over, steps = make_expert(), False, 0
        while not over:
            _, _, terminated, truncated, _ = env.step(expert.act().values)
            over, steps = terminated or truncated, steps + 1
        solved += terminated
        lengths.append(steps)
    return solved, float(np.mean(lengths))


def blind(env: RobotEnv) -> Expert:
    """The expert of a task that needs touch, without it."""
    task, spec = env.task, env.robot.action_spec(ActionMode.EE_POSE, env.period_s)
    if isinstance(task, GraspForce):
        return task.blind_expert(spec, MEDIUM_N)
    assert isinstance(task, InsertPeg | HeldTool)
    return task.blind_expert(spec)


def measure_experts(seeds: Sequence[int] = range(200)) -> dict[str, Figure]:
    """Success of the scripted experts over seeds; of tasks that need touch, also of experts that feel nothing."""
    figures: dict[str, Figure] = {}
    for task in (*MAX_STEPS, *touch_presets.MAX_STEPS):
        feels = task in touch_presets.MAX_STEPS
        env = touch_presets.make(task, cameras=False, touch={}) if feels else make(task, cameras=False)
        assert isinstance(env, RobotEnv)
        solved, steps = played(env, seeds, env.expert)
        figures[f"{task}_success"] = success_figure(solved, len(seeds), at_least=0.98)
        figures[f"{task}_steps"] = Figure(steps, "control steps", n=len(seeds))
        if feels:
            solved, _ = played(env, seeds, partial(blind, env))
            figures[f"{task}_success_without_feeling"] = success_figure(solved, len(seeds))
        env.close()
    return figures


def main(what: str, out: Path) -> dict[str, Figure]:
    """Measure and write one result file; its figures are returned."""
    started = start_clock()
    command = f"python -m tests.benchmarks.bench_envs {what} --out {out}"
    if what == "render":
        figures, seeds = measure_render(0), [0]
        about = f"RGB-D and segmentation at {SIDE_PX}x{SIDE_PX} on the CPU, arm in view."
    elif what == "step":
        figures, seeds = measure_steps(range(20)), list(range(20))
        about = "Lift with joints and wrench, no cameras, 20 physics steps per env step, resets included."
    elif what == "touch":
        figures, seeds = measure_touch(range(6)), list(range(6))
        about = (
            "InsertPeg with joints, wrench, an RGB-D camera of 84 x 84, and on each finger a gel camera and a field of "
            "20 x 25 forces; 20 physics steps per env step, resets included."
        )
    else:
        figures, seeds = measure_experts(range(200)), list(range(200))
        about = "Scripted experts in randomised scenes, one episode per seed."
    config = {"what": what, "control_hz": 12.0, "physics_hz": 240.0, "side_px": SIDE_PX}
    write_result(
        out,
        f"envs: {what}",
        figures,
        seeds,
        config,
        started=started,
        about=about,
        command=command,
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "step", "touch", "experts"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for key, figure in main(arguments.what, arguments.out).items():
        print(f"{key:28s} {figure.value:.4g} {figure.unit}")
