"""Key poses in the environment: one step is one whole move, and what can stop it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from envs.base import RobotEnv
from envs.experts.base import down
from envs.key_moves import AT_M, AT_RAD
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.errors import SpecError
from tests.envs.key_site import AVOID, CLOSED, OPEN, PERIOD_S, TOUCH, WHITE, Site, apart, built, key, rig

# ------------------------------------------------------------------------------------------------------------ reaching


def test_poses_are_reached_in_one_step() -> None:
    env = built(max_key_poses=100)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    tilts = (np.eye(3), np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]]))
    for number in range(10):
        position_m = rng.uniform((0.38, -0.22, 0.05), (0.6, 0.22, 0.35))
        rotation = tilts[number % 2] @ down(rng.uniform(-1.2, 1.2))
        action = key(position_m, rng.choice([OPEN, CLOSED]), rng.choice([AVOID, TOUCH]), rotation)
        _, _, terminated, truncated, info = env.step(action)
        assert info["plan"] == ""
        assert not terminated
        assert not truncated
        np.testing.assert_array_equal(info["action_sent"], action)
        apart_m, apart_rad = apart(env, position_m, rotation)
        assert apart_m < AT_M
        assert apart_rad < AT_RAD
        assert env.robot.gripper_m() == pytest.approx(0.08 if action[9] > 0 else 0.0, abs=1e-3)
    env.close()


def test_the_tool_keeps_its_speed_limits_and_its_line() -> None:
    task = Site()
    env = built(task)
    env.reset(seed=0)
    start, goal = env.robot.tool_pose()[:3, 3], np.array([0.55, 0.25, 0.1])
    task.tools.clear()
    env.step(key(goal))
    places = np.stack([start, *(tool[:3, 3] for tool in task.tools)])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() < 1.1 * 0.5 * PERIOD_S
    assert steps.max() > 0.9 * 0.5 * PERIOD_S  # and it uses them
    way = (goal - start) / np.linalg.norm(goal - start)
    beside = (places - start) - ((places - start) @ way)[:, None] * way
    assert np.linalg.norm(beside, axis=1).max() < 2e-3
    env.close()


def test_actions_outside_of_the_bounds_are_clipped() -> None:
    env = built()
    env.reset(seed=0)
    *_, info = env.step(key((0.5, 0.9, 0.2), gripper=3.0))
    assert info["plan"] == ""
    np.testing.assert_allclose(info["action_sent"][[0, 1, 2, 9]], (0.5, 0.35, 0.2, 1.0), atol=1e-6)
    assert apart(env, (0.5, 0.35, 0.2))[0] < AT_M
    with pytest.raises(SpecError, match="shape"):
        env.step(np.zeros(10, np.float32))
    with pytest.raises(SpecError, match="finite"):
        env.step(np.full(11, np.nan, np.float32))
    env.close()


# -------------------------------------------------------------------------------------------------------- in the way


def block(
    half_m: tuple[float, ...], middle_m: tuple[float, ...], mass_kg: float
) -> Callable[[PyBulletWorld], list[int]]:
    return lambda world: [world.add_box(half_m, middle_m, mass_kg=mass_kg, rgba=WHITE)]


@pytest.mark.parametrize(("avoid", "stands"), [(AVOID, True), (TOUCH, False)])
def test_a_loose_wall_is_left_standing_when_it_is_to_be_avoided(avoid: float, stands: bool) -> None:
    env = built(Site(block((0.15, 0.01, 0.1), (0.5, 0.0, 0.1), 0.5)))
    env.reset(seed=0)
    task = env.task
    assert isinstance(task, Site)
    env.step(key((0.5, 0.2, 0.3)))
    before = env.world.body_pose(task.bodies[0])
    *_, info = env.step(key((0.5, 0.2, 0.1)))
    assert info["plan"] == ""
    *_, info = env.step(key((0.5, -0.2, 0.1), avoid=avoid))
    assert info["plan"] == ""
    assert apart(env, (0.5, -0.2, 0.1))[0] < AT_M
    moved = float(np.abs(env.world.body_pose(task.bodies[0]) - before).max())
    assert moved < 1e-3 if stands else moved > 0.05
    env.close()


def test_what_stops_the_arm_is_told_and_the_gripper_acts_all_the_same() -> None:
    env = built(Site(block((0.15, 0.01, 0.1), (0.5, 0.0, 0.1), 0.0)))
    env.reset(seed=0)
    env.step(key((0.5, 0.2, 0.3)))
    env.step(key((0.5, 0.2, 0.1)))
    started_s = env.now_s
    _, _, _, truncated, info = env.step(key((0.5, -0.2, 0.1), gripper=CLOSED, avoid=TOUCH))
    assert info["plan"] == "stalled"
    assert not truncated
    assert env.now_s - started_s < 4.0
    assert 0.01 < env.robot.tool_pose()[1, 3] < 0.15  # at the wall: the fingers reach 5 cm to both sides
    assert env.robot.gripper_m() < 1e-3
    still = env.world.joint_state().velocity_rad_s
    assert np.abs(still).max() < 1e-2  # it does not push on
    *_, info = env.step(key((0.5, 0.2, 0.3)))
    assert info["plan"] == ""
    env.close()


def test_resting_on_something_near_the_goal_counts_as_reached() -> None:
    env = built(Site(block((0.1, 0.1, 0.02), (0.5, 0.0, 0.02), 0.0)))
    env.reset(seed=0)
    fingertip_m = 0.0088
    *_, info = env.step(key((0.5, 0.0, 0.04 + fingertip_m - 0.006)))
    assert info["plan"] == ""
    assert 0.003 < apart(env, (0.5, 0.0, 0.04 + fingertip_m - 0.006))[0] < 0.01
    env.step(key((0.5, 0.0, 0.2)))
    *_, info = env.step(key((0.5, 0.0, 0.04 + fingertip_m - 0.02), avoid=TOUCH))
    assert info["plan"] == "stalled"
    env.close()


def test_where_there_is_no_way_nothing_moves_and_three_times_end_the_episode() -> None:
    robot = Panda(workspace_high_m=(1.5, 0.35, 0.5))
    task = Site(block((0.1, 0.1, 0.1), (0.5, 0.2, 0.1), 0.0))
    env = RobotEnv(task, robot, rig(), "key_pose", renderer="tiny")
    env.reset(seed=0)
    env.step(key((0.5, -0.1, 0.2), gripper=CLOSED))
    before, now_s = env.world.joint_state(), env.now_s
    far, inside = key((1.3, 0.0, 0.1), gripper=OPEN), key((0.5, 0.2, 0.1), gripper=OPEN)
    for action, reason in ((far, "unreachable"), (inside, "blocked")):
        observation, _, _, truncated, info = env.step(action)
        now_s += PERIOD_S
        assert info["plan"] == reason
        assert env.now_s == pytest.approx(now_s)
        assert not truncated
        after = env.world.joint_state()
        np.testing.assert_allclose(after.position_rad, before.position_rad, atol=2e-4)
        assert after.gripper_m == pytest.approx(before.gripper_m, abs=1e-4)
        assert observation["joints/age_s"][0] == pytest.approx(0.0, abs=1e-6)
    env.step(key((0.5, -0.1, 0.25)))  # counting starts anew
    endings = [env.step(far)[2:4] for _ in range(3)]
    assert endings == [(False, False), (False, False), (False, True)]
    with pytest.raises(SpecError, match="reset"):
        env.step(far)
    env.close()


def test_a_block_is_grasped_carried_over_a_wall_and_put_down() -> None:
    def put_up(world: PyBulletWorld) -> list[int]:
        box = world.add_box((0.02, 0.02, 0.02), (0.5, -0.15, 0.02), mass_kg=0.06, rgba=WHITE, friction=1.0)
        wall = world.add_box((0.15, 0.01, 0.08), (0.5, 0.0, 0.08), mass_kg=0.5, rgba=WHITE)
        return [box, wall]

    task = Site(put_up)
    env = built(task)
    env.reset(seed=0)
    env.step(key((0.35, -0.15, 0.03)))  # low beside the block: the straight way to it would sweep it along
    box, wall = task.bodies
    at_first, standing = env.world.body_pose(box), env.world.body_pose(wall)
    task.openings_m.clear()
    *_, info = env.step(key((0.5, -0.15, 0.02), gripper=CLOSED))
    assert info["plan"] == ""
    assert env.world.fingers_touching(box) == 2
    np.testing.assert_allclose(env.world.body_pose(box)[:3, 3], at_first[:3, 3], atol=4e-3)
    *_, info = env.step(key((0.5, 0.15, 0.022), gripper=CLOSED))  # over the wall
    assert info["plan"] == ""
    assert env.world.fingers_touching(box) == 2
    *_, info = env.step(key((0.5, 0.15, 0.022), gripper=OPEN))
    *_, info = env.step(key((0.5, 0.15, 0.2), gripper=OPEN))
    assert info["plan"] == ""
    np.testing.assert_allclose(env.world.body_position(box), (0.5, 0.15, 0.02), atol=6e-3)
    np.testing.assert_allclose(env.world.body_pose(wall), standing, atol=1e-3)
    env.close()
