"""A few meshes to track in tests and benchmarks, with their symmetries."""

from __future__ import annotations

import math

import numpy as np

from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.geometry import FloatArray, axis_angle_to_matrix

_BOX_FACES = np.array(
    [[0, 2, 1], [0, 3, 2], [4, 5, 6], [4, 6, 7], [0, 1, 5], [0, 5, 4],
     [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]]
)  # fmt: skip


def box_mesh(low_m: tuple[float, float, float], high_m: tuple[float, float, float]) -> tuple[FloatArray, FloatArray]:
    """Vertices [8, 3] and faces [12, 3] of a box, counter-clockwise from outside."""
    (x0, y0, z0), (x1, y1, z1) = low_m, high_m
    vertices = np.array(
        [[x0, y0, z0], [x1, y0, z0], [x1, y1, z0], [x0, y1, z0], [x0, y0, z1], [x1, y0, z1], [x1, y1, z1], [x0, y1, z1]]
    )
    return vertices, _BOX_FACES


def _merged(number: int, name: str, boxes: list[tuple[tuple[float, float, float], tuple[float, float, float]]],
            colours: list[tuple[int, int, int]], symmetries: Symmetries | None = None) -> ObjectModel:  # fmt: skip
    vertices, faces, rgb = [], [], []
    for number_of, ((low, high), colour) in enumerate(zip(boxes, colours, strict=True)):
        corner, face = box_mesh(low, high)
        vertices.append(corner)
        faces.append(face + 8 * number_of)
        rgb.append(np.tile(np.array(colour, np.uint8), (8, 1)))
    return ObjectModel.make(
        number, name, np.concatenate(vertices), np.concatenate(faces), np.concatenate(rgb), symmetries
    )


def carton(number: int = 1) -> ObjectModel:
    """A box of 12 x 8 x 5 cm: three half turns look the same."""
    turns = []
    for axis in np.eye(3):
        turn = np.eye(4)
        turn[:3, :3] = axis_angle_to_matrix(math.pi * axis)
        turns.append(turn)
    low, high = (-0.06, -0.04, -0.025), (0.06, 0.04, 0.025)
    return _merged(number, "carton", [(low, high)], [(190, 120, 60)], Symmetries.make(turns))


def bracket(number: int = 2) -> ObjectModel:
    """An angle of two unequal plates with a rib: no symmetry."""
    boxes = [
        ((-0.06, -0.035, -0.03), (0.06, 0.035, -0.018)),
        ((-0.06, -0.035, -0.018), (-0.045, 0.035, 0.05)),
        ((-0.045, -0.035, -0.018), (0.02, -0.02, 0.012)),
    ]
    return _merged(number, "bracket", boxes, [(200, 60, 50), (60, 160, 70), (60, 80, 200)])


def can(number: int = 3, sides: int = 48) -> ObjectModel:
    """A can of 7 cm and 11 cm: it may be turned about z by any angle and upside down."""
    angle = 2 * math.pi * np.arange(sides) / sides
    ring = np.stack([0.035 * np.cos(angle), 0.035 * np.sin(angle)], -1)
    low, high = (np.concatenate([ring, np.full((sides, 1), z)], 1) for z in (-0.055, 0.055))
    vertices = np.concatenate([low, high, [[0, 0, -0.055], [0, 0, 0.055]]])
    here, there = np.arange(sides), (np.arange(sides) + 1) % sides
    faces = np.concatenate(
        [
            np.stack([here, there, there + sides], -1),
            np.stack([here, there + sides, here + sides], -1),
            np.stack([there, here, np.full(sides, 2 * sides)], -1),
            np.stack([here + sides, there + sides, np.full(sides, 2 * sides + 1)], -1),
        ]
    )
    turn = np.eye(4)
    turn[:3, :3] = axis_angle_to_matrix([math.pi, 0.0, 0.0])
    symmetries = Symmetries.make([turn], [ContinuousSymmetry.make([0.0, 0.0, 1.0])])
    return ObjectModel.make(number, "can", vertices, faces, (170, 170, 190), symmetries)


def jug(number: int = 4) -> ObjectModel:
    """A can with a handle: only the handle says how it is turned; upside down it looks the same."""
    body = can()
    parts = [
        ((0.03, -0.008, 0.025), (0.07, 0.008, 0.04)),
        ((0.03, -0.008, -0.04), (0.07, 0.008, -0.025)),
        ((0.055, -0.008, -0.025), (0.07, 0.008, 0.025)),
    ]
    vertices, faces = [body.vertices_m], [body.faces]
    for low, high in parts:
        corner, face = box_mesh(low, high)
        faces.append(face.astype(np.int64) + sum(map(len, vertices)))
        vertices.append(corner)
    rgb = np.full((sum(map(len, vertices)), 3), (80, 140, 200), np.uint8)
    turn = np.eye(4)
    turn[:3, :3] = axis_angle_to_matrix([math.pi, 0.0, 0.0])
    return ObjectModel.make(
        number, "jug", np.concatenate(vertices), np.concatenate(faces), rgb, Symmetries.make([turn])
    )
