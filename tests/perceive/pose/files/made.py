"""Small scenes of two solids, drawn by the renderer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceive.pose.files.view import ViewKey
from perceive.pose.files.writer import PoseWriter, WrittenInstance
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix, look_at

HEIGHT, WIDTH = 48, 64
INTRINSICS = np.array([60.0, 61.0, 30.5, 24.25])
_QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


def box_model(number: int = 1, size_m: tuple[float, float, float] = (0.06, 0.04, 0.1)) -> ObjectModel:
    """A closed box about the origin, every corner of another colour, with the three half turns of a box."""
    corner = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size_m
    faces = np.concatenate([_QUADS[:, [0, 1, 2]], _QUADS[:, [0, 2, 3]]])
    turns = [np.diag([*signs, 1.0]) for signs in ((1, -1, -1), (-1, 1, -1), (-1, -1, 1))]
    colour = np.array([[200 * (k & 1) + 20, 100 * (k & 2) + 20, 50 * (k & 4) + 20] for k in range(8)], np.uint8)
    return ObjectModel.make(number, f"box {number}", corner, faces, colour, Symmetries.make(turns))


def prism_model(number: int = 5, sides: int = 24) -> ObjectModel:
    """A closed prism around an axis that does not pass through the origin, taken for a body of revolution."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([0.03 * np.cos(angle) + 0.01, 0.03 * np.sin(angle) - 0.02], -1)
    low, high = (np.concatenate([ring, np.full((sides, 1), z)], 1) for z in (-0.02, 0.05))
    vertices = np.concatenate([low, high, [[0.01, -0.02, -0.02], [0.01, -0.02, 0.05]]])
    here, after = np.arange(sides), (np.arange(sides) + 1) % sides
    faces = np.concatenate(
        [
            np.stack([here, after, here + sides], -1),
            np.stack([after, after + sides, here + sides], -1),
            np.stack([after, here, np.full(sides, 2 * sides)], -1),
            np.stack([here + sides, after + sides, np.full(sides, 2 * sides + 1)], -1),
        ]
    )
    axis = ContinuousSymmetry.make((0, 0, 2), (0.01, -0.02, 0.0))
    return ObjectModel.make(number, f"prism {number}", vertices, faces, None, Symmetries.make((), (axis,)))


@dataclass(frozen=True)
class MadeView:
    """A view with its truth, before it was written."""

    key: ViewKey
    frame: RgbdFrame
    instances: tuple[WrittenInstance, ...]
    visible: tuple[NDArray[np.bool_], ...]
    whole: tuple[NDArray[np.bool_], ...]


def pose_of(turn_rad: tuple[float, float, float], shift_m: tuple[float, float, float]) -> FloatArray:
    """[4, 4] from a rotation vector and a translation."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = axis_angle_to_matrix(turn_rad), shift_m
    return out


def made_view(key: ViewKey, models: list[ObjectModel]) -> MadeView:
    """Two boxes, one in part behind the other, and a prism, seen by a camera that differs between views."""
    box, prism = models
    shift = 0.01 * key.image + 0.003 * key.scene
    placed = [
        (box, pose_of((0.3, 0.2 * key.image, -0.4), (shift, 0.0, 0.4))),
        (prism, pose_of((1.0, 0.1, 0.2 * key.scene), (-0.09, 0.05, 0.5))),
        (box, pose_of((0.0, np.pi, 0.0), (shift + 0.07, 0.02, 0.6))),  # a half turn
    ]
    full = (0, 0, WIDTH, HEIGHT)
    drawn = [MeshRenderer(model, 1).render(pose, INTRINSICS, full) for model, pose in placed]
    depth = np.stack([np.where(one.depth_m[0] > 0, one.depth_m[0], np.inf) for one in drawn])
    front = depth.min(0)
    near = depth.argmin(0)
    seen = np.isfinite(front)
    rgb = np.full((HEIGHT, WIDTH, 3), (10 * key.image + 30, 60, 90), np.uint8)
    for index, one in enumerate(drawn):
        rgb[seen & (near == index)] = one.rgb[0][seen & (near == index)]
    world = look_at((0.5, 0.1 * key.image, 0.7), (0.0, 0.0, 0.1))
    frame = RgbdFrame(
        stamp_s=0.0,
        rgb=rgb,
        depth_m=np.where(seen, front, 0.0).astype(np.float32),
        intrinsics_px=INTRINSICS + key.image,
        base_from_camera=world,
    )
    return MadeView(
        key,
        frame,
        tuple(WrittenInstance(model.number, pose) for model, pose in placed),
        tuple(seen & (near == index) for index in range(3)),
        tuple(one.depth_m[0] > 0 for one in drawn),
    )


def write_all(folder: Path, views: list[MadeView], models: list[ObjectModel], split: str = "test") -> None:
    """A whole data set."""
    writer = PoseWriter(folder, split)
    writer.models(models)
    for one in views:
        writer.view(one.key, one.frame, one.instances, one.visible, one.whole)
    writer.finish()
