"""The scripted experts solve their tasks."""

from __future__ import annotations

import numpy as np
import pytest

from envs.base import RobotEnv
from envs.presets import IDS, make
from envs.robots.panda import Panda
from envs.tasks.lift import Lift
from envs.tasks.pick_place import PickPlace
from envs.tasks.push import Push
from sensors.action import ActionMode
from sensors.errors import SpecError
from sensors.rig import SensorRig

TASKS = sorted(IDS.values())


def solved(env: RobotEnv, seed: int) -> bool:
    env.reset(seed=seed)
    expert = env.expert()
    while True:
        action = expert.act()
        assert action.spec.mode is ActionMode.EE_POSE
        assert env.action_space.contains(action.values)
        _, _, terminated, truncated, info = env.step(action.values)
        if terminated or truncated:
            assert info["is_success"] == terminated
            return terminated


@pytest.mark.parametrize("task", TASKS)
def test_ten_seeds(task: str) -> None:
    env = make(task, cameras=False)
    assert isinstance(env, RobotEnv)
    assert sum(solved(env, seed) for seed in range(10)) == 10
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_at_least_98_percent_of_200_seeds(task: str) -> None:
    env = make(task, cameras=False)
    assert isinstance(env, RobotEnv)
    assert sum(solved(env, seed) for seed in range(200)) >= 196
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_without_acting_nothing_is_solved(task: str) -> None:
    env = make(task, cameras=False, action_mode="ee_delta", max_steps=20)
    env.reset(seed=0)
    still = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
    for _ in range(20):
        _, _, terminated, truncated, _ = env.step(still)
    assert truncated
    assert not terminated
    env.close()


def test_a_box_that_is_taken_away_is_grasped_again() -> None:
    env = make("lift", cameras=False, max_steps=80)
    assert isinstance(env, RobotEnv)
    task = env.task
    assert isinstance(task, Lift)
    env.reset(seed=4)
    expert = env.expert()
    held = False
    for _ in range(40):
        _, _, terminated, _, _ = env.step(expert.act().values)
        raised = env.world.body_position(task.body)[2] - task.half_m
        if not held and raised > 0.02:
            held = True
            env.world.move_body(task.body, (0.45, -0.1, task.half_m), 0.6)
        if terminated:
            break
    assert held
    assert terminated
    env.close()


def test_an_expert_needs_the_whole_action() -> None:
    env = RobotEnv(Lift(), Panda(rotation=False), SensorRig({}))
    env.reset(seed=0)
    with pytest.raises(SpecError, match="rotation"):
        env.expert()
    env.close()


def test_task_settings_out_of_range() -> None:
    with pytest.raises(SpecError, match="gripper"):
        Lift(half_high_m=0.06)
    with pytest.raises(SpecError, match="dense"):
        Lift(reward="shaped")
    with pytest.raises(SpecError, match="area"):
        Lift(area_low_m=(0.7, 0.0))
    with pytest.raises(SpecError, match="threshold_m"):
        Push(threshold_m=0.5)
    with pytest.raises(SpecError, match="half_low_m"):
        PickPlace(half_low_m=0.0)
    with pytest.raises(SpecError, match="goal"):
        Lift().compute_reward(np.zeros(3), np.zeros(3))
    with pytest.raises(SpecError, match="RobotEnv"):
        Lift().outcome()
