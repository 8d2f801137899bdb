"""Expert: a scripted solver that sees the simulator's state, for demonstrations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray

OPEN, CLOSED = 1.0, -1.0


class Expert(ABC):
    """Solves one episode; made anew after every reset."""

    @abstractmethod
    def act(self) -> Action:
        """The next action, an end-effector pose. Call it once per control step."""


def check_spec(name: str, spec: ActionSpec, needs_all: bool = True) -> None:
    """Raise SpecError unless ``spec`` is an end-effector pose, and has rotation and gripper if ``needs_all``."""
    missing = {"position_m", "rotation_6d", "gripper"} - set(spec.parts) if needs_all else set()
    if spec.mode is not ActionMode.EE_POSE or missing:
        raise SpecError(
            name,
            "action mode 'ee_pose' with rotation and gripper",
            f"'{spec.mode.value}' with {sorted(spec.parts)}",
            "Set rotation: true and gripper: true of the robot.",
        )


def down(yaw_rad: float) -> FloatArray:
    """``base_from_tool`` rotation [3, 3] of a tool that points down; at yaw 0 the fingers open along the base's y."""
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def yaw_of(rotation: FloatArray) -> float:
    """The yaw of a tool that points down, or of a body that stands upright, radians."""
    return math.atan2(rotation[1, 0], rotation[0, 0])


def folded(yaw_rad: float, period_rad: float) -> float:
    """The equivalent yaw nearest to 0 of a body that looks the same after each ``period_rad``."""
    return yaw_rad - period_rad * round(yaw_rad / period_rad)


def pose_action(
    spec: ActionSpec, position_m: FloatArray, rotation: FloatArray, gripper: float, growth_1_s: float = math.inf
) -> Action:
    """An end-effector-pose action; rotation, gripper and growth of the grip are left out where the spec has none.

    ``growth_1_s``: of the gripper's force, cut to what the robot can do; by default it soon gives all that it can.
    """
    values = np.empty(spec.size, np.float32)
    values[spec.part("position_m")] = position_m
    if "rotation_6d" in spec.parts:
        values[spec.part("rotation_6d")] = (*rotation[:, 0], *rotation[:, 1])
    if "gripper" in spec.parts:
        values[spec.part("gripper")] = gripper
    if "grip_growth_1_s" in spec.parts:
        part = spec.part("grip_growth_1_s")
        values[part] = np.clip(growth_1_s, spec.space.low[part], spec.space.high[part])
    return Action(values, spec)
