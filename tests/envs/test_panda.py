"""The Panda: what its actions mean, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from envs.experts.base import down
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray, matrix_to_rotation_6d, rotation_angle_rad

PERIOD_S, SUBSTEPS = 1 / 12, 20


def start() -> FloatArray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = down(0.0), (0.5, 0.0, 0.27)
    return out


@pytest.fixture
def robot() -> Iterator[Panda]:
    world, built = PyBulletWorld(), Panda()
    built.attach(world)
    built.reset(start())
    yield built
    world.close()


def run(robot: Panda, values: FloatArray, spec: ActionSpec, steps: int) -> FloatArray:
    world = robot._attached()
    for _ in range(steps):
        sent = robot.command(np.asarray(values, np.float32), spec)
        world.step(SUBSTEPS)
    return sent


def ee_pose(position: tuple[float, float, float], yaw: float, gripper: float) -> FloatArray:
    return np.array([*position, *matrix_to_rotation_6d(down(yaw)), gripper])


def test_spec_of_each_mode(robot: Panda) -> None:
    sizes = {mode: robot.action_spec(mode, PERIOD_S).size for mode in ActionMode}
    assert sizes == {
        ActionMode.EE_POSE: 10, ActionMode.EE_DELTA: 7, ActionMode.JOINT_POSITION: 8, ActionMode.KEY_POSE: 11
    }  # fmt: skip
    key, pose = (robot.action_spec(mode, PERIOD_S) for mode in (ActionMode.KEY_POSE, ActionMode.EE_POSE))
    assert key.parts == {**pose.parts, "avoid": (10, 11)}
    np.testing.assert_array_equal(key.space.low[:10], pose.space.low)
    bare = Panda(rotation=False, gripper=False)
    assert bare.action_spec(ActionMode.EE_DELTA, PERIOD_S).parts == {"position": (0, 3)}
    assert bare.action_spec(ActionMode.EE_POSE, PERIOD_S).parts == {"position_m": (0, 3)}


def test_a_far_pose_is_approached_at_limited_speed_and_met(robot: Panda) -> None:
    spec = robot.action_spec(ActionMode.EE_POSE, PERIOD_S)
    target = ee_pose((0.6, 0.15, 0.1), 0.5, 1.0)
    before = robot.tool_pose()[:3, 3]
    for _ in range(12):
        run(robot, target, spec, 1)
        after = robot.tool_pose()[:3, 3]
        assert np.linalg.norm(after - before) < 0.5 * PERIOD_S * 1.3
        before = after
    np.testing.assert_allclose(before, (0.6, 0.15, 0.1), atol=2e-3)
    assert rotation_angle_rad(robot.tool_pose()[:3, :3], down(0.5)) < 0.01


def test_full_deltas_are_as_fast_as_a_far_pose(robot: Panda) -> None:
    pose, delta = robot.action_spec(ActionMode.EE_POSE, PERIOD_S), robot.action_spec(ActionMode.EE_DELTA, PERIOD_S)
    run(robot, ee_pose((0.5, 0.35, 0.27), 0.0, 1.0), pose, 4)
    by_pose = robot.tool_pose()
    robot.reset(start())
    run(robot, np.array([0, 1, 0, 0, 0, 0, 1]), delta, 4)
    np.testing.assert_allclose(robot.tool_pose(), by_pose, atol=1e-3)


def test_a_diagonal_delta_is_no_faster(robot: Panda) -> None:
    delta = robot.action_spec(ActionMode.EE_DELTA, PERIOD_S)
    run(robot, np.array([0, 1, -1, 0, 0, 0, 1]), delta, 4)
    way = robot.tool_pose()[:3, 3] - start()[:3, 3]
    assert np.linalg.norm(way) < 4 * 0.5 * PERIOD_S + 1e-3
    assert way[1] == pytest.approx(-way[2], abs=2e-3)


def test_delta_turns_about_the_axes_of_the_base(robot: Panda) -> None:
    delta = robot.action_spec(ActionMode.EE_DELTA, PERIOD_S)
    run(robot, np.array([0, 0, 0, 0, 0, 1, 1]), delta, 3)
    run(robot, np.array([0, 0, 0, 0, 0, 0, 1]), delta, 2)
    assert rotation_angle_rad(robot.tool_pose()[:3, :3], down(3 * 2.0 * PERIOD_S)) < 0.02


def test_joint_positions_lead_to_the_same_pose(robot: Panda) -> None:
    pose, joint = (
        robot.action_spec(ActionMode.EE_POSE, PERIOD_S),
        robot.action_spec(ActionMode.JOINT_POSITION, PERIOD_S),
    )
    run(robot, ee_pose((0.55, -0.1, 0.2), -0.3, 1.0), pose, 15)
    by_pose, joints = robot.tool_pose(), robot._attached().joint_state().position_rad
    robot.reset(start())
    run(robot, np.array([*joints, 1.0]), joint, 15)
    np.testing.assert_allclose(robot.tool_pose(), by_pose, atol=2e-3)


def test_zero_delta_stays(robot: Panda) -> None:
    delta = robot.action_spec(ActionMode.EE_DELTA, PERIOD_S)
    run(robot, np.array([0, 0, 0, 0, 0, 0, 1.0]), delta, 24)
    np.testing.assert_allclose(robot.tool_pose(), start(), atol=1e-3)


def test_gripper_follows_its_entry(robot: Panda) -> None:
    spec = robot.action_spec(ActionMode.EE_POSE, PERIOD_S)
    for entry, opening in ((-1.0, 0.0), (0.0, 0.04), (1.0, 0.08)):
        run(robot, ee_pose((0.5, 0.0, 0.27), 0.0, entry), spec, 12)
        assert robot.gripper_m() == pytest.approx(opening, abs=1e-3)


def test_what_was_sent_is_the_clipped_action(robot: Panda) -> None:
    spec = robot.action_spec(ActionMode.EE_POSE, PERIOD_S)
    sent = run(robot, ee_pose((9.0, 0.0, -1.0), 0.0, 3.0), spec, 30)
    np.testing.assert_allclose(sent[:3], (0.75, 0.0, 0.005), atol=1e-6)
    assert sent[9] == 1.0
    assert sent.dtype == np.float32
    assert robot.tool_pose()[0, 3] < 0.76
    legal = ee_pose((0.5, 0.0, 0.2), 0.1, 0.5).astype(np.float32)
    np.testing.assert_array_equal(robot.command(legal, spec), legal)


def test_deltas_stay_in_the_workspace(robot: Panda) -> None:
    delta = robot.action_spec(ActionMode.EE_DELTA, PERIOD_S)
    run(robot, np.array([0, 0, -1, 0, 0, 0, 1.0]), delta, 20)
    assert robot.tool_pose()[2, 3] == pytest.approx(0.005, abs=2e-3)
    # The command did not run on below the floor: the way up starts at once.
    run(robot, np.array([0, 0, 1, 0, 0, 0, 1.0]), delta, 2)
    assert robot.tool_pose()[2, 3] > 0.06


def test_a_blocked_arm_does_not_wind_up(robot: Panda) -> None:
    robot._attached().add_box((0.5, 0.5, 0.1), (0.5, 0.0, 0.0), mass_kg=0.0, rgba=(1, 0, 0, 1))
    spec = robot.action_spec(ActionMode.EE_POSE, PERIOD_S)
    run(robot, ee_pose((0.5, 0.0, 0.005), 0.0, 1.0), spec, 15)
    assert robot.tool_pose()[2, 3] > 0.09
    run(robot, ee_pose((0.5, 0.0, 0.3), 0.0, 1.0), spec, 3)
    assert robot.tool_pose()[2, 3] > 0.15


@pytest.mark.parametrize("mode", ActionMode)
def test_bad_actions_are_refused(robot: Panda, mode: ActionMode) -> None:
    spec = robot.action_spec(mode, PERIOD_S)
    bad = np.zeros(spec.size, np.float32)
    bad[1] = np.nan
    with pytest.raises(SpecError, match="finite"):
        robot.command(bad, spec)
    with pytest.raises(SpecError, match="shape"):
        robot.command(np.zeros(spec.size + 1, np.float32), spec)


def test_a_rotation_that_is_none_is_refused(robot: Panda) -> None:
    spec = robot.action_spec(ActionMode.EE_POSE, PERIOD_S)
    with pytest.raises(SpecError, match="rotation_6d"):
        robot.command(np.zeros(10, np.float32), spec)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="gripper_force_N"):
        Panda(gripper_force_N=0.0)
    with pytest.raises(SpecError, match="Workspace"):
        Panda(workspace_low_m=(1.0, 0.0, 0.0))
    with pytest.raises(SpecError, match="corners"):
        Panda(workspace_low_m=(1.0, 0.0))
    with pytest.raises(SpecError, match="attach"):
        Panda().tool_pose()


def test_a_start_out_of_reach_is_refused(robot: Panda) -> None:
    far = start()
    far[0, 3] = 2.0
    with pytest.raises(SpecError, match="reach"):
        robot.reset(far)
