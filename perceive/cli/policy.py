"""Which policy lies at a path: one trained by imitation, or one trained by reinforcement learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from perceive.build import build
from policies.base import Policy
from policies.learned import LearnedPolicy

RL_FILE = "policy.json"  # policies.rl_policy.DESCRIPTION_FILE; that module is slow to import


def policy_maker(path: str, config: Mapping[str, Any]) -> Callable[[], Policy]:
    """Makes the policy at ``path``; can be sent to another process.

    Args:
        path: run folder, checkpoint, or folder of a saved model.
        config: with ``device``, and for imitation ``use_ema``, ``head``, ``replan_s`` and ``ensemble``.
    """
    if is_rl(path):
        from policies.rl_policy import RlPolicy

        return partial(RlPolicy.load, path, device=config["device"])
    return partial(
        LearnedPolicy.load,
        path,
        device=config["device"],
        use_ema=config["use_ema"],
        head=config["head"],
        replan_s=config["replan_s"],
        ensemble=config["ensemble"],
    )


def env_maker(path: str, env: Mapping[str, Any]) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Makes the environment of a config as the policy at ``path`` wants to see it; can be sent to another process."""
    return partial(_goal_env, env) if is_rl(path) else partial(build, env, where="env")


def is_rl(path: str) -> bool:
    """Whether the policy at ``path`` was trained by reinforcement learning."""
    return any((folder / RL_FILE).is_file() for folder in (Path(path), Path(path, "policy")))


def _goal_env(env: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    from policies.goals import GoalsAsSensors

    return GoalsAsSensors(build(env, where="env"))
