"""Build a fusion model over several sensors in Python, feed it, and take a sensor away.

    python examples/03_fuse_sensors_in_python.py

Every sensor becomes tokens that know where they are (metres, in the robot's base frame), how old they are and whether
they are there. One transformer joins them; each head reads its own result. The sensors here are made up: a camera with
depth, one without, the robot's joints and a fingertip.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from perceive import PerceptionModel, collate
from sensors.action import ActionMode, ActionSpec
from sensors.geometry import look_at, pose
from sensors.observation import Observation, Stream
from sensors.spec import box

MATRIX = box(-10, 10, (4, 4))
CAMERA: dict[str, spaces.Space[Any]] = {
    "rgb": box(0, 255, (48, 48, 3), np.uint8),
    "intrinsics_px": box(0, 1e3, (4,)),
    "base_from_camera": MATRIX,
}
SENSORS = {  # what one frame of each sensor holds; a real rig says it by `rig.sensor_spaces`
    "front": spaces.Dict({**CAMERA, "depth_m": box(0, 3, (48, 48))}),
    "side": spaces.Dict(CAMERA),
    "joints": spaces.Dict({"gripper_m": box(0, 0.1, (1,)), "base_from_tool": MATRIX}),
    "finger": spaces.Dict({"indentation_m": box(0, 0.003, (8, 8)), "base_from_pad": MATRIX, "size_m": box(0, 1, (2,))}),
}
PARTS = {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)}
ACTION = ActionSpec(ActionMode.EE_POSE, box(-2, 2, (10,)), PARTS, period_s=1 / 12)
CONFIG = {
    "width": 64,
    "origin": "joints",  # positions are relative to its tool point
    "encoders": {
        "front": {"_target_": "perceive.encoders.rgbd.RgbdPatchEncoder", "patch_px": 12},
        "side": {"_target_": "perceive.encoders.rgb.RgbPatchEncoder", "patch_px": 12},
        "joints": {
            "_target_": "perceive.encoders.vector.VectorEncoder",
            "fields": ["gripper_m"],
            "pose": "base_from_tool",
        },
        "finger": {"_target_": "perceive.encoders.touch.TouchPatchEncoder", "patch_rows": 4, "patch_columns": 4},
    },
    "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 2, "heads": 4},
    "heads": {
        "action": {"_target_": "perceive.heads.pointing.PointingHead", "chunk": 4},
        "value": {"_target_": "perceive.heads.value.ValueHead"},
    },
}


def frame(sensor: str, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """A made-up frame: random pictures, and every sensor somewhere sensible."""
    data = {name: np.asarray(part.sample()) for name, part in SENSORS[sensor].spaces.items()}
    known = {
        "intrinsics_px": [50, 50, 23.5, 23.5],
        "base_from_camera": look_at([1.0, 0.2 if sensor == "front" else -0.6, 0.6], [0.4, 0.0, 0.0]),
        "base_from_tool": pose([0.4, 0.0, 0.3], [1, 0, 0, 0]),
        "base_from_pad": pose([0.4, 0.04, 0.3]),
        "size_m": [0.016, 0.016],
        "depth_m": rng.uniform(0.5, 1.2, (48, 48)),
    }
    return {name: np.asarray(known.get(name, value), value.dtype) for name, value in data.items()}


def observation(rng: np.random.Generator, absent: str | None = None) -> Observation:
    """What all sensors show; an absent one is there as frames that are not valid, full of NaN."""
    streams: dict[str, Stream] = {}
    for name in SENSORS:
        data = {field: value[None] for field, value in frame(name, rng).items()}
        if name == absent:
            data = {f: np.full_like(v, np.nan) if v.dtype.kind == "f" else v for f, v in data.items()}
        streams[name] = Stream(data, np.full(1, 0.02, np.float32), np.array([name != absent]))
    return Observation(0.0, streams)


torch.manual_seed(0)
model = PerceptionModel.from_config(CONFIG, SENSORS, dict.fromkeys(SENSORS, 1), ACTION).eval()
with torch.no_grad():
    tokens = model.encode(collate([observation(np.random.default_rng(0))]))
    for name, group in tokens.groups.items():
        print(f"{name:7} tokens {group.start:2} to {group.stop - 1:2}, {int(tokens.placed[0, group].sum()):2} placed")
    for absent in (None, *SENSORS):
        results = model(collate([observation(np.random.default_rng(0), absent)]))
        position, value = results["action"].values[0, 0, :3], results["value"].values[0]
        assert torch.isfinite(position).all()
        title = f"without {absent}" if absent else "all sensors"
        print(f"{title:16} position {position.numpy().round(3)} m, value {value.item():+.3f}")
