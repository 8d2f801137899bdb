"""Rollout: one episode of a policy in a Gymnasium environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from policies.base import Policy
from sensors.action import Action, ActionSpec
from sensors.errors import WiringError
from sensors.observation import Observation

OnStep = Callable[[Observation, Action, Mapping[str, Any]], None]


class Rig(Protocol):
    """What is asked of an environment's sensors here."""

    def disable(self, names: frozenset[str]) -> None:
        """Act as if these sensors were unplugged."""


@runtime_checkable
class RobotEnvironment(Protocol):
    """What an environment offers besides Gymnasium's interface. ``info`` holds ``now_s`` and ``is_success``."""

    @property
    def action_spec(self) -> ActionSpec:
        """What the numbers of an action mean."""

    @property
    def rig(self) -> Rig:
        """The sensors."""


@dataclass(frozen=True, eq=False)
class EpisodeResult:
    """How an episode went.

    Attributes:
        seed: the environment's seed.
        success: whether ``is_success`` was True at its end.
        steps: control steps taken.
        duration_s: simulated seconds.
        reward: sum of rewards.
        latency_s: float [steps], CPU seconds from Observation to Action.
        film: camera -> uint8 [steps + 1, H, W, 3], for the cameras asked for.
        failed_plans: moves that the robot's planner could not carry out (``info["plan"]``, key poses only).
    """

    seed: int
    success: bool
    steps: int
    duration_s: float
    reward: float
    latency_s: NDArray[np.float64]
    film: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    failed_plans: int = 0


def robot_of(env: gymnasium.Env[Any, Any]) -> RobotEnvironment:
    """The environment inside all wrappers, with its rig and action spec.

    Raises:
        WiringError: it has none.
    """
    inner = env.unwrapped
    if not isinstance(inner, RobotEnvironment):
        raise WiringError(
            "rollout", "an environment with 'rig' and 'action_spec'", type(inner).__name__, "Use one of envs."
        )
    return inner


def rollout(
    env: gymnasium.Env[Any, Any],
    policy: Policy,
    seed: int,
    max_steps: int | None = None,
    on_step: OnStep | None = None,
    film: Sequence[str] = (),
) -> EpisodeResult:
    """Run one episode. Everything random in it follows from ``seed``.

    Args:
        env: observations are the flat dicts of a rig; ``info`` has ``now_s`` and ``is_success``.
        policy: is reset first; its own random numbers (torch's generator) are seeded with ``seed``.
        seed: of the environment.
        max_steps: stop here even if the environment goes on.
        on_step: called after every step with what was seen, what was commanded, and the step's info.
        film: cameras whose pictures to keep.

    Raises:
        WiringError: the policy's action is not of the environment's action spec, or a camera to film is missing.
    """
    spec = robot_of(env).action_spec
    values, info = env.reset(seed=seed)
    torch.manual_seed(seed)
    policy.reset()
    observation = Observation.from_dict(values, info["now_s"])
    pictures: dict[str, list[NDArray[np.uint8]]] = {name: [_picture(observation, name)] for name in film}
    latency_s: list[float] = []
    start_s, reward, success, ended, failed_plans = observation.now_s, 0.0, False, False, 0
    while not ended and (max_steps is None or len(latency_s) < max_steps):
        before_s = time.process_time()
        action = policy.act(observation)
        latency_s.append(time.process_time() - before_s)
        if action.spec is not spec and action.spec.to_json() != spec.to_json():
            raise WiringError(
                "rollout",
                f"actions of the environment: {spec.mode.value} [{spec.size}] every {spec.period_s:.4f} s",
                f"{action.spec.mode.value} [{action.spec.size}] every {action.spec.period_s:.4f} s, or other bounds",
                "Build the environment with the action mode and rate that the policy was trained with.",
            )
        values, step_reward, terminated, truncated, info = env.step(action.values)
        if on_step is not None:
            on_step(observation, action, info)
        observation = Observation.from_dict(values, info["now_s"])
        for name, frames in pictures.items():
            frames.append(_picture(observation, name))
        reward += float(step_reward)
        failed_plans += bool(info.get("plan"))
        success, ended = bool(info["is_success"]), bool(terminated or truncated)
    return EpisodeResult(
        seed=seed,
        success=success,
        steps=len(latency_s),
        duration_s=observation.now_s - start_s,
        reward=reward,
        latency_s=np.asarray(latency_s),
        film={name: np.stack(frames) for name, frames in pictures.items()},
        failed_plans=failed_plans,
    )


def _picture(observation: Observation, name: str) -> NDArray[np.uint8]:
    stream = observation.streams.get(name)
    if stream is None or "rgb" not in stream.data:
        raise WiringError(
            "rollout(film=...)", "a camera of the rig", f"'{name}'", f"Sensors: {sorted(observation.streams)}."
        )
    return np.asarray(stream.data["rgb"][-1], np.uint8).copy()
