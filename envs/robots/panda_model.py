"""The Franka Panda model file: the stock kinematics with light visual meshes and fingertips that grip.

Changes to the stock ``franka_panda/panda.urdf`` that ships with pybullet_data:

- visual meshes are decimated (:mod:`envs.meshes`);
- each finger collides as one box with the face of its pad: the stock convex hull leans inwards by 3 degrees and touches
  a box at one edge only;
- the two massless frames (flange and grasp target) are folded into their neighbours, for cheaper physics.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

from envs.meshes import cached_folder, decimate, fingerprint, write_obj
from sensors.errors import DataError

FORMAT = "5"  # raise it when this file writes something else for the same source
TOOL_OFFSET_M = 0.1034  # from the hand's frame to the middle of the finger pads, along the hand's z
PAD_HALF_M = (0.0088, 0.0047, 0.0269)  # finger pad and the strip above it; its face is the finger frame's y = 0
PAD_CENTRE_M = (0.0, 0.0047, 0.0269)
FLANGE_M = 0.107


def stock_urdf() -> Path:
    """The Panda model that ships with pybullet_data.

    Raises:
        DataError: pybullet_data is not there.
    """
    found = find_spec("pybullet_data")
    folders = list(found.submodule_search_locations or []) if found else []
    path = Path(folders[0]) / "franka_panda" / "panda.urdf" if folders else Path("franka_panda/panda.urdf")
    if not path.is_file():
        raise DataError("Panda model", "pybullet_data with franka_panda/panda.urdf", str(path), "pip install pybullet.")
    return path


def panda_urdf(fraction: float = 0.05) -> Path:
    """The Panda with about ``fraction`` of the triangles of its visual meshes; 1 keeps the stock meshes."""
    source = stock_urdf()
    meshes = sorted((source.parent / "meshes").rglob("*.obj")) + sorted((source.parent / "meshes").rglob("*.mtl"))
    key = fingerprint([source, *meshes], f"{FORMAT} {fraction!r} {source.parent}")
    return cached_folder("panda", key, lambda folder: _write(source, folder, fraction)) / "panda.urdf"


def _write(source: Path, folder: Path, fraction: float) -> None:
    tree = ET.parse(source)
    robot = tree.getroot()
    made: dict[str, list[tuple[str, str]]] = {}
    for link in robot.findall("link"):
        for collision in link.findall("collision"):
            mesh = collision.find("geometry/mesh")
            if mesh is not None:
                mesh.set("filename", str(_resolve(source, mesh)))
        for visual in link.findall("visual"):
            mesh = visual.find("geometry/mesh")
            if mesh is None:
                continue
            path = _resolve(source, mesh)
            if fraction >= 1:
                mesh.set("filename", str(path))
                continue
            if path.name not in made:
                made[path.name] = _lighten(path, folder, fraction)
            link.remove(visual)
            for filename, rgba in made[path.name]:
                link.append(_visual(visual, filename, rgba))
        if link.get("name") in ("panda_leftfinger", "panda_rightfinger"):
            _box_finger(link, mirrored=link.get("name") == "panda_rightfinger")
    _fold_massless(robot)
    tree.write(folder / "panda.urdf")


def _resolve(source: Path, mesh: ET.Element) -> Path:
    return source.parent / str(mesh.get("filename")).removeprefix("package://")


def _lighten(path: Path, folder: Path, fraction: float) -> list[tuple[str, str]]:
    """Write the parts of a mesh; (file name, colour) of each. Names are relative, so the folder may be renamed."""
    # The stock base and the last link use their collision hulls (200 triangles) as visuals: nothing to save there.
    own = 1.0 if path.parent.name == "collision" else fraction
    out = []
    for index, part in enumerate(decimate(path, own)):
        filename = f"{path.stem}_{index}.obj"
        write_obj(folder / filename, part)
        # Hulls carry the loader's grey default, not a colour of the robot.
        rgba = (0.9, 0.92, 0.93, 1.0) if own == 1.0 else part.rgba
        out.append((filename, " ".join(str(value) for value in rgba)))
    return out


def _visual(stock: ET.Element, filename: str, rgba: str) -> ET.Element:
    visual = ET.Element("visual")
    origin = stock.find("origin")
    if origin is not None:
        visual.append(origin)
    ET.SubElement(ET.SubElement(visual, "geometry"), "mesh", filename=filename)
    material = ET.SubElement(visual, "material", name=filename.removesuffix(".obj"))
    ET.SubElement(material, "color", rgba=rgba)
    return visual


def _box_finger(link: ET.Element, mirrored: bool) -> None:
    for name in ("contact", "collision"):
        for old in link.findall(name):
            link.remove(old)
    collision = ET.SubElement(link, "collision")
    side = -1.0 if mirrored else 1.0
    place = f"{PAD_CENTRE_M[0]} {side * PAD_CENTRE_M[1]} {PAD_CENTRE_M[2]}"
    ET.SubElement(collision, "origin", rpy="0 0 0", xyz=place)
    size = " ".join(f"{2 * value:.6g}" for value in PAD_HALF_M)
    ET.SubElement(ET.SubElement(collision, "geometry"), "box", size=size)


def _fold_massless(robot: ET.Element) -> None:
    """Hang the hand on link 7 directly and drop the grasp target, whose place is ``TOOL_OFFSET_M``."""
    for link in robot.findall("link"):
        if link.get("name") in ("panda_link8", "panda_grasptarget"):
            robot.remove(link)
    for joint in robot.findall("joint"):
        if joint.get("name") in ("panda_joint8", "panda_grasptarget_hand"):
            robot.remove(joint)
        elif joint.get("name") == "panda_hand_joint":
            for tag, attribute, value in (("parent", "link", "panda_link7"), ("origin", "xyz", f"0 0 {FLANGE_M}")):
                child = joint.find(tag)
                assert child is not None
                child.set(attribute, value)
