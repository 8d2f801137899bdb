from __future__ import annotations

import numpy as np
import pytest

from policies.runtime.hold import HoldPolicy
from sensors.action import ActionMode
from sensors.errors import WiringError
from tests.contracts import check_policy
from tests.policies.runtime.scene import TICK_MODES, make_observation, make_spec


@pytest.mark.parametrize("mode", TICK_MODES)
def test_holds_the_first_pose_of_an_episode(mode: ActionMode) -> None:
    policy = HoldPolicy(make_spec(mode))
    joints = np.linspace(-0.5, 0.5, 7)
    first = policy.act(make_observation(0.0, (0.5, 0.1, 0.2), joints=joints)).values
    assert np.array_equal(policy.act(make_observation(0.1, (0.6, 0.1, 0.2))).values, first)
    expected = {
        ActionMode.EE_POSE: [0.5, 0.1, 0.2],
        ActionMode.EE_DELTA: [0, 0, 0],
        ActionMode.JOINT_POSITION: joints[:3],
    }
    np.testing.assert_allclose(first[:3], expected[mode], atol=1e-6)
    assert first[-1] == 1.0  # the gripper stays as open as it is
    policy.reset()
    moved = policy.act(make_observation(0.2, (0.6, 0.1, 0.2))).values
    check_policy(policy, make_spec(mode), [make_observation(k / 12, (0.5, 0.01 * k, 0.2)) for k in range(3)])
    assert (moved[0] == np.float32(0.6)) == (mode is ActionMode.EE_POSE)


def test_needs_to_know_where_the_robot_is() -> None:
    with pytest.raises(WiringError, match="arm"):
        HoldPolicy(make_spec(ActionMode.EE_POSE), proprioception="arm").act(make_observation(0.0))
    with pytest.raises(WiringError, match="valid"):
        HoldPolicy(make_spec(ActionMode.EE_POSE)).act(make_observation(0.0, valid=False))
