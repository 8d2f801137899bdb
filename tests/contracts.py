"""The contracts that every sensor, encoder, trunk, head, env and policy meets, driven by the YAML tree.

Each ``check_*`` takes a built object and raises AssertionError. The tests that call them find every file of a config
group, so a new sensor (head, env, ...) is tested without being asked for.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as run_gymnasium_checks
from numpy.typing import NDArray

from perceive.build import build, resolve
from policies.base import Policy
from sensors.action import ActionSpec
from sensors.base import Sensor, World
from sensors.errors import SensorError
from sensors.frames import Frame
from sensors.geometry import FloatArray
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.spec import check_array, space_from_json, space_to_json
from sensors.timeline import Timing

CONF = Path(__file__).resolve().parents[1] / "conf"


# ---------------------------------------------------------------------------------------------------------- the tree


def config_files(group: str) -> list[Path]:
    """Every YAML of a config group, in a fixed order."""
    files = sorted((CONF / group).glob("*.yaml"))
    assert files, f"no YAML in conf/{group}"
    return files


def load_plain(path: Path) -> dict[str, Any]:
    """A YAML without a defaults list, as it stands."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(config, dict), f"{path} is not a mapping"
    return config


def load_composed(group: str, name: str) -> dict[str, Any]:
    """A config of a group with its defaults list resolved, as the commands see it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(config_dir=str(CONF), version_base=None):
        composed = OmegaConf.to_container(compose(config_name=f"{group}/{name}"), resolve=True)
    assert isinstance(composed, dict)
    for part in group.split("/"):
        composed = composed[part]
    return {str(key): value for key, value in composed.items()}


def load_env(name: str, rig: str | None = None) -> dict[str, Any]:
    """A config of conf/env with a rig beside it: the rig of the same name, unless another is asked for."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    own = name if (CONF / "rig" / f"{name}.yaml").exists() else "state"
    with initialize_config_dir(config_dir=str(CONF), version_base=None):
        composed = compose(overrides=[f"+env={name}", f"+rig={rig or own}"])
        config = OmegaConf.to_container(composed.env, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def check_config(config: Mapping[str, Any]) -> None:
    """A config names a class and all of its arguments, and nothing else; the class takes no ``**kwargs``."""
    target = resolve(config["_target_"])
    parameters = inspect.signature(target).parameters
    for parameter in parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), (
            f"{target}: {parameter} swallows"
        )
        assert parameter.annotation is not parameter.empty, f"{target}: '{parameter.name}' has no type"
    given = set(config) - {"_target_"}
    assert given <= set(parameters), f"{config['_target_']} has no argument {sorted(given - set(parameters))}"
    for value in config.values():
        if isinstance(value, Mapping) and "_target_" in value:
            check_config(value)


# ------------------------------------------------------------------------------------------------------------ sensor


def check_sensor(sensor: Sensor, world: World, *, simulated: bool = True) -> None:
    """What every sensor keeps. It comes freshly constructed, and is closed afterwards.

    The space is there before ``open``; ``read`` before ``open`` and after ``close`` is a SensorError; frames are
    frozen, of their own memory, in their space and stamped in order; the same seed gives the same noise; closing twice
    is harmless, and a closed sensor opens again. ``simulated``: it needs a world, and measures when it is asked.
    """
    space, timing = sensor.space, sensor.timing
    assert isinstance(timing, Timing)
    assert isinstance(space, spaces.Dict)
    assert all(isinstance(part, spaces.Box) for part in space.spaces.values())
    assert space_from_json(space_to_json(space)) == space
    with pytest.raises(SensorError):
        sensor.read(0.0)
    if simulated:
        with pytest.raises(SensorError):
            sensor.open(None)
    sensor.open(world)
    assert sensor.space == space, "the space changed at open"

    first = _take_frames(sensor, seed=3)
    again = _take_frames(sensor, seed=3)
    for frame in first:
        _check_frame(frame, space)
    for older, newer in itertools.pairwise(first):
        assert newer.stamp_s > older.stamp_s, "stamps do not rise"
        for name, value in older.arrays().items():
            assert not np.shares_memory(value, newer.arrays()[name]), f"two frames share '{name}'"
    if simulated:
        assert [frame.stamp_s for frame in first] == _moments(sensor)
        for one, other in zip(first, again, strict=True):
            for name, value in one.arrays().items():
                np.testing.assert_array_equal(value, other.arrays()[name], err_msg=f"same seed, other '{name}'")

    sensor.close()
    sensor.close()
    with pytest.raises(SensorError):
        sensor.read(0.0)
    _check_in_rig(sensor, world)


