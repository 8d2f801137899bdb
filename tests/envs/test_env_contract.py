"""Every file of conf/env builds and keeps the contract of an environment, without being listed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from perceive.build import build
from tests.contracts import check_config, check_env, config_files, load_env


@pytest.mark.parametrize("path", config_files("env"), ids=lambda path: path.stem)
def test_env_contract(path: Path) -> None:
    config = load_env(path.stem)
    check_config(config)

    def make() -> gymnasium.Env[Any, Any]:
        env = build(config)
        assert isinstance(env, gymnasium.Env)
        return env

    check_env(make)


@pytest.mark.parametrize("path", config_files("env"), ids=lambda path: path.stem)
def test_stable_baselines3_accepts_it(path: Path) -> None:
    from stable_baselines3.common.env_checker import check_env as run_sb3_checks

    env = build(load_env(path.stem))
    # Without its recommendations: actions carry physical units here, and poses are 4x4 matrices.
    run_sb3_checks(env, warn=False, skip_render_check=True)
    env.close()


class _Unseeded(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A faulty environment: its start does not come from the seed."""

    observation_space = gymnasium.spaces.Dict({"x": gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        return {"x": np.random.default_rng().random(2, np.float32)}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        return {"x": np.zeros(2, np.float32)}, 0.0, False, False, {}


def test_the_contract_can_fail() -> None:
    with pytest.raises(AssertionError, match=r"seed|differ"):
        check_env(_Unseeded)
