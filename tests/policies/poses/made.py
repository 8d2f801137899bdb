"""Two objects in front of a wall, seen by a camera: pictures with truth, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

CAMERA_PX = np.array([300.0, 305.0, 78.0, 61.0])
HEIGHT, WIDTH = 120, 160


def boxes_model(number: int, *corners: tuple[tuple[float, ...], tuple[float, ...]]) -> ObjectModel:
    """A body of axis-aligned boxes, each given by its lower and upper corner, with a colour for each corner."""
    vertices, faces = [], []
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    for low, high in corners:
        start = len(vertices)
        vertices += [
            [(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)
        ]
        for a, b, c, d in quads:
            faces += [[start + a, start + b, start + c], [start + a, start + c, start + d]]
    place = np.array(vertices)
    share = (place - place.min(0)) / (place.max(0) - place.min(0))
    return ObjectModel.make(number, f"boxes {number}", place, faces, rgb=(40 + 200 * share).astype(np.uint8))


def cylinder_model(number: int, radius: float = 0.03, height: float = 0.09, sides: int = 32) -> ObjectModel:
    """A body of revolution about z that is also alike upside down, off the origin."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    middle = np.array([0.01, 0.0, 0.0])
    vertices = [[x, y, z] for z in (-height / 2, height / 2) for x, y in ring] + [
        [0, 0, -height / 2],
        [0, 0, height / 2],
    ]
    faces = []
    for k in range(sides):
        n = (k + 1) % sides
        faces += [
            [k, n, sides + n],
            [k, sides + n, sides + k],
            [2 * sides, n, k],
            [2 * sides + 1, sides + k, sides + n],
        ]
    flip = np.diag([1.0, -1, -1, 1])
    symmetries = Symmetries.make([flip], [ContinuousSymmetry.make((0, 0, 1), middle)])
    return ObjectModel.make(
        number, "cylinder", np.array(vertices) + middle, faces, rgb=(200, 60, 60), symmetries=symmetries
    )


@dataclass(frozen=True, order=True)
class Key:
    scene: int
    image: int


@dataclass(frozen=True, eq=False)
class Instance:
    number: int
    camera_from_object: FloatArray
    visible_share: float
    index: int


class MadeSource:
    """A PoseSource: ``count`` pictures, each with every object once."""

    def __init__(self, models: list[ObjectModel], count: int, seed: int = 0, distance_m: float = 0.6) -> None:
        self.models = {model.number: model for model in models}
        self.views = tuple(Key(number // 4, number % 4) for number in range(count))
        rng = np.random.default_rng(seed)
        self._made: dict[Key, tuple[RgbdFrame, tuple[Instance, ...], list[NDArray[np.bool_]]]] = {}
        draw = {number: MeshRenderer(model, threads=1) for number, model in self.models.items()}
        for key in self.views:
            self._made[key] = _picture(rng, draw, distance_m)

    def frame(self, key: Any) -> RgbdFrame:
        return self._made[key][0]

    def truth(self, key: Any) -> tuple[Instance, ...]:
        return self._made[key][1]

    def visible_mask(self, key: Any, index: int) -> NDArray[np.bool_]:
        return self._made[key][2][index]


def _picture(
    rng: np.random.Generator, draw: dict[int, MeshRenderer], distance_m: float
) -> tuple[RgbdFrame, tuple[Instance, ...], list[NDArray[np.bool_]]]:
    depth = np.full((HEIGHT, WIDTH), 1.4 * distance_m, np.float32)
    rgb = rng.integers(60, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    owner = np.full((HEIGHT, WIDTH), -1)
    whole, poses = [], []
    for index, (_, renderer) in enumerate(sorted(draw.items())):
        pose = np.eye(4)
        turn = rng.normal(size=3)
        pose[:3, :3] = axis_angle_to_matrix(turn / np.linalg.norm(turn) * rng.uniform(0, 1.0))
        side = (-1) ** index * 0.22 * distance_m * 0.5
        pose[:3, 3] = (side + rng.uniform(-0.02, 0.02), rng.uniform(-0.03, 0.03), distance_m * rng.uniform(0.85, 1.15))
        drawn = renderer.render(pose, CAMERA_PX, (0, 0, WIDTH, HEIGHT))
        there = drawn.depth_m[0] > 0
        nearer = there & (drawn.depth_m[0] < depth)
        depth, owner = np.where(nearer, drawn.depth_m[0], depth), np.where(nearer, index, owner)
        light = np.abs(drawn.normal[0, ..., 2:]) * 0.5 + 0.5
        rgb = np.where(nearer[..., None], (drawn.rgb[0] * light).astype(np.uint8), rgb)
        whole.append(there)
        poses.append(pose)
    masks = [owner == index for index in range(len(poses))]
    found = tuple(
        Instance(number, pose, float(mask.sum() / max(there.sum(), 1)), index)
        for index, (number, pose, mask, there) in enumerate(zip(sorted(draw), poses, masks, whole, strict=True))
    )
    frame = RgbdFrame(stamp_s=0.0, rgb=rgb, depth_m=depth, intrinsics_px=CAMERA_PX.copy(), base_from_camera=np.eye(4))
    return frame, found, masks


def two_models() -> list[ObjectModel]:
    """An L with a knob, which looks different from everywhere, and a cylinder."""
    ell = boxes_model(
        3, ((-0.04, -0.05, -0.015), (-0.01, 0.05, 0.015)), ((-0.01, 0.02, -0.015), (0.05, 0.05, 0.01)),
        ((-0.03, -0.04, 0.015), (-0.02, -0.02, 0.03)),
    )  # fmt: skip
    return [ell, cylinder_model(7)]
