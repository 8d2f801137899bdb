"""BodyShapes: the shapes of simulated bodies as solids with closed forms, where they are now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import numpy as np

from envs.opengl import matrix
from envs.rays import Ball, Box, Cylinder, Placed, Polyhedron, Solid
from sensors.errors import SpecError
from sensors.geometry import FloatArray

Shapes = list[tuple[Solid, FloatArray]]


@final
class BodyShapes:
    """Looks up the shapes of every link of a body once: a body keeps its shape until it is removed.

    Args:
        bullet: the module pybullet.
        client: the physics server.
    """

    def __init__(self, bullet: Any, client: int) -> None:
        self._bullet, self._client = bullet, client
        self._known: dict[int, dict[int, Shapes]] = {}  # body -> link (-1 = the base) -> its solids

    def forget(self, body: int) -> None:
        """The body was removed; the server may give its number to another one."""
        self._known.pop(body, None)

    def placed(self, bodies: Iterable[int]) -> list[Placed]:
        """The solids of these bodies in the base frame.

        Raises:
            SpecError: a solid has a shape for which there is no closed form.
        """
        found = []
        for body in bodies:
            if body not in self._known:
                self._known[body] = self._look_up(body)
            for link, shapes in self._known[body].items():
                base_from_link = centre_of_mass(self._bullet, self._client, body, link)
                found += [Placed(solid, base_from_link @ link_from_solid) for solid, link_from_solid in shapes]
        return found

    def _look_up(self, body: int) -> dict[int, Shapes]:
        links = range(-1, self._bullet.getNumJoints(body, physicsClientId=self._client))
        found = {link: self._shapes(body, link) for link in links}
        return {link: shapes for link, shapes in found.items() if shapes}

    def _shapes(self, body: int, link: int) -> Shapes:
        """The solids of a link, and their poses [4, 4] in the frame of its centre of mass."""
        bullet, found = self._bullet, Shapes()
        for shape in bullet.getCollisionShapeData(body, link, physicsClientId=self._client):
            kind, size, link_from_solid = shape[2], shape[3], matrix(shape[5], shape[6])
            if kind == bullet.GEOM_BOX:
                found.append((Box([edge / 2 for edge in size]), link_from_solid))
            elif kind == bullet.GEOM_CYLINDER:
                found.append((Cylinder(size[1], size[0]), link_from_solid))
            elif kind == bullet.GEOM_SPHERE:
                found.append((Ball(size[0]), link_from_solid))
            elif kind == bullet.GEOM_MESH and not any(isinstance(solid, Polyhedron) for solid, _ in found):
                # The points come scaled and placed, of a link's first mesh only. Bullet, too, takes their convex hull.
                points = bullet.getMeshData(body, link, physicsClientId=self._client)[1]
                found.append((Polyhedron(np.array(points)), np.eye(4)))
            else:
                raise SpecError(
                    "PyBulletWorld.ray_cast", "boxes, cylinders, spheres and at most one mesh per link",
                    f"collision geometry {kind} of body {body}, link {link}", "Model it with these.",
                )  # fmt: skip
        return found


def centre_of_mass(bullet: Any, client: int, body: int, link: int) -> FloatArray:
    """``base_from_link`` [4, 4] of the frame that the server keeps shapes in: the link's centre of mass; -1 = base."""
    if link < 0:
        return matrix(*bullet.getBasePositionAndOrientation(body, physicsClientId=client))
    return matrix(*bullet.getLinkState(body, link, 0, 1, physicsClientId=client)[:2])
