"""A small few-shot model and its data, and references of made objects."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from perceive.model import PerceptionModel
from perceive.pose.augment import PoseCropAugment
from perceive.pose.episode_augment import EpisodeAugment
from perceive.pose.references import Reference
from policies.optimisation import make_optimizer
from policies.poses.few_shot_dataset import FewShotDataset
from tests.policies.poses.made import MadeSource, two_models

SIZE, REFERENCE = 48, 32


def plan() -> dict[str, Any]:
    """Config of the model."""
    return {
        "width": 48,
        "origin": None,
        "ignored_sensors": [],
        "encoders": {
            "crop": {"_target_": "perceive.encoders.rgbd.RgbdPatchEncoder", "patch_px": 8, "cell_px": 4},
            "references": {
                "_target_": "perceive.encoders.reference_views.ReferenceViewEncoder",
                "patch_px": 8,
                "cell_px": 4,
            },
        },
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 2, "heads": 2, "shortest_m": 0.03, "longest_m": 1.0},
        "heads": {
            "coordinates": {
                "_target_": "perceive.heads.query_coordinates.QueryCoordinateHead",
                "channels": 16,
                "told": 8,
            }
        },
    }


@functools.cache
def source() -> MadeSource:
    """Pictures of two objects, of which nothing is hidden."""
    return MadeSource(two_models(), 40)


def dataset(**changes: Any) -> FewShotDataset:
    """Episodes of two objects, held in memory."""
    settings: dict[str, Any] = {
        "shapes": 0,
        "size_px": SIZE,
        "reference_px": REFERENCE,
        "wide_px": 72,
        "source": source(),
    }
    return FewShotDataset("memory", **(settings | changes))


def quiet(turn_rad: float = 0.5, **changes: float) -> EpisodeAugment:
    """Nothing but turns of the object's frame and other cuts, and of the query by so much at most."""
    names = "blind absent background occluder brightness colour_gain hue_rad gamma colour_noise depth_noise holes"
    none: dict[str, Any] = dict.fromkeys(names.split(), 0.0)
    return EpisodeAugment(PoseCropAugment(**none, turn_rad=turn_rad), brightness=0.0, depth_noise=0.0, **changes)


@functools.cache
def learned(steps: int = 60) -> tuple[PerceptionModel, list[float]]:
    """A model of some steps that several tests look at; none of them changes it."""
    data = dataset()
    torch.manual_seed(0)
    model = PerceptionModel.from_config(plan(), data.sensor_spaces, data.history)
    model.train()
    optimizer = make_optimizer(model, 3e-3, 0.01)
    rng, losses = np.random.default_rng(0), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 10, 1.15 - step / steps)
        loss = model.loss(*_pair(data.batch(rng.integers(0, len(data), 12))))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


def _pair(made: tuple[Any, Any]) -> tuple[Any, dict[str, Any]]:
    return made[0], {"coordinates": made[1]}


def references(index: int, pictures: range) -> list[Reference]:
    """References of one of the two objects out of some of the pictures."""
    data = source()
    out = []
    for key in (data.views[k] for k in pictures):
        one = data.truth(key)[index]
        out.append(Reference.make(data.frame(key), data.visible_mask(key, index), one.camera_from_object))
    return out
