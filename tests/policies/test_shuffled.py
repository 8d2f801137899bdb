"""ShuffledPolicy: another episode's readings, at their own moments; a policy that listens is led astray."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.base import Policy
from policies.episode_file import Episode
from policies.episodes import list_episodes
from policies.evaluation import evaluate
from policies.shuffled import ShuffledPolicy
from sensors.action import Action
from sensors.errors import DataError, WiringError
from sensors.observation import Observation, Stream
from tests.policies.point_env import SPEC, PointEnv, record
from tests.policies.test_evaluation import Seeker, figures


class Witness(Policy):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def reset(self) -> None:
        self.seen.clear()

    def act(self, observation: Observation) -> Action:
        self.seen.append(observation)
        return Action(np.array([0, 0, 0, 1, 0, 0, 0, 1, 0, 1], np.float32), SPEC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes")
    record(folder, range(500, 506))
    return folder


def make(folder: Path) -> ShuffledPolicy:
    return ShuffledPolicy(Seeker(), ["front"], folder)


def test_who_listens_is_led_astray(folder: Path) -> None:
    seeds = list(range(12))
    true = evaluate(PointEnv, Seeker, seeds)
    shuffled = evaluate(PointEnv, partial(make, folder), seeds)
    assert true.successes >= 9
    assert shuffled.successes <= true.successes / 2
    assert figures(shuffled) == figures(evaluate(PointEnv, partial(make, folder), seeds, workers=2))


def test_what_it_shows(folder: Path) -> None:
    """The same moments of one other episode, its last one when it is over; poses, other sensors and gaps are true."""
    witness = Witness()
    policy = ShuffledPolicy(witness, ["front"], folder)
    env = PointEnv()
    torch.manual_seed(3)
    policy.reset()
    values, info = env.reset(seed=0)
    own = []
    for step in range(30):
        observation = Observation.from_dict(values, info["now_s"])
        streams = dict(observation.streams)
        streams["front"].data["base_from_camera"][:] += 0.25  # the camera stands elsewhere now
        if step == 4:
            front = streams["front"]
            streams["front"] = Stream(front.data, front.age_s, np.zeros_like(front.valid))
        own.append(Observation(observation.now_s, streams))
        policy.act(own[-1])
        values, _, _, _, info = env.step(np.array([0, 0, 0, 1, 0, 0, 0, 1, 0, 1], np.float32))
    shown = witness.seen[0].streams["front"].data["rgb"]
    others = [Episode(path) for path in list_episodes(folder)]
    (other,) = [e for e in others if np.array_equal(e.observation(0).streams["front"].data["rgb"], shown)]
    assert len(other) < 30
    for step, (true, seen) in enumerate(zip(own, witness.seen, strict=True)):
        foreign = other.observation(min(step, len(other) - 1)).streams["front"]
        front = seen.streams["front"]
        np.testing.assert_array_equal(front.data["rgb"], foreign.data["rgb"])
        np.testing.assert_array_equal(front.data["base_from_camera"], true.streams["front"].data["base_from_camera"])
        assert seen.streams["joints"] is true.streams["joints"]
        assert front.valid.all() == (step != 4)
    assert seen.now_s == own[-1].now_s


def test_what_cannot_be_exchanged(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shuffled_from"):
        ShuffledPolicy(Seeker(), ["front"], tmp_path)
    with pytest.raises(WiringError, match="Did you mean 'front'"):
        ShuffledPolicy(Seeker(), ["fromt"], folder)
    env, policy = PointEnv(), ShuffledPolicy(Witness(), ["front"], folder)
    policy.reset()
    values, info = env.reset(seed=0)
    true = Observation.from_dict(values, info["now_s"])
    front = true.streams["front"]
    small = Stream(dict(front.data) | {"rgb": front.data["rgb"][:, :12]}, front.age_s, front.valid)
    with pytest.raises(WiringError, match="same rig"):
        policy.act(Observation(0.0, dict(true.streams) | {"front": small}))
    with pytest.raises(WiringError, match="shuffled sensors"):
        policy.act(Observation(0.0, {"joints": true.streams["joints"]}))
