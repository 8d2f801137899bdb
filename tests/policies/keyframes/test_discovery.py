"""Discovery on traces made by hand, in which one knows what has to be found, and on those of a real expert's plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.base import RobotEnv
from envs.experts.waypoints import KeyPose
from envs.robots.panda import Panda
from envs.tasks.keyframe import KeyframeTask
from envs.tasks.press_buttons import PressButtons
from envs.tasks.stack_blocks import StackBlocks
from policies.episode_file import Episode
from policies.episodes import EpisodeHeader, EpisodeWriter
from policies.keyframes.discovery import DiscoverySettings, discover
from policies.keyframes.samples import key_episode
from sensors.action import key_pose_spec
from sensors.errors import DataError, SpecError
from sensors.geometry import axis_angle_to_matrix
from sensors.joints import JointSensor
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.policies.keyframes.demos import CLOSED, OPEN, Demo, pick

HOME, AWAY, FAR = (0.5, 0.0, 0.3), (0.5, 0.2, 0.2), (0.3, 0.2, 0.1)


def test_a_motion_without_a_stop_has_only_its_end() -> None:
    assert Demo.at(HOME, 3).move(AWAY, 10).keyframes() == [12]


def test_a_pause_is_a_keyframe_where_it_begins() -> None:
    assert Demo.at(HOME, 3).move(AWAY, 5).rest(4).move(FAR, 5).keyframes() == [8, 16]


def test_one_that_rests_after_its_start_has_no_keyframe_there() -> None:
    assert Demo.at(HOME, 9).move(AWAY, 3).keyframes() == [11]


def test_a_gripper_toggle_is_found_where_the_fingers_have_settled() -> None:
    # Told at 8; the fingers begin a frame later and take 4 frames for 8 cm: settled at 12.
    demo = Demo.at(HOME).move(AWAY, 7).grip(CLOSED, 7).move(FAR, 5)
    assert demo.keyframes() == [12, 19]
    assert Demo.at(HOME).move(AWAY, 7).grip(CLOSED, 7, late=2).move(FAR, 5).keyframes() == [14, 19]


def test_a_hand_that_leaves_early_acted_where_it_stood() -> None:
    # Told at 8 and gone at 11, with the fingers half way.
    assert Demo.at(HOME).move(AWAY, 7).grip(CLOSED, 3).move(FAR, 8).keyframes() == [10, 18]


def test_fingers_that_have_no_way_to_go_are_not_waited_for() -> None:
    demo = Demo.at(HOME, opening_m=0.0).move(AWAY, 7).grip(CLOSED, 5).move(FAR, 9).rest(2).move(HOME, 9)
    assert demo.keyframes() == [12, 22, 32]


def test_a_hand_that_acts_in_passing_did_so_where_it_was_slowest() -> None:
    demo = Demo.at(HOME).move(AWAY, 6)
    for near in ((0.5, 0.21, 0.2), (0.5, 0.213, 0.2), (0.5, 0.23, 0.2)):
        demo.command[-1] = CLOSED
        demo.move(near, 1)
    demo.command[-1] = CLOSED
    assert demo.move(FAR, 9).keyframes() == [8, 18]


def test_a_stop_at_which_the_gripper_is_told_something_is_none_of_its_own() -> None:
    demo = Demo.at(HOME).move(AWAY, 7).rest(1).move((0.5, 0.21, 0.2), 1)
    demo.command[-1] = CLOSED
    demo.move((0.5, 0.22, 0.2), 1).rest(6).move(FAR, 5)
    assert demo.keyframes() == [13, 21]


def test_of_two_adjacent_last_ones_the_earlier_is_dropped() -> None:
    demo = Demo.at(HOME).move(AWAY, 7).rest(2)
    assert demo.keyframes() == [9]  # the stop would be 8
    slow = Demo.at(HOME).move(AWAY, 7).rest(1).move((0.5, 0.21, 0.2), 1)
    assert slow.keyframes() == [9]  # a centimetre on, but adjacent


def test_the_end_does_not_swallow_a_release_elsewhere() -> None:
    demo = Demo.at(HOME, command=CLOSED, opening_m=0.0).move(AWAY, 7).grip(OPEN, 5).move((0.5, 0.2, 0.24), 1)
    assert demo.keyframes() == [12, 13]
    stays = Demo.at(HOME, command=CLOSED, opening_m=0.0).move(AWAY, 7).grip(OPEN, 6)
    assert stays.keyframes() == [13]


def test_arriving_and_acting_are_one_key_pose() -> None:
    assert Demo.at(HOME).move(AWAY, 7).rest(5).grip(CLOSED, 8).rest(5).move(FAR, 5).keyframes() == [17, 30]
    apart = Demo.at(HOME).move(AWAY, 7).rest(5).move((0.5, 0.206, 0.2), 2).grip(CLOSED, 8).move(FAR, 5)
    assert apart.keyframes() == [8, 19, 27]
    turned = Demo.at(HOME).move(AWAY, 7).rest(5).move(AWAY, 2, (0, 0, 0.06)).grip(CLOSED, 8).move(FAR, 5)
    assert turned.keyframes() == [8, 19, 27]
    hardly = Demo.at(HOME).move(AWAY, 7).rest(5).move((0.5, 0.204, 0.2), 2, (0, 0, 0.02)).grip(CLOSED, 8).move(FAR, 5)
    assert hardly.keyframes() == [19, 27]


def test_a_stir_does_not_end_a_standstill() -> None:
    def keyframes(stirs: int, frames: int, by_m: float) -> list[int]:
        demo = Demo.at(HOME).move(AWAY, 7).rest(2)
        for stir in range(1, stirs + 1):
            demo.move((0.5, 0.2 + by_m * stir, 0.2), frames).rest(2)
        return demo.move(FAR, 6).keyframes(20.0)

    assert keyframes(1, 3, 0.0005) == [8, 20]
    # A hand that creeps, 4 mm at a time: after a frame at rest, the next four cannot be another stop.
    assert keyframes(5, 3, 0.004) == [8, 40]
    assert keyframes(5, 4, 0.004) == [8, 20, 32, 45]  # so slowly that there is a stop every 8 mm
    assert keyframes(1, 3, 0.02) == [8, 13, 20]  # a press of 2 cm counts, however short


def test_a_flicker_of_the_command_is_none() -> None:
    demo = Demo.at(HOME).move(AWAY, 4)
    demo.command[2] = CLOSED
    assert demo.move(FAR, 6).keyframes() == [10]
    quick = Demo.at(HOME).move(AWAY, 4).grip(CLOSED, 6).grip(OPEN, 6).move(FAR, 3)
    assert quick.keyframes() == [9, 15, 19]  # fingers that got there and back did something twice


def test_a_sampled_velocity_alone_is_no_stop() -> None:
    # An arm that is led from place to place comes to rest at the end of each control period, when it is sampled.
    demo = Demo.at(HOME, 2).move(AWAY, 9)
    demo.moving = [t in (2, 3, 4, 7) for t in range(len(demo))]
    assert demo.keyframes() == [10]
    turning = Demo.at(HOME, 2).move(HOME, 9, (0, 0, 1.0)).move(AWAY, 3)
    turning.moving = [t in (2, 3, 4, 7) for t in range(len(turning))]
    assert turning.keyframes() == [13]


def test_a_joint_that_moves_while_the_tool_stands_is_no_stop() -> None:
    assert Demo.at(HOME).move(AWAY, 4).move(AWAY, 5).move(FAR, 4).keyframes() == [13]


def test_a_grasp_is_three_key_poses() -> None:
    demo = pick()
    assert demo.keyframes() == [6, 17, len(demo) - 1]
    assert [demo.command[t] for t in demo.keyframes()] == [OPEN, CLOSED, CLOSED]


spot = st.tuples(*[st.integers(0, 8)] * 3).map(lambda c: tuple(0.2 + 0.05 * x for x in c))


@given(
    st.lists(st.tuples(spot, st.integers(2, 6), st.integers(3, 6), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_the_key_poses_of_a_script_are_found(
    script: list[tuple[tuple[float, float, float], int, int, bool]], rest: int
) -> None:
    demo, gripper, at = Demo.at((0.1, 0.1, 0.1), rest), OPEN, (0.1, 0.1, 0.1)
    want: list[tuple[tuple[float, ...], float]] = []
    for to, moving, resting, toggles in script:
        if to == at:
            continue
        at = to
        demo.move(to, moving).rest(resting)
        if toggles:
            gripper = -gripper
            demo.grip(gripper, 7)
        want.append((to, gripper))
    if not want:
        return
    found = demo.keyframes()
    got = [(tuple(demo.position_m[t].round(9)), demo.command[t]) for t in found]
    assert got == [(tuple(np.round(to, 9)), state) for to, state in want]
    assert found[-1] == len(demo) - 1
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = axis_angle_to_matrix([0.3, -1.2, 0.7]), (3.0, -2.0, 0.5)
    again = discover(demo.velocity(), moved @ demo.poses(), np.array(demo.opening_m), np.array(demo.command), 12.0)
    assert again.tolist() == found  # wherever the base is


def test_what_cannot_be_a_demonstration_is_refused() -> None:
    velocity, poses, one = np.zeros((5, 3)), np.tile(np.eye(4), (5, 1, 1)), np.ones(5)
    assert discover(velocity, poses, one, one, 12.0).tolist() == [4]
    with pytest.raises(DataError, match="at least 2 frames; got 1"):
        discover(velocity[:1], poses[:1], one[:1], one[:1], 12.0)
    with pytest.raises(DataError, match=r"velocity \[T, J\]"):
        discover(velocity[:4], poses, one, one, 12.0)
    with pytest.raises(DataError, match="a finite opening_m"):
        discover(velocity, poses, np.full(5, np.nan), one, 12.0)
    with pytest.raises(SpecError, match="merge_m"):
        DiscoverySettings(merge_m=0.0)


def test_settings_travel_as_json() -> None:
    settings = DiscoverySettings(still_m_s=0.05, refractory_s=0.3)
    assert DiscoverySettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("task", [PressButtons(), StackBlocks()], ids=["buttons", "blocks"])
def test_the_plan_of_a_real_expert_is_found_again(tmp_path: Path, task: KeyframeTask) -> None:
    env = RobotEnv(
        task, Panda(), SensorRig({"joints": JointSensor(timing=Timing(12.0))}), max_steps=200, renderer="tiny"
    )
    values, info = env.reset(seed=1)
    plan, expert = task.key_poses(), env.expert()
    rig = env.rig
    header = EpisodeHeader(rig.sensor_spaces, rig.history, rig.rates_hz, env.action_spec, 1, {})
    writer, over = EpisodeWriter(tmp_path, 1, header), False
    while not over:
        observation, action = Observation.from_dict(values, info["now_s"]), expert.act().values
        values, _, over, truncated, info = env.step(action)
        writer.add(observation, action, info["action_sent"])
        assert not truncated
    env.close()
    poses = [way for way, later in zip(plan, [*plan[1:], None], strict=True) if later is None or not same(way, later)]
    key = key_episode(Episode(writer.finish(True)), "joints", key_pose_spec(header.action), 4, 0.1, DiscoverySettings())
    assert len(key.keyframes) == len(poses) > 3
    for target, way in zip(key.targets, poses, strict=True):
        assert np.linalg.norm(target[:3] - way.position_m) < 5e-4
        np.testing.assert_allclose(target[3:9], [*way.rotation[:, 0], *way.rotation[:, 1]], atol=0.01)
        assert tuple(target[9:]) == (way.gripper, way.avoid)


def same(way: KeyPose, later: KeyPose) -> bool:
    return np.array_equal(way.position_m, later.position_m)
