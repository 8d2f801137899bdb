"""ArticulatedBodies: things with joints of their own - drawers, lids, buttons, taps - that stand fixed in the scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from envs.opengl import matrix
from envs.physics import upright
from sensors.errors import SpecError, nearest
from sensors.geometry import FloatArray, invert, matrix_to_quaternion


@dataclass(frozen=True)
class JointDrive:
    """What acts on a joint by itself. Units: metres and newtons, or radians and newton metres of a hinge.

    Attributes:
        target: where motor and spring pull it.
        force_N: the most that the motor gives; 0 = there is no motor.
        position_gain: share of the way to ``target`` that the motor makes up for in one physics step.
        velocity_gain: share of the joint's speed that the motor takes away in one physics step.
        stiffness: of the spring, N/m or N m/rad; 0 = there is no spring.
        damping: N s/m or N m s/rad, against the joint's speed.
        friction_N: dry friction of a joint without a motor.
    """

    target: float = 0.0
    force_N: float = 0.0  # noqa: N815  (units keep their own capital letter)
    position_gain: float = 0.1
    velocity_gain: float = 1.0
    stiffness: float = 0.0
    damping: float = 0.0
    friction_N: float = 0.0  # noqa: N815

    def __post_init__(self) -> None:
        for name in ("force_N", "position_gain", "velocity_gain", "stiffness", "damping", "friction_N"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"joint drive, {name}", "a number >= 0", repr(getattr(self, name)), "Correct it.")
        if self.force_N > 0 and self.friction_N > 0:
            got = f"force_N={self.force_N:g}, friction_N={self.friction_N:g}"
            raise SpecError("joint drive", "a motor or dry friction", got, "A motor's force holds the joint already.")


@dataclass
class _Body:
    joints: dict[str, int]
    links: dict[str, int]
    link_from_com: FloatArray  # [4, 4] of the root link
    drives: dict[int, JointDrive] = field(default_factory=dict)


@final
class ArticulatedBodies:
    """The articulated bodies of one world.

    Args:
        bullet: the module pybullet.
        client: the physics server.
    """

    def __init__(self, bullet: Any, client: int) -> None:
        self._bullet, self._client = bullet, client
        self._bodies: dict[int, _Body] = {}
        self._sprung: list[tuple[int, int, JointDrive]] = []  # body, joint: what has to be pushed in every step
        self._remembered: dict[int, dict[int, JointDrive]] = {}

    def add(self, urdf: Path, position_m: ArrayLike, yaw_rad: float, friction: float) -> int:
        """Load a body; its joints are free. See :meth:`envs.world.PyBulletWorld.add_articulated`."""
        bullet, client = self._bullet, self._client
        if not Path(urdf).is_file():
            raise SpecError("PyBulletWorld.add_articulated", "a URDF file", str(urdf), "Correct the path.")
        place = np.asarray(position_m, dtype=float).tolist()
        body = int(bullet.loadURDF(str(urdf), place, upright(yaw_rad), useFixedBase=True, physicsClientId=client))
        joints, links = {}, {bullet.getBodyInfo(body, physicsClientId=client)[0].decode(): -1}
        moving = []
        for index in range(bullet.getNumJoints(body, physicsClientId=client)):
            info = bullet.getJointInfo(body, index, physicsClientId=client)
            joints[info[1].decode()], links[info[12].decode()] = index, index
            if info[2] != bullet.JOINT_FIXED:
                moving.append(index)
        for link in links.values():
            # Drag of the air, which the simulator gives every body, would be one more thing that slows joints down.
            bullet.changeDynamics(
                body, link, lateralFriction=friction, linearDamping=0.0, angularDamping=0.0, physicsClientId=client
            )
        com = bullet.getDynamicsInfo(body, -1, physicsClientId=client)[3:5]
        self._bodies[body] = _Body(joints, links, matrix(*com))
        for joint in moving:
            self._drive(body, joint, JointDrive())  # the simulator starts joints with a motor that brakes
        return body

    def forget(self, body: int) -> None:
        """The body was removed."""
        self._remembered.pop(body, None)  # its number may be given to another body
        if self._bodies.pop(body, None) is not None:
            self._note_springs()

    def holds(self, body: int) -> bool:
        """Whether this body is one of them."""
        return body in self._bodies

    def joint(self, body: int, joint: str) -> float:
        """Position of a joint, metres or radians."""
        index = self._joint(body, joint)
        return float(self._bullet.getJointState(body, index, physicsClientId=self._client)[0])

    def set_joint(self, body: int, joint: str, value: float) -> None:
        """Put a joint somewhere at once, at rest."""
        index = self._joint(body, joint)
        self._bullet.resetJointState(body, index, float(value), 0.0, physicsClientId=self._client)

    def drive(self, body: int, joint: str, drive: JointDrive) -> None:
        """Let this act on a joint from now on, in place of what acted before."""
        self._drive(body, self._joint(body, joint), drive)

    def link(self, body: int, link: str) -> int:
        """Index of a link.

        Raises:
            SpecError: there is no such body or link.
        """
        return _index("a link", link, self._body(body).links)

    def link_pose(self, body: int, link: str) -> FloatArray:
        """``base_from_link`` [4, 4] of a link's URDF frame."""
        index = self.link(body, link)
        if index < 0:
            com = self._bullet.getBasePositionAndOrientation(body, physicsClientId=self._client)
            return matrix(*com) @ invert(self._bodies[body].link_from_com)
        return matrix(*self._bullet.getLinkState(body, index, 0, 1, physicsClientId=self._client)[4:6])

    def move(self, body: int, position_m: ArrayLike, yaw_rad: float) -> None:
        """Put the root link's frame somewhere at once; the joints keep their positions and come to rest."""
        base_from_link = matrix(np.asarray(position_m, dtype=float).tolist(), upright(yaw_rad))
        com = base_from_link @ self._body(body).link_from_com
        turn = matrix_to_quaternion(com[:3, :3]).tolist()
        bullet, client = self._bullet, self._client
        bullet.resetBasePositionAndOrientation(body, com[:3, 3].tolist(), turn, physicsClientId=client)
        for index in self._bodies[body].drives:
            position = bullet.getJointState(body, index, physicsClientId=client)[0]
            bullet.resetJointState(body, index, position, 0.0, physicsClientId=client)

    def push(self) -> None:
        """Let springs and dampers act in the next physics step."""
        bullet, client = self._bullet, self._client
        for body, joint, drive in self._sprung:
            position, velocity = bullet.getJointState(body, joint, physicsClientId=client)[:2]
            force = drive.stiffness * (drive.target - position) - drive.damping * velocity
            bullet.setJointMotorControl2(body, joint, bullet.TORQUE_CONTROL, force=force, physicsClientId=client)

    def remember(self) -> None:
        """Remember what drives the joints: the simulator's own snapshots hold positions and velocities only."""
        self._remembered = {body: dict(known.drives) for body, known in self._bodies.items()}

    def restore(self) -> None:
        """Go back to what was remembered."""
        for body, drives in self._remembered.items():
            for joint, drive in drives.items():
                self._drive(body, joint, drive)

    def _drive(self, body: int, joint: int, drive: JointDrive) -> None:
        bullet, client = self._bullet, self._client
        self._bodies[body].drives[joint] = drive
        if drive.force_N > 0:
            bullet.setJointMotorControl2(
                body,
                joint,
                bullet.POSITION_CONTROL,
                targetPosition=drive.target,
                positionGain=drive.position_gain,
                velocityGain=drive.velocity_gain,
                force=drive.force_N,
                physicsClientId=client,
            )
        else:  # a brake of limited force is dry friction
            bullet.setJointMotorControl2(
                body, joint, bullet.VELOCITY_CONTROL, targetVelocity=0.0, force=drive.friction_N, physicsClientId=client
            )
        self._note_springs()

    def _note_springs(self) -> None:
        self._sprung = [
            (body, joint, drive)
            for body, known in self._bodies.items()
            for joint, drive in known.drives.items()
            if drive.stiffness > 0 or drive.damping > 0
        ]

    def _body(self, body: int) -> _Body:
        if body not in self._bodies:
            got = f"body {body}"
            raise SpecError("PyBulletWorld", "an articulated body", got, "Add it with add_articulated().")
        return self._bodies[body]

    def _joint(self, body: int, joint: str) -> int:
        return _index("a joint", joint, self._body(body).joints)


def _index(what: str, name: str, known: dict[str, int]) -> int:
    if name not in known:
        raise SpecError("PyBulletWorld, articulated body", what, f"'{name}'", nearest(name, known))
    return known[name]
