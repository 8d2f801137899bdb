"""The part of ``perceive train`` for algorithm=sac and ppo; apart, since stable-baselines3 is slow to import."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from perceive.build import build
from policies.rl import RlResult, train_rl
from sensors.errors import SpecError


def train_rl_job(config: Mapping[str, Any]) -> RlResult:
    """Train in the environment of a config.

    Args:
        config: resolved config of ``perceive train`` (see perceive.cli.schema.TrainSchema); ``output`` takes the
            policy, its log and its state.

    Raises:
        SpecError: no ``rl`` or no ``env``.
        WiringError: model and environment do not fit.
        DataError: nothing whole to resume from.
    """
    for key in ("env", "rl"):
        if config[key] is None:
            raise SpecError(
                "perceive train", f"'{key}' for algorithm={config['algorithm']}", "none", "Choose algorithm=sac."
            )
    return train_rl(
        config["algorithm"],
        partial(build, config["env"], where="env"),
        config["model"],
        build(config["rl"], where="rl"),
        Path(config["output"]),
        resume=config["resume"] is not None,
        progress=config["progress"],
    )
