"""Reinforcement learning by stable-baselines3, with a PerceptionModel as the features extractor.

SAC (Haarnoja et al., 2018) with hindsight experience replay (Andrychowicz et al., 2017), and PPO (Schulman et al.,
2017).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer
from tqdm import tqdm

from policies.goals import GOAL_KEYS
from policies.logbook import Logbook
from policies.rl_policy import network_arguments
from policies.rl_settings import RlSettings
from policies.rl_state import Learner, load_state, save_state
from policies.rollout import robot_of
from sensors.errors import SpecError, WiringError, nearest
from sensors.spec import Json

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]
ALGORITHMS = ("sac", "ppo")


@dataclass(frozen=True)
class RlResult:
    """What a run came to.

    Attributes:
        run_dir: with ``policy/`` (see policies.rl_policy), ``state/`` to resume and ``model.zip`` for
            stable-baselines3.
        steps: environment steps done in all.
        success_rate: of the last 100 training episodes, exploration included; NaN where there is no success.
        parameters: of the actor.
        wall_s: of this sitting.
        cpu_s: CPU seconds of this sitting, all threads.
    """

    run_dir: str
    steps: int
    success_rate: float
    parameters: int
    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return (
            f"{self.steps:,} steps in {self.wall_s:.0f} s ({self.cpu_s / 60:.1f} CPU minutes), success of the last "
            f"training episodes {100 * self.success_rate:.0f} %, policy of {self.parameters:,} parameters.\n"
            f"policy: {self.run_dir}/policy"
        )


def train_rl(
    algorithm: str,
    make_env: MakeEnv,
    model: Mapping[str, Any] | None,
    settings: RlSettings,
    run_dir: str | Path,
    resume: bool = False,
    progress: bool = False,
) -> RlResult:
    """Train in an environment.

    Args:
        algorithm: ``"sac"`` or ``"ppo"``.
        make_env: makes the environment: flat observations of a rig, ``info`` with ``is_success``.
        model: config of the perception model, for ``settings.network == "perception"``; see PerceptionFeatures.
        settings: numbers.
        run_dir: for the policy, the log, and what is needed to go on.
        resume: go on from the state there.
        progress: show a progress bar.

    Raises:
        SpecError: an unknown algorithm, or settings that do not fit together.
        WiringError: the model does not fit the environment, or hindsight replay without goals.
        DataError: nothing whole to resume from, or no room on the disk.
    """
    if algorithm not in ALGORITHMS:
        raise SpecError(
            "train_rl, algorithm", f"one of {list(ALGORITHMS)}", repr(algorithm), nearest(algorithm, ALGORITHMS)
        )
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    with _threads(settings.threads), contextlib.closing(_vector_env(algorithm, make_env, settings)) as envs:
        spec = robot_of(envs.envs[0]).action_spec
        learner = _learner(algorithm, envs, model, settings)
        done = load_state(folder, learner) if resume else 0
        if resume:
            # Another part of the world's randomness than the one already seen.
            learner.set_random_seed(settings.seed + done)
        plan: Json | None = None if model is None else dict(model)
        save = _Saver(lambda: save_state(folder, learner, algorithm, settings, plan, spec), settings.checkpoint_every)
        log = Logbook(folder, done, settings.tensorboard)
        learner.set_logger(Logger(None, [_LogbookWriter(log)]))
        with (
            contextlib.closing(log),
            tqdm(total=settings.steps, initial=done, desc=algorithm, disable=not progress) as bar,
        ):
            if done < settings.steps:
                learner.learn(
                    settings.steps - done,
                    callback=[_Progress(bar), save],
                    log_interval=settings.log_every,
                    reset_num_timesteps=not resume,
                )
            log.sync()
        save.now()
        learner.save(folder / "model.zip")
        successes = list(learner.ep_success_buffer or [])
    actor = learner.policy.actor if isinstance(learner, SAC) else learner.policy
    return RlResult(
        run_dir=str(folder),
        steps=learner.num_timesteps,
        success_rate=float(np.mean(successes)) if successes else float("nan"),
        parameters=sum(p.numel() for p in actor.parameters()),
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.process_time() - cpu_s,
    )


def _vector_env(algorithm: str, make_env: MakeEnv, settings: RlSettings) -> DummyVecEnv:
    # One process: a small env is faster than the copy of its observations through a pipe.
    count = settings.envs if algorithm == "ppo" else 1
    envs = DummyVecEnv([lambda: Monitor(make_env())] * count)
    if settings.her and algorithm == "sac":
        space = envs.observation_space
        known = set(space.spaces) if isinstance(space, spaces.Dict) else set()
        if not set(GOAL_KEYS) <= known:
            envs.close()
            raise WiringError(
                "train_rl, her",
                f"observations with {list(GOAL_KEYS)}",
                f"{sorted(known)}",
                "Set env.goal_keys=true, or rl.her=false.",
            )
    return envs


def _learner(algorithm: str, envs: DummyVecEnv, model: Mapping[str, Any] | None, settings: RlSettings) -> Learner:
    arguments = network_arguments(settings.network, settings.hidden, model)
    if algorithm == "ppo":
        return PPO(
            "MultiInputPolicy",
            envs,
            learning_rate=settings.lr,
            n_steps=settings.rollout_steps // settings.envs,
            batch_size=settings.batch_size,
            n_epochs=settings.epochs,
            gamma=settings.gamma,
            ent_coef=settings.entropy,
            policy_kwargs=arguments,
            seed=settings.seed,
            device=settings.device,
        )
    return SAC(
        "MultiInputPolicy",
        envs,
        learning_rate=settings.lr,
        buffer_size=settings.buffer_size,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        tau=settings.tau,
        gamma=settings.gamma,
        train_freq=settings.train_every,
        gradient_steps=settings.gradient_steps,
        replay_buffer_class=HerReplayBuffer if settings.her else None,
        replay_buffer_kwargs={"n_sampled_goal": settings.her_goals} if settings.her else None,
        policy_kwargs=arguments,
        seed=settings.seed,
        device=settings.device,
    )


@contextlib.contextmanager
def _threads(count: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@final
class _LogbookWriter(KVWriter):
    """Hands stable-baselines3's figures to the logbook; those of the clock apart from the others."""

    def __init__(self, log: Logbook) -> None:
        self._log = log

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = {k: float(v) for k, v in key_values.items() if isinstance(v, int | float | np.number)}
        timings = {k: v for k, v in numbers.items() if k.startswith("time/")}
        self._log.write({"step": step} | {k: v for k, v in numbers.items() if k not in timings}, timings)

    def close(self) -> None:
        """The logbook is closed by who opened it."""


