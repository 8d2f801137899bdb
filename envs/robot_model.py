"""RobotModel: the robot's links and joints inside the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from envs.opengl import matrix
from envs.robots.description import RobotDescription
from sensors.base import JointState
from sensors.errors import SpecError, nearest
from sensors.geometry import FloatArray

ROBOT_GROUP = 64  # collision group of the robot's links
FINGER_FRICTION = 1.5  # of the fingers; the engine multiplies the coefficients of two surfaces
GRIPPER_GEAR_N = 50.0  # what holds the two fingers at the same opening


@final
class RobotModel:
    """One robot, loaded at the origin.

    Args:
        bullet: the module pybullet.
        client: the physics server.
        description: the model file and the meaning of its parts.

    Attributes:
        description: the model file and the meaning of its parts.
        body: its body id.
        links: name -> index of every link; -1 = the base.
        fingers: indices of the two fingers' links.

    Raises:
        SpecError: the file lacks a joint that the description names.
    """

    def __init__(self, bullet: Any, client: int, description: RobotDescription) -> None:
        self._bullet, self._client, self.description = bullet, client, description
        self.body = int(bullet.loadURDF(str(description.urdf), useFixedBase=True, physicsClientId=client))
        self.links: dict[str, int] = {}
        joints = {}
        for index in range(bullet.getNumJoints(self.body, physicsClientId=client)):
            info = bullet.getJointInfo(self.body, index, physicsClientId=client)
            joints[info[1].decode()] = index
            self.links[info[12].decode()] = index
        self.links[bullet.getBodyInfo(self.body, physicsClientId=client)[0].decode()] = -1
        for name in (*description.arm_joints, *description.finger_joints, description.wrist_joint):
            if name not in joints:
                raise SpecError(str(description.urdf), f"a joint '{name}'", "none", nearest(name, joints))
        self._arm = [joints[name] for name in description.arm_joints]
        self.fingers = [joints[name] for name in description.finger_joints]
        self._driven = self._arm + self.fingers
        self._wrist = joints[description.wrist_joint]
        inertia = bullet.getDynamicsInfo(self.body, self._wrist, physicsClientId=client)
        self._wrist_com_m = np.array(inertia[3])
        bullet.enableJointForceTorqueSensor(self.body, self._wrist, True, physicsClientId=client)
        for name, link in self.links.items():
            # The foot stands in the table's plane; a contact there would be solved in every step for nothing.
            touches = 0 if name in description.foot_links else -1
            bullet.setCollisionFilterGroupMask(self.body, link, ROBOT_GROUP, touches, physicsClientId=client)
        for link in self.fingers:
            how = {"lateralFriction": FINGER_FRICTION, "frictionAnchor": True}
            bullet.changeDynamics(self.body, link, **how, physicsClientId=client)
        # Two independent fingers under equal forces would let a held object slide sideways without resistance.
        first, second = self.fingers
        axis, origin = [1, 0, 0], [0, 0, 0]
        gear = bullet.createConstraint(
            self.body, first, self.body, second, bullet.JOINT_GEAR, axis, origin, origin, physicsClientId=client
        )
        bullet.changeConstraint(gear, gearRatio=-1, erp=0.2, maxForce=GRIPPER_GEAR_N, physicsClientId=client)

    def place_joints(self, position_rad: ArrayLike, gripper_m: float) -> None:
        """Put the robot's joints there at once, at rest; gripper_m is the opening."""
        values = [*np.asarray(position_rad, dtype=float).tolist(), gripper_m / 2, gripper_m / 2]
        self._bullet.resetJointStatesMultiDof(
            self.body, self._driven, [[value] for value in values], [[0.0]] * len(values), physicsClientId=self._client
        )

    def drive(
        self,
        position_rad: Sequence[float],
        max_velocity_rad_s: Sequence[float],
        force_limit: Sequence[float],
        gripper_m: float,
        gripper_force_N: float,  # noqa: N803  (units keep their own capital letter)
    ) -> None:
        """Make the arm's joints go to ``position_rad`` [J] and the fingers to an opening, until told otherwise."""
        robot, client, mode = self.body, self._client, self._bullet.POSITION_CONTROL
        for joint, target, speed, force in zip(self._arm, position_rad, max_velocity_rad_s, force_limit, strict=True):
            self._bullet.setJointMotorControl2(
                robot, joint, mode, target, 0.0, force, 0.3, 1.0, speed, physicsClientId=client
            )
        for joint in self.fingers:
            self._bullet.setJointMotorControl2(
                robot, joint, mode, gripper_m / 2, 0.0, gripper_force_N, 0.2, 1.0, 0.1, physicsClientId=client
            )

    def link_pose(self, link: str) -> FloatArray:
        """``base_from_link`` [4, 4] of a link by its URDF name, or of ``"tool"``.

        Raises:
            SpecError: the robot has no such link.
        """
        description = self.description
        name = description.tool_link if link == "tool" else link
        if name not in self.links:
            raise SpecError(
                "PyBulletWorld.link_pose", "a link of the robot", f"'{link}'", nearest(link, [*self.links, "tool"])
            )
        index = self.links[name]
        if index < 0:
            return np.eye(4)
        state = self._bullet.getLinkState(self.body, index, 0, 1, physicsClientId=self._client)
        out = matrix(state[4], state[5])
        if link == "tool":
            out[:3, 3] += description.tool_offset_m * out[:3, 2]
        return out

    def link_velocity(self, link: str) -> tuple[FloatArray, FloatArray]:
        """Velocity [3] in m/s of a link's origin and its angular velocity [3] in rad/s, base frame; see link_pose."""
        base_from_link = self.link_pose(link)  # it also refuses unknown names
        description = self.description
        index = self.links[description.tool_link if link == "tool" else link]
        if index < 0:
            return np.zeros(3), np.zeros(3)  # the base is fixed
        state = self._bullet.getLinkState(self.body, index, 1, 1, physicsClientId=self._client)
        linear, angular = np.array(state[6]), np.array(state[7])
        # The simulator's velocity is that of the centre of mass.
        return linear + _cross(angular, base_from_link[:3, 3] - np.array(state[0])), angular

    def joint_state(self) -> JointState:
        """The robot's joints."""
        states = self._bullet.getJointStates(self.body, self._driven, physicsClientId=self._client)
        position = np.array([state[0] for state in states])
        velocity = np.array([state[1] for state in states])
        arm = len(self._arm)
        return JointState(position[:arm], velocity[:arm], max(float(position[arm:].sum()), 0.0))

    def wrench(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """force_N [3] and torque_Nm [3] that act on the hand, and base_from_sensor [4, 4].

        What a sensor between arm and hand feels: the weight of the hand and of what it holds, and contacts. It is minus
        the reaction with which the arm holds the hand. The torque is about the sensor's origin.
        """
        reaction = np.array(self._bullet.getJointState(self.body, self._wrist, physicsClientId=self._client)[2])
        state = self._bullet.getLinkState(self.body, self._wrist, 0, 1, physicsClientId=self._client)
        # The simulator's torque is about the link's centre of mass.
        force, about_com = -reaction[:3], -reaction[3:]
        return force, about_com + _cross(self._wrist_com_m, force), matrix(state[4], state[5])

    def touches(self, link: str, margin_m: float, others: Iterable[int]) -> bool:
        """Whether any of the bodies ``others`` is within ``margin_m`` of a link.

        Raises:
            SpecError: the robot has no such link.
        """
        if link not in self.links:
            raise SpecError("PyBulletWorld.touches", "a link of the robot", f"'{link}'", nearest(link, self.links))
        index, client = self.links[link], self._client
        return any(
            self._bullet.getClosestPoints(self.body, other, margin_m, linkIndexA=index, physicsClientId=client)
            for other in others
        )

    def fingers_touching(self, body: int) -> int:
        """How many of the two fingers are in contact with a body."""
        return sum(
            bool(self._bullet.getContactPoints(self.body, body, link, physicsClientId=self._client))
            for link in self.fingers
        )


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cross product [3] by components: np.cross costs thirty times as much."""
    (x, y, z), (u, v, w) = a.tolist(), b.tolist()
    return np.array([y * w - z * v, z * u - x * w, x * v - y * u])
