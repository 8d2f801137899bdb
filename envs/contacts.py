"""What touches a link of the robot, where, and with what force."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from envs.robot_model import RobotModel
from envs.solids import centre_of_mass
from sensors.base import Touching
from sensors.errors import SpecError, nearest

MEETS_M = 1e-4  # a gap below this is one of the solver's, not of the surfaces


def touching(
    bullet: Any, client: int, robot: RobotModel, link: str, others: Iterable[int], margin_m: float
) -> list[Touching]:
    """Bodies within ``margin_m`` of a link, each with all contacts between it and the whole robot.

    Args:
        bullet: the module pybullet.
        client: the physics server.
        robot: whose link it is.
        link: URDF name.
        others: bodies that are not the robot.
        margin_m: how near they have to be, metres.

    Raises:
        SpecError: the robot has no such link.
    """
    if link not in robot.links:
        raise SpecError("PyBulletWorld.touching", "a link of the robot", f"'{link}'", nearest(link, robot.links))
    index = robot.links[link]
    found = []
    for body in sorted(others):
        near = bullet.getClosestPoints(robot.body, body, margin_m, linkIndexA=index, physicsClientId=client)
        if near:
            part = min(near, key=lambda point: (point[8], point[4]))[4]
            found.append(_look(bullet, client, robot.body, index, body, part))
    return found


def _look(bullet: Any, client: int, robot: int, link: int, body: int, part: int) -> Touching:
    # The engine also keeps points at which the bodies are near without touching. Its last iteration may leave friction
    # at one without pressure: that belongs to the sum.
    kept = bullet.getContactPoints(robot, body, physicsClientId=client)
    held = [p for p in kept if p[8] <= MEETS_M or p[9] or p[10] or p[12]]
    rows = np.array([[*p[5], *p[7], p[9], p[10], *p[11], p[12], *p[13]] for p in held]).reshape(-1, 15)
    normals = rows[:, 3:6]
    # The two friction forces stand along their directions, and act on the first body of the question: the robot.
    force = rows[:, 6:7] * normals + rows[:, 7:8] * rows[:, 8:11] + rows[:, 11:12] * rows[:, 12:15]
    # The engine multiplies the coefficients of the two surfaces.
    friction = np.prod(
        [bullet.getDynamicsInfo(*key, physicsClientId=client)[1] for key in ((robot, link), (body, part))]
    )
    # 0 is the link that was asked for; the base is -1, which may be asked for as well.
    links = np.array([0 if p[3] == link else p[3] + 2 for p in held], dtype=np.int64)
    return Touching(
        body=body,
        base_from_body=centre_of_mass(bullet, client, body, part),
        friction=float(friction),
        links=links,
        points_m=rows[:, 0:3],
        normals=normals,
        force_N=force,
    )
