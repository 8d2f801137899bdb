"""The environment benchmarks run, and their figures hold where a ratio makes them independent of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from envs.base import RobotEnv
from envs.presets import make
from tests.benchmarks import bench_envs


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_envs, "POSES", 4)
        patch.setattr(bench_envs, "FRAMES", 15)
        patch.setattr(bench_envs, "BLOCKS", 2)
        out = tmp_path_factory.mktemp("bench") / "render.json"
        bench_envs.main("render", out)
        record = json.loads(Path(out).read_text())
    return {name: figure["value"] for name, figure in record["figures"].items()}


def test_light_meshes_keep_the_outline(rendered: dict[str, float]) -> None:
    assert rendered["silhouette_iou_mean"] > 0.97


def test_light_meshes_are_several_times_faster(rendered: dict[str, float]) -> None:
    assert rendered["speed_up"] > 3.0


def test_another_arm_is_another_outline() -> None:
    light = bench_envs.scene(0.05)
    camera = bench_envs.views(2, 0)[1]
    masks = []
    for joints in bench_envs.arm_poses(2, 0):
        light.place_joints(joints, 0.05)
        masks.append(bench_envs.arm_mask(light, camera, finer=1))
    light.close()
    assert bench_envs.overlap(masks[0], masks[1]) < 0.9


def test_physics_takes_most_of_a_step() -> None:
    """What is left for Python is less than one and a half times the physics: a ratio, so it holds on any machine."""
    env = make("lift", cameras=False)
    assert isinstance(env, RobotEnv)
    episodes = bench_envs.recorded(env, range(6))
    assert all(len(actions) < 25 for actions in episodes)
    whole = max(bench_envs.step_rate(env, range(6), episodes) for _ in range(3))
    env.reset(seed=0)
    physics = []
    for _ in range(3):
        begin = bench_envs.time.process_time()
        env.world.step(600)
        physics.append(600 / 20 / (bench_envs.time.process_time() - begin))
    env.close()
    assert whole > 0.25 * float(np.median(physics))
