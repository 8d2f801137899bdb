"""The Franka Panda with its two-finger hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.robots.arm import Arm
from envs.robots.base import Robot
from envs.robots.controller import PoseController, SpeedLimits, Workspace
from envs.robots.description import RobotDescription
from envs.robots.kinematics import SerialChain, turned
from envs.robots.panda_model import TOOL_OFFSET_M, panda_urdf
from envs.world import PyBulletWorld
from sensors.action import ActionMode, ActionSpec, key_pose_spec
from sensors.errors import SpecError
from sensors.geometry import FloatArray, rotation_6d_to_matrix

ARM_JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
GRIPPER_OPEN_M = 0.08
REST_RAD = np.array([0.0, -0.2, 0.0, -2.45, 0.0, 2.25, math.pi / 4])  # elbow up, hand down over the table
VELOCITY_SLACK = 1.25  # a joint may go this much faster than the mean of its move, to arrive before the next command


@final
class Panda(Robot):
    """Franka Panda, position controlled.

    In ``EE_POSE`` and ``EE_DELTA`` the tool is led by a commanded pose that moves at limited speed, so a target may be
    far away: it is approached in the following control steps while the target stays.

    Args:
        workspace_low_m: lowest corner [3] of the box that the tool point is kept in, base frame.
        workspace_high_m: highest corner [3].
        rotation: whether actions turn the tool; False keeps the rotation of the start (end-effector modes).
        gripper: whether actions move the gripper; False keeps it closed.
        max_linear_m_s: speed limit of the tool point.
        max_angular_rad_s: limit of the tool's turn rate.
        leash_m: largest distance between commanded and real tool point.
        gripper_force_N: limit of each finger's force; above 25 N the solver needs more iterations to settle a grasp.
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
        mesh_fraction: float = 0.05,
    ) -> None:
        if len(workspace_low_m) != 3 or len(workspace_high_m) != 3:
            raise SpecError(
                "Panda, workspace",
                "two corners of 3 numbers",
                f"{workspace_low_m}, {workspace_high_m}",
                "Give x, y, z.",
            )
        if not gripper_force_N > 0:
            raise SpecError("Panda, gripper_force_N", "a force > 0", repr(gripper_force_N), "Use 20.")
        low, high = tuple(map(float, workspace_low_m)), tuple(map(float, workspace_high_m))
        self._workspace = Workspace((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        self._limits = SpeedLimits(float(max_linear_m_s), float(max_angular_rad_s), float(leash_m))
        self._turns, self._grips = rotation, gripper
        self._gripper_force = self._squeeze = float(gripper_force_N)
        self._description = RobotDescription(
            urdf=panda_urdf(mesh_fraction),
            arm_joints=ARM_JOINTS,
            finger_joints=FINGER_JOINTS,
            wrist_joint="panda_hand_joint",
            tool_link="panda_hand",
            tool_offset_m=TOOL_OFFSET_M,
            gripper_open_m=GRIPPER_OPEN_M,
            foot_links=("panda_link0", "panda_link1"),
        )
        self._chain = SerialChain(self._description.urdf, ARM_JOINTS, "panda_hand", TOOL_OFFSET_M)
        self._arm = Arm(self._chain, REST_RAD, self._limits, self._workspace)
        self._controller = PoseController(self._limits)
        self._force_limit: list[float] = self._chain.max_force.tolist()
        self._world: PyBulletWorld | None = None
        self._joints: FloatArray = REST_RAD.copy()
        self._start_rotation: FloatArray = np.eye(3)
        self._gripper = 1.0

    @property
    def description(self) -> RobotDescription:
        """Its model file and the meaning of its parts."""
        return self._description

    def action_spec(self, mode: ActionMode, period_s: float) -> ActionSpec:
        """Bounds and parts of the actions of a mode.

        Raises:
            SpecError: key poses, of a Panda whose actions lack rotation or gripper.
        """
        if mode is ActionMode.KEY_POSE:
            return key_pose_spec(self.action_spec(ActionMode.EE_POSE, period_s))
        low: list[float] = []
        high: list[float] = []
        parts: dict[str, tuple[int, int]] = {}

        def part(name: str, lowest: Sequence[float], highest: Sequence[float]) -> None:
            parts[name] = (len(low), len(low) + len(lowest))
            low.extend(lowest)
            high.extend(highest)

        if mode is ActionMode.JOINT_POSITION:
            part("position_rad", self._chain.low.tolist(), self._chain.high.tolist())
        elif mode is ActionMode.EE_POSE:
            part("position_m", self._workspace.low_m, self._workspace.high_m)
            if self._turns:
                part("rotation_6d", [-1.0] * 6, [1.0] * 6)
        else:
            part("position", [-1.0] * 3, [1.0] * 3)
            if self._turns:
                part("rotation", [-1.0] * 3, [1.0] * 3)
        if self._grips:
            part("gripper", [-1.0], [1.0])
        space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
        return ActionSpec(mode, space, parts, period_s)

    @property
    def arm(self) -> Arm:
        """Kinematics and limits of its arm."""
        return self._arm

    def attach(self, world: PyBulletWorld) -> None:
        """Load the robot into a world."""
        world.add_robot(self._description)
        self._world = world

    def reset(self, base_from_tool: FloatArray) -> None:
        """Stand at rest with the tool there and the gripper open (closed if actions do not move it).

        Raises:
            SpecError: the pose is out of reach.
        """
        joints, met = self._chain.solve(base_from_tool, REST_RAD, REST_RAD, iterations=30)
        if not met:
            raise SpecError(
                "Panda.reset",
                "a pose within reach",
                np.array2string(base_from_tool[:3, 3]),
                "Start nearer to the robot.",
            )
        self._joints = joints
        self._start_rotation = np.array(base_from_tool[:3, :3])
        self._controller.reset(base_from_tool)
        gripper = GRIPPER_OPEN_M if self._grips else 0.0
        self._gripper = 1.0 if self._grips else -1.0
        self._squeeze = self._gripper_force
        world = self._attached()
        world.place_joints(joints, gripper)
        world.drive(joints.tolist(), self._chain.max_velocity.tolist(), self._force_limit, gripper, self._gripper_force)

    def command(self, values: NDArray[np.float32], spec: ActionSpec) -> NDArray[np.float32]:
        """Start to act on an action; see :meth:`Robot.command`."""
        sent = np.clip(spec.check(values), spec.space.low, spec.space.high)
        if spec.mode is ActionMode.KEY_POSE:
            got, fix = "a key pose, which is a whole move", "Use envs.key_moves.KeyMoves."
            raise SpecError("Panda.command", "an action for one control period", got, fix)
        if spec.mode is ActionMode.JOINT_POSITION:
            joints = sent[spec.part("position_rad")].astype(float)
            self._go(joints, spec.period_s)
            self._controller.reset(self._chain.forward(self._joints))
        else:
            target: FloatArray = np.eye(4)
            if spec.mode is ActionMode.EE_POSE:
                target[:3, 3] = sent[spec.part("position_m")]
                target[:3, :3] = self._rotation(sent, spec)
            else:
                target = self._moved(sent, spec)
            pose = self._controller.advance(target, self.tool_pose(), spec.period_s)
            joints, met = self._chain.solve(pose, self._joints, REST_RAD)
            if not self._go(joints, spec.period_s) or not met:
                # What the joints cannot follow is not commanded either, or the command would run away from the arm.
                self._controller.reset(self._chain.forward(self._joints))
        self._drive(float(sent[spec.part("gripper")][0]) if self._grips else -1.0, spec.period_s)
        return sent

    def follow(self, position_rad: FloatArray, gripper: float, period_s: float) -> None:
        """Go to joint positions nearby; see :meth:`Robot.follow`."""
        self._joints = np.minimum(np.maximum(position_rad, self._chain.low), self._chain.high)
        self._controller.reset(self._chain.forward(self._joints))
        self._drive(gripper if self._grips else -1.0, period_s)

    def squeeze(self, force_N: float) -> None:  # noqa: N803
        """Let each finger give at most this force from the next command on, until :meth:`reset`.

        Raises:
            SpecError: it is not between 0 and ``gripper_force_N``.
        """
        if not 0 < force_N <= self._gripper_force:
            fix = "Raise gripper_force_N, or squeeze less."
            raise SpecError("Panda.squeeze", f"0 < force_N <= {self._gripper_force:g}", repr(force_N), fix)
        self._squeeze = float(force_N)

    @property
    def gripper(self) -> float:
        """What the gripper was told last."""
        return self._gripper

    def tool_pose(self) -> FloatArray:
        """``base_from_tool`` [4, 4] now."""
        return self._attached().link_pose("tool")

    def gripper_m(self) -> float:
        """Opening between the fingers now, metres."""
        return self._attached().joint_state().gripper_m

    def _rotation(self, sent: NDArray[np.float32], spec: ActionSpec) -> FloatArray:
        return rotation_6d_to_matrix(sent[spec.part("rotation_6d")]) if self._turns else self._start_rotation

    def _moved(self, sent: NDArray[np.float32], spec: ActionSpec) -> FloatArray:
        """The commanded pose moved by fractions of the largest steps; the position stays in the workspace."""
        target = self._controller.pose.copy()
        step_m, step_rad = self._limits.linear_m_s * spec.period_s, self._limits.angular_rad_s * spec.period_s
        # The largest step is a length, not one per axis: a diagonal would be faster than the limit and bend.
        target[:3, 3] = self._workspace.clip(target[:3, 3] + _shortened(sent[spec.part("position")]) * step_m)
        if self._turns:
            target[:3, :3] = turned(target[:3, :3], _shortened(sent[spec.part("rotation")]) * step_rad)
        return target

    def _go(self, joints: FloatArray, period_s: float) -> bool:
        """Take over joint targets as far as the velocity limits allow; whether all of the way."""
        change = joints - self._joints
        share = float((np.abs(change) / (self._chain.max_velocity * period_s)).max())
        self._joints = joints if share <= 1 else self._joints + change / share
        return share <= 1

    def _drive(self, opening: float, period_s: float) -> None:
        world = self._attached()
        way = np.abs(self._joints - world.joint_state().position_rad)
        # An even speed over the whole period, not a jump at its start: jerks shake objects out of the hand.
        speed = np.minimum(VELOCITY_SLACK * way / period_s + 0.02, self._chain.max_velocity)
        self._gripper = opening
        gripper = (opening + 1.0) / 2.0 * GRIPPER_OPEN_M
        world.drive(self._joints.tolist(), speed.tolist(), self._force_limit, gripper, self._squeeze)

    def _attached(self) -> PyBulletWorld:
        if self._world is None:
            raise SpecError("Panda", "a robot attached to a world", "none", "Call attach(world) first.")
        return self._world


def _shortened(fractions: NDArray[np.float32]) -> FloatArray:
    vector = fractions.astype(float)
    return vector / max(math.sqrt(float(vector @ vector)), 1.0)
