"""The objects to train on: every kind of symmetry, and objects without any."""

from __future__ import annotations

import math

import numpy as np

from envs.pose_scenes.shape import ObjectShape, shape_of
from envs.pose_scenes.solids import box, hollow, lathe, prism, tube
from envs.pose_scenes.turns import dihedral, octahedral, turn
from sensors.geometry import FloatArray

RED, ORANGE, YELLOW, GREEN = (196, 44, 40), (232, 126, 36), (236, 200, 52), (58, 150, 72)
TEAL, BLUE, NAVY, PURPLE = (44, 160, 160), (52, 104, 200), (36, 48, 104), (132, 72, 160)
WHITE, CREAM, GREY, DARK, BROWN, PINK = (
    (232, 232, 228), (224, 208, 172), (150, 152, 156), (56, 56, 60), (126, 82, 48), (226, 138, 168),
)  # fmt: skip
UP = np.array([0.0, 0.0, 1.0])


def brick() -> ObjectShape:
    """A box of three different edges, opposite faces alike: half turns about all three axes."""
    return shape_of("brick", (box((0.115, 0.075, 0.05), (RED, ORANGE, CREAM)),), dihedral(2))


def cube() -> ObjectShape:
    """A cube with the same square on each face: 23 turns."""
    return shape_of("cube", (box((0.065,) * 3, (BLUE, BLUE, BLUE), 0.22, YELLOW),), octahedral())


def hexagon() -> ObjectShape:
    """A hexagonal prism: six-fold about its axis, and half turns across it."""
    solid = prism(regular(6, 0.042), 0.035, GREEN, (WHITE, WHITE))
    return shape_of("hexagon", (solid,), dihedral(6))


def can() -> ObjectShape:
    """A cylinder with bands that are the same from both ends: any turn about z, and half turns across."""
    radius, edges = 0.033, (-0.05, -0.046, -0.02, 0.02, 0.046, 0.05)
    profile = [(0.0, -0.05), *((radius, z) for z in edges), (0.0, 0.05)]
    paint = [GREY, GREY, TEAL, WHITE, TEAL, GREY, GREY]
    return shape_of("can", (lathe(profile, paint),), turn((1.0, 0.0, 0.0), math.pi)[None], UP)


def bottle() -> ObjectShape:
    """A bottle with a label and a cap: any turn about z."""
    profile = [
        (0.0, -0.07), (0.026, -0.07), (0.03, -0.066), (0.03, -0.045), (0.03, 0.005), (0.03, 0.02), (0.027, 0.032),
        (0.02, 0.042), (0.012, 0.049), (0.012, 0.057), (0.0145, 0.057), (0.0145, 0.073), (0.0, 0.073),
    ]  # fmt: skip
    paint = [GREEN, GREEN, GREEN, CREAM, GREEN, GREEN, GREEN, GREEN, GREEN, RED, RED, RED]
    return shape_of("bottle", (lathe(profile, paint),), axis=UP)


def bowl() -> ObjectShape:
    """A bowl, another colour inside: any turn about z."""
    angle = np.radians(np.linspace(25.0, 90.0, 7))
    outside = np.stack([0.062 * np.sin(angle), 0.05 - 0.056 * np.cos(angle)], -1)
    inside = np.stack([0.0575 * np.sin(angle[::-1]), 0.05 - 0.051 * np.cos(angle[::-1])], -1)
    low, floor = float(outside[0, 1]), float(inside[-1, 1])
    profile = np.concatenate([[(0.0, low)], outside, inside, [(0.0, floor)]])
    paint = [PURPLE] * 7 + [WHITE] * 8
    return shape_of("bowl", (hollow(profile, paint, floor + 1e-9),), axis=UP)


def spool() -> ObjectShape:
    """A spool about an axis along y that passes beside the origin: any turn about that axis, the ends differ."""
    profile = [
        (0.0, -0.035), (0.034, -0.035), (0.034, -0.027), (0.016, -0.027), (0.016, 0.02), (0.026, 0.02), (0.026, 0.03),
        (0.0, 0.03),
    ]  # fmt: skip
    paint = [ORANGE, ORANGE, ORANGE, DARK, CREAM, CREAM, CREAM]
    offset = np.array([0.021, 0.0, -0.013])
    place = turn((1.0, 0.0, 0.0), -math.pi / 2)  # z goes to y
    place[:3, 3] = offset
    return shape_of("spool", (lathe(profile, paint).moved(place),), axis=np.array([0.0, 1.0, 0.0]), offset_m=offset)


def mug() -> ObjectShape:
    """A cup with a handle: no symmetry."""
    profile = [
        (0.0, -0.045), (0.036, -0.045), (0.038, -0.03), (0.038, 0.02), (0.038, 0.045),
        (0.0345, 0.045), (0.0345, 0.02), (0.0345, -0.03), (0.0325, -0.0405), (0.0, -0.0405),
    ]  # fmt: skip
    paint = [WHITE, WHITE, WHITE, RED, WHITE, CREAM, CREAM, CREAM, CREAM]
    angle = np.linspace(-math.pi / 2, math.pi / 2, 15)
    handle = np.stack([0.0362 + 0.027 * np.cos(angle), 0 * angle, 0.028 * np.sin(angle)], -1)
    return shape_of("mug", (hollow(profile, paint, -0.0404), tube(handle, 0.0055, RED)))


def hammer() -> ObjectShape:
    """A handle through a head with a face at one end and a wedge at the other: no symmetry."""
    grip = lathe(
        [(0.0, -0.075), (0.011, -0.075), (0.012, -0.06), (0.0115, -0.02), (0.008, 0.0), (0.008, 0.06), (0.0, 0.06)],
        [BROWN, BROWN, BROWN, ORANGE, ORANGE, ORANGE],
    )
    outline = [(-0.04, -0.004), (-0.012, -0.013), (0.03, -0.013), (0.03, 0.013), (-0.012, 0.013), (-0.04, 0.009)]
    head = prism(outline, 0.024, [DARK, GREY, RED, GREY, DARK, DARK], (GREY, GREY))
    place = turn((1.0, 0.0, 0.0), math.pi / 2)  # its z goes to -y, its y to z
    place[:3, 3] = (0.0, 0.0, 0.047)
    return shape_of("hammer", (grip, head.moved(place)))


def bracket() -> ObjectShape:
    """An L of unequal legs, one of them broader at its end: no symmetry."""
    outline = [(0.0, 0.0), (0.085, 0.0), (0.085, 0.016), (0.016, 0.016), (0.016, 0.055), (0.0, 0.055)]
    solid = prism(np.asarray(outline) - (0.03, 0.02), 0.045, [BLUE, RED, YELLOW, YELLOW, RED, BLUE], (NAVY, TEAL))
    return shape_of("bracket", (solid,))


def regular(corners: int, radius_m: float) -> FloatArray:
    """A regular polygon [K, 2], a corner on x."""
    angle = 2 * math.pi * np.arange(corners) / corners
    return radius_m * np.stack([np.cos(angle), np.sin(angle)], -1)
