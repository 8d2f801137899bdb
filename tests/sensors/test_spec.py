"""Spaces as data, observations as flat dicts, actions: what is written is what is read back."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sensors.action import ActionMode, ActionSpec
from sensors.errors import SafetyStop, SensorError, SpecError, nearest
from sensors.observation import MAX_AGE_S, Observation, Stream, observation_space
from sensors.spec import box, check_array, check_keys, space_from_json, space_to_json

finite32 = st.floats(-1e6, 1e6, width=32)


@given(array_shapes(min_dims=1, max_dims=3, max_side=4).flatmap(lambda s: arrays(np.float32, s, elements=finite32)))
def test_per_element_bounds_survive_json(low: np.ndarray) -> None:
    space = spaces.Dict({"x": spaces.Box(low, low + 1.0, dtype=np.float32), "y": box(0, 255, (2, 2, 3), np.uint8)})
    assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space


@pytest.mark.parametrize(
    "space",
    [
        box(-np.inf, np.inf, (3,)),
        box(-1.0, 1.0, (3,), np.float64),
        box(-(2**62), 2**62, (2,), np.int64),
        spaces.Box(np.zeros((0, 3), np.float32), np.ones((0, 3), np.float32), dtype=np.float32),
        spaces.Box(np.array([0.1, -np.inf]), np.array([0.2, np.inf]), dtype=np.float64),
        spaces.Dict({"nested": spaces.Dict({"x": box(0.0, 1.0, ())})}),
    ],
)
def test_space_json_round_trip(space: spaces.Space[object]) -> None:
    back = space_from_json(json.loads(json.dumps(space_to_json(space))))
    assert back == space
    if isinstance(space, spaces.Box):
        assert back.dtype == space.dtype


def test_spaces_that_are_not_data_are_refused() -> None:
    with pytest.raises(SpecError, match="Discrete"):
        space_to_json(spaces.Discrete(3))
    with pytest.raises(SpecError, match="damaged"):
        space_from_json({"type": "discrete"})


def test_check_array_names_both_sides() -> None:
    with pytest.raises(SpecError, match=r"rgb.*\(2, 2\).*\(2, 3\)"):
        check_array("rgb", np.zeros((2, 3), np.float32), box(0, 1, (2, 2)))
    with pytest.raises(SpecError, match=r"uint8.*float64"):
        check_array("rgb", np.zeros(2), box(0, 255, (2,), np.uint8))
    check_array("x", np.zeros(2), box(0, 1, (2,)))  # float64 into float32 is a matter of precision, not of kind


def test_check_keys_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'depth_m'"):
        check_keys("frame", {"depth_n": 1}, {"depth_m": 1})
    with pytest.raises(SpecError, match="no 'rgb'"):
        check_keys("frame", {"depth_m": 1}, {"depth_m": 1, "rgb": 1})


def _observation(seed: int, steps: int) -> Observation:
    rng = np.random.default_rng(seed)
    streams = {
        name: Stream(
            {"x": rng.normal(size=(steps, 3)).astype(np.float32), "n": rng.integers(0, 255, (steps, 2), np.uint8)},
            rng.uniform(0, 1, steps).astype(np.float32),
            rng.random(steps) < 0.5,
        )
        for name in ("front", "arm/left")
    }
    return Observation(1.25, streams)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_observation_round_trip(seed: int, steps: int) -> None:
    observation = _observation(seed, steps)
    flat = observation.to_dict()
    back = Observation.from_dict(flat | {"desired_goal": np.zeros(3)}, observation.now_s)
    assert back.now_s == observation.now_s
    assert back.streams.keys() == observation.streams.keys()
    for name, stream in observation.streams.items():
        other = back.streams[name]
        np.testing.assert_array_equal(other.age_s, stream.age_s)
        np.testing.assert_array_equal(other.valid, stream.valid)
        assert other.valid.dtype == bool
        assert other.data.keys() == stream.data.keys()
        for field, value in stream.data.items():
            np.testing.assert_array_equal(other.data[field], value)
            assert other.data[field].dtype == value.dtype


def test_the_flat_dict_is_a_copy() -> None:
    observation = _observation(0, 2)
    flat = observation.to_dict()
    flat["front/x"][:] = 7.0
    assert not (observation.streams["front"].data["x"] == 7.0).any()


def test_a_cut_observation_is_named() -> None:
    flat = _observation(0, 1).to_dict()
    del flat["front/valid"]
    with pytest.raises(SpecError, match="front/valid"):
        Observation.from_dict(flat)


def test_zero_is_legal_in_an_observation_space_though_not_in_a_frame() -> None:
    space = observation_space({"s": spaces.Dict({"x": box(2.0, 3.0, (2,))})}, {"s": 3})
    absent = {
        "s/x": np.zeros((3, 2), np.float32),
        "s/age_s": np.full(3, MAX_AGE_S, np.float32),
        "s/valid": np.zeros(3, np.uint8),
    }
    assert space.contains(absent)
    assert not space.contains(absent | {"s/x": np.full((3, 2), 3.5, np.float32)})
    with pytest.raises(SpecError, match="Discrete"):
        observation_space({"s": spaces.Dict({"x": spaces.Discrete(2)})}, {"s": 1})


def test_action_spec_round_trip_and_checks() -> None:
    spec = ActionSpec(
        ActionMode.EE_DELTA, box(-1, 1, (7,)), {"position": (0, 3), "rotation": (3, 6), "gripper": (6, 7)}, 1 / 12
    )
    back = ActionSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert spec.part("rotation") == slice(3, 6)
    with pytest.raises(SpecError, match="position_m"):
        spec.part("position_m")
    with pytest.raises(SpecError, match=r"\(7,\)"):
        spec.check(np.zeros(6))
    with pytest.raises(SpecError, match="finite"):
        spec.check(np.array([np.nan] * 7))
    assert spec.check(np.zeros(7)).dtype == np.float32


def test_errors_say_four_things_and_cross_processes() -> None:
    for kind in (SpecError, SensorError, SafetyStop):
        error = kind("sensor 'front'", "a picture", "none", "Plug it in.")
        text = "sensor 'front': expected a picture; got none. Plug it in."
        assert str(error) == text
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  (what vector environments do with exceptions)
        assert type(copy) is kind
        assert (str(copy), copy.fix) == (text, "Plug it in.")


def test_nearest() -> None:
    assert nearest("frnt", ["front", "wrist"]) == "Did you mean 'front'?"
    assert nearest("zzz", ["front", "wrist"]) == "Known: front, wrist."
    assert nearest("zzz", []) == "Known: none."
