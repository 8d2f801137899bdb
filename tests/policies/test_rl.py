"""Reinforcement learning: one short run of everything, what it leaves behind, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.evaluation import evaluate
from policies.goals import GoalsAsSensors
from policies.logbook import read_metrics
from policies.rl import train_rl
from policies.rl_policy import RlPolicy
from policies.rl_settings import RlSettings
from policies.rollout import rollout
from sensors.errors import DataError, SpecError, WiringError
from sensors.observation import Observation
from tests.contracts import check_policy
from tests.policies.goal_env import MODEL, SPEC, GoalEnv

SHORT = RlSettings(
    steps=60, learning_starts=24, batch_size=16, hidden=(16,), her=True, buffer_size=100, log_every=1,
    checkpoint_every=25, rollout_steps=32, envs=2, epochs=1, tensorboard=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def sac_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sac")
    result = train_rl("sac", GoalEnv, MODEL, SHORT, folder)
    assert result.steps == 60
    assert result.parameters > 0
    return folder


def act(folder: Path, seed: int = 3) -> np.ndarray:
    values, info = GoalsAsSensors(GoalEnv()).reset(seed=seed)
    return RlPolicy.load(folder).act(Observation.from_dict(values, info["now_s"])).values


def test_a_run_leaves_a_policy_a_log_and_a_zip(sac_run: Path) -> None:
    assert {"policy", "state", "model.zip", "metrics.jsonl"} <= {p.name for p in sac_run.iterdir()}
    assert not list(sac_run.glob(".*-policy"))
    rows = read_metrics(sac_run)
    assert rows[-1]["step"] <= 60
    assert "rollout/success_rate" in rows[-1]
    assert "train/critic_loss" in rows[-1]


def test_the_saved_policy_acts_as_the_learner_does(sac_run: Path) -> None:
    from stable_baselines3 import SAC

    learner = SAC.load(sac_run / "model.zip", env=GoalEnv())  # hindsight replay asks for an env
    for seed in range(5):
        values, _ = GoalEnv().reset(seed=seed)
        expected, _ = learner.predict(values, deterministic=True)
        np.testing.assert_array_equal(act(sac_run, seed), expected)


def test_the_policy_keeps_the_contract_and_needs_its_goal(sac_run: Path) -> None:
    policy = RlPolicy.load(sac_run)
    env = GoalsAsSensors(GoalEnv())
    seen = []
    values, info = env.reset(seed=0)
    for _ in range(4):
        seen.append(Observation.from_dict(values, info["now_s"]))
        values, _, _, _, info = env.step(np.ones(3, np.float32))
    check_policy(policy, SPEC, seen)
    values, info = GoalEnv().reset(seed=0)
    with pytest.raises(WiringError, match="achieved_goal"):
        policy.act(Observation.from_dict(values, info["now_s"]))


def test_evaluation_takes_it_like_any_policy(sac_run: Path) -> None:
    found = evaluate(lambda: GoalsAsSensors(GoalEnv()), lambda: RlPolicy.load(sac_run), range(3))
    assert found.count == 3
    assert rollout(GoalsAsSensors(GoalEnv()), RlPolicy.load(sac_run), 0).steps == found.episodes[0].steps


def test_goes_on_where_it_was(sac_run: Path, tmp_path: Path) -> None:
    train_rl("sac", GoalEnv, MODEL, dataclasses.replace(SHORT, steps=40), tmp_path)
    before = act(tmp_path)
    again = train_rl("sac", GoalEnv, MODEL, dataclasses.replace(SHORT, steps=40), tmp_path, resume=True)
    assert again.steps == 40
    np.testing.assert_array_equal(act(tmp_path), before)  # nothing left to do, nothing changed
    result = train_rl("sac", GoalEnv, MODEL, SHORT, tmp_path, resume=True)
    assert result.steps == 60
    assert (act(tmp_path) != before).any()
    steps = [row["step"] for row in read_metrics(tmp_path)]
    assert steps == sorted(set(steps))
    assert steps[0] <= 12
    assert steps[-1] > 40
    with np.load(tmp_path / "state" / "replay.npz") as arrays:
        assert len(arrays["rewards"]) == 60
        assert (arrays["rewards"][:40] != 0).any()


def test_a_full_buffer_goes_on_too(tmp_path: Path) -> None:
    small = dataclasses.replace(SHORT, buffer_size=48, checkpoint_every=0)
    train_rl("sac", GoalEnv, MODEL, small, tmp_path)
    result = train_rl("sac", GoalEnv, MODEL, dataclasses.replace(small, steps=80), tmp_path, resume=True)
    assert result.steps == 80


@pytest.mark.parametrize("name", ["trainer.pt", "replay.npz", "state.json"])
def test_damaged_state_is_named(sac_run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "state").mkdir()
    for path in (sac_run / "state").iterdir():
        data = path.read_bytes()
        (tmp_path / "state" / path.name).write_bytes(data[: len(data) // 2] if path.name == name else data)
    with pytest.raises(DataError, match="state of a run"):
        train_rl("sac", GoalEnv, MODEL, SHORT, tmp_path, resume=True)


def test_damaged_policies_are_named(sac_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"policy\.json"):
        RlPolicy.load(tmp_path)
    about = json.loads((sac_run / "policy" / "policy.json").read_text())
    (tmp_path / "policy.safetensors").write_bytes((sac_run / "policy" / "policy.safetensors").read_bytes())
    (tmp_path / "policy.json").write_text(json.dumps(about | {"hidden": [8]}))
    with pytest.raises(DataError, match="fit"):
        RlPolicy.load(tmp_path)
    (tmp_path / "policy.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(DataError, match="format"):
        RlPolicy.load(tmp_path)


def test_ppo_trains_saves_and_goes_on(tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, her=False, steps=64)
    assert train_rl("ppo", GoalEnv, MODEL, settings, tmp_path).steps == 64
    before = act(tmp_path)
    assert before.shape == (3,)
    assert np.abs(before).max() <= 1
    assert train_rl("ppo", GoalEnv, MODEL, dataclasses.replace(settings, steps=96), tmp_path, resume=True).steps == 96
    assert (act(tmp_path) != before).any()


def test_the_baseline_is_stable_baselines_own_network(tmp_path: Path) -> None:
    train_rl("sac", GoalEnv, None, dataclasses.replace(SHORT, network="flat", steps=30), tmp_path)
    from stable_baselines3 import SAC

    assert json.loads((tmp_path / "policy" / "policy.json").read_text())["network"] == "flat"
    learner = SAC.load(tmp_path / "model.zip", env=GoalEnv())
    for seed in range(5):  # one vector of all entries: their order must survive the file
        expected, _ = learner.predict(GoalEnv().reset(seed=seed)[0], deterministic=True)
        np.testing.assert_array_equal(act(tmp_path, seed), expected)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    actions = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_rl("sac", GoalEnv, MODEL, dataclasses.replace(SHORT, seed=seed, steps=40), tmp_path / name)
        actions.append(act(tmp_path / name))
    np.testing.assert_array_equal(actions[0], actions[1])
    assert (actions[0] != actions[2]).any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="sac"):
        train_rl("sacc", GoalEnv, MODEL, SHORT, tmp_path)
    with pytest.raises(WiringError, match="goal_keys"):
        train_rl("sac", lambda: GoalEnv(goals=False), MODEL, SHORT, tmp_path)
    with pytest.raises(SpecError, match="model"):
        train_rl("sac", GoalEnv, None, SHORT, tmp_path)
    with pytest.raises(SpecError, match="network"):
        RlSettings(network="mlp")
    with pytest.raises(SpecError, match="hidden"):
        RlSettings(hidden=())
    with pytest.raises(DataError, match="state of a run"):
        train_rl("sac", GoalEnv, MODEL, SHORT, tmp_path / "none", resume=True)


def test_threads_are_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train_rl("ppo", GoalEnv, MODEL, dataclasses.replace(SHORT, her=False, steps=32, threads=2), tmp_path)
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sac_with_hindsight_learns_to_reach(tmp_path: Path) -> None:
    settings = RlSettings(steps=1500, learning_starts=200, batch_size=128, hidden=(64, 64), her=True, tensorboard=False)
    train_rl("sac", GoalEnv, MODEL, settings, tmp_path)
    found = evaluate(lambda: GoalsAsSensors(GoalEnv()), lambda: RlPolicy.load(tmp_path), range(10_000, 10_040))
    assert found.success_rate >= 0.9
    assert SPEC.size == 3
