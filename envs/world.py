"""PyBulletWorld: the simulator behind the few questions that sensors ask and the few commands that robots give.

The only file that imports pybullet. Every world owns a physics server of its own, so any number of worlds may live in
one process. The base frame of the robot is the world frame.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from envs.egl import load_egl
from envs.opengl import matrix, projection, view
from envs.rays import Ball, Box, Cylinder, Placed, Polyhedron, Solid, cast
from envs.robots.description import RobotDescription
from sensors.base import JointState, Picture
from sensors.errors import SensorError, SpecError, nearest
from sensors.geometry import FloatArray

ROBOT_GROUP = 64  # collision group of the robot's links, so that rays can pass through them
GRIPPER_GEAR_N = 50.0  # what holds the two fingers at the same opening


@dataclass(frozen=True)
class Light:
    """Light of a scene.

    Attributes:
        direction: towards the light, base frame.
        ambient: share of light that comes from everywhere, 0 to 1.
        diffuse: share that comes from ``direction``.
        specular: strength of highlights.
    """

    direction: tuple[float, float, float] = (0.4, 0.3, 1.0)
    ambient: float = 0.6
    diffuse: float = 0.4
    specular: float = 0.05


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
        if renderer not in ("tiny", "egl", "auto"):
            raise SpecError(
                "PyBulletWorld.renderer",
                "'tiny', 'egl' or 'auto'",
                repr(renderer),
                nearest(renderer, ("tiny", "egl", "auto")),
            )
        self._id = pybullet.connect(pybullet.DIRECT)
        # Closes the server when the world is forgotten: pybullet holds at most a thousand at a time.
        self._finalizer = weakref.finalize(self, _disconnect, self._id)
        self._hz = physics_hz
        self._steps = 0
        self._robot = -1
        self._description: RobotDescription | None = None
        self._links: dict[str, int] = {}
        self._arm: list[int] = []
        self._fingers: list[int] = []
        self._driven: list[int] = []
        self._wrist = -1
        self._wrist_com_m: FloatArray = np.zeros(3)
        self._others: list[int] = []
        self._robot_shapes: dict[int, list[tuple[Solid, FloatArray]]] = {}  # link -> its solids
        self._pristine = -1
        self._light = Light()
        self._cameras: dict[bytes, list[float]] = {}
        self._renderer_name = "tiny (CPU)"
        self._renderer = pybullet.ER_TINY_RENDERER
        if renderer != "tiny":
            name = load_egl(pybullet, self._id)
            if name is not None:
                self._renderer_name, self._renderer = f"egl ({name})", pybullet.ER_BULLET_HARDWARE_OPENGL
            elif renderer == "egl":
                raise SensorError(
                    "PyBulletWorld", "an EGL device with a GPU", "none, or a software one", "Use renderer: tiny."
                )
        pybullet.setGravity(0.0, 0.0, -9.81, physicsClientId=self._id)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=1.0 / physics_hz,
            numSolverIterations=solver_iterations,
            # Without it the order of contacts depends on memory addresses, and equal seeds diverge.
            deterministicOverlappingPairs=1,
            # Two friction directions, not a cone: a tenth cheaper, and boxes held by friction anchors slip no more.
            enableConeFriction=0,
            physicsClientId=self._id,
        )

    # -- building ---------------------------------------------------------------------------------------------------

    def add_robot(self, description: RobotDescription) -> None:
        """Load the robot at the origin. Once per world."""
        client = self._id
        self._robot = pybullet.loadURDF(str(description.urdf), useFixedBase=True, physicsClientId=client)
        self._description = description
        joints = {}
        for index in range(pybullet.getNumJoints(self._robot, physicsClientId=client)):
            info = pybullet.getJointInfo(self._robot, index, physicsClientId=client)
            joints[info[1].decode()] = index
            self._links[info[12].decode()] = index
        self._links[pybullet.getBodyInfo(self._robot, physicsClientId=client)[0].decode()] = -1
        for name in (*description.arm_joints, *description.finger_joints, description.wrist_joint):
            if name not in joints:
                raise SpecError(str(description.urdf), f"a joint '{name}'", "none", nearest(name, joints))
        self._arm = [joints[name] for name in description.arm_joints]
        self._fingers = [joints[name] for name in description.finger_joints]
        self._driven = self._arm + self._fingers
        self._wrist = joints[description.wrist_joint]
        inertia = pybullet.getDynamicsInfo(self._robot, self._wrist, physicsClientId=client)
        self._wrist_com_m = np.array(inertia[3])
        pybullet.enableJointForceTorqueSensor(self._robot, self._wrist, True, physicsClientId=client)
        for name, link in self._links.items():
            # The foot stands in the table's plane; a contact there would be solved in every step for nothing.
            touches = 0 if name in description.foot_links else -1
            pybullet.setCollisionFilterGroupMask(self._robot, link, ROBOT_GROUP, touches, physicsClientId=client)
        for link in self._fingers:
            pybullet.changeDynamics(self._robot, link, lateralFriction=1.5, frictionAnchor=True, physicsClientId=client)
        # Two independent fingers under equal forces would let a held object slide sideways without resistance.
        first, second = self._fingers
        axis, origin = [1, 0, 0], [0, 0, 0]
        gear = pybullet.createConstraint(
            self._robot, first, self._robot, second, pybullet.JOINT_GEAR, axis, origin, origin, physicsClientId=client
        )
        pybullet.changeConstraint(gear, gearRatio=-1, erp=0.2, maxForce=GRIPPER_GEAR_N, physicsClientId=client)

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
        return self._add(
            pybullet.GEOM_BOX, {"halfExtents": list(half_m)}, position_m, yaw_rad, mass_kg, rgba, friction, solid
        )

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
        # pybullet names the height of a cylinder differently in its two calls.
        size: dict[str, object] = {"radius": radius_m, "height": height_m}
        return self._add(pybullet.GEOM_CYLINDER, size, position_m, 0.0, mass_kg, rgba, friction, solid)

    def add_sphere(self, radius_m: float, position_m: ArrayLike, *, rgba: Sequence[float]) -> int:
        """Add a sphere that is only to be seen, and return its body id."""
        return self._add(pybullet.GEOM_SPHERE, {"radius": radius_m}, position_m, 0.0, 0.0, rgba, 0.0, False)

    def _add(
        self,
        kind: int,
        size: dict[str, object],
        position_m: ArrayLike,
        yaw_rad: float,
        mass_kg: float,
        rgba: Sequence[float],
        friction: float,
        solid: bool,
    ) -> int:
        client = self._id
        seen = {"length" if name == "height" else name: value for name, value in size.items()}
        look = pybullet.createVisualShape(kind, rgbaColor=list(rgba), physicsClientId=client, **seen)
        shape = pybullet.createCollisionShape(kind, physicsClientId=client, **size) if solid else -1
        place = np.asarray(position_m, dtype=float).tolist()
        turn = [0.0, 0.0, float(np.sin(yaw_rad / 2)), float(np.cos(yaw_rad / 2))]
        body = int(pybullet.createMultiBody(mass_kg, shape, look, place, turn, physicsClientId=client))
        if solid:
            pybullet.changeDynamics(body, -1, lateralFriction=friction, physicsClientId=client)
            self._others.append(body)
        return body

    def remove(self, body: int) -> None:
        """Take a body out of the world."""
        pybullet.removeBody(body, physicsClientId=self._id)
        if body in self._others:
            self._others.remove(body)

    def load_texture(self, path: Path) -> int:
        """Read a texture from a PNG file, for :meth:`paint`."""
        return int(pybullet.loadTexture(str(path), physicsClientId=self._id))

    def paint(self, body: int, rgba: Sequence[float], texture: int) -> None:
        """Give a body a texture, multiplied with a colour."""
        pybullet.changeVisualShape(body, -1, textureUniqueId=texture, rgbaColor=list(rgba), physicsClientId=self._id)

    def set_light(self, light: Light) -> None:
        """Set the light of later pictures."""
        self._light = light

    def remember(self) -> None:
        """Remember the present state, bodies included, for :meth:`restore`."""
        self._pristine = pybullet.saveState(physicsClientId=self._id)

    def restore(self) -> None:
        """Go back to the remembered state; bodies added since must have been removed. Time starts at 0 again."""
        pybullet.restoreState(self._pristine, physicsClientId=self._id)
        self._steps = 0

    # -- acting -----------------------------------------------------------------------------------------------------

    def step(self, count: int = 1) -> None:
        """Advance by ``count`` physics steps."""
        for _ in range(count):
            pybullet.stepSimulation(physicsClientId=self._id)
        self._steps += count

    def start_clock(self) -> None:
        """Call the present moment 0 s."""
        self._steps = 0

    def place_joints(self, position_rad: ArrayLike, gripper_m: float) -> None:
        """Put the robot's joints there at once, at rest; gripper_m is the opening."""
        values = [*np.asarray(position_rad, dtype=float).tolist(), gripper_m / 2, gripper_m / 2]
        pybullet.resetJointStatesMultiDof(
            self._robot, self._driven, [[value] for value in values], [[0.0]] * len(values), physicsClientId=self._id
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
        robot, client, mode = self._robot, self._id, pybullet.POSITION_CONTROL
        for joint, target, speed, force in zip(self._arm, position_rad, max_velocity_rad_s, force_limit, strict=True):
            pybullet.setJointMotorControl2(
                robot, joint, mode, target, 0.0, force, 0.3, 1.0, speed, physicsClientId=client
            )
        for joint in self._fingers:
            pybullet.setJointMotorControl2(
                robot, joint, mode, gripper_m / 2, 0.0, gripper_force_N, 0.2, 1.0, 0.1, physicsClientId=client
            )

    # -- sensors.base.World -----------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Simulated time since the clock was started, seconds."""
        return self._steps / self._hz

    @property
    def renderer(self) -> str:
        """What draws the pictures: "tiny (CPU)" or "egl (<name of the GPU>)"."""
        return self._renderer_name

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
        key = np.asarray([*intrinsics_px, width, height, near_m, far_m], dtype=float).tobytes()
        found = self._cameras.get(key)
        if found is None:
            centre = 0.0 if self._renderer == pybullet.ER_TINY_RENDERER else 0.5
            found = projection(intrinsics_px, width, height, near_m, far_m, centre)
            self._cameras = {**dict(list(self._cameras.items())[-15:]), key: found}
        light = self._light
        _, _, rgba, buffer, body = pybullet.getCameraImage(
            width,
            height,
            view(base_from_camera),
            found,
            lightDirection=light.direction,
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.diffuse,
            lightSpecularCoeff=light.specular,
            shadow=0,
            renderer=self._renderer,
            physicsClientId=self._id,
        )
        buffer = np.asarray(buffer, dtype=np.float64).reshape(height, width)
        depth = (far_m * near_m) / (far_m - (far_m - near_m) * buffer)
        depth[buffer >= 1.0] = 0.0
        rgb = np.ascontiguousarray(np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3])
        return Picture(rgb, depth.astype(np.float32), np.array(body, dtype=np.int32).reshape(height, width))

    def link_pose(self, link: str) -> FloatArray:
        """``base_from_link`` [4, 4] of a link by its URDF name, or of ``"tool"``.

        Raises:
            SpecError: the robot has no such link.
        """
        description = self._description
        name = description.tool_link if link == "tool" and description is not None else link
        if name not in self._links:
            raise SpecError(
                "PyBulletWorld.link_pose", "a link of the robot", f"'{link}'", nearest(link, [*self._links, "tool"])
            )
        index = self._links[name]
        if index < 0:
            return np.eye(4)
        state = pybullet.getLinkState(self._robot, index, 0, 1, physicsClientId=self._id)
        out = matrix(state[4], state[5])
        if link == "tool" and description is not None:
            out[:3, 3] += description.tool_offset_m * out[:3, 2]
        return out

    def link_velocity(self, link: str) -> tuple[FloatArray, FloatArray]:
        """Velocity [3] in m/s of a link's origin and its angular velocity [3] in rad/s, base frame; see link_pose."""
        base_from_link = self.link_pose(link)  # it also refuses unknown names
        description = self._description
        index = self._links[description.tool_link if link == "tool" and description is not None else link]
        if index < 0:
            return np.zeros(3), np.zeros(3)  # the base is fixed
        state = pybullet.getLinkState(self._robot, index, 1, 1, physicsClientId=self._id)
        linear, angular = np.array(state[6]), np.array(state[7])
        # The simulator's velocity is that of the centre of mass.
        return linear + _cross(angular, base_from_link[:3, 3] - np.array(state[0])), angular

    def joint_state(self) -> JointState:
        """The robot's joints."""
        states = pybullet.getJointStates(self._robot, self._driven, physicsClientId=self._id)
        position = np.array([state[0] for state in states])
        velocity = np.array([state[1] for state in states])
        arm = len(self._arm)
        return JointState(position[:arm], velocity[:arm], max(float(position[arm:].sum()), 0.0))

    def wrench(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """force_N [3] and torque_Nm [3] that act on the hand, and base_from_sensor [4, 4].

        What a sensor between arm and hand feels: the weight of the hand and of what it holds, and contacts. It is minus
        the reaction with which the arm holds the hand. The torque is about the sensor's origin.
        """
        reaction = np.array(pybullet.getJointState(self._robot, self._wrist, physicsClientId=self._id)[2])
        state = pybullet.getLinkState(self._robot, self._wrist, 0, 1, physicsClientId=self._id)
        # The simulator's torque is about the link's centre of mass.
        force, about_com = -reaction[:3], -reaction[3:]
        return force, about_com + _cross(self._wrist_com_m, force), matrix(state[4], state[5])

    def ray_cast(
        self, start_m: FloatArray, end_m: FloatArray, *, robot: bool = False, cosines: FloatArray | None = None
    ) -> FloatArray:
        """Metres [N] along rays [N, 3] -> [N, 3] to the first solid that they meet from outside; inf = none.

        Args:
            start_m: float [N, 3].
            end_m: float [N, 3].
            robot: whether rays meet the robot's collision model too; otherwise they pass through it.
            cosines: if given, float [N], is filled with the cosine of the angle of incidence; 0 = nothing was met.

        Raises:
            SpecError: a solid has a shape for which there is no closed form.
        """
        starts, ends = np.asarray(start_m, dtype=float), np.asarray(end_m, dtype=float)
        distance, found = cast(self._solids(robot), starts, ends)
        if cosines is not None:
            cosines[:] = found
        return distance

    def _solids(self, robot: bool) -> list[Placed]:
        """What rays can meet, where it is now."""
        client, found = self._id, []
        for body in self._others:
            base_from_body = matrix(*pybullet.getBasePositionAndOrientation(body, physicsClientId=client))
            for solid, body_from_solid in self._shapes(body, -1):
                found.append(Placed(solid, base_from_body @ body_from_solid))
        if robot and self._robot >= 0:
            if not self._robot_shapes:  # a robot keeps its shape
                self._robot_shapes = {link: self._shapes(self._robot, link) for link in self._links.values()}
            for link, shapes in self._robot_shapes.items():
                if link < 0:
                    place = pybullet.getBasePositionAndOrientation(self._robot, physicsClientId=client)
                else:
                    place = pybullet.getLinkState(self._robot, link, 0, 1, physicsClientId=client)[:2]
                for solid, link_from_solid in shapes:
                    found.append(Placed(solid, matrix(*place) @ link_from_solid))
        return found

    def _shapes(self, body: int, link: int) -> list[tuple[Solid, FloatArray]]:
        """The solids of a link (-1 = the base), and their poses [4, 4] in the frame of its centre of mass."""
        found: list[tuple[Solid, FloatArray]] = []
        for shape in pybullet.getCollisionShapeData(body, link, physicsClientId=self._id):
            kind, size, link_from_solid = shape[2], shape[3], matrix(shape[5], shape[6])
            if kind == pybullet.GEOM_BOX:
                found.append((Box([edge / 2 for edge in size]), link_from_solid))
            elif kind == pybullet.GEOM_CYLINDER:
                found.append((Cylinder(size[1], size[0]), link_from_solid))
            elif kind == pybullet.GEOM_SPHERE:
                found.append((Ball(size[0]), link_from_solid))
            elif kind == pybullet.GEOM_MESH and not any(isinstance(solid, Polyhedron) for solid, _ in found):
                # The points come scaled and placed, of a link's first mesh only. Bullet, too, takes their convex hull.
                points = pybullet.getMeshData(body, link, physicsClientId=self._id)[1]
                found.append((Polyhedron(np.array(points)), np.eye(4)))
            else:
                raise SpecError(
                    "PyBulletWorld.ray_cast", "boxes, cylinders, spheres and at most one mesh per link",
                    f"collision geometry {kind} of body {body}, link {link}", "Model it with these.",
                )  # fmt: skip
        return found

    def touches(self, link: str, margin_m: float) -> bool:
        """Whether anything that is not the robot is within ``margin_m`` of a link."""
        if link not in self._links:
            raise SpecError("PyBulletWorld.touches", "a link of the robot", f"'{link}'", nearest(link, self._links))
        index = self._links[link]
        return any(
            pybullet.getClosestPoints(self._robot, body, margin_m, linkIndexA=index, physicsClientId=self._id)
            for body in self._others
        )

    # -- privileged: for tasks and experts, never for sensors -------------------------------------------------------

    def body_pose(self, body: int) -> FloatArray:
        """``base_from_body`` [4, 4]."""
        return matrix(*pybullet.getBasePositionAndOrientation(body, physicsClientId=self._id))

    def body_position(self, body: int) -> FloatArray:
        """Position [3] of a body's middle, metres, base frame."""
        return np.array(pybullet.getBasePositionAndOrientation(body, physicsClientId=self._id)[0])

    def body_velocity(self, body: int) -> tuple[FloatArray, FloatArray]:
        """Velocity [3] in m/s and angular velocity [3] in rad/s, base frame."""
        linear, angular = pybullet.getBaseVelocity(body, physicsClientId=self._id)
        return np.array(linear), np.array(angular)

    def move_body(self, body: int, position_m: ArrayLike, yaw_rad: float = 0.0) -> None:
        """Put a body somewhere at once, at rest."""
        place = np.asarray(position_m, dtype=float).tolist()
        turn = [0.0, 0.0, float(np.sin(yaw_rad / 2)), float(np.cos(yaw_rad / 2))]
        pybullet.resetBasePositionAndOrientation(body, place, turn, physicsClientId=self._id)
        pybullet.resetBaseVelocity(body, [0, 0, 0], [0, 0, 0], physicsClientId=self._id)

    def fingers_touching(self, body: int) -> int:
        """How many of the two fingers are in contact with a body."""
        return sum(
            bool(pybullet.getContactPoints(self._robot, body, link, physicsClientId=self._id)) for link in self._fingers
        )

    def close(self) -> None:
        """Let go of the physics server. May be called twice."""
        self._finalizer()


def _disconnect(client: int) -> None:
    if pybullet.isConnected(client):
        pybullet.disconnect(client)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cross product [3] by components: np.cross costs thirty times as much."""
    (x, y, z), (u, v, w) = a.tolist(), b.tolist()
    return np.array([y * w - z * v, z * u - x * w, x * v - y * u])
