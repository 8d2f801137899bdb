"""The tasks that are said in words and solved by key poses: their scenes and their experts."""

from __future__ import annotations

import colorsys
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envs import models
from envs.base import RobotEnv
from envs.experts.base import yaw_of
from envs.presets import KEYFRAME_CAMERAS, MAX_KEY_POSES, MAX_STEPS, RATE_HZ
from envs.randomisation import Randomisation
from envs.robots.panda import Panda
from envs.tasks.drawer import OpenDrawerPut
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.objects import HUE_SPREAD, HUES, Spot, apart_m, scatter, shade
from envs.tasks.place import Area
from envs.tasks.press_buttons import PressButtons
from envs.tasks.put_in import KINDS, SHAPES, PutIn
from envs.tasks.stack_blocks import StackBlocks
from sensors.errors import SpecError
from sensors.geometry import FloatArray
from sensors.rig import SensorRig
from tests.envs.keyframe_site import TASKS, built, seen

CONF = Path(__file__).resolve().parents[2] / "conf"
WORKSPACE = np.array(list(itertools.product((0.33, 0.5, 0.67), (-0.27, 0.0, 0.27), (0.0, 0.12))))


@pytest.fixture(scope="module", params=TASKS)
def solo(request: pytest.FixtureRequest) -> Iterator[tuple[RobotEnv, KeyframeTask]]:
    """Each of the environments, made once."""
    env, task = built(request.param)
    yield env, task
    env.close()


def named(task: KeyframeTask) -> dict[str, int]:
    """Everything that an instruction of the task may name -> body id."""
    if isinstance(task, PutIn):
        return task.things | task.containers
    if isinstance(task, StackBlocks | OpenDrawerPut):
        return task.blocks
    assert isinstance(task, PressButtons)
    return task.buttons


# ------------------------------------------------------------------------------------------------------------- scenes


def test_equal_seeds_give_equal_scenes_and_words(solo: tuple[RobotEnv, KeyframeTask]) -> None:
    env, task = solo

    def scene(seed: int) -> tuple[str, list[FloatArray]]:
        env.reset(seed=seed)
        return task.instruction, [env.world.body_pose(body) for body in named(task).values()]

    first = scene(3)
    scene(4)
    again = scene(3)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    other = scene(5)
    assert not np.array_equal(first[1], other[1])


def test_words_vary_and_name_what_is_there(solo: tuple[RobotEnv, KeyframeTask]) -> None:
    env, task = solo
    said = set()
    for seed in range(25):
        env.reset(seed=seed)
        said.add(task.instruction)
        words = task.instruction.replace(",", "").split()
        there = named(task)
        assert any(name in words for name in there)
        for name in {*HUES, *SHAPES, *KINDS} & set(words):
            # A container's colour is not among the names; its kind is.
            assert name in there or isinstance(task, PutIn)
        assert env.world.instruction == task.instruction
        assert len(task.instruction.encode()) <= 96  # what the instruction sensor shows
    assert len(said) >= 4


def test_what_is_graspable_has_room_for_the_hand_and_is_seen_by_all_cameras(
    solo: tuple[RobotEnv, KeyframeTask],
) -> None:
    env, task = solo
    for seed in range(25):
        env.reset(seed=seed)
        bodies = named(task)
        places = {name: env.world.body_position(body) for name, body in bodies.items()}
        for (one, here), (other, there) in itertools.combinations(places.items(), 2):
            assert math.dist(here[:2], there[:2]) >= _least_m(task, one, other) - 1e-3
        for name, body in bodies.items():
            yaw = yaw_of(env.world.body_pose(body)[:3, :3])
            assert abs(yaw) <= math.pi / 4 + 0.02, f"{name} is turned by {yaw}"
        for camera in KEYFRAME_CAMERAS.values():
            pixels = seen(camera, np.array(list(places.values())))
            assert (pixels > 4).all()
            assert (pixels < 123).all()


def _least_m(task: KeyframeTask, one: str, other: str) -> float:
    """Two things need room for an open finger (6.2 cm from the hand's middle) beside the half of each."""
    if isinstance(task, PressButtons):
        return 2 * models.BUTTON_HALF_M
    containers = [name for name in (one, other) if name in KINDS]
    if len(containers) == 2:
        return KINDS["tray"].radius_m + KINDS["bowl"].radius_m
    radii = [KINDS[name].radius_m if name in KINDS else 0.02 for name in (one, other)]
    return 0.062 + max(radii)


