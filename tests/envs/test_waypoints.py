"""WaypointExpert and key poses: straight lines, a rest at each, the gripper last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from envs.base import RobotEnv
from envs.experts.base import CLOSED, OPEN, down
from envs.experts.waypoints import AVOID, REST_STEPS, TOUCH, KeyPose, WaypointExpert, pick, place
from envs.robots.panda import Panda
from envs.tasks.stack_blocks import StackBlocks
from sensors.action import ActionMode, key_pose_spec
from sensors.errors import SpecError
from sensors.geometry import FloatArray, rotation_6d_to_matrix, rotation_angle_rad
from sensors.rig import SensorRig


@pytest.fixture(scope="module")
def env() -> Iterator[RobotEnv]:
    made = RobotEnv(StackBlocks(), Panda(), SensorRig({}), max_steps=400, renderer="tiny")
    yield made
    made.close()


@dataclass(frozen=True, eq=False)
class Frame:
    """One control step: which key pose was led to, and what came of it."""

    way: int
    tool: FloatArray
    gripper: float
    opening_m: float
    speed_rad_s: float


def follow(env: RobotEnv, plan: Callable[[], list[KeyPose]], keys: list[KeyPose], steps: int) -> list[Frame]:
    """Act for so many steps; ``way`` is the number of the key pose that is commanded."""
    env.reset(seed=0)
    expert = WaypointExpert(env.world, env.robot, env.action_spec, plan)
    frames = []
    for _ in range(steps):
        values = expert.act().values
        places = [np.allclose(values[:3], key.position_m, atol=1e-6) for key in keys]
        env.step(values)
        state = env.world.joint_state()
        speed = float(np.abs(state.velocity_rad_s).max())
        frames.append(Frame(places.index(True), env.robot.tool_pose(), values[-1], state.gripper_m, speed))
    return frames


def some_keys() -> list[KeyPose]:
    return [
        KeyPose(np.array([0.55, 0.2, 0.3]), down(0.5), OPEN, AVOID),
        KeyPose(np.array([0.45, -0.2, 0.25]), down(-0.4), CLOSED, AVOID),
        KeyPose(np.array([0.5, 0.0, 0.35]), down(0.0), OPEN, TOUCH),
    ]


def test_it_goes_straight_rests_and_only_then_moves_the_fingers(env: RobotEnv) -> None:
    keys = some_keys()
    plans = iter([keys])
    frames = follow(env, lambda: list(next(plans, keys[-1:])), keys, 55)
    env.reset(seed=0)
    starts = [env.robot.tool_pose()[:3, 3]]
    assert [frame.way for frame in frames] == sorted(frame.way for frame in frames)
    for number, key in enumerate(keys):
        own = [frame for frame in frames if frame.way == number]
        at = [
            frame
            for frame in own
            if math.dist(frame.tool[:3, 3], key.position_m) < 0.004
            and rotation_angle_rad(frame.tool[:3, :3], key.rotation) < 0.03
            and frame.speed_rad_s < 0.1
        ]
        assert len(at) >= REST_STEPS - 1
        assert at[0] is not own[0]
        # Perpendicular distance of the way from the straight line.
        start, line = starts[-1], key.position_m - starts[-1]
        for frame in own:
            offset = frame.tool[:3, 3] - start
            beside = offset - line * (offset @ line) / (line @ line)
            assert np.linalg.norm(beside) < 0.015
        before = 1.0 if number < 2 else -1.0
        assert all(frame.gripper == before for frame in own if not any(frame is other for other in at))
        assert own[-1].gripper == (key.gripper if number < 2 else own[-1].gripper)
        starts.append(key.position_m)
    closed = [frame for frame in frames if frame.way == 1 and frame.gripper == CLOSED]
    assert closed[-1].opening_m < 0.001  # the fingers have arrived before the hand goes on


def test_a_grip_where_the_arm_rests_already_starts_at_once(env: RobotEnv) -> None:
    here = KeyPose(np.array([0.5, 0.0, 0.3]), down(0.0), OPEN, AVOID)
    grip = KeyPose(here.position_m, here.rotation, CLOSED, TOUCH)
    up = KeyPose(np.array([0.5, 0.0, 0.35]), down(0.0), CLOSED, TOUCH)
    frames = follow(env, lambda: [here, grip, up], [here, up], 28)
    first = next(index for index, frame in enumerate(frames) if frame.gripper == CLOSED)
    still = sum(frame.speed_rad_s < 0.1 for frame in frames[:first])
    assert REST_STEPS - 1 <= still <= REST_STEPS + 1  # one rest, not two
    leaves = next(index for index, frame in enumerate(frames) if frame.way == 1)
    assert leaves - first == 6


def test_a_plan_that_is_over_or_has_failed_is_made_anew(env: RobotEnv) -> None:
    keys = some_keys()
    calls = []

    def plan() -> list[KeyPose]:
        calls.append(env.world.time_s)
        return [keys[0]]

    follow(env, plan, keys, 40)
    assert len(calls) >= 3
    calls.clear()
    env.reset(seed=0)
    assert isinstance(env.task, StackBlocks)
    block = next(iter(env.task.blocks.values()))

    def failing() -> list[KeyPose]:
        calls.append(env.world.time_s)
        first = KeyPose(keys[0].position_m, keys[0].rotation, OPEN, AVOID, holding=block)
        return [first, *keys[1:]]

    frames = follow(env, failing, keys, 40)
    assert {frame.way for frame in frames} == {0}  # nothing is in the hand there, so it never goes on
    assert len(calls) >= 3


def test_a_key_pose_out_of_reach_does_not_stop_it_for_ever(env: RobotEnv) -> None:
    far = KeyPose(np.array([0.5, 0.5, 0.3]), down(0.0), OPEN, AVOID)  # the workspace ends at y = 0.35
    near = KeyPose(np.array([0.5, 0.1, 0.3]), down(0.0), OPEN, AVOID)
    frames = follow(env, lambda: [far, near], [far, near], 60)
    assert frames[-1].way != frames[0].way or len({frame.way for frame in frames}) == 2
    assert math.dist(frames[-1].tool[:3, 3], near.position_m) < 0.004 or frames[-1].way == 0


def test_pick_and_place_by_closed_form() -> None:
    at = np.array([0.5, 0.1, 0.02])
    above, low, close, up = pick(7, at, 0.3, 0.09)
    for key in (above, up):
        np.testing.assert_allclose(key.position_m, (0.5, 0.1, 0.11))
    for key in (low, close):
        np.testing.assert_array_equal(key.position_m, at)
    assert [key.gripper for key in (above, low, close, up)] == [OPEN, OPEN, CLOSED, CLOSED]
    assert [key.avoid for key in (above, low, close, up)] == [AVOID, TOUCH, TOUCH, TOUCH]
    assert [key.holding for key in (above, low, close, up)] == [None, None, None, 7]
    for key in (above, low, close, up):
        np.testing.assert_array_equal(key.rotation, down(0.3))
    over, lower, let_go = place(7, at, -0.2, 0.05)
    np.testing.assert_allclose(over.position_m, (0.5, 0.1, 0.07))
    np.testing.assert_array_equal(lower.position_m, at)
    np.testing.assert_array_equal(let_go.position_m, at)
    assert [key.gripper for key in (over, lower, let_go)] == [CLOSED, CLOSED, OPEN]
    assert [key.avoid for key in (over, lower, let_go)] == [AVOID, TOUCH, TOUCH]
    assert [key.holding for key in (over, lower, let_go)] == [7, 7, None]


def test_a_key_pose_as_an_action(env: RobotEnv) -> None:
    spec = key_pose_spec(env.action_spec)
    key = KeyPose(np.array([0.4, -0.1, 0.2]), down(0.7), CLOSED, TOUCH)
    action = key.action(spec)
    assert action.spec is spec
    np.testing.assert_allclose(action.values[spec.part("position_m")], key.position_m, atol=1e-7)
    turn = rotation_6d_to_matrix(action.values[spec.part("rotation_6d")])
    np.testing.assert_allclose(turn, key.rotation, atol=1e-6)
    assert action.values[spec.part("gripper")] == CLOSED
    assert action.values[spec.part("avoid")] == TOUCH
    assert spec.space.contains(action.values)
    with pytest.raises(SpecError, match="key_pose"):
        key.action(env.action_spec)


def test_it_needs_the_whole_action(env: RobotEnv) -> None:
    spec = Panda(gripper=False).action_spec(ActionMode.EE_POSE, 1 / 12)
    with pytest.raises(SpecError, match="gripper"):
        WaypointExpert(env.world, env.robot, spec, some_keys)
