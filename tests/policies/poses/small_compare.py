"""A small model that compares, trained in seconds."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from perceive.model import PerceptionModel
from perceive.pose.compare_augment import PoseCompareAugment
from policies.optimisation import make_optimizer
from policies.poses.compare_dataset import PoseCompareDataset
from tests.policies.poses.made import MadeSource, two_models

SIZE, STEPS = 48, 400


def plan() -> dict[str, Any]:
    """Config of the model."""
    encoder = {"_target_": "perceive.encoders.rgbd.RgbdPatchEncoder", "patch_px": 8, "cell_px": 4, "max_depth_m": 100.0}
    return {
        "width": 32,
        "origin": None,
        "ignored_sensors": [],
        "encoders": {"seen": encoder, "drawn": encoder},
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 2, "shortest_m": 0.03, "longest_m": 1.0},
        "heads": {"change": {"_target_": "perceive.heads.pose_change.PoseChangeHead", "channels": 32, "hidden": 64}},
    }


def dataset(count: int = 40, seed: int = 0, **changes: Any) -> PoseCompareDataset:
    """Pairs of two objects, held in memory."""
    source = MadeSource(two_models(), count, seed)
    return PoseCompareDataset("memory", source=source, **{"size_px": SIZE, "wide_px": 64, "variants": 4} | changes)


@functools.cache
def learned() -> tuple[PerceptionModel, list[float]]:
    """The model that several tests look at, and its losses; none of them changes it."""
    torch.manual_seed(0)
    data = dataset()
    model = PerceptionModel.from_config(plan(), data.sensor_spaces, data.history)
    model.train()
    augment = PoseCompareAugment(background=0.1, occluder=0.1, dyed=0.0, whole=False)
    optimizer = make_optimizer(model, 3e-3, 0.01)
    generator, rng, losses = torch.Generator().manual_seed(0), np.random.default_rng(0), []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 10, 1.1 - step / STEPS)
        batch, target = augment(*data.batch(rng.integers(0, len(data), 16)), generator)
        loss = model.loss(batch, {"change": target})["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses
