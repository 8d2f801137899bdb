"""A tiny visual task without physics: a camera over a table sees a red square, and the tool is to move onto it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from perceive.model import PerceptionModel
from policies.episodes import EpisodeHeader, EpisodeWriter
from sensors.action import ActionMode, ActionSpec
from sensors.base import Sensor, World
from sensors.frames import Frame, JointFrame, RgbdFrame
from sensors.geometry import intrinsics_from_fov, look_at, unproject
from sensors.observation import Observation
from sensors.rig import SensorRig
from sensors.spec import box
from sensors.timeline import Timing

PERIOD_S = 0.1
SIZE = 24
CAMERA = look_at((0.5, 0.0, 0.6), (0.5, 0.0, 0.0), up=(1.0, 0.0, 0.0))
INTRINSICS = intrinsics_from_fov(SIZE, SIZE, 60.0)
SPEC = ActionSpec(
    ActionMode.EE_POSE,
    spaces.Box(-2.0, 2.0, (10,), np.float32),
    {"position_m": (0, 3), "rotation_6d": (3, 9), "gripper": (9, 10)},
    PERIOD_S,
)


class Scene:
    """What the sensors measure."""

    def __init__(self) -> None:
        self.tool_m = np.zeros(3)
        self.target_m = np.zeros(3)


class PointCamera(Sensor):
    """The camera over the table."""

    def __init__(self, scene: Scene, timing: Timing) -> None:
        self._scene = scene
        self._timing = timing
        depth = np.full((SIZE, SIZE), 0.6, np.float32)
        self._points = unproject(depth, INTRINSICS) @ CAMERA[:3, :3].T + CAMERA[:3, 3]
        self._depth = depth

    @property
    def space(self) -> spaces.Dict:
        return spaces.Dict(
            {
                "rgb": box(0, 255, (SIZE, SIZE, 3), np.uint8),
                "depth_m": box(0.0, 2.0, (SIZE, SIZE)),
                "intrinsics_px": box(-np.inf, np.inf, (4,)),
                "base_from_camera": box(-np.inf, np.inf, (4, 4)),
            }
        )

    @property
    def timing(self) -> Timing:
        return self._timing

    def open(self, world: World | None) -> None: ...

    def reset(self, rng: np.random.Generator) -> None: ...

    def read(self, now_s: float) -> Frame:
        far = np.abs(self._points[..., :2] - self._scene.target_m[:2]).max(-1)
        rgb = np.full((SIZE, SIZE, 3), 60, np.uint8)
        rgb[..., 0] = 60 + 195 * np.clip((0.05 - far) / 0.03, 0, 1)
        return RgbdFrame(
            stamp_s=now_s,
            rgb=rgb,
            depth_m=self._depth,
            intrinsics_px=INTRINSICS.astype(np.float32),
            base_from_camera=CAMERA.astype(np.float32),
        )

    def close(self) -> None: ...


class PointJoints(Sensor):
    """Where the tool is."""

    def __init__(self, scene: Scene, timing: Timing) -> None:
        self._scene = scene
        self._timing = timing

    @property
    def space(self) -> spaces.Dict:
        anything = {"position_rad": (2,), "velocity_rad_s": (2,), "gripper_m": (1,), "base_from_tool": (4, 4)}
        return spaces.Dict({name: box(-np.inf, np.inf, shape) for name, shape in anything.items()})

    @property
    def timing(self) -> Timing:
        return self._timing

    def open(self, world: World | None) -> None: ...

    def reset(self, rng: np.random.Generator) -> None: ...

    def read(self, now_s: float) -> Frame:
        pose = np.eye(4, dtype=np.float32)
        pose[:3, 3] = self._scene.tool_m
        two = np.full(2, now_s, np.float32)
        return JointFrame(
            stamp_s=now_s, position_rad=two, velocity_rad_s=-two, gripper_m=np.ones(1, np.float32), base_from_tool=pose
        )

    def close(self) -> None: ...


class PointEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """The task. Success: the tool within 15 mm of the square's middle."""

    def __init__(self, camera: Timing | None = None, joints: Timing | None = None, max_steps: int = 15) -> None:
        self._scene = Scene()
        self.rig = SensorRig(
            {
                "front": PointCamera(self._scene, camera or Timing(10.0)),
                "joints": PointJoints(self._scene, joints or Timing(10.0)),
            }
        )
        self.rig.open(None)
        self.action_spec = SPEC
        self.observation_space = self.rig.space
        self.action_space = SPEC.space
        self.now_s = 0.0
        self._steps, self._max_steps = 0, max_steps

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        super().reset(seed=seed)
        self._scene.target_m = np.array([0.5, 0.0, 0.0]) + np.append(self.np_random.uniform(-0.2, 0.2, 2), 0.0)
        self._scene.tool_m = np.array([0.5, 0.0, 0.2]) + self.np_random.uniform(-0.1, 0.1, 3)
        self._steps, self.now_s = 0, 0.0
        self.rig.reset(0.0, int(self.np_random.integers(2**31)))
        self.rig.tick(0.0)
        return self._observe(), self._info(np.zeros(10, np.float32))

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        way = action[:3] - self._scene.tool_m
        self._scene.tool_m = self._scene.tool_m + way * min(1.0, 0.06 / max(float(np.linalg.norm(way)), 1e-9))
        self._steps += 1
        for tick in range(1, 11):  # sensors may be ten times as fast as the control
            self.rig.tick((self._steps - 1 + tick / 10) * PERIOD_S)
        self.now_s = self._steps * PERIOD_S
        info = self._info(action)
        return self._observe(), 0.0, info["is_success"], self._steps >= self._max_steps, info

    def label(self) -> NDArray[np.float32]:
        """What an expert does: point at the target."""
        return np.array([*self._scene.target_m, 1, 0, 0, 0, 1, 0, 1], np.float32)

    def _observe(self) -> dict[str, NDArray[Any]]:
        return self.rig.observe(self.now_s).to_dict()

    def _info(self, sent: NDArray[Any]) -> dict[str, Any]:
        near = float(np.linalg.norm(self._scene.tool_m - self._scene.target_m)) < 0.015
        return {"now_s": self.now_s, "is_success": near, "action_sent": np.asarray(sent, np.float32)}


