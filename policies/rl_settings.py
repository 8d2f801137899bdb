"""RlSettings: the numbers of a reinforcement learning run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sensors.errors import SpecError


@dataclass(frozen=True)
class RlSettings:
    """How to train with stable-baselines3.

    Attributes:
        steps: environment steps in all.
        seed: of everything random.
        lr: learning rate.
        gamma: discount per step.
        batch_size: transitions per gradient step.
        hidden: widths of the actor's and the critic's own layers behind the features.
        network: ``"perception"`` (the model's trunk extracts the features) or ``"flat"`` (stable-baselines3's own: all
            observations in one vector; the baseline).
        her: SAC only: hindsight experience replay; the environment needs goals.
        her_goals: relabelled transitions per real one.
        buffer_size: SAC: transitions remembered.
        tau: SAC: share of the new weights in the target network per gradient step.
        learning_starts: SAC: random steps before learning; at least one episode.
        train_every: SAC: environment steps between gradient steps.
        gradient_steps: SAC: gradient steps each time.
        rollout_steps: PPO: steps per update, over all environments.
        epochs: PPO: passes over them.
        envs: PPO: environments in this process.
        entropy: PPO: weight of the entropy bonus. SAC tunes its own.
        device: torch device, or ``"auto"``.
        threads: torch's threads; 0 = as they are. Networks this small are fastest with 1.
        checkpoint_every: environment steps per checkpoint; 0 = only at the end.
        log_every: episodes (SAC) or updates (PPO) per row of the log.
        tensorboard: write TensorBoard files too.

    Raises:
        SpecError: a value that makes no sense.
    """

    steps: int = 10_000
    seed: int = 0
    lr: float = 1e-3
    gamma: float = 0.95
    batch_size: int = 256
    hidden: Sequence[int] = (128, 128)
    network: str = "perception"
    her: bool = False
    her_goals: int = 4
    buffer_size: int = 100_000
    tau: float = 0.02
    learning_starts: int = 500
    train_every: int = 1
    gradient_steps: int = 1
    rollout_steps: int = 2048
    epochs: int = 10
    envs: int = 4
    entropy: float = 0.0
    device: str = "cpu"
    threads: int = 1
    checkpoint_every: int = 0
    log_every: int = 10
    tensorboard: bool = True

    def __post_init__(self) -> None:
        legal = {
            "steps": self.steps >= 1,
            "seed": self.seed >= 0,
            "lr": self.lr > 0,
            "gamma": 0 < self.gamma <= 1,
            "batch_size": self.batch_size >= 2,
            "hidden": len(self.hidden) > 0 and all(width >= 1 for width in self.hidden),
            "network": self.network in ("perception", "flat"),
            "her_goals": self.her_goals >= 1,
            "buffer_size": self.buffer_size >= 1,
            "tau": 0 < self.tau <= 1,
            "learning_starts": self.learning_starts >= 0,
            "train_every": self.train_every >= 1,
            "gradient_steps": self.gradient_steps >= 1,
            "rollout_steps": self.rollout_steps >= self.envs,
            "epochs": self.epochs >= 1,
            "envs": self.envs >= 1,
            "entropy": self.entropy >= 0,
            "threads": self.threads >= 0,
            "checkpoint_every": self.checkpoint_every >= 0,
            "log_every": self.log_every >= 1,
        }
        for name, good in legal.items():
            if not good:
                fix = "Correct it."
                raise SpecError(
                    f"RlSettings.{name}", "a legal value (see its docstring)", repr(getattr(self, name)), fix
                )
