"""FreeBodies: objects as bodies of the simulator that fall, roll and come to rest."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from envs.meshes import ColourPart, write_obj
from envs.opengl import matrix
from envs.pose_scenes.shape import ObjectShape
from envs.world import PyBulletWorld
from sensors.geometry import FloatArray, matrix_to_quaternion

DENSITY_KG_M3 = 600.0
LIGHTEST_KG, HEAVIEST_KG = 0.05, 0.4
FRICTION, ROLLING, SPINNING = 0.7, 5e-4, 2e-4  # the latter two in metres: round things come to rest


@final
class FreeBodies:
    """Puts objects into a world and asks where they are.

    Args:
        world: where they are put.
        folder: where their files are written, and kept as long as this.
    """

    def __init__(self, world: PyBulletWorld, folder: Path) -> None:
        self._bullet, self._client = world.server()
        self._folder = folder
        self._middles: dict[int, FloatArray] = {}

    def add(self, shape: ObjectShape, world_from_object: FloatArray) -> int:
        """Put an object there, at rest; its body number."""
        path = write_urdf(self._folder, shape)
        body = int(self._bullet.loadURDF(str(path), useFixedBase=False, physicsClientId=self._client))
        self._middles[body] = shape.middle_m
        turn = world_from_object[:3, :3]
        place = turn @ shape.middle_m + world_from_object[:3, 3]  # the simulator moves the centre of mass
        self._bullet.resetBasePositionAndOrientation(
            body, place.tolist(), matrix_to_quaternion(turn).tolist(), physicsClientId=self._client
        )
        return body

    def pose(self, body: int) -> FloatArray:
        """``world_from_object`` [4, 4]."""
        out = matrix(*self._bullet.getBasePositionAndOrientation(body, physicsClientId=self._client))
        out[:3, 3] -= out[:3, :3] @ self._middles[body]
        return out

    def speeds(self, body: int) -> tuple[float, float]:
        """How fast it moves, m/s, and turns, rad/s."""
        linear, angular = self._bullet.getBaseVelocity(body, physicsClientId=self._client)
        return float(np.linalg.norm(linear)), float(np.linalg.norm(angular))

    def damp(self, bodies: Sequence[int], share: float) -> None:
        """Take so much of the bodies' speed away in each second from now on, 0 to 1."""
        for body in bodies:
            self._bullet.changeDynamics(
                body, -1, linearDamping=share, angularDamping=share, physicsClientId=self._client
            )

    def remove(self, body: int) -> None:
        """Take one away."""
        del self._middles[body]
        self._bullet.removeBody(body, physicsClientId=self._client)


def write_urdf(folder: Path, shape: ObjectShape) -> Path:
    """The model file of an object with its meshes, written once in a folder.

    What is seen is the mesh, one part for each colour; what touches is its convex parts.
    """
    path = folder / f"{shape.name}.urdf"
    if path.is_file():
        return path
    robot = ET.Element("robot", name=shape.name)
    link = ET.SubElement(robot, "link", name="body")
    inertial = ET.SubElement(link, "inertial")
    mass = min(max(shape.volume_m3 * DENSITY_KG_M3, LIGHTEST_KG), HEAVIEST_KG)
    ET.SubElement(inertial, "origin", xyz=_words(shape.middle_m), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=f"{mass:.6g}")
    # The simulator makes its own from the convex parts; the file must state one.
    ET.SubElement(inertial, "inertia", ixx="1e-4", ixy="0", ixz="0", iyy="1e-4", iyz="0", izz="1e-4")
    for number, part in enumerate(colour_parts(shape)):
        mesh = folder / f"{shape.name}_seen_{number}.obj"
        write_obj(mesh, part)
        visual = _mesh(link, "visual", mesh)
        material = ET.SubElement(visual, "material", name=f"{shape.name}_{number}")
        ET.SubElement(material, "color", rgba=_words(np.array(part.rgba)))
    for number, hull in enumerate(shape.hulls):
        mesh = folder / f"{shape.name}_hull_{number}.obj"
        # The simulator spans the hull of the vertices itself; any triangles that name all of them will do.
        lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in hull]
        lines += [f"f {k} {k + 1} {k + 2}" for k in range(1, len(hull) - 1)]
        mesh.write_text("\n".join(lines) + "\n")
        _mesh(link, "collision", mesh)
    contact = ET.SubElement(link, "contact")
    for name, value in (("lateral_friction", FRICTION), ("rolling_friction", ROLLING), ("spinning_friction", SPINNING)):
        ET.SubElement(contact, name, value=str(value))
    path.write_text(ET.tostring(robot, encoding="unicode"), encoding="utf-8")
    return path


def colour_parts(shape: ObjectShape) -> list[ColourPart]:
    """The faces of each colour."""
    of_face = shape.rgb[shape.faces[:, 0]]
    parts = []
    for rgb in np.unique(of_face, axis=0):
        used, renumbered = np.unique(shape.faces[(of_face == rgb).all(1)], return_inverse=True)
        red, green, blue = (rgb / 255.0).tolist()
        parts.append(
            ColourPart((red, green, blue, 1.0), shape.vertices_m[used], renumbered.reshape(-1, 3).astype(np.int64))
        )
    return parts


def _mesh(link: ET.Element, kind: str, path: Path) -> ET.Element:
    element = ET.SubElement(link, kind)
    ET.SubElement(ET.SubElement(element, "geometry"), "mesh", filename=path.name)
    return element


def _words(values: FloatArray) -> str:
    return " ".join(f"{value:.9g}" for value in values.tolist())