def header(env: PointEnv, seed: int) -> EpisodeHeader:
    rig = env.rig
    return EpisodeHeader(rig.sensor_spaces, rig.history, rig.rates_hz, SPEC, seed, {"_target_": "PointEnv"}, "pointer")


def record(folder: Any, seeds: range, env: PointEnv | None = None) -> list[list[Observation]]:
    """Write an episode per seed; returns every observation that was recorded."""
    env = env or PointEnv()
    seen = []
    for seed in seeds:
        values, info = env.reset(seed=seed)
        writer, own, over = EpisodeWriter(folder, seed, header(env, seed)), [], False
        while not over:
            observation, label = Observation.from_dict(values, info["now_s"]), env.label()
            values, _, success, truncated, info = env.step(label)
            writer.add(observation, label, info["action_sent"])
            own.append(observation)
            over = success or truncated
        writer.finish(info["is_success"])
        seen.append(own)
    return seen


def model_config(width: int = 32, depth: int = 1, chunk: int = 4, dropout: float = 0.1) -> dict[str, Any]:
    vector = "perceive.encoders.vector.VectorEncoder"
    return {
        "width": width,
        "origin": "joints",
        "encoders": {
            "front": {"_target_": "perceive.encoders.rgbd.RgbdPatchEncoder", "patch_px": 6},
            "joints": {"_target_": vector, "fields": ["gripper_m"], "pose": "base_from_tool"},
        },
        "trunk": {"_target_": "perceive.trunk.Trunk", "depth": depth, "heads": 2, "dropout": dropout},
        "heads": {"action": {"_target_": "perceive.heads.pointing.PointingHead", "chunk": chunk, "hidden": 32}},
    }


def tiny_model(seed: int = 0, **config: Any) -> PerceptionModel:
    import torch

    torch.manual_seed(seed)
    rig = PointEnv().rig
    return PerceptionModel.from_config(model_config(**config), rig.sensor_spaces, rig.history, SPEC)
