"""SafetyLimits: how far, how fast and how blindly a robot may be moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError


@dataclass(frozen=True)
class SafetyLimits:
    """Bounds of what is sent to a robot. Every one of them is on.

    Attributes:
        workspace_low_m: lowest corner [3] of the box for the tool point, base frame; None takes the bounds of the
            action spec, which only end-effector poses have.
        workspace_high_m: highest corner [3].
        linear_m_s: speed of the commanded tool point.
        angular_rad_s: turn rate of the commanded tool.
        joint_rad_s: speed of every commanded joint.
        joint_margin_rad: distance kept from the joint limits of the action spec.
        lead_m: how far the commanded tool point may be ahead of the measured one; bounds the force of a blocked arm.
        lead_rad: the same for the tool's rotation.
        lead_joint_rad: the same for each joint.
        full_step_m: length of an end-effector-delta step of 1; None = ``linear_m_s`` times the period.
        full_step_rad: angle of one; None = ``angular_rad_s`` times the period.
        gripper_open_m: opening of the gripper that is command 1, to hold it as it is when nothing was sent yet.
        required: sensors without which the robot must not move.
        proprioception: the sensor with ``base_from_tool``, ``position_rad`` and ``gripper_m``.
        max_age_s: a required sensor whose newest sound frame is older than this is stale.
        stop_after_s: the robot is stopped when it has been held for this long.

    Raises:
        SpecError: a value that makes no sense.
    """

    workspace_low_m: Sequence[float] | None = None
    workspace_high_m: Sequence[float] | None = None
    linear_m_s: float = 0.5
    angular_rad_s: float = 2.0
    joint_rad_s: float = 1.5
    joint_margin_rad: float = 0.02
    lead_m: float = 0.15
    lead_rad: float = 0.8
    lead_joint_rad: float = 0.4
    full_step_m: float | None = None
    full_step_rad: float | None = None
    gripper_open_m: float = 0.08
    required: Sequence[str] = ("joints",)
    proprioception: str = "joints"
    max_age_s: float = 0.3
    stop_after_s: float = 1.0

    def __post_init__(self) -> None:
        positive = (
            "linear_m_s", "angular_rad_s", "joint_rad_s", "lead_m", "lead_rad", "lead_joint_rad", "full_step_m",
            "full_step_rad", "gripper_open_m", "max_age_s",
        )  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise SpecError(f"SafetyLimits.{name}", "a finite number > 0", repr(value), "Correct it.")
        for name in ("joint_margin_rad", "stop_after_s"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"SafetyLimits.{name}", "a number >= 0", repr(getattr(self, name)), "Correct it.")
        low, high = self.workspace_low_m, self.workspace_high_m
        if (low is None) != (high is None):
            raise SpecError("SafetyLimits, workspace", "both corners or none", f"{low}, {high}", "Give both.")
        if low is None or high is None:
            return
        if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
            fix = "Give x, y, z of each corner."
            raise SpecError("SafetyLimits, workspace", "low < high in x, y and z", f"{low}, {high}", fix)


def workspace_of(spec: ActionSpec, limits: SafetyLimits) -> tuple[list[float], list[float]]:
    """Corners of the box for the tool point, rounded inwards to float32.

    Raises:
        SpecError: neither limits nor spec give one, or they have no point in common.
    """
    low, high = [-math.inf] * 3, [math.inf] * 3
    if limits.workspace_low_m is not None and limits.workspace_high_m is not None:
        low, high = list(limits.workspace_low_m), list(limits.workspace_high_m)
    if spec.mode is ActionMode.EE_POSE:
        part = spec.part("position_m")
        low = [max(a, b) for a, b in zip(low, spec.space.low[part].tolist(), strict=True)]
        high = [min(a, b) for a, b in zip(high, spec.space.high[part].tolist(), strict=True)]
    if not (all(map(math.isfinite, (*low, *high))) and all(a < b for a, b in zip(low, high, strict=True))):
        raise SpecError(
            "SafetyLimiter, workspace",
            "a box for the tool point",
            f"{low}, {high} with action mode '{spec.mode.value}'",
            "Give SafetyLimits workspace_low_m and workspace_high_m.",
        )
    low32 = [
        float(np.nextafter(np.float32(v), np.float32(np.inf))) if np.float32(v) < v else float(np.float32(v))
        for v in low
    ]
    high32 = [
        float(np.nextafter(np.float32(v), np.float32(-np.inf))) if np.float32(v) > v else float(np.float32(v))
        for v in high
    ]
    return low32, high32