@pytest.mark.parametrize("name", sorted(KEYFRAME_CAMERAS))
def test_each_camera_sees_the_whole_workspace(name: str) -> None:
    pixels = seen(KEYFRAME_CAMERAS[name], WORKSPACE)
    assert (pixels > -0.5).all()
    assert (pixels < 127.5).all()
    beyond = seen(KEYFRAME_CAMERAS[name], WORKSPACE * np.array([1.0, 1.6, 1.6]))
    assert not ((beyond > -0.5) & (beyond < 127.5)).all()  # and not much more than that


@pytest.mark.parametrize("name", sorted(KEYFRAME_CAMERAS))
def test_the_presets_carry_the_numbers_of_the_config_tree(name: str) -> None:
    config = yaml.safe_load((CONF / "sensor" / f"{name}_camera_128.yaml").read_text())
    preset = KEYFRAME_CAMERAS[name]
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in preset.items()}
    assert plain == {key: config[key] for key in preset}
    assert config["timing"]["rate_hz"] == RATE_HZ


@pytest.mark.parametrize("task", TASKS)
def test_episode_lengths_are_those_of_the_config_tree(task: str) -> None:
    config = yaml.safe_load((CONF / "env" / f"{task}.yaml").read_text())
    assert (config["max_steps"], config["max_key_poses"]) == (MAX_STEPS[task], MAX_KEY_POSES[task])


def test_without_random_places_the_scene_stays_and_the_words_vary() -> None:
    task = StackBlocks()
    still = Randomisation(place=False)
    env = RobotEnv(task, Panda(), SensorRig({}), randomisation=still, renderer="tiny")
    scenes, words = [], set()
    for seed in range(6):
        env.reset(seed=seed)
        scenes.append([env.world.body_pose(body) for body in task.blocks.values()])
        words.add(task.instruction)
    for scene in scenes[1:]:
        np.testing.assert_allclose(scene, scenes[0], atol=1e-6)
    assert len(words) > 1
    env.close()


@given(st.integers(0, 2**32), st.sampled_from(sorted(HUES)), st.booleans())
def test_a_shade_keeps_its_name(seed: int, name: str, free: bool) -> None:
    red, green, blue, alpha = shade(np.random.default_rng(seed), name, free)
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    distance = {other: abs((hue - own + 0.5) % 1.0 - 0.5) for other, own in HUES.items()}
    assert min(distance, key=lambda other: distance[other]) == name
    assert distance[name] <= HUE_SPREAD + 1e-9
    assert saturation >= 0.79
    assert value >= 0.74
    assert alpha == 1.0


@given(st.integers(0, 2**32), st.integers(1, 5), st.floats(0.02, 0.05))
def test_scattered_things_are_apart_and_cost_one_draw(seed: int, count: int, radius_m: float) -> None:
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    spots = [Spot(radius_m, graspable=index % 2 == 0) for index in range(count)]
    places = scatter("test", rng, True, Area((0.2, -0.4), (0.7, 0.4)), spots)
    for (one, here), (two, there) in itertools.combinations(zip(spots, places, strict=True), 2):
        assert math.dist(here, there) >= apart_m(one, two)
    other.integers(2**63)
    assert rng.bit_generator.state == other.bit_generator.state


def test_scatter_says_when_there_is_no_room() -> None:
    area = Area((0.4, 0.0), (0.5, 0.1))
    with pytest.raises(SpecError, match="room for 3 things"):
        scatter("Test", np.random.default_rng(0), True, area, [Spot(0.05)] * 3)
    with pytest.raises(SpecError, match="area"):
        scatter("Test", np.random.default_rng(0), True, area, [Spot(0.01)], fits=lambda place: bool(place[0] > 1))
    scatter("Test", np.random.default_rng(0), True, area, [Spot(0.05)])


def test_settings_out_of_range() -> None:
    with pytest.raises(SpecError, match="blocks"):
        StackBlocks(blocks=5)
    with pytest.raises(SpecError, match="gripper"):
        StackBlocks(half_m=0.04)
    with pytest.raises(SpecError, match="aligned_m"):
        StackBlocks(aligned_m=0.03)
    with pytest.raises(SpecError, match="things"):
        PutIn(things=1)
    with pytest.raises(SpecError, match="turn_rad"):
        OpenDrawerPut(turn_rad=1.0)
    with pytest.raises(SpecError, match="blocks"):
        OpenDrawerPut(blocks=0)
    with pytest.raises(SpecError, match="presses"):
        PressButtons(buttons=2, presses=3)
    with pytest.raises(SpecError, match="dense"):
        PutIn(reward="shaped")
    with pytest.raises(SpecError, match="RobotEnv"):
        StackBlocks().key_poses()
    with pytest.raises(SpecError, match="goal"):
        StackBlocks().compute_reward(np.zeros(3), np.zeros(3))
    with pytest.raises(SpecError, match="pink"):
        shade(np.random.default_rng(0), "pink", True)


