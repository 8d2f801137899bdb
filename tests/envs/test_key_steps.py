"""Steps of the key-pose mode: when the gripper acts, what the sensors show, and the contract of environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.base import RobotEnv
from envs.key_moves import AT_M
from envs.presets import make
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.action import ActionMode
from sensors.errors import SpecError
from sensors.observation import Observation
from sensors.timeline import Timing
from tests.contracts import check_env
from tests.envs.key_site import CLOSED, OPEN, PERIOD_S, WHITE, Site, built, key, rig
from tests.envs.planner_site import shelf

# -------------------------------------------------------------------------------------------------- gripper and sensors


@pytest.mark.parametrize(("first", "then"), [(OPEN, CLOSED), (CLOSED, OPEN), (OPEN, 0.0)])
def test_the_gripper_changes_after_arrival_and_settles(first: float, then: float) -> None:
    task = Site()
    env = built(task)
    env.reset(seed=0)
    env.step(key((0.5, -0.2, 0.2), gripper=first))
    task.tools.clear()
    task.openings_m.clear()
    goal = np.array([0.5, 0.15, 0.15])
    env.step(key(goal, gripper=then))
    openings = np.array(task.openings_m)
    away = np.linalg.norm(np.stack(task.tools)[:, :3, 3] - goal, axis=1) > AT_M
    assert away.sum() > 5
    assert np.abs(openings[away] - 0.04 * (first + 1)).max() < 1e-3
    assert openings[-1] == pytest.approx(0.04 * (then + 1), abs=1e-3)
    assert abs(openings[-1] - openings[-2]) < 2e-4
    env.close()


def test_the_observation_shows_the_scene_at_rest_in_all_its_history() -> None:
    sensors = rig(fast=Timing(48.0, history=5), slow=Timing(4.0), late=Timing(12.0, delay_s=0.2, history=2))
    env = built(Site(), sensors)
    env.reset(seed=0)
    for y in (-0.2, 0.2, -0.1):
        observation, *_ = env.step(key((0.5, y, 0.2)))
        streams = Observation.from_dict(observation, env.now_s).streams
        np.testing.assert_allclose(streams["fast"].age_s, [4 / 48, 3 / 48, 2 / 48, 1 / 48, 0.0], atol=1e-6)
        np.testing.assert_allclose(np.diff(streams["late"].age_s), [-PERIOD_S], atol=1e-6)
        assert 0.2 - 1e-6 <= streams["late"].age_s[-1] < 0.2 + PERIOD_S
        # Measured on its own clock, not when it was convenient.
        captured = env.now_s - float(streams["slow"].age_s[0])
        assert captured * 4.0 == pytest.approx(round(captured * 4.0), abs=1e-4)
        now = env.world.joint_state().position_rad
        for stream in streams.values():
            assert stream.valid.all()
            np.testing.assert_allclose(stream.data["position_rad"], np.tile(now, (len(stream.valid), 1)), atol=5e-4)
    env.close()


def test_sensors_are_not_read_on_the_way() -> None:
    env = built(Site(), rig(joints=Timing(12.0)))
    env.reset(seed=0)
    env.step(key((0.4, -0.25, 0.1)))
    before_s, before = env.now_s, env.rig.timing_report().latency_s["joints"].count
    env.step(key((0.6, 0.25, 0.3), gripper=CLOSED))
    assert env.now_s - before_s > 1.5  # 18 readings in any other mode
    assert env.rig.timing_report().latency_s["joints"].count - before == 1
    env.close()


@pytest.mark.parametrize("timing", [Timing(12.0, dropout=1.0), Timing(12.0, delay_s=9.0)])
def test_frames_that_do_not_come_do_not_hold_the_move_up_for_ever(timing: Timing) -> None:
    env = built(Site(), rig(joints=timing))
    env.reset(seed=0)
    observation, *_ = env.step(key((0.5, 0.1, 0.2)))
    assert not observation["joints/valid"].any()
    assert env.now_s < 2.5
    env.close()


# ------------------------------------------------------------------------------------------------------------ contract


def test_episodes_have_so_many_key_poses() -> None:
    env = built(max_key_poses=3, max_steps=1)
    env.reset(seed=0)
    endings = [env.step(key((0.5, y, 0.2)))[3] for y in (0.1, 0.0, -0.1)]
    assert endings == [False, False, True]
    env.close()
    with pytest.raises(SpecError, match="max_key_poses"):
        built(max_key_poses=0)


def test_only_key_poses_tell_of_a_plan() -> None:
    env = built()
    assert "plan" not in env.reset(seed=0)[1]
    assert "plan" in env.step(key((0.5, 0.1, 0.2)))[4]
    env.close()
    env = make("reach", cameras=False)  # type: ignore[assignment]
    env.reset(seed=0)
    assert "plan" not in env.step(env.action_space.sample())[4]
    env.close()


@pytest.mark.parametrize("mode", ["ee_pose", "key_pose"])
def test_the_scene_acts_at_least_once_per_control_period(mode: str) -> None:
    task = Site()
    env = RobotEnv(task, Panda(), rig(), mode, renderer="tiny")
    env.reset(seed=0)
    assert len(task.times_s) == 1  # after the scene has settled
    task.times_s.clear()
    action = key((0.5, 0.2, 0.1), gripper=CLOSED)
    for _ in range(3):
        env.step(action[: env.action_spec.size])
    assert task.times_s[0] <= PERIOD_S + 1e-9
    assert np.diff(task.times_s).max() <= PERIOD_S + 1e-9
    assert task.times_s[-1] == env.now_s
    env.close()


def test_the_world_is_told_each_episodes_instruction() -> None:
    env = built()
    assert env.world.instruction == ""
    for number in (1, 2):
        env.reset()
        assert env.world.instruction == f"episode {number}"
    env.close()


def test_equal_seeds_give_equal_bits() -> None:
    goal = np.eye(4)

    def put_up(world: PyBulletWorld) -> list[int]:
        bodies = [world.add_box((0.02, 0.02, 0.02), (0.45, -0.2, 0.02), mass_kg=0.06, rgba=WHITE)]

        def put(half_m: Sequence[float], middle_m: Sequence[float]) -> int:
            bodies.append(world.add_box(half_m, middle_m, mass_kg=0.0, rgba=WHITE))
            return bodies[-1]

        goal[:] = shelf(put)
        return bodies

    def episodes(env: RobotEnv, seeds: tuple[int | None, ...]) -> list[NDArray[Any]]:
        task, seen = env.task, []
        assert isinstance(task, Site)
        for seed in seeds:
            observation, _ = env.reset(seed=seed)
            seen += list(observation.values())
            # The second needs the planner's random numbers.
            for action in (key((0.45, -0.2, 0.1)), key(goal[:3, 3], CLOSED, rotation=goal[:3, :3])):
                observation, _, _, _, info = env.step(action)
                assert info["plan"] == ""
                seen += [*observation.values(), np.array(task.tools), env.world.body_pose(task.bodies[0])]
        return seen

    fresh, used = Site(put_up), Site(put_up)
    first, second = built(fresh), built(used)
    episodes(second, (7,))
    used.tools.clear()
    fresh.tools.clear()
    ours, theirs = episodes(first, (3, None)), episodes(second, (3, None))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)
    first.close()
    second.close()


def test_the_contract_of_environments_holds() -> None:
    check_env(lambda: make("pick_place", cameras=False, action_mode="key_pose", renderer="tiny"), steps=4)


def test_key_poses_are_no_commands_for_one_control_period() -> None:
    env = built()
    env.reset(seed=0)
    with pytest.raises(SpecError, match="KeyMoves"):
        env.robot.command(key((0.5, 0.0, 0.2)), env.action_spec)
    env.close()
    with pytest.raises(SpecError, match="rotation"):
        Panda(rotation=False).action_spec(ActionMode.KEY_POSE, PERIOD_S)
