"""The presets carry the numbers of the config tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from envs.presets import FRONT_CAMERA, IDS, MAX_STEPS, RATE_HZ, WRIST_CAMERA

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize(("name", "preset"), [("front_camera", FRONT_CAMERA), ("wrist_camera", WRIST_CAMERA)])
def test_cameras(name: str, preset: dict[str, Any]) -> None:
    config = yaml.safe_load((CONF / "sensor" / f"{name}.yaml").read_text())
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in preset.items()}
    assert plain == {key: config[key] for key in preset}
    assert config["timing"]["rate_hz"] == RATE_HZ


@pytest.mark.parametrize("task", sorted(IDS.values()))
def test_episode_lengths(task: str) -> None:
    config = yaml.safe_load((CONF / "env" / f"{task}.yaml").read_text())
    assert config["max_steps"] == MAX_STEPS[task]