@final
class _Progress(BaseCallback):
    """Moves the progress bar."""

    def __init__(self, bar: tqdm) -> None:
        super().__init__()
        self._bar = bar

    def _on_step(self) -> bool:
        self._bar.update(self.num_timesteps - self._bar.n)
        successes = self.model.ep_success_buffer
        if successes:
            self._bar.set_postfix_str(f"success {100 * float(np.mean(successes)):.0f} %", refresh=False)
        return True


@final
class _Saver(BaseCallback):
    """Saves every so many steps."""

    def __init__(self, save: Callable[[], None], every: int) -> None:
        super().__init__()
        self._save = save
        self._every = every
        self._next = every

    def now(self) -> None:
        """Save."""
        self._save()

    def _on_training_start(self) -> None:
        self._next = self.num_timesteps + self._every

    def _on_step(self) -> bool:
        if self._every and self.num_timesteps >= self._next:
            self._save()
            self._next = self.num_timesteps + self._every
        return True


def settings_from(data: Mapping[str, Any]) -> RlSettings:
    """Settings from plain data.

    Raises:
        SpecError: an unknown name; the nearest known one is named.
    """
    known = asdict(RlSettings())
    for name in data:
        if name not in known:
            raise SpecError("RlSettings", f"one of {sorted(known)}", f"'{name}'", nearest(name, known))
    return RlSettings(**data)
