"""Imitation and supervised learning: train a model, resumable to the bit on CPU, on one process or many.

Every random number is a function of (seed, step): the order of the samples, the augmentation, dropout and the noise of
the heads. So a run that was killed and goes on from its last checkpoint ends with the same weights, averaged weights
and log as a run that was left alone (same machine and thread count; on a GPU up to the order of its atomic sums).

Several processes (``accelerate launch``) share each batch: process r takes samples r, r + n, ... of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from perceive.batch import Batch
from perceive.model_base import Model
from policies.checkpoint import Checkpoint, checkpoint_folders, latest, remove_leftovers, save_checkpoint
from policies.logbook import Logbook
from policies.optimisation import Averaged, learning_rate, make_optimizer, set_learning_rate
from policies.sampling import SampleOrder, extend_digest, step_seed
from policies.schema import schema_hash
from policies.settings import TrainSettings, describe_changes
from policies.training_data import Target, TrainingData
from policies.wiring import check_wiring
from sensors.errors import DataError, PerceiveError, SpecError
from sensors.spec import Json

Augment = Callable[[Batch, Any, torch.Generator], tuple[Batch, Any]]
_HEADS, _AUGMENTATION, _VALIDATION = 1, 2, 3  # purposes of step_seed


class TrainingError(PerceiveError, RuntimeError):
    """Training cannot go on: the loss or a gradient is not a finite number."""


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        checkpoint: folder of the last checkpoint.
        steps: steps done, over all sittings.
        loss: mean training loss over the last log interval.
        validation_loss: on the episodes held back; None if none were.
        wall_s: seconds of training, over all sittings.
        cpu_s: CPU seconds of this process, over all sittings.
        parameters: number of trained numbers.
    """

    checkpoint: Path
    steps: int
    loss: float
    validation_loss: float | None
    wall_s: float
    cpu_s: float
    parameters: int


