"""Flat observations become situated tokens: a goal is a token at its place, which relabelling moves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from policies.features import PerceptionFeatures, to_batch
from policies.goals import GoalsAsSensors, split_space, to_flat, with_goals
from sensors.errors import SpecError, WiringError
from sensors.observation import Observation
from tests.policies.goal_env import MODEL, GoalEnv
from tests.policies.point_env import PointEnv


def flat(batch: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Different observations as stable-baselines3 hands them over: everything float32, with a batch axis."""
    env, rows = GoalEnv(), []
    env.action_space.seed(seed)
    values, _ = env.reset(seed=seed)
    for _ in range(batch):
        rows.append(values)
        values, *_ = env.step(env.action_space.sample())
    return {key: torch.as_tensor(np.stack([row[key] for row in rows])).float() for key in rows[0]}


def features(seed: int = 0) -> PerceptionFeatures:
    torch.manual_seed(seed)
    return PerceptionFeatures(GoalEnv().observation_space, MODEL).eval()


def test_spaces_come_apart_into_frames_and_histories() -> None:
    env = GoalEnv()
    sensors, history = split_space(env.observation_space)
    assert history == {"joints": 1, "achieved_goal": 1, "desired_goal": 1}
    assert sensors["joints"].spaces.keys() == env.rig.sensor_spaces["joints"].spaces.keys()
    assert sensors["joints"]["base_from_tool"].shape == (4, 4)
    assert sensors["desired_goal"]["position_m"].shape == (3,)
    rig = PointEnv().rig
    assert split_space(rig.space) == (rig.sensor_spaces, rig.history) or split_space(rig.space)[1] == rig.history


@pytest.mark.parametrize(
    "space", [spaces.Dict({"pose": spaces.Box(-1, 1, (7,))}), spaces.Dict({"a/b": spaces.Discrete(3)})]
)
def test_other_spaces_are_refused(space: spaces.Dict) -> None:
    with pytest.raises(WiringError, match="observation space"):
        split_space(space)


def test_goals_are_tokens_at_their_place_and_now() -> None:
    values = flat()
    batch = to_batch(values)
    tokens = features().model.encode(batch)
    goal = tokens.groups["desired_goal"]
    torch.testing.assert_close(tokens.position_m[:, goal][:, 0], values["desired_goal"])
    assert tokens.placed[:, goal].all()
    assert (tokens.age_s[:, goal] == 0).all()
    tool = tokens.groups["joints"]
    torch.testing.assert_close(tokens.position_m[:, tool][:, 0], values["joints/base_from_tool"][:, 0, :3, 3])
    assert "achieved_goal" not in tokens.groups  # the model ignores it


def test_moving_the_goal_matters_and_moving_everything_does_not() -> None:
    extractor, values = features(), flat()
    before = extractor(values)
    moved = values | {"desired_goal": values["desired_goal"] + 0.1}
    assert (extractor(moved) - before).abs().max() > 1e-3
    shift = torch.tensor([0.07, -0.2, 0.11])
    whole = copy.deepcopy(moved | {"desired_goal": values["desired_goal"] + shift})
    whole["joints/base_from_tool"][..., :3, 3] += shift
    torch.testing.assert_close(extractor(whole), before, atol=1e-5, rtol=0)  # relative to the tool nothing has moved
    other = values | {"achieved_goal": values["achieved_goal"] + 1.0}
    torch.testing.assert_close(extractor(other), before)


def test_an_absent_sensor_is_masked_whatever_it_holds() -> None:
    extractor, values = features(), flat()
    values["joints/valid"] = torch.zeros_like(values["joints/valid"])
    absent = extractor(values)
    values["joints/gripper_m"] = torch.full_like(values["joints/gripper_m"], float("nan"))
    torch.testing.assert_close(extractor(values), absent)
    assert absent.isfinite().all()


def test_every_weight_learns() -> None:
    extractor = features()
    extractor(flat()).square().sum().backward()
    for name, parameter in extractor.named_parameters():
        # The embedding of a token without fields sees zeros, so its first matrix has nothing to multiply.
        if name != "model.encoders.desired_goal.embed.0.weight":
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_size_follows_the_readouts() -> None:
    config = copy.deepcopy(MODEL)
    config["heads"]["features"]["count"] = 3
    extractor = PerceptionFeatures(GoalEnv().observation_space, config)
    assert extractor.features_dim == 96
    assert extractor(flat(2)).shape == (2, 96)


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(WiringError, match="ReadoutHead"):
        PerceptionFeatures(GoalEnv().observation_space, MODEL | {"heads": {"action": MODEL["heads"]["features"]}})
    with pytest.raises(WiringError, match="desired_goal"):
        PerceptionFeatures(GoalEnv(goals=False).observation_space, MODEL)
    with pytest.raises(SpecError, match="count"):
        PerceptionFeatures(
            GoalEnv().observation_space, MODEL | {"heads": {"features": {**MODEL["heads"]["features"], "count": 0}}}
        )


def test_goals_as_sensors_there_and_back() -> None:
    plain, wrapped = GoalEnv(), GoalsAsSensors(GoalEnv())
    first, _ = plain.reset(seed=4)
    seen, info = wrapped.reset(seed=4)
    assert wrapped.observation_space.contains(seen)
    observation = Observation.from_dict(seen, info["now_s"])
    np.testing.assert_array_equal(observation.streams["desired_goal"].data["position_m"][-1], first["desired_goal"])
    back = to_flat(observation)
    assert back.keys() == first.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(back[key], value)
    assert list(with_goals(observation, {}).streams) == list(observation.streams)
