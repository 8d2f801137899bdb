"""The Franka Panda whose actions also say how hard its fingers press."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.robots.arm import Arm
from envs.robots.base import Robot
from envs.robots.description import RobotDescription
from envs.robots.panda import Panda
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray


@final
class ForcePanda(Robot):
    """A :class:`envs.robots.panda.Panda` with one more number at the end of its actions: ``grip_growth_1_s``.

    Fingers that close on something press it with a set force each. An action lets that force grow (or shrink, if it is
    negative) by e in 1 / ``grip_growth_1_s`` seconds, within ``grip_least_N`` and ``gripper_force_N``; 0 keeps it. So
    equal actions mean equal care for light and for heavy things, and a learner's small errors do not add up to another
    force while it means to hold. Key poses are no mode of this robot, as a whole move has no force.

    Args:
        workspace_low_m: lowest corner [3] of the box that the tool point is kept in, base frame.
        workspace_high_m: highest corner [3].
        rotation: whether actions turn the tool.
        gripper: whether actions move the gripper; it has to be true, as the force is that of a gripper that is moved.
        max_linear_m_s: speed limit of the tool point.
        max_angular_rad_s: limit of the tool's turn rate.
        leash_m: largest distance between commanded and real tool point.
        gripper_force_N: the greatest force.
        grip_least_N: the smallest force; less would not move the fingers for certain.
        grip_start_N: the force before the first action.
        max_growth_1_s: the greatest growth either way that can be asked for.
        mesh_fraction: share of the visual meshes' triangles that is kept; 1 = the stock meshes.

    Raises:
        SpecError: an argument is out of its range.
    """

    def __init__(
        self,
        workspace_low_m: Sequence[float] = (0.25, -0.35, 0.005),
        workspace_high_m: Sequence[float] = (0.75, 0.35, 0.5),
        rotation: bool = True,
        gripper: bool = True,
        max_linear_m_s: float = 0.5,
        max_angular_rad_s: float = 2.0,
        leash_m: float = 0.06,
        gripper_force_N: float = 20.0,  # noqa: N803  (units keep their own capital letter)
        grip_least_N: float = 0.5,  # noqa: N803
        grip_start_N: float = 1.0,  # noqa: N803
        max_growth_1_s: float = 3.0,
        mesh_fraction: float = 0.05,
    ) -> None:
        if not gripper:
            raise SpecError("ForcePanda, gripper", "true", "false", "Use envs.robots.panda.Panda without a gripper.")
        if not 0 < grip_least_N <= grip_start_N <= gripper_force_N:
            got = f"{grip_least_N}, {grip_start_N}, {gripper_force_N}"
            expected = "0 < grip_least_N <= grip_start_N <= gripper_force_N"
            raise SpecError("ForcePanda, forces", expected, got, "Use 0.5, 1 and 20.")
        if not max_growth_1_s > 0:
            raise SpecError("ForcePanda, max_growth_1_s", "a number > 0", repr(max_growth_1_s), "Use 3.")
        self._panda = Panda(
            workspace_low_m,
            workspace_high_m,
            rotation,
            gripper,
            max_linear_m_s,
            max_angular_rad_s,
            leash_m,
            gripper_force_N,
            mesh_fraction,
        )
        self._least, self._most = float(grip_least_N), float(gripper_force_N)
        self._start, self._max_growth = float(grip_start_N), float(max_growth_1_s)
        self._grip = self._start

    @property
    def description(self) -> RobotDescription:
        """Its model file and the meaning of its parts."""
        return self._panda.description

    def action_spec(self, mode: ActionMode, period_s: float) -> ActionSpec:
        """Bounds and parts of the actions of a mode; the last part is ``grip_growth_1_s`` [1].

        Raises:
            SpecError: key poses.
        """
        if mode is ActionMode.KEY_POSE:
            fix = "Use 'ee_pose', or envs.robots.panda.Panda."
            raise SpecError("ForcePanda, action mode", "a mode of single control periods", f"'{mode.value}'", fix)
        plain = self._panda.action_spec(mode, period_s)
        most = self._max_growth
        low, high = np.append(plain.space.low, -most), np.append(plain.space.high, most)
        space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        return ActionSpec(mode, space, {**plain.parts, "grip_growth_1_s": (plain.size, plain.size + 1)}, period_s)

    @property
    def arm(self) -> Arm:
        """Kinematics and limits of its arm."""
        return self._panda.arm

    def attach(self, world: PyBulletWorld) -> None:
        """Load the robot into a world."""
        self._panda.attach(world)

    def reset(self, base_from_tool: FloatArray) -> None:
        """Stand at rest with the tool there, the gripper open, and the force that it starts with.

        Raises:
            SpecError: the pose is out of reach.
        """
        self._panda.reset(base_from_tool)
        self._grip = self._start

    def command(self, values: NDArray[np.float32], spec: ActionSpec) -> NDArray[np.float32]:
        """Start to act on an action; see :meth:`Robot.command`."""
        sent = np.clip(spec.check(values), spec.space.low, spec.space.high)
        grip = spec.part("grip_growth_1_s")
        wanted = self._grip * math.exp(float(sent[grip][0]) * spec.period_s)
        self._grip = min(max(wanted, self._least), self._most)
        self._panda.squeeze(self._grip)
        plain = self._panda.action_spec(spec.mode, spec.period_s)
        sent[: grip.start] = self._panda.command(sent[: grip.start], plain)
        return sent

    def follow(self, position_rad: FloatArray, gripper: float, period_s: float) -> None:
        """Go to joint positions nearby with the force that was asked for last; see :meth:`Robot.follow`."""
        self._panda.follow(position_rad, gripper, period_s)

    @property
    def grip_N(self) -> float:  # noqa: N802
        """The force of each finger now, newton."""
        return self._grip

    @property
    def gripper(self) -> float:
        """What the gripper was told last."""
        return self._panda.gripper

    def tool_pose(self) -> FloatArray:
        """``base_from_tool`` [4, 4] now."""
        return self._panda.tool_pose()

    def gripper_m(self) -> float:
        """Opening between the fingers now, metres."""
        return self._panda.gripper_m()
