"""Setting up a physics server, and simple bodies in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def set_up(bullet: Any, client: int, physics_hz: float, solver_iterations: int) -> None:
    """Gravity, the time step, and what makes equal seeds give equal physics."""
    bullet.setGravity(0.0, 0.0, -9.81, physicsClientId=client)
    bullet.setPhysicsEngineParameter(
        fixedTimeStep=1.0 / physics_hz,
        numSolverIterations=solver_iterations,
        # Without it the order of contacts depends on memory addresses, and equal seeds diverge.
        deterministicOverlappingPairs=1,
        # Two friction directions, not a cone: a tenth cheaper, and boxes held by friction anchors slip no more.
        enableConeFriction=0,
        physicsClientId=client,
    )


def add_shape(
    bullet: Any,
    client: int,
    kind: int,
    size: Mapping[str, object],
    position_m: ArrayLike,
    yaw_rad: float,
    mass_kg: float,
    rgba: Sequence[float],
    friction: float,
    solid: bool,
) -> int:
    """Add a body of one shape, with sizes as pybullet names them for collision shapes; its id."""
    # pybullet names the height of a cylinder differently in its two calls.
    seen = {"length" if name == "height" else name: value for name, value in size.items()}
    look = bullet.createVisualShape(kind, rgbaColor=list(rgba), physicsClientId=client, **seen)
    shape = bullet.createCollisionShape(kind, physicsClientId=client, **size) if solid else -1
    place = np.asarray(position_m, dtype=float).tolist()
    body = int(bullet.createMultiBody(mass_kg, shape, look, place, upright(yaw_rad), physicsClientId=client))
    if solid:
        bullet.changeDynamics(body, -1, lateralFriction=friction, physicsClientId=client)
    return body


def upright(yaw_rad: float) -> list[float]:
    """Quaternion x y z w of a turn about z."""
    return [0.0, 0.0, float(np.sin(yaw_rad / 2)), float(np.cos(yaw_rad / 2))]


def disconnect(bullet: Any, client: int) -> None:
    """Close a physics server, unless it is closed already."""
    if bullet.isConnected(client):
        bullet.disconnect(client)
