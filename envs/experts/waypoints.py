"""WaypointExpert: from key pose to key pose, in straight lines and with a rest at each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from envs.experts.base import CLOSED, OPEN, Expert, check_spec, down, pose_action
from envs.robots.base import Robot
from envs.world import PyBulletWorld
from sensors.action import Action, ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import FloatArray, rotation_angle_rad

AVOID, TOUCH = 1.0, -1.0
REST_STEPS = 4  # control steps at rest in each key pose, so that it can be found by the joints' speed
GRIP_STEPS = 6  # control steps in which the fingers close or open
ARRIVED_M, ARRIVED_RAD = 0.004, 0.03
REST_RAD_S = 0.1  # a joint that is slower rests
PATIENCE_STEPS = 12  # at rest for so long, the arm will not come any nearer


@dataclass(frozen=True, eq=False)
class KeyPose:
    """A pose of the tool that matters.

    Attributes:
        position_m: tool point [3], base frame.
        rotation: ``base_from_tool`` rotation [3, 3].
        gripper: -1 closed or 1 open, once the tool is there.
        avoid: 1 = keep clear of everything on the way there, -1 = touching is allowed.
        holding: the body that should be in the hand there, if any.
    """

    position_m: FloatArray
    rotation: FloatArray
    gripper: float
    avoid: float
    holding: int | None = None

    def action(self, spec: ActionSpec) -> Action:
        """It as a key-pose action.

        Raises:
            SpecError: ``spec`` is not of key poses.
        """
        if spec.mode is not ActionMode.KEY_POSE:
            raise SpecError("KeyPose.action", "action mode 'key_pose'", f"'{spec.mode.value}'", "Use key_pose_spec().")
        values = np.empty(spec.size, np.float32)
        values[spec.part("position_m")] = self.position_m
        values[spec.part("rotation_6d")] = (*self.rotation[:, 0], *self.rotation[:, 1])
        values[spec.part("gripper")] = self.gripper
        values[spec.part("avoid")] = self.avoid
        return Action(values, spec)


def pick(body: int, grasp_m: FloatArray, yaw_rad: float, above_m: float) -> list[KeyPose]:
    """Above the grasp, down, close, and up with the body in the hand.

    Args:
        body: what is picked.
        grasp_m: tool point [3] of the grasp, base frame.
        yaw_rad: of the hand, which points down.
        above_m: how much higher the first and the last key pose are.
    """
    high, turn = grasp_m + np.array([0.0, 0.0, above_m]), down(yaw_rad)
    return [
        KeyPose(high, turn, OPEN, AVOID),
        KeyPose(grasp_m, turn, OPEN, TOUCH),
        KeyPose(grasp_m, turn, CLOSED, TOUCH),
        KeyPose(high, turn, CLOSED, TOUCH, body),
    ]


def place(body: int, release_m: FloatArray, yaw_rad: float, above_m: float) -> list[KeyPose]:
    """Above the place with the body in the hand, down, and open; arguments as of :func:`pick`."""
    high, turn = release_m + np.array([0.0, 0.0, above_m]), down(yaw_rad)
    return [
        KeyPose(high, turn, CLOSED, AVOID, body),
        KeyPose(release_m, turn, CLOSED, TOUCH, body),
        KeyPose(release_m, turn, OPEN, TOUCH),
    ]


@final
class WaypointExpert(Expert):
    """Follows the key poses of a plan; plans anew when it has been followed to its end, or has failed.

    It goes to the next key pose in a straight line with the gripper as it was, rests, and then closes or opens the
    gripper as the key pose says. A plan has failed when a body that should be in the hand is not, or when a key pose
    cannot be reached.

    Args:
        world: whose time it is.
        robot: which acts.
        spec: its end-effector-pose actions.
        plan: the key poses from the present state to the end of the task; at least one.
    """

    def __init__(self, world: PyBulletWorld, robot: Robot, spec: ActionSpec, plan: Callable[[], list[KeyPose]]) -> None:
        check_spec("WaypointExpert", spec)
        self._world, self._robot, self._spec, self._plan = world, robot, spec, plan
        self._ahead: list[KeyPose] = []
        self._gripper = OPEN if robot.gripper_m() > robot.description.gripper_open_m / 2 else CLOSED
        self._rested = self._gripped = 0

    def act(self) -> Action:
        """The next action."""
        if not self._ahead or self._finished():
            self._next()
        way = self._ahead[0]
        if self._gripped:
            self._gripper = way.gripper
        return pose_action(self._spec, way.position_m, way.rotation, self._gripper)

    def _finished(self) -> bool:
        """Count the rest at the present key pose and the steps of its grip; whether both are over."""
        way = self._ahead[0]
        if self._gripped:
            self._gripped += 1
            return self._gripped > GRIP_STEPS
        self._rested = self._rested + 1 if self._resting() else 0
        if self._rested < (REST_STEPS if self._there() else PATIENCE_STEPS):
            return False
        if self._gripper == way.gripper:
            return True
        self._gripped = 1
        return False

    def _next(self) -> None:
        done = self._ahead.pop(0) if self._ahead else None
        lost = done is not None and done.holding is not None and self._world.fingers_touching(done.holding) < 2
        if lost or not self._ahead:
            self._ahead = self._plan()
        # Where the arm already rests, only the gripper is left to do.
        still = done is not None and not lost and np.array_equal(self._ahead[0].position_m, done.position_m)
        self._rested = REST_STEPS if still else 0
        self._gripped = int(still and self._ahead[0].gripper != self._gripper)

    def _resting(self) -> bool:
        return bool(np.abs(self._world.joint_state().velocity_rad_s).max() < REST_RAD_S)

    def _there(self) -> bool:
        tool, way = self._robot.tool_pose(), self._ahead[0]
        beside = math.dist(tool[:3, 3], way.position_m)
        return beside < ARRIVED_M and float(rotation_angle_rad(tool[:3, :3], way.rotation)) < ARRIVED_RAD
