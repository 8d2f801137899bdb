"""Things out of boxes, upright or lying cylinders and balls, each made of pieces that carry the names of its parts."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sensors.geometry import FloatArray

Rgba = tuple[float, float, float, float]


@dataclass(frozen=True)
class Solid:
    """A box (three edge lengths), a cylinder (radius, height) or a ball (radius) in the frame of its thing.

    Attributes:
        size_m: its one, two or three sizes; a box's along its own x, y, z, a cylinder's height along its own z.
        middle_m: its middle [3].
        rpy_rad: its turns about the fixed axes x, y and z, in this order.
    """

    size_m: tuple[float, ...]
    middle_m: tuple[float, float, float]
    rpy_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def reach_m(self) -> FloatArray:
        """Half of its extent [3] along the axes of its thing."""
        turn = np.abs(_turn(*self.rpy_rad))
        if len(self.size_m) == 3:
            return np.asarray(turn @ self.size_m) / 2
        if len(self.size_m) == 1:
            return np.full(3, self.size_m[0])
        radius, height = self.size_m
        return np.asarray(radius * np.sqrt(np.maximum(1 - turn[:, 2] ** 2, 0.0)) + height / 2 * turn[:, 2])


@dataclass(frozen=True)
class Piece:
    """A part of a thing that moves as a whole; it becomes one body of the simulator, by which it is told apart."""

    part: str
    solids: tuple[Solid, ...]
    rgba: Rgba


@dataclass(frozen=True)
class Thing:
    """One object in a frame of its own: z up, its foot at z = 0, the origin about its middle, x its front."""

    label: str
    pieces: tuple[Piece, ...]

    @cached_property
    def bounds_m(self) -> tuple[FloatArray, FloatArray]:
        """The lowest and the highest corner [3] of the box around it."""
        solids = [solid for piece in self.pieces for solid in piece.solids]
        low = np.min([np.asarray(solid.middle_m) - solid.reach_m for solid in solids], axis=0)
        high = np.max([np.asarray(solid.middle_m) + solid.reach_m for solid in solids], axis=0)
        return low, high

    @cached_property
    def radius_m(self) -> float:
        """Of the upright cylinder around the origin that holds it."""
        low, high = self.bounds_m
        return float(np.hypot(*np.maximum(-low, high)[:2]))


def ring_of_boards(radius_m: float, wall_m: float, height_m: float, sides: int, foot_m: float) -> tuple[Solid, ...]:
    """Upright boards around a round vessel of this inner radius; neighbours overlap on the inside."""
    turn, middle = 2 * math.pi / sides, radius_m + wall_m / 2
    length, up = 2 * (radius_m + wall_m) * math.tan(turn / 2), foot_m + height_m / 2
    return tuple(
        Solid(
            (wall_m, length, height_m),
            (middle * math.cos(turn * side), middle * math.sin(turn * side), up),
            (0.0, 0.0, turn * side),
        )
        for side in range(sides)
    )


def solids_of(urdf: Path, joints: Mapping[str, float]) -> dict[str, tuple[Solid, ...]]:
    """The solids of each link of one of :mod:`envs.models`' files in the root link's frame.

    Args:
        urdf: its joints slide, without turns of their own.
        joints: positions by name, metres; others are at 0.
    """
    model = ET.parse(urdf).getroot()
    origins: dict[str, FloatArray] = {}
    for joint in model.iter("joint"):
        parent, child = _of(joint, "parent", "link"), _of(joint, "child", "link")
        along = joints.get(joint.attrib["name"], 0.0) * _vector(_of(joint, "axis", "xyz"))
        origins[child] = origins.get(parent, np.zeros(3)) + _vector(_of(joint, "origin", "xyz")) + along
    return {
        link.attrib["name"]: tuple(
            _solid(element, origins.get(link.attrib["name"], np.zeros(3))) for element in link.iter("collision")
        )
        for link in model.iter("link")
    }


def write_urdf(path: Path, piece: Piece) -> None:
    """Write a piece as a robot of one link; what is seen is what is met."""
    robot = ET.Element("robot", name="piece")
    link = ET.SubElement(robot, "link", name="body")
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "mass", value="1")
    ET.SubElement(inertial, "inertia", ixx="0.001", ixy="0", ixz="0", iyy="0.001", iyz="0", izz="0.001")
    for solid, tag in itertools.product(piece.solids, ("visual", "collision")):
        element = ET.SubElement(link, tag)
        ET.SubElement(element, "origin", xyz=_words(solid.middle_m), rpy=_words(solid.rpy_rad))
        geometry = ET.SubElement(element, "geometry")
        if len(solid.size_m) == 3:
            ET.SubElement(geometry, "box", size=_words(solid.size_m))
        elif len(solid.size_m) == 2:
            ET.SubElement(geometry, "cylinder", radius=_words(solid.size_m[:1]), length=_words(solid.size_m[1:]))
        else:
            ET.SubElement(geometry, "sphere", radius=_words(solid.size_m))
        if tag == "visual":
            ET.SubElement(ET.SubElement(element, "material", name="paint"), "color", rgba=_words(piece.rgba))
    path.write_text(ET.tostring(robot, encoding="unicode"), encoding="utf-8")


def _solid(element: ET.Element, origin_m: FloatArray) -> Solid:
    middle = origin_m + _vector(_of(element, "origin", "xyz"))
    roll, pitch, yaw = _vector(_of(element, "origin", "rpy")).tolist()
    shape = element.find("geometry/box")
    if shape is not None:
        size = tuple(_vector(shape.attrib["size"]).tolist())
    else:
        size = (float(_of(element, "geometry/cylinder", "radius")), float(_of(element, "geometry/cylinder", "length")))
    return Solid(size, (float(middle[0]), float(middle[1]), float(middle[2])), (roll, pitch, yaw))


def _of(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    assert found is not None  # the files are written by envs.models
    return found.attrib[name]


def _vector(words: str) -> FloatArray:
    return np.array([float(word) for word in words.split()])


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _turn(roll: float, pitch: float, yaw: float) -> FloatArray:
    (a, b, c), (d, e, f) = (
        (math.cos(roll), math.cos(pitch), math.cos(yaw)),
        (math.sin(roll), math.sin(pitch), math.sin(yaw)),
    )
    return np.array(
        [
            [c * b, c * e * d - f * a, c * e * a + f * d],
            [f * b, f * e * d + c * a, f * e * a - c * d],
            [-e, b * d, b * a],
        ]
    )
