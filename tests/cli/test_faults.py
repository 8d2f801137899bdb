"""Faults by config: every file of conf/fault builds and fits around a camera; misspelt names are named."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from perceive.build import build, resolve
from perceive.cli.compose import compose_config
from perceive.cli.faults import with_faults
from sensors.errors import SensorLost, SpecError, WiringError
from sensors.faulty import Fault, Faulty
from sensors.rig import SensorRig
from tests.contracts import check_config, config_files, load_plain
from tests.fake_world import FakeWorld


@pytest.mark.parametrize("path", config_files("fault"), ids=lambda path: path.stem)
def test_every_fault_builds_states_its_arguments_and_acts(path: Path) -> None:
    config = load_plain(path)
    check_config(config)
    assert set(config) - {"_target_"} == set(inspect.signature(resolve(config["_target_"])).parameters)
    assert isinstance(build(config), Fault)
    plain = compose_config("evaluate", ["checkpoint=x"])["env"]
    seen = []
    for env in (plain, with_faults(plain, {"front": config})):
        rig = build(env["rig"])
        assert isinstance(rig, SensorRig)
        rig.open(FakeWorld())
        rig.reset(0.0, seed=0)
        shown = []
        for step in range(60):
            rig.tick(step / 12)
            stream = rig.observe(step / 12).streams["front"]
            shown.append(
                (
                    float(stream.age_s[-1]),
                    bool(stream.valid[-1]),
                    stream.data["depth_m"].tobytes(),
                    stream.data["base_from_camera"].tobytes(),
                )
            )
        seen.append(shown)
        rig.close()
    assert seen[0] != seen[1]


def test_faults_are_chosen_on_the_command_line() -> None:
    words = ["checkpoint=x", "+fault@faults.front=freeze", "faults.front.when.start_s=3", "+fault@faults.wrist=drop"]
    config = compose_config("evaluate", words)
    sensors = with_faults(config["env"], config["faults"])["rig"]["sensors"]
    assert sensors["front"]["faults"][0]["when"]["start_s"] == 3
    front = build(sensors["front"])
    assert isinstance(front, Faulty)
    assert "faults" not in sensors["joints"]


def test_several_faults_of_one_sensor_stand_in_order() -> None:
    config = compose_config("evaluate", ["checkpoint=x"])
    listed = [load_plain(path) for path in config_files("fault") if path.stem in ("disconnect", "delay")]
    sensor = build(with_faults(config["env"], {"front": listed})["rig"]["sensors"]["front"])
    sensor.open(FakeWorld())
    sensor.reset(np.random.default_rng(0))
    assert sensor.read(0.0) is None  # it is late
    with pytest.raises(SensorLost):
        sensor.read(1.5)
    sensor.close()


def test_misspelt_sensors_and_fields_are_named() -> None:
    env = compose_config("evaluate", ["checkpoint=x"])["env"]
    with pytest.raises(WiringError, match="Did you mean 'front'"):
        with_faults(env, {"frnt": {}})
    noise = {"_target_": "sensors.faults.Noise", "std": {"dept_m": 0.1}}
    with pytest.raises(SpecError, match="Did you mean 'depth_m'"):
        build(with_faults(env, {"front": noise})["rig"])
