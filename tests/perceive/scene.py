"""Synthetic sensors, observations and targets for the tests of ``perceive``; nothing here simulates physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from perceive.batch import ActionTarget, Batch, BatchStream, collate
from perceive.encoders.base import Encoder
from perceive.model import PerceptionModel
from perceive.normalize import FieldStats
from perceive.tokens import Tokens
from sensors.action import ActionMode, ActionSpec
from sensors.geometry import axis_angle_to_matrix, pose
from sensors.instruction import to_bytes
from sensors.observation import Observation, Stream
from sensors.spec import box

Rng = np.random.Generator
MIDDLE_M = np.array([0.5, 0.0, 0.3])  # of everything that is drawn here


def camera_space(height: int = 24, width: int = 24, depth: bool = True) -> spaces.Dict:
    fields: dict[str, spaces.Space[Any]] = {
        "rgb": box(0, 255, (height, width, 3), np.uint8),
        "intrinsics_px": box(0, 1e6, (4,)),
        "base_from_camera": box(-1e3, 1e3, (4, 4)),
    }
    return spaces.Dict(fields | ({"depth_m": box(0, 3, (height, width))} if depth else {}))


JOINTS = spaces.Dict(
    {
        "position_rad": box(-12, 12, (7,)),
        "velocity_rad_s": box(-100, 100, (7,)),
        "gripper_m": box(0, 0.5, (1,)),
        "base_from_tool": box(-1e3, 1e3, (4, 4)),
    }
)
WRENCH = spaces.Dict(
    {"force_N": box(-300, 300, (3,)), "torque_Nm": box(-30, 30, (3,)), "base_from_sensor": box(-1e3, 1e3, (4, 4))}
)
TOUCH = spaces.Dict(
    {"indentation_m": box(0, 0.003, (8, 6)), "base_from_pad": box(-1e3, 1e3, (4, 4)), "size_m": box(0, 1, (2,))}
)
SPACES = {"front": camera_space(), "wrist": camera_space(), "joints": JOINTS, "wrench": WRENCH, "touch": TOUCH}
ONE_INSTANT = dict.fromkeys(SPACES, 1)

SPEC = ActionSpec(
    ActionMode.EE_POSE,
    spaces.Box(np.array([-2] * 3 + [-1] * 7, np.float32), np.array([2] * 3 + [1] * 7, np.float32), dtype=np.float32),
    {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)},
    period_s=1 / 12,
)


def config(head: str = "perceive.heads.pointing.PointingHead", **changes: Any) -> dict[str, Any]:
    """A small model over :data:`SPACES`."""
    patches = {"_target_": "perceive.encoders.rgbd.RgbdPatchEncoder", "patch_px": 12}
    vector = "perceive.encoders.vector.VectorEncoder"
    whole: dict[str, Any] = {
        "width": 32,
        "origin": "joints",
        "encoders": {
            "front": patches,
            "wrist": patches,
            "joints": {"_target_": vector, "fields": ["gripper_m"], "pose": "base_from_tool"},
            "wrench": {"_target_": vector, "fields": ["force_N", "torque_Nm"], "pose": "base_from_sensor"},
            "touch": {"_target_": "perceive.encoders.touch.TouchPatchEncoder", "patch_rows": 4, "patch_columns": 3},
        },
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 2, "heads": 2},
        "heads": {"action": {"_target_": head, "chunk": 4}},
    }
    return whole | changes


def model(seed: int = 0, history: Mapping[str, int] = ONE_INSTANT, **changes: Any) -> PerceptionModel:
    torch.manual_seed(seed)
    return PerceptionModel.from_config(config(**changes), SPACES, history, SPEC)


def fake_frame(space: spaces.Dict, rng: Rng) -> dict[str, NDArray[Any]]:
    """A legal frame of any sensor: transforms are rigid, cameras are pinholes, the rest is drawn from the space."""
    frame: dict[str, NDArray[Any]] = {}
    for name, part in space.spaces.items():
        assert isinstance(part, spaces.Box)
        if part.shape == (4, 4):
            value: NDArray[Any] = pose(rng.uniform(-0.3, 0.3, 3) + MIDDLE_M)
            value[:3, :3] = axis_angle_to_matrix(rng.normal(size=3))
        elif name == "intrinsics_px":
            picture = space.spaces["rgb"].shape
            assert picture is not None
            value = np.array([1.1 * picture[1], 1.1 * picture[1], (picture[1] - 1) / 2, (picture[0] - 1) / 2])
        elif name == "text":
            words = rng.choice(["put", "the", "red", "blue", "block", "on", "into", "drawer"], rng.integers(3, 9))
            value = to_bytes(" ".join(words), part.shape[0])
        elif np.issubdtype(part.dtype, np.integer):
            value = rng.integers(part.low, part.high, endpoint=True)
        else:
            value = rng.uniform(np.maximum(part.low, -2), np.minimum(part.high, 1.5), part.shape)
        if name == "depth_m":
            value = np.where(rng.random(part.shape) < 0.1, 0.0, np.maximum(value, 0.2))
        frame[name] = np.asarray(value, part.dtype)
    if "xyz_m" in frame:
        _fill_workspace(frame)
    return frame


def _fill_workspace(frame: dict[str, NDArray[Any]]) -> None:
    """Make a drawn cloud one of what stands around :data:`MIDDLE_M`, at least half full: elsewhere nobody looks."""
    drawn = frame["xyz_m"]
    share = (drawn - drawn.min(0)) / np.ptp(drawn, 0)
    base = MIDDLE_M + (share - 0.5) * (0.6, 0.8, 0.4)
    for name in frame.keys() & {"base_from_lidar"}:
        base = (base - frame[name][:3, 3]) @ frame[name][:3, :3]
    frame["xyz_m"] = base.astype(drawn.dtype)
    frame["count"] = np.maximum(frame["count"], len(drawn) // 2)


def fake_stream(space: spaces.Dict, rng: Rng, steps: int = 1) -> Stream:
    frames = [fake_frame(space, rng) for _ in range(steps)]
    data = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    age_s = np.linspace(0.1 * (steps - 1), 0.0, steps, dtype=np.float32) + np.float32(0.02)
    return Stream(data, age_s, np.ones(steps, bool))


def fake_batch(
    rng: Rng, size: int = 4, sensors: Mapping[str, spaces.Dict] = SPACES, history: Mapping[str, int] = ONE_INSTANT
) -> Batch:
    return collate(
        [Observation(0.0, {n: fake_stream(s, rng, history[n]) for n, s in sensors.items()}) for _ in range(size)]
    )


def rotations(rng: Rng, *shape: int) -> NDArray[np.float64]:
    return np.asarray(axis_angle_to_matrix(rng.normal(size=(*shape, 3))))


def fake_target(rng: Rng, size: int = 4, chunk: int = 4) -> ActionTarget:
    values = np.zeros((size, chunk, SPEC.size), np.float32)
    values[..., :3] = rng.uniform(-0.3, 0.3, (size, chunk, 3)) + MIDDLE_M
    turn = rotations(rng, size, chunk)
    values[..., 3:9] = np.concatenate([turn[..., 0], turn[..., 1]], -1)
    values[..., 9] = rng.choice([-1.0, 1.0], (size, chunk))
    valid = np.ones((size, chunk), bool)
    valid[-1, chunk // 2 :] = False
    return ActionTarget(torch.from_numpy(values), torch.from_numpy(valid))


def fake_stats(sensor_spaces: Mapping[str, spaces.Dict] = SPACES) -> dict[str, FieldStats]:
    out = {}
    for sensor, space in sensor_spaces.items():
        for name, part in space.spaces.items():
            shape = part.shape or ()
            out[f"{sensor}/{name}"] = FieldStats(*(np.full(shape, x) for x in (0.1, 0.5, -1.0, 1.0)))
    return out


def changed(batch: Batch, sensor: str, stream: BatchStream) -> Batch:
    return Batch({**batch.streams, sensor: stream})


class FreeTokens(Encoder):
    """A test's own encoder: the stream holds the tokens themselves, in any precision.

    Fields: ``features`` [T, D], ``position_m`` [T, 3], ``placed`` [T] (as numbers).
    """

    def __init__(self, space: spaces.Dict, history: int, width: int) -> None:
        super().__init__()
        self._history = history
        self.embed = nn.Linear(width, width)

    @property
    def num_tokens(self) -> int:
        return self._history

    def fit(self, stats: Mapping[str, FieldStats]) -> None:
        pass

    def forward(self, stream: BatchStream) -> Tokens:
        data = stream.data
        return Tokens(
            self.embed(torch.where(stream.valid[..., None], data["features"], 0.0)),
            data["position_m"],
            data["placed"] > 0,
            stream.age_s,
            stream.valid,
        )


def free_stream(rng: Rng, size: int, steps: int, width: int) -> BatchStream:
    """A float64 stream for :class:`FreeTokens`; the last token has no place."""
    placed = torch.ones(size, steps, dtype=torch.float64)
    placed[:, -1] = 0
    data: dict[str, Tensor] = {
        "features": torch.from_numpy(rng.normal(size=(size, steps, width))),
        "position_m": torch.from_numpy(rng.uniform(-0.5, 0.5, (size, steps, 3))),
        "placed": placed,
    }
    age = torch.from_numpy(rng.uniform(0, 0.5, (size, steps)))
    return BatchStream(data, age, torch.ones(size, steps, dtype=torch.bool))
