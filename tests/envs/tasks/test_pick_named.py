"""PickNamed: its scenes, when it is done, and its expert."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from envs.base import RobotEnv
from envs.experts.pick_named import top_grasps
from envs.pose_scenes.library import objects
from envs.tasks.pick_named import PickNamed
from envs.tasks.pick_named_rest import Resting
from perceive.build import build
from sensors.errors import SpecError
from tests.contracts import load_env


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[RobotEnv, PickNamed]]:
    config = load_env("pick_named", "state")  # nobody looks
    env = build(config)
    assert isinstance(env, RobotEnv)
    assert isinstance(env.task, PickNamed)
    yield env, env.task
    env.close()


def test_equal_seeds_give_equal_scenes_and_all_objects_are_named(site: tuple[RobotEnv, PickNamed]) -> None:
    env, task = site
    named, counts = set(), set()
    for seed in range(12):
        env.reset(seed=seed)
        poses = {name: task.pose(name) for name in task.bodies}
        assert task.instruction == f"put the {task.asked} in the tray"
        assert task.asked in poses
        assert not env.task.outcome().success
        named.add(task.asked)
        counts.add(len(poses))
        for name, pose in poses.items():  # on the table, in the area, apart
            points = task.shapes[name].vertices_m @ pose[:3, :3].T + pose[:3, 3]
            assert abs(points[:, 2].min()) < 0.004
            assert (points.min(0)[:2] > (0.25, -0.4)).all()
            assert (points.max(0)[:2] < (0.76, 0.14)).all()
    assert len(named) >= 4
    assert counts == {3, 4}
    env.reset(seed=3)
    first = {name: task.pose(name) for name in task.bodies}
    env.reset(seed=5)
    env.reset(seed=3)
    for name, pose in first.items():
        np.testing.assert_array_equal(task.pose(name), pose)


def test_the_expert_puts_the_named_object_in_the_tray(site: tuple[RobotEnv, PickNamed]) -> None:
    env, task = site
    for seed in (0,):
        env.reset(seed=seed)
        others = {name: task.pose(name) for name in task.bodies if name != task.asked}
        expert, done, success = env.expert(), False, False
        while not done:
            _, _, terminated, truncated, info = env.step(expert.act().values)
            done, success = terminated or truncated, info["is_success"]
        assert success
        assert (np.abs(task.pose(task.asked)[:2, 3] - (0.5, 0.24)) < 0.11).all()
        for name, pose in others.items():  # the others were left where they were
            assert math.dist(task.pose(name)[:3, 3], pose[:3, 3]) < 0.01


def test_the_wrong_object_in_the_tray_is_no_success(site: tuple[RobotEnv, PickNamed]) -> None:
    env, task = site
    env.reset(seed=1)
    other = next(name for name in task.bodies if name != task.asked)
    for name, success in ((other, False), (task.asked, True)):
        env.reset(seed=1)
        height = float(env.world.body_position(task.bodies[name])[2])
        env.world.move_body(task.bodies[name], (0.5, 0.24, height + 0.03))
        env.world.step(480)
        assert task.outcome().success is success


@pytest.mark.parametrize("name", ["hammer", "bottle", "cone", "cube"])
def test_objects_rest_on_faces_of_their_hulls(name: str) -> None:
    shape = objects([name])[0]
    resting, rng = Resting(shape), np.random.default_rng(0)
    for _ in range(20):
        turn, middle = resting.draw(rng)
        points = (shape.vertices_m - shape.middle_m) @ turn.T + middle
        assert abs(points[:, 2].min()) < 1e-9
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) > 0
        # What touches the table is around the point below the middle: it does not fall over.
        below = points[points[:, 2] < 1e-6][:, :2]
        angle = np.sort(np.arctan2(below[:, 1], below[:, 0]))
        gaps = np.diff(np.append(angle, angle[0] + 2 * math.pi))
        assert gaps.max() <= math.pi + 1e-6
    assert resting.radius_m() == pytest.approx(np.linalg.norm(shape.vertices_m - shape.middle_m, axis=1).max())


def test_grasps_from_above_fit_between_the_fingers() -> None:
    x, y, z = np.meshgrid(np.linspace(-0.05, 0.05, 41), np.linspace(-0.015, 0.015, 13), np.linspace(0, 0.03, 13))
    bar = np.stack([x, y, z], -1).reshape(-1, 3) + np.array([0.5, 0.1, 0.0])
    best = top_grasps(bar, bar.mean(0), [])[0]
    assert abs(best.rotation[1, 1]) > 0.95  # across the bar
    assert math.dist(best.position_m, bar.mean(0)) < 0.008
    # Something stands beside it where a finger would come down: the grasp moves away from it.
    post = np.array([0.5, 0.15, 0.02]) + np.random.default_rng(0).uniform(-0.005, 0.005, (50, 3))
    assert abs(top_grasps(bar, bar.mean(0), [post])[0].position_m[0] - 0.5) > 0.005
    with pytest.raises(SpecError, match="grasp from above"):
        top_grasps((bar - (0.5, 0.1, 0)) * (1, 6, 1) + (0.5, 0.1, 0), bar.mean(0), [])


@pytest.mark.parametrize("wrong", [{"fewest": 0}, {"most": 9}, {"objects": ["hamer"]}, {"tray_m": [0.5]}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        PickNamed(**wrong)  # type: ignore[arg-type]  # wrong on purpose
