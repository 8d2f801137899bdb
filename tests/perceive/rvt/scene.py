"""A table with two coloured blocks seen by three ray-traced cameras, and small key-pose models to look at it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from perceive.batch import ActionTarget, Batch, BatchStream
from perceive.loading import build_model
from perceive.rvt.model import KeyPoseModel
from sensors.action import ActionMode, ActionSpec, key_pose_spec
from sensors.geometry import FloatArray, intrinsics_from_fov, look_at
from sensors.instruction import to_bytes
from sensors.spec import box

LOW, HIGH = (0.2, -0.4, -0.02), (0.8, 0.4, 0.5)
SIDE = 48
EYES = {"front": (1.1, 0.0, 0.7), "left": (0.5, 0.65, 0.6), "right": (0.5, -0.65, 0.6)}
COLOURS = {"red": (220, 40, 30), "green": (40, 190, 60), "blue": (40, 70, 220)}
SAYS = {"red": (0.0, 1, -1), "green": (0.8, -1, -1), "blue": (-1.3, 1, 1)}  # yaw, gripper, avoid
HALF = 0.03

_CAMERA = spaces.Dict(
    {
        "rgb": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
        "depth_m": box(0.0, 10.0, (SIDE, SIDE)),
        "intrinsics_px": box(-1e4, 1e4, (4,)),
        "base_from_camera": box(-1e3, 1e3, (4, 4)),
    }
)
SPACES = {
    **dict.fromkeys(EYES, _CAMERA),
    "joints": spaces.Dict({"gripper_m": box(0.0, 0.1, (1,)), "base_from_tool": box(-9.0, 9.0, (4, 4))}),
    "task": spaces.Dict({"text": spaces.Box(0, 255, (64,), np.uint8)}),
}


def make_spec() -> ActionSpec:
    low, high = np.array([*LOW, *[-1.0] * 7], np.float32), np.array([*HIGH, *[1.0] * 7], np.float32)
    parts = {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}
    return key_pose_spec(ActionSpec(ActionMode.EE_POSE, spaces.Box(low, high), parts, 1 / 12))


def picture(eye: tuple[float, ...], blocks: dict[str, FloatArray]) -> dict[str, NDArray[Any]]:
    """An RGB-D picture of the table z = 0 and cubes on it, by closed-form ray casting."""
    camera = look_at(eye, (0.5, 0.0, 0.05))
    fx, fy, cx, cy = intrinsics = intrinsics_from_fov(SIDE, SIDE, 55.0)
    u, v = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) @ camera[:3, :3].T
    start = camera[:3, 3]
    with np.errstate(divide="ignore"):
        depth = np.where(rays[..., 2] < 0, -start[2] / rays[..., 2], np.inf)
    rgb = np.full((SIDE, SIDE, 3), 150, np.uint8)
    for name, middle in blocks.items():
        near, far = ((middle + sign * HALF - start) / rays for sign in (-1, 1))
        enter = np.minimum(near, far).max(-1)
        hit = (enter < np.maximum(near, far).min(-1)) & (enter < depth) & (enter > 0)
        depth, rgb = np.where(hit, enter, depth), np.where(hit[..., None], np.uint8(COLOURS[name]), rgb)
    depth = np.where(np.isfinite(depth), depth, 0.0).astype(np.float32)
    return {"rgb": rgb, "depth_m": depth, "intrinsics_px": intrinsics, "base_from_camera": camera}


def make_batch(count: int, seed: int = 0) -> tuple[Batch, ActionTarget]:
    """``count`` scenes; the key pose is on top of the block that the instruction names, turned as its colour says."""
    rng = np.random.default_rng(seed)
    spec = make_spec()
    cameras: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in EYES}
    texts, tools, values = [], [], np.zeros((count, 1, spec.size), np.float32)
    for sample in range(count):
        names = list(rng.permutation(list(COLOURS)))[:2]
        places = {n: np.array([rng.uniform(0.35, 0.65), side * rng.uniform(0.08, 0.3), HALF])
                  for n, side in zip(names, (-1, 1), strict=True)}  # fmt: skip
        for name, eye in EYES.items():
            cameras[name].append(picture(eye, places))
        texts.append(to_bytes(f"touch the {names[0]} block", 64))
        tool = np.eye(4)
        tool[:3, 3] = rng.uniform((0.4, -0.2, 0.3), (0.6, 0.2, 0.4))
        tools.append(tool)
        yaw, *flags = SAYS[names[0]]
        values[sample, 0, :3] = places[names[0]] + (0, 0, HALF)
        values[sample, 0, 3:9] = (np.cos(yaw), np.sin(yaw), 0, -np.sin(yaw), np.cos(yaw), 0)
        values[sample, 0, 9:] = flags
    streams = {
        name: _stream({field: np.stack([p[field] for p in pictures]) for field in pictures[0]})
        for name, pictures in cameras.items()
    }
    streams["joints"] = _stream({"base_from_tool": np.stack(tools), "gripper_m": np.full((count, 1), 0.08)})
    streams["task"] = _stream({"text": np.stack(texts)})
    return Batch(streams), ActionTarget(torch.from_numpy(values), torch.ones(count, 1, dtype=torch.bool))


def make_model(kind: str = "trunk", stages: int = 2, **changes: Any) -> KeyPoseModel:
    """A small model for :data:`SPACES`; ``kind`` is "trunk" or "rvt2". ``stages.NAME`` changes a stage."""
    size = {"views": 3, "size_px": 56, "patch_px": 14, "language_width": 16, "proprio": 10, "token_width": 32}
    size |= {"width": 64, "depth": 2, "heads": 2}
    if kind == "trunk":
        part = {"_target_": "perceive.rvt.trunk_network.TrunkNetwork", "faces": ["top", "front", "right"]}
    else:
        part = {"_target_": "perceive.rvt.network.Rvt2Network", "head_width": 32, "language_tokens": 8, "dropout": 0.0}
    part |= {key[7:]: changes.pop(key) for key in list(changes) if key.startswith("stages.")}
    config = {
        "_target_": "perceive.rvt.model.KeyPoseModel",
        "cameras": list(EYES),
        "low_m": list(LOW),
        "high_m": list(HIGH),
        "views": ["top", "front", "right"],
        "size_px": 56,
        "stages": [size | part | {"with_pose": number == stages - 1} for number in range(stages)],
        "language": {"_target_": "perceive.language.words.WordTable", "width": 16, "tokens": 8},
    }
    torch.manual_seed(0)
    model = build_model(config | changes, SPACES, dict.fromkeys(SPACES, 1), make_spec())
    assert isinstance(model, KeyPoseModel)
    return model


def _stream(data: dict[str, NDArray[Any]]) -> BatchStream:
    count = len(next(iter(data.values())))
    tensors = {
        field: torch.from_numpy(np.ascontiguousarray(v if v.dtype == np.uint8 else v.astype(np.float32)))[:, None]
        for field, v in data.items()
    }
    return BatchStream(tensors, torch.zeros(count, 1), torch.ones(count, 1, dtype=torch.bool))
