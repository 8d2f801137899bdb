"""Small models of furniture, written as URDF files: a tray, a bowl, a cabinet with a drawer, a push button.

Collision and visual shapes are the same boxes and cylinders, so what is seen is what can be touched. Colours are plain
grey here; a task paints a model through :meth:`envs.world.PyBulletWorld.recolour`. Each model stands on its z = 0.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.meshes import cached_folder, fingerprint

GREY = (0.7, 0.7, 0.7, 1.0)
WALL_M = 0.008  # thickness of walls
FLOOR_M = 0.006  # thickness of floors
BOWL_SIDES = 8

TRAY_HALF_M, TRAY_WALL_M = 0.055, 0.03  # inner half edge, height of the rim
BOWL_RADIUS_M, BOWL_WALL_M = 0.055, 0.045  # inner radius to a side's middle, height of the rim

# The cabinet's frame: x out of its front, origin under the middle of the front; the drawer's joint is 0 when shut.
CABINET_HALF_WIDTH_M, CABINET_DEPTH_M, CABINET_HEIGHT_M = 0.09, 0.16, 0.08
DRAWER_TRAVEL_M = 0.13
DRAWER_HALF_WIDTH_M, DRAWER_DEPTH_M = 0.078, 0.14  # outer half width, depth behind the front plate
DRAWER_FLOOR_M, DRAWER_RIM_M, FRONT_TOP_M = 0.012, 0.042, 0.055  # heights above the table
FRONT_M = 0.01  # thickness of the drawer's front plate, before the cabinet's front
KNOB_M = 0.05  # middle of the knob before the cabinet's front when the drawer is shut
KNOB_HALF_M = (0.01, 0.012, 0.018)
KNOB_HEIGHT_M = 0.036  # middle of the knob above the table
DRAWER_MASS_KG = 0.3

BUTTON_HALF_M, BUTTON_BASE_M = 0.035, 0.02  # half edge and height of the base
CAP_RADIUS_M, CAP_M = 0.024, 0.016  # of the cap, which sticks out of the base by CAP_M
CAP_TRAVEL_M = 0.012
CAP_MASS_KG = 0.03


@dataclass(frozen=True)
class Part:
    """One solid of a link.

    Attributes:
        size_m: edge lengths [3] of a box, or (radius, height) of an upright cylinder.
        middle_m: its middle [3] in the link's frame.
        yaw_rad: its turn about z.
        roll_rad: its turn about x before that.
        pitch_rad: its turn about y between the two.
    """

    size_m: Sequence[float]
    middle_m: Sequence[float]
    yaw_rad: float = 0.0
    roll_rad: float = 0.0
    pitch_rad: float = 0.0


@dataclass(frozen=True)
class Slide:
    """A link that slides along an axis of the link before it, of the root link if it is the first.

    Attributes:
        link: its name.
        joint: the joint's name.
        parts: its solids.
        origin_m: of its frame [3] in that link's frame at joint position 0.
        axis: direction [3] of positive joint positions.
        low_m: lowest joint position.
        high_m: highest joint position.
        mass_kg: its mass.
        friction: coefficient of its surface; None = the simulator's.
    """

    link: str
    joint: str
    parts: Sequence[Part]
    origin_m: Sequence[float]
    axis: Sequence[float]
    low_m: float
    high_m: float
    mass_kg: float
    friction: float | None = None


def tray_urdf() -> Path:
    """A square tray: a floor and four low walls."""
    inner, outer = TRAY_HALF_M, TRAY_HALF_M + WALL_M
    parts = [Part((2 * outer, 2 * outer, FLOOR_M), (0.0, 0.0, FLOOR_M / 2))]
    height = TRAY_WALL_M - FLOOR_M
    for side in (-1.0, 1.0):
        middle = side * (inner + WALL_M / 2)
        parts.append(Part((WALL_M, 2 * outer, height), (middle, 0.0, FLOOR_M + height / 2)))
        parts.append(Part((2 * inner, WALL_M, height), (0.0, middle, FLOOR_M + height / 2)))
    return model_file("tray", parts)


def bowl_urdf() -> Path:
    """A bowl of eight upright sides around a round floor."""
    height, turn = BOWL_WALL_M - FLOOR_M, 2 * math.pi / BOWL_SIDES
    parts = [Part((BOWL_RADIUS_M + WALL_M / 2, FLOOR_M), (0.0, 0.0, FLOOR_M / 2))]
    # As long as an outer side, so that neighbours meet; they overlap on the inside.
    length, middle = 2 * (BOWL_RADIUS_M + WALL_M) * math.tan(turn / 2), BOWL_RADIUS_M + WALL_M / 2
    for side in range(BOWL_SIDES):
        yaw = turn * side
        place = (middle * math.cos(yaw), middle * math.sin(yaw), FLOOR_M + height / 2)
        parts.append(Part((WALL_M, length, height), place, yaw))
    return model_file("bowl", parts)


def cabinet_urdf() -> Path:
    """A cabinet with one drawer; link "drawer" slides out along +x by joint "slide", 0 to ``DRAWER_TRAVEL_M``."""
    depth, half, top = CABINET_DEPTH_M, CABINET_HALF_WIDTH_M, CABINET_HEIGHT_M
    body = [
        Part((depth, 2 * half, WALL_M), (-depth / 2, 0.0, top - WALL_M / 2)),
        Part((WALL_M, 2 * half, top - WALL_M), (-depth + WALL_M / 2, 0.0, (top - WALL_M) / 2)),
    ]
    for side in (-1.0, 1.0):
        place = (-(depth - WALL_M) / 2, side * (half - WALL_M / 2), (top - WALL_M) / 2)
        body.append(Part((depth - WALL_M, WALL_M, top - WALL_M), place))
    wide, deep, low = DRAWER_HALF_WIDTH_M, DRAWER_DEPTH_M, 0.004  # the drawer hangs clear of the table
    wall = DRAWER_RIM_M - DRAWER_FLOOR_M
    drawer = [
        Part((deep, 2 * wide, DRAWER_FLOOR_M - low), (-deep / 2, 0.0, (DRAWER_FLOOR_M + low) / 2)),
        Part((FRONT_M, 2 * half, FRONT_TOP_M - low), (FRONT_M / 2, 0.0, (FRONT_TOP_M + low) / 2)),
        Part((WALL_M, 2 * wide, wall), (-deep + WALL_M / 2, 0.0, DRAWER_FLOOR_M + wall / 2)),
    ]
    for side in (-1.0, 1.0):
        place = (-(deep - WALL_M) / 2, side * (wide - WALL_M / 2), DRAWER_FLOOR_M + wall / 2)
        drawer.append(Part((deep - WALL_M, WALL_M, wall), place))
    knob = [2 * value for value in KNOB_HALF_M]
    stem = KNOB_M - KNOB_HALF_M[0] - FRONT_M
    drawer.append(Part((stem, 0.01, 0.012), (FRONT_M + stem / 2, 0.0, KNOB_HEIGHT_M)))
    drawer.append(Part(knob, (KNOB_M, 0.0, KNOB_HEIGHT_M)))
    slide = Slide("drawer", "slide", drawer, (0.0, 0.0, 0.0), (1, 0, 0), 0.0, DRAWER_TRAVEL_M, DRAWER_MASS_KG)
    return model_file("cabinet", body, slide)


def button_urdf() -> Path:
    """A push button; link "cap" goes down by joint "press", 0 to ``CAP_TRAVEL_M``. Its frame's origin is its top."""
    edge, base = 2 * BUTTON_HALF_M, BUTTON_BASE_M
    cap = [Part((CAP_RADIUS_M, CAP_M), (0.0, 0.0, -CAP_M / 2))]
    slide = Slide("cap", "press", cap, (0.0, 0.0, base + CAP_M), (0, 0, -1), 0.0, CAP_TRAVEL_M, CAP_MASS_KG)
    return model_file("button", [Part((edge, edge, base), (0.0, 0.0, base / 2))], slide)


