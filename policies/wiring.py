"""Whether a model and a dataset fit, found out before the first step instead of in the middle of a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perceive.batch import ActionTarget
from perceive.model_base import Model
from policies.schema import check_dataset_fits
from policies.training_data import TrainingData
from sensors.errors import WiringError, nearest


def check_wiring(model: Model, dataset: TrainingData, heads: Sequence[str]) -> None:
    """Raise unless ``model`` can be trained on ``dataset``: sensors, history, heads and what they are to learn.

    Raises:
        DataError: the samples were recorded with other sensors.
        SpecError: targets that a head cannot learn.
        WiringError: everything else; names what does not match.
    """
    check_dataset_fits(str(dataset.folder), model, dataset.header.sensor_spaces)
    for name in model.sensor_names:
        if name not in dataset.sensor_spaces:
            raise WiringError(
                "EpisodeDataset.sensors", f"'{name}', which the model reads", "not loaded", "Add it there."
            )
        if dataset.history[name] != model.config["history"][name]:
            raise WiringError(
                f"sensor '{name}'",
                f"the model's history of {model.config['history'][name]}",
                f"{dataset.history[name]}",
                "Match them.",
            )
    batch, target = dataset.batch([0])
    device = next(model.parameters()).device
    with torch.no_grad():
        results = model(batch.to(device))
    for name in heads:
        if name not in results:
            raise WiringError(
                "train(heads=...)", f"heads of the model {sorted(results)}", f"'{name}'", nearest(name, results)
            )
        if not isinstance(target, ActionTarget):
            with torch.no_grad():
                model.loss(batch.to(device), {name: target.to(device)})  # says itself what does not fit
            continue
        expected, got = tuple(target.values.shape[1:]), tuple(results[name].values.shape[1:])
        if expected != got:
            raise WiringError(
                f"head '{name}'",
                f"chunks [K, A] of {expected}, as the dataset's",
                f"{got}",
                "Make the head's chunk the dataset's.",
            )
