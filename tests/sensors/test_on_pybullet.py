"""The simulated sensors on real physics and rendered pictures, where exact answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceive.build import build
from sensors.camera import RgbdCamera
from sensors.geometry import FloatArray, invert, project, transform_points, unproject
from sensors.touch import FingertipTouch
from tests.contracts import CONF, build_sensor, check_sensor, config_files, load_env, load_plain

GEL_M = 0.003


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    made = build(load_env("lift", rig="state"))
    made.reset(seed=0)
    yield made
    made.close()


@pytest.mark.parametrize("path", config_files("sensor"), ids=lambda path: path.stem)
def test_sensor_contract(path: Path, env: Any) -> None:
    sensor = build_sensor(path)
    if not sensor.timing.live:  # what measures by itself needs no world
        check_sensor(sensor, env.world)


def _box_between_the_fingers(env: Any, gap_m: float, shift_m: tuple[float, float] = (0.0, 0.0)) -> tuple[Any, float]:
    """Put the box between the open fingers, turned like the hand and ``gap_m`` from each pad.

    Returns its pose and its half edge. ``shift_m``: moved along the hand's x and along its approach direction.
    """
    env.reset(seed=1)
    world, half = env.world, env.task.half_m
    joints = world.joint_state().position_rad
    world.place_joints(joints, 2 * half + 2 * gap_m)
    tool = world.link_pose("tool")
    place = tool[:3, 3] + shift_m[0] * tool[:3, 0] + shift_m[1] * tool[:3, 2]
    world.move_body(env.task.body, place, float(np.arctan2(tool[1, 0], tool[0, 0])))
    return world.body_pose(env.task.body), half


def _feel(env: Any, side: str) -> tuple[FloatArray, FloatArray]:
    """Indentation [h, w] without noise, and the taxels' places [h, w, 3] in the base frame."""
    config = load_plain(CONF / "sensor" / f"touch_{side}.yaml")
    sensor = build(config | {"noise_m": 0.0})
    assert isinstance(sensor, FingertipTouch)
    sensor.open(env.world)
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.0)
    rows, columns = frame.indentation_m.shape
    y, x = np.meshgrid(
        ((np.arange(rows) + 0.5) / rows - 0.5) * frame.size_m[0],
        ((np.arange(columns) + 0.5) / columns - 0.5) * frame.size_m[1],
        indexing="ij",
    )
    return frame.indentation_m, transform_points(frame.base_from_pad, np.stack([x, y, np.zeros_like(x)], -1))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("gap_m", [0.0005, 0.002])
def test_a_flat_side_is_felt_as_deep_as_it_is(env: Any, side: str, gap_m: float) -> None:
    _box_between_the_fingers(env, gap_m)
    indentation, _ = _feel(env, side)
    np.testing.assert_allclose(indentation, GEL_M - gap_m, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_out_of_reach_is_not_felt(env: Any, side: str) -> None:
    _box_between_the_fingers(env, gap_m=0.006)
    assert not _feel(env, side)[0].any()
    _box_between_the_fingers(env, gap_m=0.001, shift_m=(0.0, 0.06))
    assert not _feel(env, side)[0].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_pressed_taxels_lie_on_the_box(env: Any, side: str) -> None:
    for shift in ((0.022, 0.0), (-0.022, 0.0), (0.02, 0.02), (0.0, -0.022)):
        base_from_box, half = _box_between_the_fingers(env, 0.001, shift)
        indentation, places = _feel(env, side)
        local = transform_points(invert(base_from_box), places)
        across = np.abs(local[..., [0, 2]]).max(-1)  # the pads press along the box's y
        inside = across < half
        # Bullet's rays meet a box whose edges stick out by its collision margin of 1 mm.
        clear = np.abs(across - half) > 1.2e-3
        assert 0 < inside.sum() < inside.size
        np.testing.assert_array_equal((indentation > 0)[clear], inside[clear])


@pytest.mark.parametrize("name", ["front_camera", "wrist_camera"])
def test_the_box_is_seen_where_it_is(env: Any, name: str) -> None:
    """Every pixel that changes when the box is taken away lies on the box, by the frame's own depth and extrinsics."""
    env.reset(seed=2)
    quiet = {"colour_noise": 0.0, "colour_gain": 0.0, "depth_noise": 0.0, "mount_shift_m": 0.02, "mount_shift_deg": 5.0}
    camera = build(load_plain(CONF / "sensor" / f"{name}.yaml") | quiet)
    assert isinstance(camera, RgbdCamera)
    camera.open(env.world)
    half = env.task.half_m
    for seed in range(3):
        camera.reset(np.random.default_rng(seed))
        env.world.move_body(env.task.body, (0.52, 0.04, half), 0.4)
        base_from_box = env.world.body_pose(env.task.body)
        frame = camera.read(0.0)
        env.world.move_body(env.task.body, (5.0, 5.0, 1.0))
        changed = np.abs(frame.depth_m - camera.read(0.0).depth_m) > 0.004
        assert changed.sum() >= 15
        points = transform_points(frame.base_from_camera, unproject(frame.depth_m, frame.intrinsics_px)[changed])
        outside = np.abs(transform_points(invert(base_from_box), points)).max(-1) - half
        np.testing.assert_allclose(outside, 0.0, atol=0.003)
        middle = transform_points(invert(frame.base_from_camera), base_from_box[:3, 3][None])
        pixel, _ = project(middle, frame.intrinsics_px)
        rows, columns = np.nonzero(changed)
        assert np.abs(np.array([columns.mean(), rows.mean()]) - pixel[0]).max() < 2.5


def test_the_wrist_feels_the_weight_of_the_hand(env: Any) -> None:
    env.reset(seed=0)
    sensor = build(
        load_plain(CONF / "sensor" / "wrench.yaml")
        | {"force_noise_N": 0.0, "torque_noise_Nm": 0.0, "force_bias_N": 0.0, "torque_bias_Nm": 0.0}
    )
    sensor.open(env.world)
    sensor.reset(np.random.default_rng(0))
    env.world.step(240)  # come to rest
    frame = sensor.read(0.0)
    force = frame.base_from_sensor[:3, :3] @ frame.force_N
    assert -12.0 < force[2] < -8.0  # hand and fingers, about 1 kg, pull downwards
    assert np.abs(force[:2]).max() < 1.0


def test_joints_are_those_of_the_robot(env: Any) -> None:
    env.reset(seed=0)
    sensor = build(load_plain(CONF / "sensor" / "joints.yaml"))
    sensor.open(env.world)
    sensor.reset(np.random.default_rng(0))
    frame = sensor.read(0.0)
    np.testing.assert_allclose(frame.position_rad, env.world.joint_state().position_rad, atol=1e-3)
    np.testing.assert_allclose(frame.base_from_tool, env.robot.tool_pose(), atol=1e-6)
    np.testing.assert_allclose(frame.gripper_m, env.robot.gripper_m(), atol=1e-3)
    np.testing.assert_allclose(frame.base_from_tool[:3, 2], [0.0, 0.0, -1.0], atol=1e-2)  # +z is the approach direction