def check_live_sensor(sensor: Sensor, world: World) -> None:
    """What every sensor of a device keeps, whether the device is there or not.

    The space is there before ``open``; ``read`` before ``open`` and after ``close`` is a SensorError; an ``open`` that
    fails is a SensorError that says what to do, and leaves a sensor that can be closed and tried again.
    """
    space = sensor.space
    assert sensor.timing.live
    assert all(isinstance(part, spaces.Box) for part in space.spaces.values())
    assert space_from_json(space_to_json(space)) == space
    with pytest.raises(SensorError):
        sensor.read(0.0)
    for _ in range(2):
        try:
            sensor.open(world)
        except SensorError as error:
            assert len(error.fix) > 15, f"it does not say what to do: {error}"  # noqa: PT017  (it may also open)
        else:
            sensor.reset(np.random.default_rng(0))
            frame = sensor.read(0.0)
            assert frame is None or frame.arrays().keys() == space.spaces.keys()
        sensor.close()
        sensor.close()
        with pytest.raises(SensorError):
            sensor.read(0.0)
    rig = SensorRig({"it": sensor})
    rig.disable(frozenset({"it"}))
    assert rig.space.contains(rig.observe(0.0).to_dict()), "an absent frame lies outside the space"


def _moments(sensor: Sensor) -> list[float]:
    return [10.0 + k / sensor.timing.rate_hz for k in range(4)]


def _take_frames(sensor: Sensor, seed: int) -> list[Frame]:
    sensor.reset(np.random.default_rng(seed))
    return [frame for now_s in _moments(sensor) if (frame := sensor.read(now_s)) is not None]


def _check_frame(frame: Frame, space: spaces.Dict) -> None:
    assert frame.arrays().keys() == space.spaces.keys()
    for name, value in frame.arrays().items():
        part = space.spaces[name]
        assert isinstance(part, spaces.Box)
        check_array(name, value, part)
        assert np.isfinite(value).all(), f"'{name}' is not finite"
        assert part.contains(value.astype(part.dtype)), f"'{name}' lies outside its bounds"
        if value.shape == (4, 4):
            _check_rigid(name, value)
    with pytest.raises(FrozenInstanceError):
        setattr(frame, fields(frame)[0].name, 0.0)


def _check_rigid(name: str, matrix: FloatArray) -> None:
    np.testing.assert_allclose(
        matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6, err_msg=f"'{name}' is no rotation"
    )
    np.testing.assert_allclose(np.linalg.det(matrix[:3, :3]), 1.0, atol=1e-6, err_msg=f"'{name}' mirrors")
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])


def _check_in_rig(sensor: Sensor, world: World) -> None:
    """In a rig: it opens again, and what it shows lies in the rig's space, seen or absent."""
    rig = SensorRig({"it": sensor})
    rig.open(world)
    rig.reset(0.0, seed=1)
    assert rig.space.contains(rig.observe(0.0).to_dict()), "an absent frame lies outside the space"
    rig.tick(0.0)
    flat = rig.observe(5.0 / sensor.timing.rate_hz).to_dict()
    assert rig.space.contains(flat)
    assert Observation.from_dict(flat).streams.keys() == {"it"}
    rig.close()


