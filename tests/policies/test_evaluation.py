"""Rollouts and evaluation: the same figures whatever the number of workers, and errors that arrive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from perceive.results import wilson_interval
from policies.base import Policy
from policies.evaluation import EvaluationResult, evaluate
from policies.rollout import EpisodeResult, rollout
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SensorError, SpecError, WiringError
from sensors.observation import Observation
from tests.policies.point_env import SPEC, PointEnv


class Seeker(Policy):
    """Moves to the reddest pixel's place, with some of torch's noise; stays where it is when it sees nothing."""

    def reset(self) -> None: ...

    def act(self, observation: Observation) -> Action:
        import torch

        front = observation.streams["front"]
        red = front.data["rgb"][-1, :, :, 0].astype(float) - 60
        pixel = 0.6 / front.data["intrinsics_px"][-1, 0] if front.valid[-1] else 0.0
        rows, columns = np.mgrid[:24, :24] - 11.5
        values = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0, 1], np.float32)
        if front.valid[-1]:
            weight = red / red.sum()
            values[:2] = 0.5 - (rows * weight).sum() * pixel, -(columns * weight).sum() * pixel
        values[:2] += 0.004 * torch.randn(2).numpy()
        return Action(values, SPEC)


class Broken(Policy):
    """Fails, in one way or another."""

    def __init__(self, how: str) -> None:
        self._how = how

    def reset(self) -> None: ...

    def act(self, observation: Observation) -> Action:
        if self._how == "dies":
            os._exit(3)
        if self._how == "typed":
            raise WiringError("here", "this", "that", "Do so.")
        raise Unpicklable(lambda: None)


class Unpicklable(Exception):
    """Holds something that cannot travel."""


def figures(result: EvaluationResult) -> list[tuple[int, bool, int, float]]:
    return [(e.seed, e.success, e.steps, e.duration_s) for e in result.episodes]


def test_the_figures_do_not_depend_on_the_workers() -> None:
    seeds = [5, 3, 11, 4, 7]
    here = evaluate(PointEnv, Seeker, seeds, film=["front"], film_seeds=[11])
    there = evaluate(PointEnv, Seeker, seeds, workers=2, film=["front"], film_seeds=[11])
    assert figures(here) == figures(there)
    assert [e.seed for e in here.episodes] == seeds
    assert len({e.steps for e in here.episodes}) > 1
    assert 0 < here.successes <= 5
    np.testing.assert_array_equal(here.episodes[2].film["front"], there.episodes[2].film["front"])
    assert here.episodes[2].film["front"].shape == (here.episodes[2].steps + 1, 24, 24, 3)
    assert here.episodes[0].film == {}
    assert figures(evaluate(PointEnv, Seeker, list(reversed(seeds)))) == list(reversed(figures(here)))


def test_an_unplugged_sensor_is_not_seen() -> None:
    seen = evaluate(PointEnv, Seeker, range(12))
    blind = evaluate(PointEnv, Seeker, range(12), disabled=frozenset({"front"}))
    assert seen.success_rate >= 0.75
    assert blind.successes == 0
    assert blind.to_json()["disabled"] == ["front"]
    with pytest.raises(SpecError, match="Did you mean 'front'"):
        evaluate(PointEnv, Seeker, [0], disabled=frozenset({"fron"}))


def test_the_result_in_figures() -> None:
    # A plan failed in every episode; only in the last one did that end in failure.
    episodes = [EpisodeResult(i, i < 3, 10, 1.0, 0.0, np.full(10, 0.002), failed_plans=2) for i in range(4)]
    result = EvaluationResult(episodes)
    assert (result.successes, result.count, result.success_rate) == (3, 4, 0.75)
    assert result.interval == wilson_interval(3, 4)
    assert result.latency_ms(95) == pytest.approx(2.0)
    assert result.planner_failures == 1
    assert result.to_json()["by_seed"][3] == {"seed": 3, "success": False, "steps": 10, "failed_plans": 2}


def test_no_seed_is_an_error() -> None:
    with pytest.raises(SpecError, match="at least one seed"):
        evaluate(PointEnv, Seeker, [])


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("typed", WiringError, "Do so"),
        ("odd", RuntimeError, "Unpicklable in a worker"),
        ("dies", SensorError, "exit codes"),
    ],
)
def test_a_worker_that_fails_is_heard(how: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        evaluate(PointEnv, partial(Broken, how), range(4), workers=2)


def test_every_step_is_told() -> None:
    told: list[tuple[float, float, bool]] = []

    def tell(observation: Observation, action: Action, info: Mapping[str, Any]) -> None:
        told.append((observation.now_s, float(info["now_s"]), bool(info["is_success"])))

    result = rollout(PointEnv(), Seeker(), seed=1, max_steps=3, on_step=tell)
    assert result.steps == 3
    assert [now_s for now_s, _, _ in told] == pytest.approx([0.0, 0.1, 0.2])
    assert [now_s for _, now_s, _ in told] == pytest.approx([0.1, 0.2, 0.3])
    assert result.latency_s.shape == (3,)


class OtherMode(Policy):
    """Acts in another action space."""

    def reset(self) -> None: ...

    def act(self, observation: Observation) -> Action:
        spec = ActionSpec(ActionMode.EE_POSE, SPEC.space, SPEC.parts, 0.05)
        return Action(np.zeros(10, np.float32), spec)


def test_another_action_spec_is_refused() -> None:
    with pytest.raises(WiringError, match=r"every 0.1000 s.*every 0.0500 s"):
        rollout(PointEnv(), OtherMode(), seed=0)
    with pytest.raises(WiringError, match="'rear'"):
        rollout(PointEnv(), Seeker(), seed=0, film=["rear"])


def test_an_environment_without_a_rig_is_refused() -> None:
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    with pytest.raises(WiringError, match="with 'rig' and 'action_spec'"):
        rollout(env, Seeker(), seed=0)