def model_file(name: str, parts: Sequence[Part], *slides: Slide) -> Path:
    """The file of a model; the same text is written once. Each of ``slides`` hangs on the link before it."""
    robot = ET.Element("robot", name=name)
    _link(robot, "body", parts, 1.0)
    parent = "body"
    for slide in slides:
        _link(robot, slide.link, slide.parts, slide.mass_kg, slide.friction)
        joint = ET.SubElement(robot, "joint", name=slide.joint, type="prismatic")
        ET.SubElement(joint, "parent", link=parent)
        ET.SubElement(joint, "child", link=slide.link)
        ET.SubElement(joint, "origin", xyz=_words(slide.origin_m), rpy="0 0 0")
        ET.SubElement(joint, "axis", xyz=_words(slide.axis))
        low, high = f"{slide.low_m:g}", f"{slide.high_m:g}"
        ET.SubElement(joint, "limit", lower=low, upper=high, effort="100", velocity="1")
        parent = slide.link
    ET.indent(robot)
    text = ET.tostring(robot, encoding="unicode") + "\n"
    return (
        cached_folder(name, fingerprint([], text), lambda folder: _write(folder / f"{name}.urdf", text))
        / f"{name}.urdf"
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _link(robot: ET.Element, name: str, parts: Sequence[Part], mass_kg: float, friction: float | None = None) -> None:
    link = ET.SubElement(robot, "link", name=name)
    if friction is not None:
        ET.SubElement(ET.SubElement(link, "contact"), "lateral_friction", value=f"{friction:g}")
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "mass", value=f"{mass_kg:g}")
    # Nothing of it ever turns by itself: any positive inertia will do.
    moment = f"{mass_kg * 1e-3:g}"
    ET.SubElement(inertial, "inertia", ixx=moment, ixy="0", ixz="0", iyy=moment, iyz="0", izz=moment)
    for part in parts:
        for tag in ("visual", "collision"):
            element = ET.SubElement(link, tag)
            ET.SubElement(
                element, "origin", xyz=_words(part.middle_m), rpy=_words((part.roll_rad, part.pitch_rad, part.yaw_rad))
            )
            geometry = ET.SubElement(element, "geometry")
            if len(part.size_m) == 3:
                ET.SubElement(geometry, "box", size=_words(part.size_m))
            else:
                radius, length = part.size_m
                ET.SubElement(geometry, "cylinder", radius=f"{radius:.9g}", length=f"{length:.9g}")
            if tag == "visual":
                material = ET.SubElement(element, "material", name=f"{name}_grey")
                ET.SubElement(material, "color", rgba=_words(GREY))


def _words(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
