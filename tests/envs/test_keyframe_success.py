"""The keyframe tasks' objects, and their success by closed forms."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import models
from envs.base import RobotEnv
from envs.presets import KEYFRAME_CAMERAS
from envs.tasks.drawer import OpenDrawerPut
from envs.tasks.press_buttons import PressButtons
from envs.tasks.put_in import KINDS, SHAPES, PutIn
from envs.tasks.stack_blocks import StackBlocks
from sensors.geometry import FloatArray, intrinsics_from_fov, invert, pose
from tests.envs.keyframe_site import built, seen


@pytest.fixture(scope="module")
def stack() -> Iterator[tuple[RobotEnv, StackBlocks]]:
    env, task = built("stack_blocks")
    assert isinstance(task, StackBlocks)
    yield env, task
    env.close()


@pytest.fixture(scope="module")
def put_in() -> Iterator[tuple[RobotEnv, PutIn]]:
    env, task = built("put_in")
    assert isinstance(task, PutIn)
    yield env, task
    env.close()


@pytest.fixture(scope="module")
def drawer() -> Iterator[tuple[RobotEnv, OpenDrawerPut]]:
    env, task = built("drawer")
    assert isinstance(task, OpenDrawerPut)
    yield env, task
    env.close()


@pytest.fixture(scope="module")
def press() -> Iterator[tuple[RobotEnv, PressButtons]]:
    env, task = built("press_buttons")
    assert isinstance(task, PressButtons)
    yield env, task
    env.close()


# ------------------------------------------------------------------------------------------------------------- models


def test_models_are_written_once_and_their_parts_fit() -> None:
    for write in (models.tray_urdf, models.bowl_urdf, models.cabinet_urdf, models.button_urdf):
        path = write()
        assert path == write()
        root = ET.parse(path).getroot()
        for link in root.findall("link"):
            shapes = [
                [(ET.tostring(part), ET.tostring(place)) for part, place in zip(*_parts(link, tag), strict=True)]
                for tag in ("visual", "collision")
            ]
            assert shapes[0] == shapes[1]
            assert shapes[0]
    assert models.DRAWER_HALF_WIDTH_M < models.CABINET_HALF_WIDTH_M - models.WALL_M
    assert models.DRAWER_DEPTH_M < models.CABINET_DEPTH_M - models.WALL_M
    assert models.DRAWER_RIM_M < models.FRONT_TOP_M < models.CABINET_HEIGHT_M - models.WALL_M
    assert 2 * models.KNOB_HALF_M[1] < 0.04  # the hand opens twice as far
    assert models.CAP_TRAVEL_M < models.CAP_M
    assert models.CAP_RADIUS_M < models.BUTTON_HALF_M


def _parts(link: ET.Element, tag: str) -> tuple[list[ET.Element], list[ET.Element]]:
    parts = link.findall(tag)
    return [part.findall("geometry/*")[0] for part in parts], [part.findall("origin")[0] for part in parts]


# ----------------------------------------------------------------------------------------------------- stacking blocks


def test_stacked_is_on_top_within_two_centimetres(stack: tuple[RobotEnv, StackBlocks]) -> None:
    env, task = stack
    env.reset(seed=0)
    moved, below, third = task.blocks.values()
    first, second = list(task.blocks)[:2]
    assert task.instruction == f"stack the {first} block on the {second} block"
    top = env.world.body_position(below) + np.array([0.0, 0.0, 0.04])
    assert task.outcome().reward == -1.0
    for offset, success in (
        ((0.0, 0.0, 0.0), True),
        ((0.019, 0.0, 0.0), True),
        ((0.0, -0.03, 0.0), False),
        ((0.015, 0.015, 0.0), False),
        ((0.0, 0.0, 0.01), False),
        ((0.0, 0.0, -0.01), False),
    ):
        env.world.move_body(moved, top + np.array(offset))
        assert task.outcome().success == success, offset
        assert task.outcome().reward == (0.0 if success else -1.0)
    # The wrong way round, and the wrong block, are no success; they stand where the right one would.
    env.world.move_body(moved, (0.4, 0.3, 0.02))
    env.world.move_body(third, top)
    assert not task.outcome().success
    env.world.move_body(below, env.world.body_position(moved) + np.array([0.0, 0.0, 0.04]))
    assert not task.outcome().success


def test_a_falling_block_and_one_in_the_hand_are_not_stacked_yet(stack: tuple[RobotEnv, StackBlocks]) -> None:
    env, task = stack
    env.reset(seed=1)
    moved, below, _ = task.blocks.values()
    env.world.move_body(moved, env.world.body_position(below) + np.array([0.0, 0.0, 0.045]))
    env.world.step(4)
    assert not task.outcome().success
    env.world.step(60)
    assert task.outcome().success

    env.reset(seed=1)
    moved, below, _ = task.blocks.values()
    expert, held_on_top = env.expert(), 0
    while True:
        offset = env.world.body_position(moved) - env.world.body_position(below)
        near = math.hypot(offset[0], offset[1]) < 0.01 and abs(offset[2] - 0.04) < 0.003
        if near and env.world.fingers_touching(moved) == 2:
            held_on_top += 1
            assert not task.outcome().success
        _, _, terminated, truncated, _ = env.step(expert.act().values)
        if terminated or truncated:
            break
    assert held_on_top >= 2
    assert terminated


# ------------------------------------------------------------------------------------------------- putting things in


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(0.001, 0.08))
def test_a_container_holds_what_is_within_its_walls(x: float, y: float, z: float) -> None:
    tray, bowl = KINDS["tray"], KINDS["bowl"]
    point = np.array([x, y, z])
    assert tray.holds(point) == (max(abs(x), abs(y)) < tray.inner_m and z < tray.rim_m + 0.01)
    radius = math.hypot(x, y)
    if z >= bowl.rim_m + 0.01 or radius > bowl.inner_m / math.cos(math.pi / 8) + 1e-9:
        assert not bowl.holds(point)
    elif radius < bowl.inner_m - 1e-9:
        assert bowl.holds(point)


def test_only_the_named_thing_in_the_named_container_counts(put_in: tuple[RobotEnv, PutIn]) -> None:
    env, task = put_in
    for seed in range(4):
        env.reset(seed=seed)
        thing = next(name for name in SHAPES if f"the {name}" in task.instruction)
        kind = next(name for name in KINDS if task.instruction.endswith(name))
        body, container = task.things[thing], task.containers[kind]
        frame = env.world.body_link_pose(container, "body")
        height = models.FLOOR_M + SHAPES[thing].half_height_m + 1e-3
        inner = KINDS[kind].inner_m
        for x, success in ((0.0, True), (inner - 0.01, True), (inner + 0.01, False)):
            env.world.move_body(body, (frame @ np.array([x, 0.0, height, 1.0]))[:3])
            assert task.outcome().success == success
        env.world.move_body(body, frame[:3, 3] + np.array([0.0, 0.0, KINDS[kind].rim_m + 0.02]))
        assert not task.outcome().success  # over it, not in it
        other = next(name for name in KINDS if name != kind)
        middle = env.world.body_link_pose(task.containers[other], "body")[:3, 3]
        env.world.move_body(body, middle + np.array([0.0, 0.0, height]))
        assert not task.outcome().success
        for name, wrong in task.things.items():
            if name != thing:
                env.world.move_body(wrong, frame[:3, 3] + np.array([0.0, 0.0, models.FLOOR_M + 0.03]))
                assert not task.outcome().success


def test_what_is_dropped_into_a_container_stays_in_it(put_in: tuple[RobotEnv, PutIn]) -> None:
    env, task = put_in
    env.reset(seed=2)
    for kind, container in task.containers.items():
        middle = env.world.body_link_pose(container, "body")[:3, 3]
        for body in task.things.values():
            env.world.move_body(body, middle + np.array([0.01, 0.0, 0.08]))
            env.world.step(120)
            inside = invert(env.world.body_link_pose(container, "body")) @ np.append(env.world.body_position(body), 1.0)
            assert KINDS[kind].holds(inside[:3])
            env.world.move_body(body, (0.3, 0.5, 0.05))


# ------------------------------------------------------------------------------------------------------------- drawer


def test_the_named_block_has_to_lie_in_the_drawer(drawer: tuple[RobotEnv, OpenDrawerPut]) -> None:
    env, task = drawer
    for seed in range(3):
        env.reset(seed=seed)
        right, wrong = task.blocks.values()
        assert f"the {next(iter(task.blocks))} block" in task.instruction
        env.world.set_body_joint(task.cabinet, "slide", 0.1)
        frame = env.world.body_link_pose(task.cabinet, "drawer")
        start = env.world.body_position(right)
        height = models.DRAWER_FLOOR_M + 0.02
        back, side = models.DRAWER_DEPTH_M - models.WALL_M, models.DRAWER_HALF_WIDTH_M - models.WALL_M
        for x, y, success in (
            (-0.05, 0.0, True),
            (-0.05, side - 0.01, True),
            (-0.05, side + 0.01, False),
            (-0.01, 0.0, True),
            (0.01, 0.0, False),
            (-back - 0.01, 0.0, False),
        ):
            env.world.move_body(right, (frame @ np.array([x, y, height, 1.0]))[:3])
            assert task.outcome().success == success, (x, y)
        env.world.move_body(right, (frame @ np.array([-0.05, 0.0, 0.1, 1.0]))[:3])
        assert not task.outcome().success  # over it
        env.world.move_body(right, start)
        env.world.move_body(wrong, (frame @ np.array([-0.05, 0.0, height, 1.0]))[:3])
        assert not task.outcome().success


def test_the_drawer_is_shut_at_first_and_stays_where_it_was_left(drawer: tuple[RobotEnv, OpenDrawerPut]) -> None:
    env, task = drawer
    env.reset(seed=0)
    assert abs(env.world.body_joint(task.cabinet, "slide")) < 1e-3
    env.world.set_body_joint(task.cabinet, "slide", 0.1)
    env.world.step(240)
    assert env.world.body_joint(task.cabinet, "slide") == pytest.approx(0.1, abs=1e-3)
    # A positive control: a push moves it.
    env.world.drive_body_joint(task.cabinet, "slide", target=0.02, force_N=10.0)
    env.world.step(240)
    assert env.world.body_joint(task.cabinet, "slide") == pytest.approx(0.02, abs=5e-3)


def test_from_an_open_drawer_on_nothing_is_pulled(drawer: tuple[RobotEnv, OpenDrawerPut]) -> None:
    env, task = drawer
    env.reset(seed=0)
    assert len(task.key_poses()) == 13
    env.world.set_body_joint(task.cabinet, "slide", 0.1)
    rest = task.key_poses()
    assert len(rest) == 7
    block = env.world.body_position(next(iter(task.blocks.values())))
    np.testing.assert_allclose(rest[1].position_m, block, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ buttons


def pushed(env: RobotEnv, task: PressButtons, name: str, depth_m: float = 0.008) -> None:
    """Push a cap down and let it go."""
    env.world.set_body_joint(task.buttons[name], "press", depth_m)
    task.update()
    env.world.step(120)
    task.update()


def with_presses(env: RobotEnv, task: PressButtons, count: int) -> None:
    for seed in range(50):
        env.reset(seed=seed)
        if len(task.wanted) == count:
            return
    raise AssertionError(f"no episode with {count} presses")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_right_buttons_in_the_right_order(press: tuple[RobotEnv, PressButtons], count: int) -> None:
    env, task = press
    with_presses(env, task, count)
    assert task.instruction == "press " + ", then ".join(f"the {name} button" for name in task.wanted)
    for number, name in enumerate(task.wanted):
        assert not task.outcome().success
        pushed(env, task, name)
        assert env.world.body_joint(task.buttons[name], "press") == pytest.approx(0.0, abs=5e-4)  # the spring
        assert task.pressed == task.wanted[: number + 1]
    assert task.outcome().success


def test_a_button_out_of_turn_spoils_the_episode(press: tuple[RobotEnv, PressButtons]) -> None:
    env, task = press
    with_presses(env, task, 2)
    pushed(env, task, task.wanted[1])
    for name in task.wanted:
        pushed(env, task, name)
        assert not task.outcome().success
    assert len(task.key_poses()) == 1  # nothing is left to do
    with_presses(env, task, 1)
    stranger = next(name for name in task.buttons if name not in task.wanted)
    pushed(env, task, stranger)
    pushed(env, task, task.wanted[0])
    assert not task.outcome().success
    env.reset(seed=0)
    assert task.pressed == ()


def test_a_press_is_five_millimetres_and_a_lit_button_may_be_pressed_again(
    press: tuple[RobotEnv, PressButtons],
) -> None:
    env, task = press
    with_presses(env, task, 2)
    first, second = task.wanted
    pushed(env, task, first, 0.0045)
    assert task.pressed == ()
    pushed(env, task, first, 0.0055)
    assert task.pressed == (first,)
    pushed(env, task, first)
    pushed(env, task, second)
    assert task.outcome().success


def test_a_pressed_button_looks_lit_and_stays_so(press: tuple[RobotEnv, PressButtons]) -> None:
    env, task = press
    camera = KEYFRAME_CAMERAS["front"]
    view = pose(camera["position_m"], camera["quaternion_xyzw"])
    for seed in range(5):
        env.reset(seed=seed)
        name = task.wanted[0]
        cap = env.world.body_link_pose(task.buttons[name], "cap")[:3, 3]
        column, row = np.round(seen(camera, cap[None])[0]).astype(int)

        def colour(row: int = int(row), column: int = int(column)) -> FloatArray:
            intrinsics = intrinsics_from_fov(128, 128, camera["fov_y_deg"])
            picture = env.world.render(view, intrinsics, 128, 128, 0.05, 3.0)
            return np.asarray(picture.rgb[row, column].astype(float))

        before = colour()
        pushed(env, task, name)
        after = colour()
        assert np.ptp(before) > 60, name  # vivid
        assert np.ptp(after) < 25  # white
        assert after.min() > before.min() + 60
        env.world.step(60)
        task.update()
        np.testing.assert_array_equal(colour(), after)