# ------------------------------------------------------------------------------------------------------------ experts


def solved(env: RobotEnv, seed: int) -> tuple[bool, list[bool], list[float]]:
    """Let the expert act: success, and of each step whether the arm rests and what the gripper is told."""
    env.reset(seed=seed)
    expert = env.expert()
    still, gripper = [], []
    while True:
        action = expert.act()
        assert env.action_space.contains(action.values)
        _, _, terminated, truncated, info = env.step(action.values)
        still.append(bool(np.abs(env.world.joint_state().velocity_rad_s).max() < 0.1))
        gripper.append(float(action.values[-1]))
        if terminated or truncated:
            assert info["is_success"] == terminated
            return terminated, still, gripper


def found(still: list[bool], gripper: list[float]) -> int:
    """How many key poses a demonstration shows: rests of three frames with one gripper command, and the last frame."""
    rests = itertools.groupby(zip(still, gripper, strict=True))
    lengths = [(resting, len(list(frames))) for (resting, _), frames in rests]
    return 1 + sum(resting and length >= 3 for resting, length in lengths[:-1])


def test_six_seeds_with_as_many_key_poses_to_be_found_as_there_are(solo: tuple[RobotEnv, KeyframeTask]) -> None:
    env, task = solo
    for seed in range(100, 106):
        env.reset(seed=seed)
        count = len(task.key_poses())
        success, still, gripper = solved(env, seed)
        assert success, f"seed {seed}: {task.instruction}"
        assert found(still, gripper) == count
        assert count < env.max_key_poses
        assert len(still) < env.max_steps / 1.2


def test_the_key_poses_alone_solve_it_when_each_is_one_move(solo: tuple[RobotEnv, KeyframeTask]) -> None:
    name = next(name for name in TASKS if MAX_STEPS[name] == solo[0].max_steps)
    env, task = built(name, action_mode="key_pose")
    for seed in (100, 101):
        env.reset(seed=seed)
        for key in task.key_poses():
            _, _, terminated, _, info = env.step(key.action(env.action_spec).values)
            assert info["plan"] == ""
        assert terminated
    env.close()


def test_key_poses_keep_the_hand_within_a_quarter_turn(solo: tuple[RobotEnv, KeyframeTask]) -> None:
    env, task = solo
    for seed in range(20):
        env.reset(seed=seed)
        for key in task.key_poses():
            assert abs(yaw_of(key.rotation)) <= math.pi / 4 + 0.02
            np.testing.assert_allclose(key.rotation[:, 2], (0, 0, -1), atol=1e-9)
            assert key.gripper in (-1.0, 1.0)
            assert key.avoid in (-1.0, 1.0)


def test_a_block_that_is_taken_away_is_fetched_again() -> None:
    env, task = built("stack_blocks", max_steps=150)
    assert isinstance(task, StackBlocks)
    env.reset(seed=3)
    moved = next(iter(task.blocks.values()))
    start, expert, taken = env.world.body_position(moved), env.expert(), False
    while True:
        values = expert.act().values
        if not taken and env.world.body_position(moved)[2] > 0.09:
            taken = True
            env.world.move_body(moved, start, 0.3)
        _, _, terminated, truncated, _ = env.step(values)
        if terminated or truncated:
            break
    assert taken
    assert terminated
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_the_dense_reward_rises_to_one(task: str) -> None:
    env, _ = built(task, reward="dense")
    env.reset(seed=100)
    expert, rewards = env.expert(), []
    while True:
        _, reward, terminated, truncated, _ = env.step(expert.act().values)
        rewards.append(float(reward))
        if terminated or truncated:
            break
    assert rewards[-1] == 1.0
    assert all(0 <= reward < 1 for reward in rewards[:-1])
    assert np.mean(rewards[-6:-1]) > np.mean(rewards[:5]) + 0.2
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_at_least_97_percent_of_100_seeds(task: str) -> None:
    env, _ = built(task)
    assert sum(solved(env, seed)[0] for seed in range(200, 300)) >= 97
    env.close()
