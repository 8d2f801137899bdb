"""Which policy lies at a path: one trained by imitation, or one trained by reinforcement learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from perceive.build import build
from policies.base import Policy, PolicyFor
from policies.key_pose_policy import KeyPosePolicy
from policies.learned import LearnedPolicy, trained_mode, trained_model
from policies.shuffled import ShuffledPolicy
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError, WiringError

RL_FILE = "policy.json"  # policies.rl_policy.DESCRIPTION_FILE; that module is slow to import


def skill_maker(skill: Mapping[str, Any]) -> PolicyFor:
    """Makes a policy that nobody trained, of conf/skill; can be sent to another process."""
    return PolicyFor(partial(_built, skill))


def _built(skill: Mapping[str, Any], spec: ActionSpec) -> Policy:
    policy = build(skill, where="skill", offered={"spec": spec})
    if not isinstance(policy, Policy):
        raise WiringError("skill", "a Policy", type(policy).__name__, "Choose one of conf/skill.")
    return policy


def policy_maker(path: str, config: Mapping[str, Any], follow: bool = False) -> Callable[[], Policy]:
    """Makes the policy at ``path``; can be sent to another process.

    Args:
        path: run folder, checkpoint, or folder of a saved model.
        config: with ``device``, and for imitation ``use_ema``, ``head``, ``replan_s`` and ``ensemble``, and if wanted
            ``shuffled`` and ``shuffled_from``.
        follow: key poses are led to period by period, for control loops; see policies.key_pose_policy.
    """
    if is_rl(path):
        if config.get("shuffled"):
            got, fix = "one trained by reinforcement learning", "Leave shuffled away."
            raise SpecError("shuffled sensors", "a policy trained by imitation", got, fix)
        from policies.rl_policy import RlPolicy

        return partial(RlPolicy.load, path, device=config["device"])
    chosen = {name: config[name] for name in ("device", "use_ema", "head", "replan_s", "ensemble")}
    maker = partial(load_policy, path, follow=follow, **chosen)
    shuffled = config.get("shuffled")
    return partial(_shuffled, maker, tuple(shuffled), config["shuffled_from"] or "") if shuffled else maker


def load_policy(
    path: str, device: str, use_ema: bool, head: str, replan_s: float, ensemble: bool, follow: bool = False
) -> Policy:
    """The policy of a model trained by imitation: it plays chunks, or predicts key poses; see policies.learned and
    policies.key_pose_policy.

    Raises:
        DataError: no model is at ``path``, or it is damaged.
    """
    model = trained_model(path, device, use_ema)
    spec = model.action_spec
    if spec is not None and spec.mode is ActionMode.KEY_POSE:
        # An evaluation counts episodes in which nothing is seen; a robot's loop is to stop.
        return KeyPosePolicy(model, follow, most_blind=3 if follow else None)
    return LearnedPolicy(model, head, replan_s, ensemble)


def _shuffled(maker: Callable[[], Policy], sensors: tuple[str, ...], folder: str) -> Policy:
    return ShuffledPolicy(maker(), sensors, folder)


def env_maker(path: str, env: Mapping[str, Any]) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Makes the environment of a config as the policy at ``path`` wants to see it; can be sent to another process."""
    return partial(_goal_env, env) if is_rl(path) else partial(build, for_policy(path, env), where="env")


def for_policy(path: str, env: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an environment with whole moves as actions, where the policy at ``path`` predicts key poses."""
    if not is_rl(path) and trained_mode(path) == ActionMode.KEY_POSE.value:
        return {**env, "action_mode": ActionMode.KEY_POSE.value}
    return dict(env)


def is_rl(path: str) -> bool:
    """Whether the policy at ``path`` was trained by reinforcement learning."""
    return any((folder / RL_FILE).is_file() for folder in (Path(path), Path(path, "policy")))


def _goal_env(env: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    from policies.goals import GoalsAsSensors

    return GoalsAsSensors(build(env, where="env"))
