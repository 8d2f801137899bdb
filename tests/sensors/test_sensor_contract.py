"""Every file of conf/sensor and conf/rig builds and keeps the contract of its kind, without being listed here."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest

from perceive.build import build, resolve
from sensors.base import Sensor
from sensors.camera import RgbdCamera
from sensors.rig import SensorRig
from sensors.timeline import Timing
from tests.contracts import (
    CONF,
    build_sensor,
    check_config,
    check_live_sensor,
    check_sensor,
    config_files,
    load_composed,
    load_plain,
)
from tests.fake_world import FakeWorld


@pytest.mark.parametrize("path", config_files("sensor"), ids=lambda path: path.stem)
def test_sensor_contract(path: Path) -> None:
    sensor = build_sensor(path)
    if sensor.timing.live:
        check_live_sensor(sensor, FakeWorld())
    else:
        check_sensor(sensor, FakeWorld())


@pytest.mark.parametrize("path", config_files("sensor"), ids=lambda path: path.stem)
def test_sensor_configs_state_every_argument(path: Path) -> None:
    config = load_plain(path)
    assert set(config) - {"_target_"} == set(inspect.signature(resolve(config["_target_"])).parameters)


@pytest.mark.parametrize("path", config_files("rig"), ids=lambda path: path.stem)
def test_every_rig_composes_and_observes(path: Path) -> None:
    config = load_composed("rig", path.stem)
    check_config(config)
    rig = build(config)
    assert isinstance(rig, SensorRig)
    if (CONF / "env" / path.name).exists():  # a task's own rig measures at its control rate, or every n-th time
        assert max(rig.rates_hz.values()) == 12.0
        assert all(12.0 % rate == 0 for rate in rig.rates_hz.values())
    rig.open(FakeWorld())
    rig.reset(0.0, seed=0)
    rig.tick(0.0)
    seen = rig.observe(0.0)
    for name, stream in seen.streams.items():  # of a history, the newest and nothing before it
        assert stream.valid.tolist() == [False] * (rig.history[name] - 1) + [True]
    assert rig.space.contains(seen.to_dict())
    rig.close()


def test_the_demo_rig_has_the_agreed_names() -> None:
    rig = build(load_composed("rig", "lift"))
    assert rig.names == ("front", "wrist", "joints", "wrench", "touch_left", "touch_right")


class _SharesItsMemory(Sensor):
    """A faulty sensor: the contract must notice that its frames are one array."""

    def __init__(self) -> None:
        self._camera = RgbdCamera(timing=Timing(rate_hz=12.0), position_m=(0.5, 0.0, 1.0), quaternion_xyzw=(1, 0, 0, 0))
        self._rgb = np.zeros((84, 84, 3), np.uint8)

    space = property(lambda self: self._camera.space)  # type: ignore[assignment]
    timing = property(lambda self: self._camera.timing)  # type: ignore[assignment]

    def open(self, world: object) -> None:
        self._camera.open(world)  # type: ignore[arg-type]

    def reset(self, rng: np.random.Generator) -> None:
        self._camera.reset(rng)

    def read(self, now_s: float) -> object:  # type: ignore[override]
        return dataclasses.replace(self._camera.read(now_s), rgb=self._rgb)

    def close(self) -> None:
        self._camera.close()


def test_the_contract_can_fail() -> None:
    with pytest.raises(AssertionError, match="share 'rgb'"):
        check_sensor(_SharesItsMemory(), FakeWorld())
