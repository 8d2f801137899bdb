"""HoldPolicy: stay where the robot was found. For commissioning, and for testing a robot without a trained policy."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from policies.base import Policy
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import WiringError
from sensors.geometry import matrix_to_rotation_6d
from sensors.observation import Observation


@final
class HoldPolicy(Policy):
    """Commands the pose of the first observation of an episode.

    Args:
        spec: of the actions.
        proprioception: the sensor with ``base_from_tool``, ``position_rad`` and ``gripper_m``.
        gripper_open_m: opening of the gripper that is command 1.
    """

    def __init__(self, spec: ActionSpec, proprioception: str = "joints", gripper_open_m: float = 0.08) -> None:
        self._spec = spec
        self._sensor = proprioception
        self._open_m = gripper_open_m
        self._values: NDArray[np.float32] | None = None

    def reset(self) -> None:
        self._values = None

    def act(self, observation: Observation) -> Action:
        if self._values is None:
            self._values = self._here(observation)
        return Action(self._values.copy(), self._spec)

    def _here(self, observation: Observation) -> NDArray[np.float32]:
        stream = observation.streams.get(self._sensor)
        if stream is None or not stream.valid[-1]:
            got = f"{sorted(observation.streams)}" if stream is None else "no valid frame of it"
            raise WiringError("HoldPolicy", f"the sensor '{self._sensor}'", got, "Name the robot's joint sensor.")
        spec, tool = self._spec, stream.data["base_from_tool"][-1]
        values = np.zeros(spec.size, np.float32)
        parts = {"position_m": tool[:3, 3], "rotation_6d": matrix_to_rotation_6d(tool[:3, :3])}
        if spec.mode is ActionMode.JOINT_POSITION:
            parts = {"position_rad": stream.data["position_rad"][-1]}
        parts["gripper"] = np.clip(2 * stream.data["gripper_m"][-1] / self._open_m - 1, -1, 1)
        for name, value in parts.items():
            if name in spec.parts:
                values[spec.part(name)] = value
        return np.clip(values, spec.space.low, spec.space.high)
