"""The rig: noise by seed and name only, sensors switched off, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sensors.errors import SensorError, SpecError
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.fake_world import FakeWorld
from tests.sensors.clock_sensor import ClockSensor, ramp

TIMING = Timing(rate_hz=24.0, delay_s=0.02, jitter_s=0.01, dropout=0.2, history=2)


def _noise(names: tuple[str, ...], seed: Any = 7, disabled: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
    """Name -> everything that a sensor showed in one second: noise, validity and age."""
    world = FakeWorld()
    rig = SensorRig({name: ClockSensor(TIMING) for name in names})
    rig.open(world)
    rig.disable(disabled)
    seen: list[Observation] = [observation for _, observation in ramp(rig, world, 1.0, seed)]
    return {
        name: np.concatenate(
            [
                np.concatenate([o.streams[name].data["noise"].ravel(), o.streams[name].age_s, o.streams[name].valid])
                for o in seen
            ]
        )
        for name in names
    }


def test_same_seed_same_noise_and_another_seed_another() -> None:
    first = _noise(("a", "b"))
    for name, value in _noise(("a", "b")).items():
        np.testing.assert_array_equal(value, first[name])
    for name, value in _noise(("a", "b"), seed=8).items():
        assert not np.array_equal(value, first[name])


def test_sensors_have_noise_of_their_own() -> None:
    noise = _noise(("a", "b", "ab", "ba"))
    values = [value.tobytes() for value in noise.values()]
    assert len(set(values)) == 4


def test_noise_does_not_depend_on_the_other_sensors() -> None:
    alone = _noise(("b",))["b"]
    np.testing.assert_array_equal(_noise(("a", "b"))["b"], alone)
    np.testing.assert_array_equal(_noise(("b", "c", "d"))["b"], alone)
    np.testing.assert_array_equal(_noise(("a", "b"), disabled=frozenset({"a"}))["b"], alone)


def test_seed_sequences_spawned_from_one_parent_differ() -> None:
    first, second = np.random.SeedSequence(3).spawn(2)
    assert not np.array_equal(_noise(("a",), first)["a"], _noise(("a",), second)["a"])
    np.testing.assert_array_equal(_noise(("a",), np.random.SeedSequence(3))["a"], _noise(("a",), 3)["a"])
    np.testing.assert_array_equal(_noise(("a",), first)["a"], _noise(("a",), first)["a"])  # the seed is not used up


def test_a_disabled_sensor_is_not_read_and_shows_nothing() -> None:
    world, on, off = FakeWorld(), ClockSensor(Timing(rate_hz=12.0)), ClockSensor(Timing(rate_hz=12.0))
    rig = SensorRig({"on": on, "off": off})
    rig.open(world)
    rig.disable(frozenset({"off"}))
    for _, observation in ramp(rig, world, 0.5):
        assert not observation.streams["off"].valid.any()
        assert not observation.streams["off"].data["clock_s"].any()
        assert observation.streams["on"].valid.all()
        assert rig.space.contains(observation.to_dict())
    assert (on.reads, off.reads) == (7, 0)
    rig.disable(frozenset())
    assert all(observation.streams["off"].valid.all() for _, observation in ramp(rig, world, 0.5))


def test_names_are_checked() -> None:
    rig = SensorRig({"front": ClockSensor(Timing(rate_hz=12.0))})
    with pytest.raises(SpecError, match="Did you mean 'front'"):
        rig.disable(frozenset({"frnt"}))
    for bad in ("", "a/b"):
        with pytest.raises(SpecError, match="Rename"):
            SensorRig({bad: ClockSensor(Timing(rate_hz=12.0))})


def test_opening_half_way_closes_what_was_open() -> None:
    class _Broken(ClockSensor):  # type: ignore[misc]  # only here: a fault is put into a final class
        def open(self, world: Any) -> None:
            raise SensorError("sensor 'second'", "a device", "nothing", "Plug it in.")

    first, second = ClockSensor(TIMING), _Broken(TIMING)
    rig = SensorRig({"first": first, "second": second})
    with pytest.raises(SensorError, match="Plug it in"):
        rig.open(FakeWorld())
    assert first.closed == 1
    with pytest.raises(SensorError, match="Call open"):
        rig.reset(0.0, 0)


def test_a_closed_rig_refuses_and_closes_twice() -> None:
    rig = SensorRig({"a": ClockSensor(TIMING)})
    with pytest.raises(SensorError, match="Call open"):
        rig.reset(0.0, 0)
    rig.open(FakeWorld())
    rig.reset(0.0, 0)
    rig.close()
    rig.close()
    with pytest.raises(SensorError):
        rig.reset(0.0, 0)


def test_the_empty_rig_is_legal() -> None:
    rig = SensorRig({})
    rig.open(FakeWorld())
    rig.reset(0.0, 0)
    rig.tick(0.0)
    assert rig.observe(0.0).to_dict() == {}
    assert rig.next_due_s == float("inf")


def test_next_due_is_the_earliest() -> None:
    world = FakeWorld()
    rig = SensorRig({"slow": ClockSensor(Timing(rate_hz=2.0)), "fast": ClockSensor(Timing(rate_hz=10.0))})
    rig.open(world)
    rig.reset(1.0, 0)
    assert rig.next_due_s == 1.0
    rig.tick(1.0)
    assert rig.next_due_s == pytest.approx(1.1)
    assert rig.rates_hz == {"slow": 2.0, "fast": 10.0}
