"""Action: what a policy asks of a robot, and the spec that says what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sensors.errors import SpecError
from sensors.spec import Json, space_from_json, space_to_json


class ActionMode(str, Enum):
    """How the robot reads the numbers.

    ``EE_POSE``: position_m [3] of the tool in the base frame, rotation_6d [6], gripper [1].
    ``EE_DELTA``: position [3] and rotation [3] steps as fractions of the largest allowed step, gripper [1].
    ``JOINT_POSITION``: position_rad [J], gripper [1].
    ``KEY_POSE``: as ``EE_POSE``, and avoid [1]: 1 = keep clear of everything on the way, -1 = touching is allowed. One
    action is one whole move, planned and carried out until the tool is there and the gripper has closed or opened.

    The gripper is -1 (closed) to 1 (open) in every mode.
    """

    EE_POSE = "ee_pose"
    EE_DELTA = "ee_delta"
    JOINT_POSITION = "joint_position"
    KEY_POSE = "key_pose"


@dataclass(frozen=True)
class ActionSpec:
    """The space of an action and the meaning of its parts.

    Attributes:
        mode: how the robot reads it.
        space: Box [A] with physical bounds.
        parts: part name -> (start, stop); the names are those of :class:`ActionMode`.
        period_s: seconds between two actions.
    """

    mode: ActionMode
    space: spaces.Box
    parts: dict[str, tuple[int, int]]
    period_s: float

    @property
    def size(self) -> int:
        """A, the number of entries."""
        return int(self.space.shape[0])

    def part(self, name: str) -> slice:
        """The slice of one part.

        Raises:
            SpecError: this mode has no such part.
        """
        if name not in self.parts:
            raise SpecError(
                f"action mode '{self.mode.value}'", f"one of {sorted(self.parts)}", f"'{name}'", "Use another mode."
            )
        return slice(*self.parts[name])

    def check(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """``values`` as finite float32 [A].

        Raises:
            SpecError: wrong shape, or not finite. Bounds are the safety limiter's business.
        """
        array = np.asarray(values, dtype=np.float32)
        if array.shape != self.space.shape:
            raise SpecError(
                "action",
                f"shape {self.space.shape} ({self.mode.value})",
                f"shape {array.shape}",
                "Match the env's action mode.",
            )
        if not np.isfinite(array).all():
            raise SpecError("action", "finite numbers", np.array2string(array), "Check the policy's output for NaN.")
        return array

    def to_json(self) -> Json:
        """Plain JSON data for file headers."""
        return {
            "mode": self.mode.value,
            "space": space_to_json(self.space),
            "parts": {name: list(span) for name, span in self.parts.items()},
            "period_s": self.period_s,
        }

    @staticmethod
    def from_json(data: Json) -> ActionSpec:
        """The inverse of :meth:`to_json`."""
        space = space_from_json(data["space"])
        if not isinstance(space, spaces.Box):
            raise SpecError("ActionSpec.from_json", "a Box", type(space).__name__, "The file header is damaged.")
        parts = {name: (int(span[0]), int(span[1])) for name, span in data["parts"].items()}
        return ActionSpec(ActionMode(data["mode"]), space, parts, float(data["period_s"]))


@dataclass(frozen=True, eq=False)
class Action:
    """One command.

    Attributes:
        values: float32 [A], in the units of the spec.
        spec: what the numbers mean.
    """

    values: NDArray[np.float32]
    spec: ActionSpec


def key_pose_spec(spec: ActionSpec) -> ActionSpec:
    """The key-pose actions of a robot whose end-effector poses are ``spec``: the same bounds and ``avoid`` after them.

    Raises:
        SpecError: ``spec`` is not an end-effector pose with rotation and gripper.
    """
    missing = {"position_m", "rotation_6d", "gripper"} - set(spec.parts)
    if spec.mode is not ActionMode.EE_POSE or missing:
        raise SpecError(
            "key_pose_spec",
            "action mode 'ee_pose' with rotation and gripper",
            f"'{spec.mode.value}' with {sorted(spec.parts)}",
            "Set rotation: true and gripper: true of the robot.",
        )
    low, high = np.append(spec.space.low, -1.0), np.append(spec.space.high, 1.0)
    space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    return ActionSpec(ActionMode.KEY_POSE, space, {**spec.parts, "avoid": (spec.size, spec.size + 1)}, spec.period_s)


def end_effector_spec(spec: ActionSpec) -> ActionSpec:
    """The inverse of :func:`key_pose_spec`: the end-effector poses, period by period, that lead to key poses.

    Raises:
        SpecError: ``spec`` is not of key poses.
    """
    if spec.mode is not ActionMode.KEY_POSE or spec.part("avoid") != slice(spec.size - 1, spec.size):
        raise SpecError("end_effector_spec", "action mode 'key_pose'", f"'{spec.mode.value}'", "Pass a key-pose spec.")
    space = spaces.Box(spec.space.low[:-1], spec.space.high[:-1], dtype=np.float32)
    parts = {name: span for name, span in spec.parts.items() if name != "avoid"}
    return ActionSpec(ActionMode.EE_POSE, space, parts, spec.period_s)
