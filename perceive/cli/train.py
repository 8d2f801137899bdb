"""perceive train: from demonstrations, from labelled samples, or by reinforcement learning in the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perceive.build import TARGET, build
from perceive.cli.app import App
from perceive.cli.resume import CONFIG_FILE, saved_run
from perceive.loading import build_model
from perceive.model_base import Model
from perceive.results import write_json
from policies.dataset import dataset_sensors
from policies.imitation import TrainResult, train
from policies.settings import TrainSettings
from policies.training_data import LabelledData, TrainingData
from sensors.errors import DataError, SpecError, WiringError

STEPS = "policies.dataset.EpisodeDataset"
RECORDED_IN = "recorded_in"  # key of the episodes' environment in the config that a checkpoint keeps


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "train",
        "Train: from demonstrations, from labelled samples, or by reinforcement learning in the environment.",
        (
            "perceive train data=runs/lift/episodes",
            "perceive train data=runs/lift/episodes model=regression train.steps=5000 train.device=cpu",
            "perceive train experiment=points_segmentation data=runs/scenes/tabletop",
            "perceive train algorithm=sac env=reach",
            "perceive train resume=runs/train/2026-01-31_12-00-00 train.steps=10000",
        ),
        job,
        saved_run,
    )


def job(config: dict[str, Any]) -> None:
    """Train as the config says and print what came of it."""
    run_dir, resume = Path(config["output"]), config["resume"] is not None
    if not resume:
        if (run_dir / CONFIG_FILE).exists():
            raise DataError(
                str(run_dir), "a new run folder", "one of an earlier run", f"perceive train resume={run_dir}"
            )
        write_json(run_dir / CONFIG_FILE, config)
    if config["algorithm"] in ("imitation", "supervised"):
        how = train_imitation if config["algorithm"] == "imitation" else train_supervised
        result = how(config, run_dir, resume)
        print(
            f"{result.steps} steps, loss {result.loss:.4f}, {result.parameters:,} parameters, "
            f"{result.wall_s:.0f} s.\ncheckpoint: {result.checkpoint}"
        )
    else:
        from perceive.cli.train_rl import train_rl_job  # loaded when asked for: stable-baselines3 is slow to import

        print(train_rl_job(config))


def train_imitation(config: Mapping[str, Any], run_dir: Path, resume: bool) -> TrainResult:
    """Train a model on the episodes in ``config["data"]``.

    Args:
        config: resolved config of ``perceive train`` (see perceive.cli.schema.TrainSchema).
        run_dir: for checkpoints and logs.
        resume: go on from the newest whole checkpoint there.

    Raises:
        SpecError: no ``data``.
        WiringError: model and episodes do not fit.
        DataError: damaged or foreign episodes or checkpoints.
    """
    if config["data"] is None:
        raise SpecError("perceive train", "a folder of episodes", "none", "Give it: data=<folder of perceive collect>.")
    plan = config["model"]
    ignored = set(plan.get("ignored_sensors", ()))
    offered = {
        "folder": config["data"],
        "chunk": chunk_of(plan, config["heads"]),
        "history": config["history"] or None,
        "sensors": [name for name in dataset_sensors(config["data"]) if name not in ignored],
        "on_bad": "skip" if config["skip_bad"] else "raise",
        "limit": config["episodes"] or None,
    }
    # A run that was started before there was a choice has no such entry.
    samples = config.get("dataset") or {TARGET: STEPS}
    dataset: TrainingData = build(samples, where="dataset", offered=offered)
    return _train(config, dataset, run_dir, resume)


def train_supervised(config: Mapping[str, Any], run_dir: Path, resume: bool) -> TrainResult:
    """Train a model on the labelled samples in ``config["data"]``; arguments and errors as of train_imitation."""
    if config["data"] is None:
        raise SpecError("perceive train", "a folder of labelled samples", "none", "Give it: data=<folder>.")
    if config.get("dataset") is None:
        raise SpecError("perceive train", "a dataset", "none", "Choose one: dataset=clouds.")
    offered = {
        "folder": config["data"],
        "on_bad": "skip" if config["skip_bad"] else "raise",
        "limit": config["episodes"] or None,
    }
    dataset: LabelledData = build(config["dataset"], where="dataset", offered=offered)
    return _train(config, dataset, run_dir, resume, dataset.check_classes)


def _train(
    config: Mapping[str, Any],
    dataset: TrainingData,
    run_dir: Path,
    resume: bool,
    check: Callable[[Model, Sequence[str]], None] | None = None,
) -> TrainResult:
    header = dataset.header
    # All recorded sensors, so that one without an encoder is an error and not silently unused.
    history = {**header.history, **dataset.history}
    model = build_model(config["model"], header.sensor_spaces, history, dataset.action_spec)
    if check is not None:
        check(model, config["heads"])
    augment, actions = config["augment"], dataset.action_spec
    offered = {} if actions is None else {"action_spec": actions}
    return train(
        model,
        dataset,
        TrainSettings(**config["train"]),
        run_dir,
        augment=None if augment is None else build(augment, where="augment", offered=offered),
        heads=config["heads"],
        resume=resume,
        config={**config, RECORDED_IN: header.env},
        progress=config["progress"],
    )


def chunk_of(model: Mapping[str, Any], heads: Sequence[str]) -> int:
    """K, the action steps that the heads predict, out of a model's config.

    Raises:
        WiringError: a head is not in the config, or heads differ.
    """
    if TARGET in model:
        return int(model.get("chunk", 1))
    found = set()
    for name in heads:
        if name not in model["heads"]:
            raise WiringError(
                "heads", f"heads of the model: {sorted(model['heads'])}", f"'{name}'", "Correct heads=[...]."
            )
        found.add(int(model["heads"][name].get("chunk", 1)))
    if len(found) != 1:
        raise WiringError("heads", "action heads of one chunk length", f"{sorted(found)}", "Train them apart.")
    return found.pop()
