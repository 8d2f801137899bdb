"""PyBulletWorld: the simulator behind the few questions that sensors ask and the few commands that robots give.

The only file that imports pybullet. Every world owns a physics server of its own, so any number of worlds may live in
one process. The base frame of the robot is the world frame.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from envs.articulated import ArticulatedBodies, JointDrive
from envs.collision import CollisionScene
from envs.contacts import touching
from envs.opengl import matrix
from envs.physics import add_shape, disconnect, set_up, upright
from envs.pictures import Light, Pictures, check_renderer
from envs.rays import cast
from envs.robot_model import RobotModel
from envs.robots.description import RobotDescription
from envs.solids import BodyShapes
from sensors.base import JointState, Picture, Touching
from sensors.errors import SpecError
from sensors.geometry import FloatArray

__all__ = ["Light", "PyBulletWorld"]


class PyBulletWorld:
    """One simulated scene with one robot.

    Args:
        physics_hz: physics steps per simulated second.
        solver_iterations: of the constraint solver, per physics step.
        renderer: "tiny" (CPU), "egl" (GPU) or "auto" = egl where a GPU really serves it.

    Raises:
        SpecError: ``renderer`` is none of these.
        SensorError: "egl" was asked for and no GPU serves it.
    """

    def __init__(self, physics_hz: float = 240.0, solver_iterations: int = 20, renderer: str = "tiny") -> None:
        check_renderer(renderer)
        self._id = pybullet.connect(pybullet.DIRECT)
        # Closes the server when the world is forgotten: pybullet holds at most a thousand at a time.
        self._finalizer = weakref.finalize(self, disconnect, pybullet, self._id)
        self._hz = physics_hz
        self._steps = 0
        self._robot = -1
        self._links: dict[str, int] = {}
        self._model: RobotModel | None = None
        self._others: list[int] = []  # solid bodies that are not the robot
        self._shapes = BodyShapes(pybullet, self._id)
        self._articulated = ArticulatedBodies(pybullet, self._id)
        self._scene: CollisionScene | None = None
        self._instruction = ""
        self._pristine = -1
        self._pictures = Pictures(pybullet, self._id, renderer)
        set_up(pybullet, self._id, physics_hz, solver_iterations)

    def server(self) -> tuple[Any, int]:
        """The simulator's module and this world's server, for files of envs that add bodies of their own."""
        return pybullet, self._id

    # -- building ---------------------------------------------------------------------------------------------------

    def add_robot(self, description: RobotDescription) -> None:
        """Load the robot at the origin. Once per world."""
        self._model = RobotModel(pybullet, self._id, description)
        self._robot, self._links = self._model.body, self._model.links

    def add_box(
        self,
        half_m: Sequence[float],
        position_m: ArrayLike,
        yaw_rad: float = 0.0,
        *,
        mass_kg: float,
        rgba: Sequence[float],
        friction: float = 0.8,
        solid: bool = True,
    ) -> int:
        """Add a box and return its body id. ``mass_kg`` 0 = fixed; not ``solid`` = only to be seen."""
        size, kind = {"halfExtents": list(half_m)}, pybullet.GEOM_BOX
        how = (position_m, yaw_rad, mass_kg, rgba, friction, solid)
        return self._keep(add_shape(pybullet, self._id, kind, size, *how), solid)

    def add_cylinder(
        self,
        radius_m: float,
        height_m: float,
        position_m: ArrayLike,
        *,
        mass_kg: float,
        rgba: Sequence[float],
        friction: float = 0.8,
        solid: bool = True,
    ) -> int:
        """Add an upright cylinder and return its body id; as :meth:`add_box`."""
        size, kind = {"radius": radius_m, "height": height_m}, pybullet.GEOM_CYLINDER
        how = (position_m, 0.0, mass_kg, rgba, friction, solid)
        return self._keep(add_shape(pybullet, self._id, kind, size, *how), solid)

    def add_sphere(self, radius_m: float, position_m: ArrayLike, *, rgba: Sequence[float]) -> int:
        """Add a sphere that is only to be seen, and return its body id."""
        size, kind = {"radius": radius_m}, pybullet.GEOM_SPHERE
        return add_shape(pybullet, self._id, kind, size, position_m, 0.0, 0.0, rgba, 0.0, solid=False)

    def _keep(self, body: int, solid: bool = True) -> int:
        """Note a body that is not the robot."""
        if solid:
            self._others.append(body)
        return body

    def add_articulated(self, urdf: Path, position_m: ArrayLike, yaw_rad: float = 0.0, friction: float = 1.0) -> int:
        """Add a body with joints whose root link stands fixed, and return its body id. Its joints are free at first.

        Args:
            urdf: the model file; inertias follow from masses and collision shapes.
            position_m: where the root link's frame goes [3], base frame.
            yaw_rad: its turn about z.
            friction: of the surfaces of all links.

        Raises:
            SpecError: there is no such file.
        """
        return self._keep(self._articulated.add(urdf, position_m, yaw_rad, friction))

    def remove(self, body: int) -> None:
        """Take a body out of the world."""
        pybullet.removeBody(body, physicsClientId=self._id)
        # The server gives its number to a later body.
        self._shapes.forget(body)
        self._articulated.forget(body)
        if self._scene is not None:
            self._scene.forget(body)
        if body in self._others:
            self._others.remove(body)

    def load_texture(self, path: Path) -> int:
        """Read a texture from a PNG file, for :meth:`paint`."""
        return int(pybullet.loadTexture(str(path), physicsClientId=self._id))

    def paint(self, body: int, rgba: Sequence[float], texture: int) -> None:
        """Give a body a texture, multiplied with a colour."""
        pybullet.changeVisualShape(body, -1, textureUniqueId=texture, rgbaColor=list(rgba), physicsClientId=self._id)

    def recolour(self, body: int, rgba: Sequence[float], link: str | None = None) -> None:
        """Give a body, or one link of an articulated one, another colour; colours are no part of what is remembered."""
        every = range(-1, pybullet.getNumJoints(body, physicsClientId=self._id))
        for index in every if link is None else [self._articulated.link(body, link)]:
            pybullet.changeVisualShape(body, index, rgbaColor=list(rgba), physicsClientId=self._id)

    def set_light(self, light: Light) -> None:
        """Set the light of later pictures."""
        self._pictures.light = light

    def instruct(self, text: str) -> None:
        """Say what the robot is to do; a sensor may show it."""
        self._instruction = text

    def remember(self) -> None:
        """Remember the present state, bodies and the drives of their joints included, for :meth:`restore`."""
        self._pristine = pybullet.saveState(physicsClientId=self._id)
        self._articulated.remember()

    def restore(self) -> None:
        """Go back to the remembered state; bodies added since must have been removed. Time starts at 0 again."""
        pybullet.restoreState(self._pristine, physicsClientId=self._id)
        self._articulated.restore()
        self._steps = 0

    # -- acting -----------------------------------------------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        """Advance by ``count`` physics steps."""
        for _ in range(count):
            self._articulated.push()
            pybullet.stepSimulation(physicsClientId=self._id)
        self._steps += count

    def start_clock(self) -> None:
        """Call the present moment 0 s."""
        self._steps = 0

    def place_joints(self, position_rad: ArrayLike, gripper_m: float) -> None:
        """Put the robot's joints there at once, at rest; gripper_m is the opening."""
        self._body_of_robot().place_joints(position_rad, gripper_m)

    def drive(
        self,
        position_rad: Sequence[float],
        max_velocity_rad_s: Sequence[float],
        force_limit: Sequence[float],
        gripper_m: float,
        gripper_force_N: float,  # noqa: N803  (units keep their own capital letter)
    ) -> None:
        """Make the arm's joints go to ``position_rad`` [J] and the fingers to an opening, until told otherwise."""
        self._body_of_robot().drive(position_rad, max_velocity_rad_s, force_limit, gripper_m, gripper_force_N)

    def set_body_joint(self, body: int, joint: str, value: float) -> None:
        """Put a joint of an articulated body somewhere at once, at rest; metres or radians."""
        self._articulated.set_joint(body, joint, value)

    def drive_body_joint(
        self,
        body: int,
        joint: str,
        target: float = 0.0,
        force_N: float = 0.0,  # noqa: N803
        position_gain: float = 0.1,
        velocity_gain: float = 1.0,
        stiffness: float = 0.0,
        damping: float = 0.0,
        friction_N: float = 0.0,  # noqa: N803
    ) -> None:
        """Let a motor, a spring or dry friction act on a joint of an articulated body, in place of what acted before.

        The arguments are explained by :class:`envs.articulated.JointDrive`. With all at 0 the joint is free; a motor
        holds still against any force up to its own; a spring gives ``stiffness`` (``target`` - position).

        Raises:
            SpecError: an unknown body or joint, a negative number, or a motor and friction at once.
        """
        drive = JointDrive(target, force_N, position_gain, velocity_gain, stiffness, damping, friction_N)
        self._articulated.drive(body, joint, drive)

    # -- sensors.base.World -----------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Simulated time since the clock was started, seconds."""
        return self._steps / self._hz

    @property
    def instruction(self) -> str:
        """What the robot is to do in this episode, in words."""
        return self._instruction

    @property
    def renderer(self) -> str:
        """What draws the pictures: "tiny (CPU)" or "egl (<name of the GPU>)"."""
        return self._pictures.name

    def render(
        self,
        base_from_camera: FloatArray,
        intrinsics_px: FloatArray,
        width: int,
        height: int,
        near_m: float,
        far_m: float,
    ) -> Picture:
        """The picture of a pinhole camera; depth is exact to rounding, 0 beyond ``far_m`` and where nothing is."""
        return self._pictures.render(base_from_camera, intrinsics_px, width, height, near_m, far_m)

    def link_pose(self, link: str) -> FloatArray:
        """``base_from_link`` [4, 4] of a link by its URDF name, or of ``"tool"``; SpecError if there is none."""
        return self._body_of_robot().link_pose(link)

    def link_velocity(self, link: str) -> tuple[FloatArray, FloatArray]:
        """Velocity [3] in m/s of a link's origin and its angular velocity [3] in rad/s, base frame; see link_pose."""
        return self._body_of_robot().link_velocity(link)

    def joint_state(self) -> JointState:
        """The robot's joints."""
        return self._body_of_robot().joint_state()

    def wrench(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """force_N [3] and torque_Nm [3] that act on the hand, and base_from_sensor [4, 4]."""
        return self._body_of_robot().wrench()

    def ray_cast(
        self,
        start_m: FloatArray,
        end_m: FloatArray,
        *,
        robot: bool = False,
        cosines: FloatArray | None = None,
        bodies: Sequence[int] | None = None,
    ) -> FloatArray:
        """Metres [N] along rays [N, 3] -> [N, 3] to the first solid that they meet from outside; inf = none.

        Rays pass through the robot unless ``robot``: then they meet its collision model. ``cosines``: float [N], filled
        with the cosine of the angle of incidence; 0 = nothing was met. ``bodies``: rays pass through all others.

        Raises:
            SpecError: a solid has a shape for which there is no closed form.
        """
        starts, ends = np.asarray(start_m, dtype=float), np.asarray(end_m, dtype=float)
        solids = [*(self._others if bodies is None else bodies), *([self._robot] if robot and self._robot >= 0 else [])]
        distance, found = cast(self._shapes.placed(solids), starts, ends)
        if cosines is not None:
            cosines[:] = found
        return distance

    def touches(self, link: str, margin_m: float) -> bool:
        """Whether anything that is not the robot is within ``margin_m`` of a link."""
        return self._body_of_robot().touches(link, margin_m, self._others)

    def touching(self, link: str, margin_m: float) -> list[Touching]:
        """What is within ``margin_m`` of a link and not the robot; SpecError if there is no such link."""
        return touching(pybullet, self._id, self._body_of_robot(), link, self._others, margin_m)

    # -- privileged: for tasks and experts, never for sensors -------------------------------------------------------

    def body_pose(self, body: int) -> FloatArray:
        """``base_from_body`` [4, 4]; of an articulated body use :meth:`body_link_pose`."""
        return matrix(*pybullet.getBasePositionAndOrientation(body, physicsClientId=self._id))

    def body_position(self, body: int) -> FloatArray:
        """Position [3] of a body's middle, metres, base frame."""
        return np.array(pybullet.getBasePositionAndOrientation(body, physicsClientId=self._id)[0])

    def body_velocity(self, body: int) -> tuple[FloatArray, FloatArray]:
        """Velocity [3] in m/s and angular velocity [3] in rad/s, base frame."""
        linear, angular = pybullet.getBaseVelocity(body, physicsClientId=self._id)
        return np.array(linear), np.array(angular)

    def move_body(self, body: int, position_m: ArrayLike, yaw_rad: float = 0.0) -> None:
        """Put a body somewhere at once, at rest; an articulated one by its root link, its joints where they are."""
        if self._articulated.holds(body):
            self._articulated.move(body, position_m, yaw_rad)
            return
        place = np.asarray(position_m, dtype=float).tolist()
        pybullet.resetBasePositionAndOrientation(body, place, upright(yaw_rad), physicsClientId=self._id)
        pybullet.resetBaseVelocity(body, [0, 0, 0], [0, 0, 0], physicsClientId=self._id)

    def body_joint(self, body: int, joint: str) -> float:
        """Position of a joint of an articulated body, metres or radians."""
        return self._articulated.joint(body, joint)

    def body_link_pose(self, body: int, link: str) -> FloatArray:
        """``base_from_link`` [4, 4] of a link of an articulated body, by its URDF name."""
        return self._articulated.link_pose(body, link)

    def fingers_touching(self, body: int) -> int:
        """How many of the two fingers are in contact with a body."""
        return self._body_of_robot().fingers_touching(body)

    def collision_scene(self) -> CollisionScene:
        """A copy of robot and solid bodies as they are now, to try joint positions on; it disturbs nothing here."""
        if self._scene is None:
            self._scene = CollisionScene(pybullet, self._id, self._body_of_robot())
        self._scene.update(self._others)
        return self._scene

    def _body_of_robot(self) -> RobotModel:
        if self._model is None:
            raise SpecError("PyBulletWorld", "a robot", "none", "Call add_robot() first.")
        return self._model

    def close(self) -> None:
        """Let go of the physics server. May be called twice."""
        self._finalizer()
        if self._scene is not None:
            self._scene.close()
