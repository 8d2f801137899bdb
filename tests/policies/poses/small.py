"""A small model of poses, trained in seconds."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from perceive.model import PerceptionModel
from perceive.pose.augment import PoseCropAugment
from policies.optimisation import make_optimizer
from policies.poses.dataset import PoseCropDataset
from tests.policies.poses.made import MadeSource, two_models

SIZE = 48


def plan() -> dict[str, Any]:
    """Config of the model."""
    return {
        "width": 48,
        "origin": None,
        "ignored_sensors": [],
        "encoders": {
            "crop": {"_target_": "perceive.encoders.rgbd.RgbdPatchEncoder", "patch_px": 8, "cell_px": 4},
            "object": {"_target_": "perceive.encoders.vector.VectorEncoder", "fields": ["which"]},
        },
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 2, "heads": 2, "shortest_m": 0.03, "longest_m": 1.0},
        "heads": {
            "coordinates": {
                "_target_": "perceive.heads.object_coordinates.ObjectCoordinateHead",
                "channels": 16,
                "told": 8,
                "regions": 8,
            }
        },
    }


def dataset(count: int = 40, seed: int = 0, **changes: Any) -> PoseCropDataset:
    """Crops of two objects, held in memory."""
    return PoseCropDataset("memory", source=MadeSource(two_models(), count, seed), size_px=SIZE, wide_px=64, **changes)


def trained(data: PoseCropDataset, steps: int, augment: PoseCropAugment | None) -> tuple[PerceptionModel, list[float]]:
    """A model and its losses."""
    torch.manual_seed(0)
    model = PerceptionModel.from_config(plan(), data.sensor_spaces, data.history)
    model.fit(data.stats())
    model.train()
    optimizer = make_optimizer(model, 3e-3, 0.01)
    generator, rng, losses = torch.Generator().manual_seed(0), np.random.default_rng(0), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 10, 1.15 - step / steps)
        batch, target = data.batch(rng.integers(0, len(data), 16))
        if augment is not None:
            batch, target = augment(batch, target, generator)
        loss = model.loss(batch, {"coordinates": target})["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


@functools.cache
def learned() -> tuple[PerceptionModel, list[float]]:
    """The model of 60 steps that several tests look at; none of them changes it."""
    return trained(dataset(), 60, PoseCropAugment(blind=0.1, background=0.1, occluder=0.1))