def build_sensor(path: Path) -> Sensor:
    """The sensor of a file in conf/sensor."""
    config = load_plain(path)
    check_config(config)
    sensor = build(config)
    assert isinstance(sensor, Sensor), f"{path.name} builds a {type(sensor).__name__}, not a Sensor"
    return sensor


# ---------------------------------------------------------------------------------------------- encoder, trunk, head
# check_encoder, check_trunk and check_head need torch; they stand in tests/contracts_torch.py.


# --------------------------------------------------------------------------------------------------------------- env


def check_env(make: Callable[[], gymnasium.Env[Any, Any]], steps: int = 200) -> None:
    """What every environment keeps. ``make`` builds a new one on every call.

    Gymnasium's own checks pass; two environments in one process, reset with one seed, agree in that episode and in the
    unseeded one after it, and another seed gives another episode; random actions give observations in the space, finite
    rewards and the agreed ``info``; closing twice is harmless.
    """
    env, twin = make(), make()
    with warnings.catch_warnings():
        # A recommendation only: actions carry physical units here, and the spec says which.
        warnings.filterwarnings("ignore", message=".*recommend using a symmetric and normalized space")
        run_gymnasium_checks(env, skip_render_check=env.render_mode is None)
    for seed in (11, None):  # the reset after a seeded one continues its random numbers
        _assert_same_dict(env.reset(seed=seed), twin.reset(seed=seed))
        env.action_space.seed(1)
        for _ in range(5):
            action = env.action_space.sample()
            ours, theirs = env.step(action), twin.step(action)
            _assert_same_dict((ours[0], ours[4]), (theirs[0], theirs[4]))
            assert ours[1:4] == theirs[1:4]
            if ours[2] or ours[3]:
                break
    first, second = env.reset(seed=1)[0], env.reset(seed=2)[0]
    assert any(not np.array_equal(value, second[key]) for key, value in first.items()), "the seed changes nothing"
    twin.close()

    env.reset(seed=0)
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert np.isfinite(float(reward))
        assert isinstance(info["now_s"], float)
        assert isinstance(info["is_success"], bool)
        assert info["action_sent"].dtype == np.float32
        assert env.action_space.contains(info["action_sent"])
        if terminated or truncated:
            env.reset()
    env.close()
    env.close()


def _assert_same_dict(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key], err_msg=f"two environments differ in '{key}'")


# ------------------------------------------------------------------------------------------------------------ policy


def check_policy(policy: Policy, spec: ActionSpec, observations: Sequence[Observation]) -> None:
    """What every policy keeps, over the observations of one episode in order (two at least).

    Its actions are finite float32 in ``spec``; ``reset`` forgets all that was seen, so that an episode played again
    gives the same actions, and one begun elsewhere acts as if nothing had been before; what is observed is not changed.
    """
    before = [observation.to_dict() for observation in observations]
    first = _act(policy, spec, observations)
    again = _act(policy, spec, observations)
    np.testing.assert_array_equal(first, again, err_msg="the same episode, other actions: reset() does not forget")
    later = _act(policy, spec, observations[1:])
    _act(policy, spec, observations)
    np.testing.assert_array_equal(_act(policy, spec, observations[1:]), later, err_msg="reset() does not forget")
    for observation, values in zip(observations, before, strict=True):
        for name, value in observation.to_dict().items():
            np.testing.assert_array_equal(value, values[name], err_msg=f"act() changed '{name}'")


def _act(policy: Policy, spec: ActionSpec, observations: Sequence[Observation]) -> NDArray[np.float32]:
    import torch

    torch.manual_seed(0)
    policy.reset()
    actions = [policy.act(observation) for observation in observations]
    for action in actions:
        assert action.spec.to_json() == spec.to_json(), "an action of another spec"
        assert action.values.dtype == np.float32
        assert action.values.shape == spec.space.shape
        assert np.isfinite(action.values).all()
    assert not any(np.shares_memory(a.values, b.values) for a, b in itertools.pairwise(actions)), "actions share memory"
    return np.stack([action.values for action in actions])