def train(
    model: Model,
    dataset: TrainingData,
    settings: TrainSettings,
    run_dir: str | Path,
    *,
    augment: Augment | None = None,
    heads: Sequence[str] = ("action",),
    resume: bool = False,
    config: Json | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train ``model`` in place and leave checkpoints, ``metrics.jsonl`` and ``tensorboard/`` in ``run_dir``.

    Args:
        model: built by ``from_config`` for the dataset's sensors; its normalisers are fitted here.
        dataset: with ``chunk`` as long as the heads' chunks and the model's history.
        settings: see TrainSettings.
        run_dir: made if it is missing.
        augment: called with a generator of its own for every step, on CPU tensors.
        heads: the heads to train; each is given the dataset's target.
        resume: go on from the newest whole checkpoint in ``run_dir``; from the start if there is none.
        config: resolved config of the run, kept in every checkpoint.
        progress: show a progress bar with the time that is left.

    Raises:
        DataError: the dataset has other sensors than the model; ``run_dir`` already holds a run and ``resume`` is
            False; the checkpoint is of another model; the disk is full.
        WiringError: a head that the model does not have, or chunks of another length than the dataset's.
        TrainingError: a loss or gradient that is not finite; names the step and the last checkpoint.
    """
    check_wiring(model, dataset, heads)
    run_dir = Path(run_dir)
    found = _starting_point(run_dir, resume)
    with _threads(settings.threads):
        loop = _Loop(model, dataset, settings, run_dir, augment, tuple(heads), found, config or {}, progress)
        return loop.run()


class _Loop:
    """The state of one sitting of a training run."""

    def __init__(
        self,
        model: Model,
        dataset: TrainingData,
        settings: TrainSettings,
        run_dir: Path,
        augment: Augment | None,
        heads: tuple[str, ...],
        found: Checkpoint | None,
        config: Json,
        progress: bool,
    ) -> None:
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)  # a head may have no target
        self._accelerator = Accelerator(cpu=settings.use_cpu, kwargs_handlers=[ddp])
        device = self._accelerator.device
        self._model, self._dataset, self._settings, self._run_dir = model, dataset, settings, run_dir
        self._augment, self._heads, self._progress = augment, heads, progress
        self._bf16 = settings.uses_bf16(device)
        spec = model.action_spec
        self._schema = schema_hash(dataset.sensor_spaces, dataset.history, None if spec is None else spec.to_json())
        self._done, self._digest, self._wall_s, self._cpu_s = 0, 0, 0.0, 0.0
        self._sums: dict[str, float] = {}
        self._validation_loss: float | None = None
        self._loss = math.nan
        if found is None:
            if settings.fit_normalizers:
                model.fit(dataset.stats())
        else:
            self._take_over(found)
        model.to(device).train()
        self._ema = Averaged(model if found is None else found.model(True, str(device)), settings.ema_decay)
        optimizer = make_optimizer(model, settings.lr, settings.weight_decay)
        if found is not None:
            optimizer.load_state_dict(found.optimizer_state(device))
        self._losses, self._optimizer = self._accelerator.prepare(_Losses(model), optimizer)
        mine, back = dataset.split(settings.validation_fraction, settings.seed)
        self._order = SampleOrder(mine, settings.batch_size, settings.seed)
        self._held_back = back[np.linspace(0, len(back) - 1, min(len(back), settings.validation_samples)).astype(int)]
        self._config = config
        self._processes, self._process = self._accelerator.num_processes, self._accelerator.process_index
        if settings.batch_size % self._processes:
            raise SpecError(
                "TrainSettings.batch_size",
                f"a multiple of {self._processes} processes",
                f"{settings.batch_size}",
                "Change it.",
            )

    def run(self) -> TrainResult:
        settings, main = self._settings, self._accelerator.is_main_process
        started_s, started_cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        log = Logbook(self._run_dir, self._done, settings.tensorboard) if main else None
        bar = tqdm(
            total=settings.steps,
            initial=self._done,
            desc="train",
            mininterval=0.5,
            disable=not (self._progress and main),
        )
        path = self._run_dir
        try:
            for step, (batch, target, order) in self._batches():
                self._learn(step, batch, target)
                self._digest = extend_digest(self._digest, order)
                self._done = step + 1
                last = self._done == settings.steps
                save = last or self._done % settings.checkpoint_every == 0
                self._wall_s, self._cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
                if save and len(self._held_back):
                    self._validation_loss = self._validate()
                if last or self._done % settings.log_every == 0:
                    row = self._row(save)
                    if log is not None:
                        log.write(row, {"wall_s": self._wall_s, "steps_per_s": self._done / self._wall_s})
                    bar.set_postfix(loss=f"{self._loss:.4f}", refresh=False)
                bar.update()
                if save:
                    if log is not None:
                        log.sync()
                        path = self._save()
                    self._accelerator.wait_for_everyone()
        finally:
            bar.close()
            if log is not None:
                log.close()
        if self._done and not path.name.startswith("step_"):  # nothing was left to do, or not the process that saves
            path = checkpoint_folders(self._run_dir)[-1]
        count = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        return TrainResult(path, self._done, self._loss, self._validation_loss, self._wall_s, self._cpu_s, count)

    def _batches(self) -> Iterator[tuple[int, tuple[Batch, Target, NDArray[np.int64]]]]:
        """Steps and their data; the next batch is read and augmented in a thread meanwhile."""
        threads = torch.get_num_threads()  # a thread of its own would start with the default number again
        with ThreadPoolExecutor(1, "batches", torch.set_num_threads, (threads,)) as pool:
            ahead: list[Future[tuple[Batch, Target, NDArray[np.int64]]]] = []
            for step in range(self._done, self._settings.steps):
                while len(ahead) < 2 and step + len(ahead) < self._settings.steps:
                    ahead.append(pool.submit(self._load, step + len(ahead)))
                yield step, ahead.pop(0).result()

    def _load(self, step: int) -> tuple[Batch, Target, NDArray[np.int64]]:
        order = self._order.step(step)
        batch, target = self._dataset.batch(order[self._process :: self._processes])
        if self._augment is not None:
            seed = step_seed(self._settings.seed, step, _AUGMENTATION, self._process)
            batch, target = self._augment(batch, target, torch.Generator().manual_seed(seed))
        return batch, target, order

    def _learn(self, step: int, batch: Batch, target: Target) -> None:
        settings, device = self._settings, self._accelerator.device
        set_learning_rate(
            self._optimizer, learning_rate(step, settings.steps, settings.lr, settings.warmup_steps, settings.cosine)
        )
        torch.manual_seed(step_seed(settings.seed, step, _HEADS, self._process))
        targets = {head: target.to(device) for head in self._heads}
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            terms = self._losses(batch.to(device), targets)
        self._accelerator.backward(terms["loss"])
        norm = self._accelerator.clip_grad_norm_(self._losses.parameters(), settings.grad_clip or math.inf)
        values = {name: float(value.detach()) for name, value in terms.items()} | {"grad_norm": float(norm)}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            folders = checkpoint_folders(self._run_dir)
            raise TrainingError(
                f"training step {step + 1}",
                "finite losses and gradients",
                ", ".join(f"{name} = {values[name]}" for name in bad),
                f"Lower lr or check the dataset. Last checkpoint: {folders[-1].name if folders else 'none'}.",
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._ema.update(self._model, step)
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums["_count"] = self._sums.get("_count", 0.0) + 1

    def _row(self, validated: bool) -> dict[str, float | int]:
        """Means since the last row, over all processes."""
        count = self._sums.pop("_count")
        names = list(self._sums)
        sums = torch.tensor([self._sums[name] for name in names], dtype=torch.float64, device="cpu")
        if self._processes > 1:
            sums = self._accelerator.reduce(sums.to(self._accelerator.device), "mean").cpu()
        means = dict(zip(names, (sums / count).tolist(), strict=True))
        self._sums, self._loss = {}, means["loss"]
        row: dict[str, float | int] = {"step": self._done, **means}
        if validated and self._validation_loss is not None:
            row["validation_loss"] = self._validation_loss
        settings = self._settings
        row["lr"] = learning_rate(self._done - 1, settings.steps, settings.lr, settings.warmup_steps, settings.cosine)
        return row | {"epoch": self._order.epoch(self._done), "samples_crc32": self._digest}

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean loss of the averaged weights on the episodes held back, unaugmented."""
        torch.manual_seed(step_seed(self._settings.seed, 0, _VALIDATION))
        total, device, size = 0.0, self._accelerator.device, self._settings.batch_size
        for start in range(0, len(self._held_back), size):
            part = self._held_back[start : start + size]
            batch, target = self._dataset.batch(part)
            terms = self._ema.model.loss(batch.to(device), {head: target.to(device) for head in self._heads})
            total += float(terms["loss"]) * len(part)
        return total / len(self._held_back)

    def _save(self) -> Path:
        state = {
            "settings": asdict(self._settings),
            "config": self._config,
            "schema": self._schema,
            "samples": len(self._dataset),
            "samples_crc32": self._digest,
            "sums": self._sums,
            "loss": self._loss,
            "validation_loss": self._validation_loss,
            "wall_s": self._wall_s,
            "cpu_s": self._cpu_s,
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
        }
        optimizer = self._optimizer.state_dict()
        keep = self._settings.keep_last
        return save_checkpoint(self._run_dir, self._done, self._model, self._ema.model, optimizer, state, keep)

    def _take_over(self, found: Checkpoint) -> None:
        state = found.state
        if state["schema"] != self._schema:
            raise DataError(
                str(found.path),
                f"a checkpoint for this dataset's sensors and actions (schema {self._schema})",
                f"schema {state['schema']}",
                "Resume with the dataset and rig that the run was started with, or use another run folder.",
            )
        describe_changes(state["settings"], asdict(self._settings), state["samples"], len(self._dataset))
        try:
            self._model.load_state_dict(found.model(False).state_dict())
        except RuntimeError as error:
            raise DataError(
                str(found.path), "the same model", str(error).splitlines()[0], "Resume with its own config."
            ) from error
        self._done, self._digest = found.step, int(state["samples_crc32"])
        self._sums = {name: float(value) for name, value in state["sums"].items()}
        self._loss, self._validation_loss = float(state["loss"]), state["validation_loss"]
        self._wall_s, self._cpu_s = float(state["wall_s"]), float(state["cpu_s"])


class _Losses(nn.Module):
    """Makes the loss a forward pass, which is what data-parallel training wraps."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, targets: dict[str, Any]) -> dict[str, Tensor]:
        return self.model.loss(batch, targets)


def _starting_point(run_dir: Path, resume: bool) -> Checkpoint | None:
    if resume:
        remove_leftovers(run_dir)
        return latest(run_dir)
    if checkpoint_folders(run_dir):
        raise DataError(
            str(run_dir), "a new run folder", "one that holds checkpoints", "Pass resume, or another folder."
        )
    return None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run with ``count`` torch threads (0 = as they are), and put the number back."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
