"""Pile: objects dropped on a table until they lie still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from envs.pose_scenes.bodies import FreeBodies
from envs.pose_scenes.shape import ObjectShape
from envs.world import PyBulletWorld
from sensors.geometry import FloatArray, quaternion_to_matrix

TABLE_HALF_M = (0.5, 0.5, 0.02)
FLOOR_HALF_M, FLOOR_Z_M = (2.0, 2.0, 0.02), -0.7
FIRST_M, NEXT_M = 0.11, 0.06  # height of the first object's middle over the table, and of each further one
STEPS_A_LOOK = 24
STILL_M_S, STILL_RAD_S = 2e-3, 3e-2
CALM_S, LONGEST_S = 1.5, 6.0  # from then on they are slowed down; no longer than that
FALLEN_M = -0.02  # an object whose middle is lower than this is no longer on the table


@final
@dataclass(frozen=True, eq=False)
class Rested:
    """What lies on the table.

    Attributes:
        index: int64 [K], which of the dropped objects.
        body: int64 [K], their numbers in the simulator.
        world_from_object: float64 [K, 4, 4]; the table's top is z = 0.
        table: the table's number.
        floor: the floor's.
    """

    index: np.ndarray[tuple[int], np.dtype[np.int64]]
    body: np.ndarray[tuple[int], np.dtype[np.int64]]
    world_from_object: FloatArray
    table: int
    floor: int


def drop(
    world: PyBulletWorld,
    bodies: FreeBodies,
    shapes: tuple[ObjectShape, ...],
    spread_m: float,
    rng: np.random.Generator,
) -> Rested:
    """Put up a table in an empty world and drop objects on it, within ``spread_m``; what falls off is taken away."""
    table = world.add_box(
        TABLE_HALF_M, (0.0, 0.0, -TABLE_HALF_M[2]), mass_kg=0.0, rgba=(1.0, 1.0, 1.0, 1.0), friction=0.8
    )
    floor = world.add_box(FLOOR_HALF_M, (0.0, 0.0, FLOOR_Z_M - FLOOR_HALF_M[2]), mass_kg=0.0, rgba=(1.0, 1.0, 1.0, 1.0))
    put = []
    for number, shape in enumerate(shapes):
        far, angle = spread_m * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        start = np.eye(4)
        start[:3, :3] = quaternion_to_matrix(rng.standard_normal(4))
        middle = np.array([far * np.cos(angle), far * np.sin(angle), FIRST_M + NEXT_M * number])
        start[:3, 3] = middle - start[:3, :3] @ shape.middle_m
        put.append(bodies.add(shape, start))
    _settle(world, bodies, put)
    poses = [bodies.pose(body) for body in put]
    middles = [pose[:3, :3] @ shape.middle_m + pose[:3, 3] for pose, shape in zip(poses, shapes, strict=True)]
    lying = [
        k for k, middle in enumerate(middles) if middle[2] > FALLEN_M and (np.abs(middle[:2]) < TABLE_HALF_M[:2]).all()
    ]
    for k, body in enumerate(put):
        if k not in lying:
            bodies.remove(body)
    return Rested(
        index=np.array(lying, np.int64),
        body=np.array([put[k] for k in lying], np.int64),
        world_from_object=np.array([poses[k] for k in lying]).reshape(-1, 4, 4),
        table=table,
        floor=floor,
    )


def _settle(world: PyBulletWorld, bodies: FreeBodies, put: list[int]) -> None:
    slowed = False
    while world.time_s < LONGEST_S:
        world.step(STEPS_A_LOOK)
        if not slowed and world.time_s > CALM_S:
            bodies.damp(put, 0.9)
            slowed = True
        speeds = [bodies.speeds(body) for body in put if bodies.pose(body)[2, 3] > FLOOR_Z_M / 2]
        if world.time_s > 0.4 and all(metres < STILL_M_S and turn < STILL_RAD_S for metres, turn in speeds):
            return
