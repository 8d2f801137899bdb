"""A goal environment without physics: a tool moves by deltas towards a point in space."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.action import ActionMode, ActionSpec
from sensors.rig import SensorRig
from sensors.spec import box
from sensors.timeline import Timing
from tests.policies.point_env import PERIOD_S, PointJoints, Scene

SPEC = ActionSpec(ActionMode.EE_DELTA, box(-1, 1, (3,)), {"position": (0, 3)}, PERIOD_S)
STEP_M, NEAR_M = 0.05, 0.03
MODEL: dict[str, Any] = {
    "width": 32,
    "origin": "joints",
    "ignored_sensors": ["achieved_goal"],
    "encoders": {
        "joints": {
            "_target_": "perceive.encoders.vector.VectorEncoder",
            "fields": ["gripper_m"],
            "pose": "base_from_tool",
        },
        "desired_goal": {"_target_": "perceive.encoders.vector.VectorEncoder", "fields": [], "place": "position_m"},
    },
    "trunk": {"_target_": "perceive.trunk.Trunk", "depth": 1, "heads": 2, "mlp_ratio": 1.0},
    "heads": {"features": {"_target_": "perceive.heads.readout.ReadoutHead"}},
}


class GoalEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """Reward 0 within 3 cm of the goal, -1 elsewhere; there it ends."""

    def __init__(self, max_steps: int = 12, goals: bool = True) -> None:
        self._scene = Scene()
        self.rig = SensorRig({"joints": PointJoints(self._scene, Timing(1 / PERIOD_S))})
        self.rig.open(None)
        self.action_spec, self.action_space = SPEC, SPEC.space
        self._goals = goals
        goal = {name: spaces.Box(-10.0, 10.0, (3,), np.float32) for name in ("achieved_goal", "desired_goal")}
        self.observation_space = spaces.Dict({**self.rig.space.spaces, **(goal if goals else {})})
        self._max_steps, self._steps = max_steps, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        super().reset(seed=seed)
        self._scene.tool_m = np.array([0.5, 0.0, 0.2])
        self._scene.target_m = self._scene.tool_m + self.np_random.uniform(-0.15, 0.15, 3)
        self._steps = 0
        self.rig.reset(0.0, 0)
        self.rig.tick(0.0)
        return self._observe(), self._info()

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        self._scene.tool_m = self._scene.tool_m + STEP_M * np.clip(action, -1, 1)
        self._steps += 1
        self.rig.tick(self._steps * PERIOD_S)
        values, info = self._observe(), self._info()
        reward = float(self.compute_reward(self._scene.tool_m, self._scene.target_m, info))
        return values, reward, info["is_success"], self._steps >= self._max_steps, info

    def compute_reward(self, achieved: NDArray[Any], desired: NDArray[Any], info: Any) -> NDArray[np.float32]:
        return -(np.linalg.norm(achieved - desired, axis=-1) >= NEAR_M).astype(np.float32)

    def _observe(self) -> dict[str, NDArray[Any]]:
        scene = self._scene
        goals = {"achieved_goal": scene.tool_m.astype(np.float32), "desired_goal": scene.target_m.astype(np.float32)}
        return self.rig.observe(self._steps * PERIOD_S).to_dict() | (goals if self._goals else {})

    def _info(self) -> dict[str, Any]:
        near = bool(np.linalg.norm(self._scene.tool_m - self._scene.target_m) < NEAR_M)
        return {"now_s": self._steps * PERIOD_S, "is_success": near, "action_sent": np.zeros(3, np.float32)}
