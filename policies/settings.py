"""TrainSettings: the numbers of a training run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from sensors.errors import SpecError
from sensors.spec import Json

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        steps: optimizer steps in all.
        batch_size: samples per step over all processes.
        lr: highest learning rate.
        weight_decay: of matrices; biases, norms and embeddings have none.
        warmup_steps: linear rise of the learning rate.
        cosine: let the learning rate fall along half a cosine to 2 % of ``lr``; otherwise it stays.
        grad_clip: largest norm of the gradient; 0 = no clipping.
        ema_decay: of the averaged weights, which are what is evaluated.
        log_every: steps per row of the log.
        checkpoint_every: steps per checkpoint (and per look at the episodes held back).
        keep_last: checkpoints kept.
        validation_fraction: part of the episodes held back; 0 = none.
        validation_samples: at most so many samples of them are looked at each time.
        precision: ``"fp32"``, ``"bf16"`` (mixed), or ``"auto"``: bf16 on a GPU or CPU that computes in
            it by itself, fp32 elsewhere.
        seed: of everything random.
        device: ``"cpu"``, or ``"auto"`` for a GPU where there is one.
        threads: torch's threads; 0 = as they are. Small models are often faster with 1 than with all cores.
        fit_normalizers: fit the model's normalisers to the dataset first; False to fine-tune a trained model.
        tensorboard: write TensorBoard files too.

    Raises:
        SpecError: a value that makes no sense.
    """

    steps: int = 3000
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    cosine: bool = True
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    log_every: int = 20
    checkpoint_every: int = 500
    keep_last: int = 3
    validation_fraction: float = 0.0
    validation_samples: int = 512
    precision: str = "auto"
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    fit_normalizers: bool = True
    tensorboard: bool = True

    def __post_init__(self) -> None:
        legal = {
            "steps": self.steps >= 1,
            "batch_size": self.batch_size >= 1,
            "lr": self.lr > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup_steps": self.warmup_steps >= 0,
            "grad_clip": self.grad_clip >= 0,
            "ema_decay": 0 <= self.ema_decay < 1,
            "log_every": self.log_every >= 1,
            "checkpoint_every": self.checkpoint_every >= 1,
            "keep_last": self.keep_last >= 1,
            "validation_fraction": 0 <= self.validation_fraction < 1,
            "validation_samples": self.validation_samples >= 1,
            "precision": self.precision in ("auto", "fp32", "bf16"),
            "seed": self.seed >= 0,
            "device": self.device in ("auto", "cpu"),
            "threads": self.threads >= 0,
        }
        for name, good in legal.items():
            if not good:
                raise SpecError(
                    f"TrainSettings.{name}",
                    "a legal value (see its docstring)",
                    repr(getattr(self, name)),
                    "Correct it.",
                )

    @property
    def use_cpu(self) -> bool:
        """Whether to stay on the CPU even where there is a GPU."""
        return self.device == "cpu"

    def uses_bf16(self, device: torch.device) -> bool:
        """Whether the forward pass runs in bfloat16 on this device."""
        if self.precision == "auto":
            if device.type == "cuda":
                return bool(torch.cuda.is_bf16_supported())
            # Elsewhere it is emulated, at several times the cost of full precision.
            return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
        return self.precision == "bf16"


def describe_changes(before: Json, now: dict[str, Any], samples_before: int, samples_now: int) -> None:
    """Warn of all in which a resumed run differs from how it was started: it is then no longer the same run."""
    changed = [
        f"{name} {before[name]!r} -> {now[name]!r}" for name in now if name in before and before[name] != now[name]
    ]
    if samples_before != samples_now:
        changed.append(f"samples {samples_before} -> {samples_now}")
    if changed:
        _LOG.warning("resumed with other settings than before: %s", "; ".join(changed))
