"""RobotEnv: Gymnasium's rules, determinism, and when sensors are read."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

import envs  # noqa: F401  # makes the ids known
from envs.base import RobotEnv
from envs.presets import IDS, make
from envs.randomisation import Randomisation
from envs.robots.panda import Panda
from envs.tasks.lift import Lift
from envs.tasks.reach import Reach
from sensors.errors import SpecError
from sensors.joints import JointSensor
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.timeline import Timing

Obs = dict[str, NDArray[Any]]


def built(task: str, **settings: Any) -> RobotEnv:
    env = make(task, **settings)
    assert isinstance(env, RobotEnv)
    return env


def same(first: Obs, second: Obs) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_and_stable_baselines3_accept_each_id(name: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = gymnasium.make(f"perceive/{name}-v0", render_mode="rgb_array")
    with warnings.catch_warnings():
        # A recommendation, not a rule: actions of this project carry physical units, in every part that trains on them.
        warnings.filterwarnings("ignore", message=".*recommend using a symmetric and normalized space.*")
        check_env(env.unwrapped)
    check_for_sb3(env.unwrapped, warn=False)
    env.close()


def test_the_id_can_be_made_in_one_line() -> None:
    env = gymnasium.make("envs:perceive/Reach-v0", cameras=False)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.close()


def test_importing_envs_starts_no_simulator() -> None:
    code = (
        "import sys, envs; print([m for m in ('pybullet', 'open3d', 'torch', 'stable_baselines3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def episode(env: RobotEnv, seed: int | None, steps: int = 8) -> list[Obs]:
    seen = [env.reset(seed=seed)[0]]
    expert = env.expert()
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(expert.act().values)
        seen.append(observation)
        if terminated or truncated:
            break
    return seen


@pytest.mark.parametrize("task", sorted(IDS.values()))
def test_equal_seeds_give_equal_bits_in_two_envs_whatever_happened_before(task: str) -> None:
    fresh, used = built(task), built(task)
    for seed in (5, 6, 7):
        episode(used, seed, steps=12)
    expected = episode(fresh, 3) + episode(fresh, None)  # the unseeded reset after a seeded one is fixed too
    got = episode(used, 3) + episode(used, None)
    assert len(expected) == len(got)
    assert all(same(a, b) for a, b in zip(expected, got, strict=True))
    assert not same(expected[0], episode(fresh, 4)[0])
    fresh.close()
    used.close()


def test_two_envs_in_one_process_do_not_disturb_each_other() -> None:
    alone = episode(built("lift"), 1)
    first, second = built("lift"), built("push")
    mixed = [first.reset(seed=1)[0]]
    second.reset(seed=2)
    expert, other = first.expert(), second.expert()
    for _ in range(len(alone) - 1):
        second.step(other.act().values)
        mixed.append(first.step(expert.act().values)[0])
        second.render()
    second.close()
    assert all(same(a, b) for a, b in zip(alone, mixed, strict=True))
    first.close()


def test_episodes_end_and_say_why() -> None:
    env = built("lift", cameras=False, max_steps=3)
    _, info = env.reset(seed=0)
    assert info["now_s"] == 0.0
    assert info["is_success"] is False
    assert info["action_sent"].shape == (10,)
    expert = env.expert()
    for step in range(3):
        action = expert.act().values
        _, _, terminated, truncated, info = env.step(action)
        assert info["now_s"] == pytest.approx((step + 1) / 12)
        np.testing.assert_allclose(info["action_sent"], action, atol=1e-6)
    assert truncated
    assert not terminated
    with pytest.raises(SpecError, match="reset"):
        env.step(action)
    env.close()
    env.close()


def test_step_before_reset_and_bad_actions() -> None:
    env = built("reach", cameras=False)
    with pytest.raises(SpecError, match="reset"):
        env.step(np.zeros(10, np.float32))
    env.reset(seed=0)
    with pytest.raises(SpecError, match="finite"):
        env.step(np.full(10, np.nan, np.float32))
    with pytest.raises(SpecError, match="shape"):
        env.step(np.zeros(3, np.float32))
    env.close()


def rig(rate_hz: float, history: int = 1) -> SensorRig:
    return SensorRig({"joints": JointSensor(timing=Timing(rate_hz=rate_hz, history=history))})


def test_a_fast_sensor_is_read_between_the_physics_steps() -> None:
    env = RobotEnv(Reach(), Panda(), rig(48.0, history=5))
    env.reset(seed=0)
    observation, *_ = env.step(env.expert().act().values)
    streams = Observation.from_dict(observation, env.now_s).streams
    np.testing.assert_allclose(streams["joints"].age_s, [4 / 48, 3 / 48, 2 / 48, 1 / 48, 0.0], atol=1e-6)
    moved = streams["joints"].data["position_rad"]
    assert (np.abs(np.diff(moved, axis=0)).max(axis=1) > 1e-3).all()
    env.close()


def test_a_slow_sensor_grows_old_in_between() -> None:
    env = RobotEnv(Reach(threshold_m=1e-4), Panda(), rig(4.0))
    env.reset(seed=0)
    action = env.expert().act().values
    ages = [float(env.step(action)[0]["joints/age_s"][0]) for _ in range(6)]
    np.testing.assert_allclose(ages, [1 / 12, 2 / 12, 0.0, 1 / 12, 2 / 12, 0.0], atol=1e-6)
    env.close()


def test_settings_that_do_not_fit_together() -> None:
    with pytest.raises(SpecError, match=r"sensor 'joints', rate_hz.*240"):
        RobotEnv(Reach(), Panda(), rig(50.0))
    with pytest.raises(SpecError, match=r"sensor 'joints', rate_hz"):
        RobotEnv(Reach(), Panda(), rig(480.0))
    with pytest.raises(SpecError, match="control_hz"):
        RobotEnv(Reach(), Panda(), rig(12.0), control_hz=7.0)
    with pytest.raises(SpecError, match="Did you mean 'ee_pose'"):
        RobotEnv(Reach(), Panda(), rig(12.0), action_mode="eepose")
    with pytest.raises(SpecError, match="max_steps"):
        RobotEnv(Reach(), Panda(), rig(12.0), max_steps=0)
    with pytest.raises(SpecError, match="render_mode"):
        RobotEnv(Reach(), Panda(), rig(12.0), render_mode="human")
    with pytest.raises(SpecError, match="goal"):
        RobotEnv(Lift(), Panda(), rig(12.0), goal_keys=True)
    with pytest.raises(SpecError, match="Did you mean 'lift'"):
        make("lft")


@pytest.mark.parametrize("task", ["push", "pick_place"])
def test_goal_environments_are_accepted(task: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    env = built(task, cameras=False, goal_keys=True)
    check_for_sb3(env, warn=False, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_goals_for_hindsight(reward: str) -> None:
    env = built("reach", cameras=False, goal_keys=True, reward=reward)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    expert = env.expert()
    achieved, desired, rewards = [], [], []
    for _ in range(3):
        observation, value, *_ = env.step(expert.act().values)
        achieved.append(observation["achieved_goal"])
        desired.append(observation["desired_goal"])
        rewards.append(value)
    np.testing.assert_allclose(achieved[-1], env.robot.tool_pose()[:3, 3], atol=1e-6)
    again = env.compute_reward(np.stack(achieved), np.stack(desired), None)
    np.testing.assert_allclose(again, rewards, atol=1e-5)
    assert env.compute_reward(desired[0], desired[0], {}) == 0.0
    far = env.compute_reward(desired[0] + 0.1, desired[0], {})
    assert far == pytest.approx(-1.0 if reward == "sparse" else -10 * 0.1 * np.sqrt(3), rel=1e-5)
    env.close()


def test_without_goals_it_is_no_goal_environment() -> None:
    env = built("reach", cameras=False)
    assert not hasattr(env, "compute_reward")
    env.close()


def test_three_dimensional_actions_reach() -> None:
    env = built("reach", cameras=False, action_mode="ee_delta", rotation=False, gripper=False)
    assert env.action_space.shape == (3,)
    env.reset(seed=1)
    goal = env.task.goal()
    assert goal is not None
    success = False
    for _ in range(30):
        way = goal.desired - env.robot.tool_pose()[:3, 3]
        _, _, success, truncated, _ = env.step(np.clip(way / (0.5 / 12), -1, 1).astype(np.float32))
        if success or truncated:
            break
    assert success
    env.close()


def test_switches_of_randomisation_are_independent() -> None:
    def first_scene(randomisation: Randomisation) -> tuple[Any, ...]:
        env = RobotEnv(Lift(), Panda(), rig(12.0), randomisation=randomisation)
        env.reset(seed=11)
        task = env.task
        assert isinstance(task, Lift)
        out = (task.half_m, env.world.body_pose(task.body), env.robot.tool_pose())
        env.close()
        return out

    everything = first_scene(Randomisation())
    no_size = first_scene(Randomisation(size=False))
    assert no_size[0] == pytest.approx(0.0225)
    np.testing.assert_allclose(no_size[1][:2, 3], everything[1][:2, 3], atol=1e-4)
    np.testing.assert_array_equal(no_size[2], everything[2])
    fixed = first_scene(Randomisation(place=False))
    np.testing.assert_allclose(fixed[1][:2, 3], (0.5, 0.0), atol=1e-4)
    assert fixed[0] == everything[0]


def test_scenes_differ_between_episodes_and_stay_in_their_area() -> None:
    env = built("lift", cameras=False)
    places, pictures = [], []
    for seed in range(30):
        env.reset(seed=seed)
        task = env.task
        assert isinstance(task, Lift)
        places.append(env.world.body_position(task.body))
        pictures.append(env.render().reshape(-1, 3).mean(axis=0))
    spread = np.array(places)
    assert (spread[:, :2] >= (0.399, -0.151)).all()
    assert (spread[:, :2] <= (0.601, 0.151)).all()
    assert (spread[:, :2].std(axis=0) > (0.04, 0.06)).all()
    assert (np.array(pictures).std(axis=0) > 5).all()
    env.close()


def test_wrench_tells_the_weight_of_what_is_held() -> None:
    env = built("lift", cameras=False)
    for seed in range(3):
        env.reset(seed=seed)
        task, expert, done = env.task, env.expert(), False
        assert isinstance(task, Lift)
        while not done:
            _, _, done, _, _ = env.step(expert.act().values)
        env.world.step(240)
        force, _, base_from_sensor = env.world.wrench()
        box_kg = 800.0 * 8 * task.half_m**3
        np.testing.assert_allclose(base_from_sensor[:3, :3] @ force, (0, 0, -(1.01 + box_kg) * 9.81), atol=0.05)
        assert box_kg * 9.81 > 0.5
    env.close()
