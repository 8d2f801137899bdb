"""The objects to be held out: other shapes, other colours, every kind of symmetry again."""

from __future__ import annotations

import math

import numpy as np

from envs.pose_scenes.shape import ObjectShape, shape_of
from envs.pose_scenes.shapes_known import (
    BLUE,
    BROWN,
    CREAM,
    DARK,
    GREEN,
    GREY,
    NAVY,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    TEAL,
    UP,
    WHITE,
    YELLOW,
    regular,
)  # fmt: skip
from envs.pose_scenes.solids import hollow, lathe, prism, superquadric, tube
from envs.pose_scenes.turns import cyclic, dihedral, turn


def cone() -> ObjectShape:
    """A traffic cone that leans in its frame, its axis beside the origin: any turn about that axis."""
    profile = [
        (0.0, 0.0),
        (0.045, 0.0),
        (0.045, 0.008),
        (0.032, 0.008),
        (0.022, 0.04),
        (0.014, 0.066),
        (0.005, 0.095),
        (0.0, 0.095),
    ]
    paint = [DARK, DARK, DARK, ORANGE, WHITE, ORANGE, ORANGE]
    place = turn((0.3, -0.8, 0.0), 0.6)
    place[:3, 3] = (-0.012, 0.018, -0.03)
    return shape_of("cone", (lathe(profile, paint).moved(place),), axis=place[:3, 2], offset_m=place[:3, 3])


def star() -> ObjectShape:
    """A five-pointed star: five-fold about its axis, and half turns across it."""
    points = regular(10, 1.0) * np.where(np.arange(10) % 2, 0.028, 0.055)[:, None]
    return shape_of("star", (prism(points, 0.024, YELLOW, (PINK, PINK)),), dihedral(5))


def bolt() -> ObjectShape:
    """A hexagonal head on a round shaft with a collar: six-fold about its axis."""
    head = prism(regular(6, 0.03), 0.02, NAVY, (NAVY, TEAL)).moved(_shifted(0.03))
    shaft = lathe(
        [
            (0.0, -0.055),
            (0.01, -0.055),
            (0.013, -0.052),
            (0.013, -0.02),
            (0.013, 0.005),
            (0.022, 0.005),
            (0.022, 0.0205),
            (0.0, 0.0205),
        ],
        [GREY, GREY, GREY, GREY, TEAL, TEAL, TEAL],
    )
    return shape_of("bolt", (head, shaft), cyclic(6))


def ring() -> ObjectShape:
    """A torus: any turn about z, and half turns across."""
    angle = 2 * math.pi * np.arange(24) / 24
    profile = np.stack([0.038 + 0.013 * np.cos(angle), 0.013 * np.sin(angle)], -1)
    # Pieces 0 to 11 lie above z = 0; the same colours in the mirrored order lie below it.
    upper = [RED, RED, RED, CREAM, CREAM, CREAM, CREAM, CREAM, CREAM, RED, RED, RED]
    solid = lathe(profile, [*upper, *upper[::-1]], closed=True)
    return shape_of("ring", (solid,), turn((1.0, 0.0, 0.0), math.pi)[None], UP)


def jug() -> ObjectShape:
    """A jug with a handle and a spout of another height: no symmetry."""
    profile = [
        (0.0, -0.05), (0.03, -0.05), (0.037, -0.025), (0.032, 0.01), (0.023, 0.035), (0.028, 0.055),
        (0.0245, 0.055), (0.0195, 0.035), (0.0285, 0.01), (0.0335, -0.025), (0.027, -0.0455), (0.0, -0.0455),
    ]  # fmt: skip
    paint = [TEAL, TEAL, CREAM, CREAM, TEAL, TEAL, BROWN, BROWN, BROWN, BROWN, BROWN]
    angle = np.linspace(-0.5 * math.pi, 0.5 * math.pi, 13)
    handle = np.stack([-0.026 - 0.03 * np.cos(angle), 0 * angle, 0.008 + 0.03 * np.sin(angle)], -1)
    handle[0, 0], handle[-1, 0] = -0.0332, -0.0232
    spout = np.array([(0.0335, 0.0, -0.015), (0.046, 0.004, 0.008), (0.058, 0.008, 0.032)])
    return shape_of("jug", (hollow(profile, paint, -0.0454), tube(handle, 0.005, BROWN), tube(spout, 0.007, YELLOW)))


def pillow() -> ObjectShape:
    """A superquadric whose octants are coloured by the sign of x y z: half turns about all three axes."""
    octants = [GREEN, PINK, GREEN, PINK, PINK, GREEN, PINK, GREEN]
    return shape_of("pillow", (superquadric((0.055, 0.036, 0.022), 0.6, 0.5, octants),), dihedral(2))


def zigzag() -> ObjectShape:
    """An S of four squares, its two faces unlike: a half turn about z."""
    side = 0.028
    outline = np.array([(-1.5, -1), (0.5, -1), (0.5, 0), (1.5, 0), (1.5, 1), (-0.5, 1), (-0.5, 0), (-1.5, 0)]) * side
    sides = [PURPLE, ORANGE, PURPLE, ORANGE] * 2
    return shape_of("zigzag", (prism(outline, side, sides, (BLUE, PURPLE)),), cyclic(2))


def _shifted(up_m: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    out = np.eye(4)
    out[2, 3] = up_m
    return out
