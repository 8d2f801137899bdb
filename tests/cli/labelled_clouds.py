"""Small labelled clouds and an untrained model that reads them, as a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceive.loading import build_model
from perceive.points.files.cloud import Boxes, LabelledCloud
from perceive.points.files.store import write_cloud
from policies.checkpoint import save_checkpoint
from policies.clouds.dataset import CloudDataset

CLASSES = ("table", "red", "blue")
KINDS = ("red", "blue")
POINT_HEAD = {
    "_target_": "perceive.heads.point_labels.PointLabelHead", "sensor": "cloud", "classes": list(CLASSES),
    "edge_m": 0.05, "channels": [8, 8], "blocks": [1, 1], "near_tokens": 4, "heads": 2,
}  # fmt: skip
CLASS_HEAD = {"_target_": "perceive.heads.classification.ClassHead", "classes": list(CLASSES), "hidden": 8}
BOX_HEAD = {
    "_target_": "perceive.heads.boxes.BoxHead", "classes": list(KINDS), "hidden": 8, "most": 4, "candidates": 8,
    "least_score": 0.0, "frontless": ["blue"],
}  # fmt: skip
DATASET = {"_target_": "policies.clouds.dataset.CloudDataset", "points": 512}


def scene(number: int) -> LabelledCloud:
    """A table with a red and a blue box on it, a different place for each number."""
    rng = np.random.default_rng(number)
    table = np.stack([rng.uniform(0.2, 0.8, 300), rng.uniform(-0.4, 0.4, 300), np.zeros(300)], axis=1)
    middle_m = np.array([[0.4, rng.uniform(-0.3, 0.0), 0.05], [0.6, rng.uniform(0.0, 0.3), 0.05]])
    size_m = np.array([[0.1, 0.06, 0.1], [0.06, 0.06, 0.1]])
    things = [m + s * rng.uniform(-0.5, 0.5, (80, 3)) for m, s in zip(middle_m, size_m, strict=True)]
    semantic = np.repeat([0, 1, 2], [300, 80, 80]).astype(np.int64)
    return LabelledCloud(
        np.concatenate([table, *things]).astype(np.float32),
        "base",
        rgb=np.array([[150, 120, 90], [200, 40, 40], [40, 60, 200]], np.uint8)[semantic],
        semantic=semantic,
        boxes=Boxes(
            middle_m, size_m, np.array([0.3, 0.0]), np.array([0, 1]), np.full((2, 3), np.nan), np.array([-1, -1]),
            np.array([80, 80]),
        ),
        label=number % 2,
        classes=CLASSES,
        box_classes=KINDS,
        name=f"scene_{number}",
    )  # fmt: skip


def write_scenes(folder: Path, count: int = 3) -> Path:
    """A folder of them."""
    for number in range(count):
        write_cloud(folder / f"scene_{number}.npz", scene(number))
    return folder


def write_run(folder: Path, clouds: Path, heads: dict[str, Any], dataset: dict[str, Any] = DATASET) -> Path:
    """An untrained model of these heads, saved as a training would."""
    torch.manual_seed(0)
    plan: dict[str, Any] = {
        "width": 16,
        "origin": None,
        "ignored_sensors": [],
        "encoders": {
            "cloud": {
                "_target_": "perceive.encoders.point_groups.PointGroupEncoder", "groups": 8, "size": 16, "hidden": 8,
                "candidates": 256,
            }
        },
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 1},
        "heads": heads,
    }  # fmt: skip
    data = CloudDataset(clouds, points=512)
    model = build_model(plan, data.sensor_spaces, data.history)
    save_checkpoint(folder, 1, model, model, {}, {"config": {"model": plan, "dataset": dataset}})
    return folder
