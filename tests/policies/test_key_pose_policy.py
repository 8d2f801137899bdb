from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceive.cli.policy import load_policy
from policies.key_pose_policy import KeyPosePolicy
from sensors.action import ActionMode, end_effector_spec, key_pose_spec
from sensors.errors import SensorError, WiringError
from sensors.geometry import FloatArray, rotation_6d_to_matrix
from sensors.observation import Observation, Stream
from tests.contracts import check_policy
from tests.perceive.rvt.scene import make_batch, make_model, make_spec
from tests.perceive.test_saving import model as chunk_model

PERIOD_S = 1 / 12


def observe(now_s: float = 0.0, tool: FloatArray | None = None, lost: tuple[str, ...] = ()) -> Observation:
    batch, _ = make_batch(1, seed=3)
    streams = {}
    for name, stream in batch.streams.items():
        data = {field: value[0].numpy().copy() for field, value in stream.data.items()}
        if name == "joints" and tool is not None:
            data["base_from_tool"] = tool[None].astype(np.float32)
        there = np.array([name not in lost])
        streams[name] = Stream(data, np.zeros(1, np.float32), there)
    return Observation(now_s, streams)


def pose_of(values: NDArray[np.float32]) -> FloatArray:
    out = np.eye(4)
    out[:3, 3], out[:3, :3] = values[:3], rotation_6d_to_matrix(values[3:9])
    return out


@pytest.mark.parametrize("follow", [False, True])
def test_it_keeps_the_contract_of_policies(follow: bool) -> None:
    policy = KeyPosePolicy(make_model(), follow)
    spec = end_effector_spec(make_spec()) if follow else make_spec()
    check_policy(policy, spec, [observe(k * PERIOD_S) for k in range(3)])


def test_specs_of_whole_moves_and_of_periods_are_inverse() -> None:
    spec = make_spec()
    assert key_pose_spec(end_effector_spec(spec)).to_json() == spec.to_json()


def test_where_nothing_is_seen_it_holds_and_then_says_so() -> None:
    policy = KeyPosePolicy(make_model(), most_blind=3)
    tool = np.eye(4)
    tool[:3, 3] = (0.45, 0.1, 0.3)
    blind = observe(0.0, tool, lost=("front", "left", "right"))
    for _ in range(2):
        held = policy.act(blind).values
        np.testing.assert_allclose(pose_of(held), tool, atol=1e-6)
        assert held[9:].tolist() == [1.0, 1.0]  # as open as it is, and clear of everything
    with pytest.raises(SensorError, match="calibration"):
        policy.act(blind)
    assert policy.blind == 3
    # One good look in between, and the count starts again.
    policy.reset()
    for _ in range(5):
        policy.act(blind)
        assert not np.allclose(pose_of(policy.act(observe(0.0, tool)).values), tool, atol=1e-3)


def test_blind_and_lost_it_does_not_move_at_all() -> None:
    policy = KeyPosePolicy(make_model())
    with pytest.raises(SensorError, match="where it is"):
        policy.act(observe(0.0, lost=("front", "left", "right", "joints")))


def test_following_goes_there_then_grips_then_looks_again() -> None:
    whole, policy = KeyPosePolicy(make_model()), KeyPosePolicy(make_model(), follow=True, gripper_s=0.5)
    goal = whole.act(observe()).values
    closes = float(goal[9])
    first = policy.act(observe(0.0))
    assert first.spec.mode is ActionMode.EE_POSE
    np.testing.assert_allclose(first.values[:9], goal[:9], atol=1e-6)
    assert first.values[9] == 1.0  # the gripper waits for the tool
    there = pose_of(goal)
    for step in range(1, 7):
        command = policy.act(observe(step * PERIOD_S, there)).values
        np.testing.assert_allclose(command[:9], goal[:9], atol=1e-6)
        assert command[9] == closes
    before = policy.last
    policy.act(observe(7 * PERIOD_S, there))
    assert policy.last is not before  # half a second after it arrived


def test_a_tool_that_does_not_come_nearer_has_arrived() -> None:
    policy = KeyPosePolicy(make_model(), follow=True, patience_s=0.4, gripper_s=0.1)
    stuck = np.eye(4)
    stuck[:3, 3] = (0.3, -0.3, 0.4)
    looks = set()
    for step in range(12):
        policy.act(observe(step * PERIOD_S, stuck))
        looks.add(id(policy.last))
    assert 2 <= len(looks) <= 3


def test_it_is_what_a_saved_key_pose_model_is_played_by(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), "cpu", True, "action", 0.0, False)
    assert isinstance(policy, KeyPosePolicy)
    with pytest.raises(WiringError, match="LearnedPolicy"):
        KeyPosePolicy(chunk_model())


def test_an_observation_without_a_camera_is_refused() -> None:
    policy, seen = KeyPosePolicy(make_model()), observe()
    fewer = Observation(0.0, {name: stream for name, stream in seen.streams.items() if name != "left"})
    with pytest.raises(WiringError, match="left"):
        policy.act(fewer)


def test_one_more_camera_is_read_too() -> None:
    policy, seen = KeyPosePolicy(make_model()), observe(lost=("left",))
    policy.act(seen)
    alone = policy.last.looks[0].logits
    streams = dict(seen.streams)
    streams["above"] = observe().streams["left"]
    more = KeyPosePolicy(make_model())
    again = more.act(Observation(0.0, streams)).values
    policy.reset()
    # The points of a camera count whatever its name is, and the lost one is made up for.
    np.testing.assert_allclose(again, policy.act(observe()).values, atol=1e-4)
    assert not np.allclose(alone, more.last.looks[0].logits, atol=1e-4)
