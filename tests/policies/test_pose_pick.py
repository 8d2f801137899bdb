"""PosePick: with an estimator that knows the truth and adds noise, in the simulated task and without it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.base import RobotEnv
from envs.pose_scenes.library import NUMBERS
from envs.tasks.pick_named import FLOOR_M, PickNamed
from perceive.build import build
from perceive.cli.scenes_poses import object_model
from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.model import ObjectModel
from policies.pose_look import Verdict
from policies.pose_pick import PosePick
from policies.rollout import rollout
from sensors.action import ActionMode
from sensors.errors import SensorError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, invert
from sensors.observation import Observation
from tests.contracts import check_policy, load_env

TARGET = (0.5, 0.24, FLOOR_M)


class Noisy(PoseEstimator):
    """A test double: the truth, plus noise, with scores as told."""

    def __init__(self, task: PickNamed, models: list[ObjectModel], noise_m: float = 0.002) -> None:
        self._task, self._models, self._noise_m = task, {m.number: m for m in models}, noise_m
        self.scores: list[float] = []  # of the next answers; then 0.9
        self.shift_m: list[FloatArray] = []  # added to the next answers
        self.found = True

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._models)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        if not self.found:
            return []
        pose = self._task.pose(self._models[number].name)
        rng = np.random.default_rng(number)
        pose[:3, :3] = pose[:3, :3] @ axis_angle_to_matrix(rng.normal(0, 0.01, 3))
        pose[:3, 3] += rng.normal(0, self._noise_m, 3) + (self.shift_m.pop(0) if self.shift_m else 0.0)
        score = self.scores.pop(0) if self.scores else 0.9
        none = np.zeros((0, 4, 4)), np.zeros(0)
        return [PoseEstimate(number, invert(frame.base_from_camera) @ pose, score, None, *none)]


Site = tuple[RobotEnv, PickNamed, list[ObjectModel]]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    config = load_env("pick_named")
    config["rig"]["sensors"]["front"] |= {"width": 160, "height": 120}
    config["task"] |= {"objects": ["zigzag", "bracket", "cube"], "fewest": 2, "most": 2}
    env = build(config)
    assert isinstance(env, RobotEnv)
    task = env.task
    assert isinstance(task, PickNamed)
    yield env, task, [object_model(shape, NUMBERS[name]) for name, shape in task.shapes.items()]
    env.close()


@pytest.fixture
def make(site: Site) -> Iterator[Callable[..., tuple[PosePick, Noisy]]]:
    env, task, models = site

    def policy(**settings: object) -> tuple[PosePick, Noisy]:
        estimator = Noisy(task, models)
        return PosePick(env.action_spec, estimator, models, TARGET, **settings), estimator  # type: ignore[arg-type]

    yield policy
    env.rig.disable(frozenset())


def test_it_puts_the_named_object_in_the_tray(site: Site, make: Callable[..., tuple[PosePick, Noisy]]) -> None:
    env, task, _ = site
    policy, _ = make()
    result = rollout(env, policy, 3)
    assert result.success
    assert len(policy.looks) == 1
    assert policy.looks[0].name == task.asked
    assert policy.looks[0].grasps > 0


def test_in_a_thread_it_holds_still_until_it_knows(site: Site, make: Callable[..., tuple[PosePick, Noisy]]) -> None:
    env, _, _ = site
    policy, estimator = make(threaded=True)
    asked, free = threading.Event(), threading.Event()
    find = estimator.estimate

    def slowly(*given: Any, **more: Any) -> list[PoseEstimate]:
        asked.set()
        assert free.wait(60)
        return find(*given, **more)

    estimator.estimate = slowly  # type: ignore[method-assign]  # as an estimator that takes its time
    held: list[FloatArray] = []

    def note(*_: object) -> None:
        if policy.thinking and not free.is_set():
            assert asked.wait(60)
            held.append(env.task.pose(env.task.asked))  # type: ignore[attr-defined]  # a PickNamed
            if len(held) == 6:
                free.set()

    result = rollout(env, policy, 3, on_step=note)
    assert len(held) == 6
    assert result.success
    for pose in held:
        np.testing.assert_allclose(pose, held[0], atol=1e-4)
    assert len(policy.looks) == 1


def test_after_a_grasp_beside_the_object_it_looks_again(
    site: Site, make: Callable[..., tuple[PosePick, Noisy]]
) -> None:
    env, _, _ = site
    policy, estimator = make()
    estimator.shift_m = [np.array([0.0, -0.12, 0.0])]
    result = rollout(env, policy, 3)
    assert len(policy.looks) == 2
    assert result.success
    once, estimator = make(tries=1)
    estimator.shift_m = [np.array([0.0, -0.12, 0.0])]
    assert not rollout(env, once, 3, max_steps=75).success
    assert once.verdict is Verdict.NOT_LIFTED


def test_a_low_score_is_looked_at_twice_and_the_better_one_taken(
    site: Site, make: Callable[..., tuple[PosePick, Noisy]]
) -> None:
    env, task, _ = site
    policy, estimator = make()
    estimator.scores, estimator.shift_m = [0.5, 0.4], [np.zeros(3), np.array([0.0, 0.1, 0.0])]
    rollout(env, policy, 3, max_steps=35)
    assert [look.score for look in policy.looks] == [0.5, 0.5]
    chosen = policy.looks[-1].base_from_object
    assert chosen is not None
    assert np.linalg.norm(chosen[:3, 3] - task.pose(task.asked)[:3, 3]) < 0.01


@pytest.mark.parametrize("why", [Verdict.NOT_FOUND, Verdict.NO_PICTURE, Verdict.UNKNOWN, Verdict.NOT_REACHABLE])
def test_on_nothing_it_holds_still_and_says_why(
    site: Site, make: Callable[..., tuple[PosePick, Noisy]], why: Verdict
) -> None:
    env, task, models = site
    policy, estimator = make(patience_s=1.0)
    if why is Verdict.NO_PICTURE:
        env.rig.disable(frozenset({"front"}))
    elif why is Verdict.NOT_FOUND:
        estimator.found = False
    elif why is Verdict.UNKNOWN:
        env.reset(seed=3)
        known = [model for model in models if model.name != task.asked]
        policy = PosePick(env.action_spec, estimator, known, TARGET, patience_s=1.0)
    else:
        estimator.shift_m = [np.array([0.0, 0.0, -0.2])] * 3
    places: list[FloatArray] = []
    result = rollout(env, policy, 3, max_steps=75, on_step=lambda *_: places.append(env.robot.tool_pose()))
    assert not result.success
    assert policy.verdict is why
    assert np.linalg.norm(places[-1][:3, 3] - places[-8][:3, 3]) < 1e-3
    assert np.linalg.norm(places[-1][:3, 3] - (0.36, 0.0, 0.42)) < 0.02  # it went to look, and nowhere else


def test_it_stops_with_an_error_if_told_to(site: Site, make: Callable[..., tuple[PosePick, Noisy]]) -> None:
    env, _, _ = site
    policy, estimator = make(stop=True)
    estimator.found = False
    with pytest.raises(SensorError, match="not found"):
        rollout(env, policy, 3, max_steps=90)


def test_it_keeps_the_contract_of_policies(site: Site, make: Callable[..., tuple[PosePick, Noisy]]) -> None:
    env, _, _ = site
    policy, _ = make()
    values, info = env.reset(seed=3)
    observations = [Observation.from_dict(values, info["now_s"])]
    for _ in range(4):
        action = policy.act(observations[-1])
        values, _, _, _, info = env.step(action.values)
        observations.append(Observation.from_dict(values, info["now_s"]))
    check_policy(policy, env.action_spec, observations)


def test_wrong_settings_are_refused(site: Site) -> None:
    env, task, models = site
    estimator = Noisy(task, models)
    with pytest.raises(WiringError, match="ee_pose"):
        PosePick(env.robot.action_spec(ActionMode.EE_DELTA, 1 / 12), estimator, models, TARGET)
    with pytest.raises(SpecError, match="estimator knows"):
        PosePick(env.action_spec, Noisy(task, models[:1]), models, TARGET)
    with pytest.raises(SpecError, match="target_m"):
        PosePick(env.action_spec, estimator, models, TARGET[:2])
