"""The learned policy plays its chunks by the clock, and refuses other sensors than it was trained with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from perceive.model import PerceptionModel
from policies.learned import LearnedPolicy
from sensors.errors import DataError, SpecError, WiringError
from sensors.observation import Observation, Stream
from tests.contracts import check_policy
from tests.policies.counting_head import CountingHead
from tests.policies.point_env import PERIOD_S, SPEC, PointEnv, model_config, tiny_model


def counting_model() -> PerceptionModel:
    config = model_config() | {"heads": {"action": {"_target_": "tests.policies.counting_head.CountingHead"}}}
    rig = PointEnv().rig
    return PerceptionModel.from_config(config, rig.sensor_spaces, rig.history, SPEC, allow=("tests.",))


SHOWN = Observation.from_dict(PointEnv().reset(seed=0)[0]).streams


def seen(now_s: float, x: float = 0.0) -> Observation:
    """What the rig shows, with the tool at ``x``."""
    streams = dict(SHOWN)
    pose = np.array(streams["joints"].data["base_from_tool"])
    pose[..., 0, 3] = x
    joints = streams["joints"]
    streams["joints"] = Stream({**joints.data, "base_from_tool": pose}, joints.age_s, joints.valid)
    return Observation(now_s, streams)


def steps_taken(policy: LearnedPolicy, times_s: list[float]) -> list[int]:
    policy.reset()
    return [int(policy.act(seen(now_s)).values[0]) for now_s in times_s]


def calls(model: PerceptionModel) -> int:
    head = model.heads["action"]
    assert isinstance(head, CountingHead)
    return head.calls


def test_the_step_is_picked_by_time_not_by_call_count() -> None:
    policy = LearnedPolicy(counting_model(), replan_s=4 * PERIOD_S)
    tick = PERIOD_S
    assert steps_taken(policy, [0, tick, 2 * tick, 3 * tick, 4 * tick, 5 * tick]) == [0, 1, 2, 3, 0, 1]
    assert steps_taken(policy, [7.0, 7.0 + 2 * tick, 7.0 + 3 * tick]) == [0, 2, 3]  # a tick was missed
    fast = [10 + i * tick / 4 for i in range(9)]  # four calls a period
    assert steps_taken(policy, fast) == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert steps_taken(policy, [0, 100.0]) == [0, 0]  # the chunk is over: a new one


def test_sums_of_floats_do_not_shift_the_step() -> None:
    policy = LearnedPolicy(counting_model(), replan_s=4 * PERIOD_S)
    now_s, times_s = 0.3, []
    for _ in range(2000):
        times_s.append(now_s)
        now_s += PERIOD_S
    assert steps_taken(policy, times_s) == [0, 1, 2, 3] * 500


def test_replanning() -> None:
    model = counting_model()
    assert steps_taken(LearnedPolicy(model), [0, 0.1, 0.2, 0.3]) == [0, 0, 0, 0]
    before = calls(model)
    assert steps_taken(LearnedPolicy(model, replan_s=2 * PERIOD_S), [0, 0.1, 0.2, 0.3, 0.4]) == [0, 1, 0, 1, 0]
    assert calls(model) - before == 3
    with pytest.raises(SpecError, match="at most one chunk, 4 steps"):
        LearnedPolicy(model, replan_s=5 * PERIOD_S).act(seen(0.0))
    with pytest.raises(SpecError, match="replan_s"):
        LearnedPolicy(model, replan_s=-1.0)


def test_ensembling_averages_what_was_said_of_this_moment() -> None:
    policy = LearnedPolicy(counting_model(), ensemble=True, ensemble_decay=0.5)
    said = [policy.act(seen(i * PERIOD_S, x=10.0 * i)).values for i in range(6)]
    for now in range(6):
        oldest = max(now - 3, 0)
        weights = [math.exp(-0.5 * i) for i in range(now - oldest + 1)]
        steps, places = (
            [now - made for made in range(oldest, now + 1)],
            [10.0 * made for made in range(oldest, now + 1)],
        )
        assert said[now][0] == pytest.approx(np.average(steps, weights=weights), rel=1e-5)
        assert said[now][1] == pytest.approx(np.average(places, weights=weights), rel=1e-5)
        np.testing.assert_allclose(said[now][3:9], [1, 0, 0, 0, 1, 0], atol=1e-6)


def test_time_running_backwards_asks_for_a_reset() -> None:
    policy = LearnedPolicy(counting_model(), replan_s=0.3)
    policy.act(seen(5.0))
    with pytest.raises(SpecError, match="reset"):
        policy.act(seen(4.0))
    policy.reset()
    policy.act(seen(4.0))


def test_another_rig_is_refused_by_name() -> None:
    policy = LearnedPolicy(counting_model())
    whole = seen(0.0).streams
    with pytest.raises(WiringError, match=r"no 'front'. Did you mean 'font'"):
        policy.act(Observation(0.0, {"font": whole["front"], "joints": whole["joints"]}))
    with pytest.raises(WiringError, match=r"another one, 'front2'. Did you mean 'front'"):
        policy.act(Observation(0.0, {**whole, "front2": whole["front"]}))
    small = dict(whole["front"].data) | {"rgb": whole["front"].data["rgb"][:, :12]}
    with pytest.raises(WiringError, match=r"'front/rgb' of shape \(24, 24, 3\); got \(12, 24, 3\)"):
        policy.act(Observation(0.0, {**whole, "front": Stream(small, whole["front"].age_s, whole["front"].valid)}))
    less = {name: value for name, value in whole["front"].data.items() if name != "depth_m"}
    with pytest.raises(WiringError, match="'front/depth_m'"):
        policy.act(Observation(0.0, {**whole, "front": Stream(less, whole["front"].age_s, whole["front"].valid)}))
    twice = Stream(
        {k: np.repeat(v, 2, 0) for k, v in whole["joints"].data.items()}, np.zeros(2, np.float32), np.ones(2, bool)
    )
    with pytest.raises(WiringError, match="a history of 1; got 2"):
        policy.act(Observation(0.0, {**whole, "joints": twice}))


def test_a_sensor_that_the_model_ignores_may_be_there() -> None:
    config = model_config() | {"ignored_sensors": ["front2"]}
    rig = PointEnv().rig
    spaces = rig.sensor_spaces | {"front2": rig.sensor_spaces["front"]}
    policy = LearnedPolicy(PerceptionModel.from_config(config, spaces, rig.history | {"front2": 1}, SPEC))
    whole = seen(0.0).streams
    same = policy.act(Observation(0.0, whole)).values
    policy.reset()
    np.testing.assert_array_equal(policy.act(Observation(0.0, {**whole, "front2": whole["front"]})).values, same)


def test_loading(tmp_path: Path) -> None:
    model = tiny_model(3).eval()
    model.save_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(
        LearnedPolicy.load(tmp_path / "model").act(seen(0.0)).values, LearnedPolicy(model).act(seen(0.0)).values
    )
    with pytest.raises(DataError, match="no such folder"):
        LearnedPolicy.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="Train first"):
        LearnedPolicy.load(tmp_path)
    with pytest.raises(WiringError, match="Did you mean 'action'"):
        LearnedPolicy(model, head="actions")


def test_contract() -> None:
    check_policy(LearnedPolicy(tiny_model()), SPEC, [seen(i * PERIOD_S, x=0.1 * i) for i in range(6)])
    check_policy(LearnedPolicy(tiny_model(), ensemble=True), SPEC, [seen(i * PERIOD_S, x=0.1 * i) for i in range(6)])
