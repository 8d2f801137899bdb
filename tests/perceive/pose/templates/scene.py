"""Small objects and pictures of them: closed shapes made with numpy, a table, another thing in front, sensor noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from perceive.pose.templates.views import view_rotations
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

CAMERA = np.array([520.0, 520.0, 319.5, 239.5])
SIZE = (480, 640)
Mesh = tuple[FloatArray, NDArray[np.int64], NDArray[np.uint8]]
Colour = tuple[int, int, int]


def box(size_m: tuple[float, float, float], middle_m: tuple[float, float, float], sides: list[Colour]) -> Mesh:
    """A box whose six sides (x-, x+, y-, y+, z-, z+) have colours of their own."""
    vertices: list[FloatArray] = []
    faces: list[NDArray[np.int64]] = []
    colours: list[NDArray[np.uint8]] = []
    for axis in range(3):
        for sign in (-1, 1):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            corner = np.zeros((4, 3))
            corner[:, axis] = sign
            corner[:, a], corner[:, b] = (-1, 1, 1, -1), (-1, -1, 1, 1)
            start = 4 * len(vertices)
            quad = np.array([[0, 1, 2], [0, 2, 3]]) if sign > 0 else np.array([[0, 2, 1], [0, 3, 2]])
            vertices.append(corner * np.array(size_m) / 2 + np.array(middle_m))
            faces.append(quad + start)
            colours.append(np.tile(np.array(sides[2 * axis + (sign > 0)], np.uint8), (4, 1)))
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(colours)


def lathe(profile: list[tuple[float, float]], colours: list[Colour], segments: int = 48) -> Mesh:
    """A body of revolution about z from (radius, height) pairs; the first and last radius are 0."""
    angle = 2 * np.pi * np.arange(segments) / segments
    rings = np.array([[(r * np.cos(a), r * np.sin(a), z) for a in angle] for r, z in profile])
    faces = []
    for ring in range(len(profile) - 1):
        for k in range(segments):
            a, b = ring * segments + k, ring * segments + (k + 1) % segments
            faces += [[a, b, b + segments], [a, b + segments, a + segments]]
    colour = np.repeat(np.array(colours, np.uint8), segments, axis=0)
    return rings.reshape(-1, 3), np.array(faces), colour


def joined(*parts: Mesh) -> Mesh:
    start = np.cumsum([0, *(len(part[0]) for part in parts)])
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] + s for part, s in zip(parts, start, strict=False)]),
        np.concatenate([part[2] for part in parts]),
    )


GREY6: list[Colour] = [(150, 150, 155)] * 6
PAINTED: list[Colour] = [(200, 40, 40), (40, 160, 60), (40, 60, 190), (220, 200, 50), (230, 230, 230), (40, 40, 40)]


def bracket() -> ObjectModel:
    mesh = joined(
        box((0.10, 0.05, 0.012), (0.0, 0.0, 0.0), GREY6),
        box((0.012, 0.05, 0.07), (-0.044, 0.0, 0.041), GREY6),
        box((0.02, 0.02, 0.02), (0.03, 0.01, 0.016), GREY6),
    )
    return ObjectModel.make(1, "bracket", *mesh)


def painted_box() -> ObjectModel:
    return ObjectModel.make(2, "box", *box((0.12, 0.08, 0.05), (0.0, 0.0, 0.0), PAINTED))


def bottle() -> ObjectModel:
    profile = [(0.0, 0.0), (0.03, 0.0), (0.03, 0.09), (0.012, 0.12), (0.012, 0.14), (0.0, 0.14)]
    colours: list[Colour] = [(40, 90, 160)] * 3 + [(230, 230, 230)] * 3
    return ObjectModel.make(
        3, "bottle", *lathe(profile, colours), symmetries=Symmetries.make([], [ContinuousSymmetry.make((0, 0, 1))])
    )


def mug() -> ObjectModel:
    profile = [(0.0, 0.0), (0.04, 0.0), (0.04, 0.09), (0.035, 0.09), (0.035, 0.006), (0.0, 0.006)]
    body = lathe(profile, [(200, 120, 60)] * 6)
    handle = joined(
        box((0.03, 0.012, 0.012), (0.053, 0.0, 0.07), [(200, 120, 60)] * 6),
        box((0.03, 0.012, 0.012), (0.053, 0.0, 0.025), [(200, 120, 60)] * 6),
        box((0.012, 0.012, 0.057), (0.066, 0.0, 0.0475), [(200, 120, 60)] * 6),
    )
    return ObjectModel.make(4, "mug", *joined(body, handle))


def drill() -> ObjectModel:
    mesh = joined(
        box((0.15, 0.05, 0.05), (0.0, 0.0, 0.05), [(230, 190, 30)] * 6),
        box((0.04, 0.035, 0.10), (-0.04, 0.0, -0.025), [(40, 40, 40)] * 6),
        box((0.05, 0.02, 0.02), (0.10, 0.0, 0.055), [(120, 120, 120)] * 6),
        box((0.08, 0.06, 0.03), (-0.03, 0.0, -0.085), [(230, 190, 30)] * 6),
    )
    return ObjectModel.make(5, "drill", *mesh)


def wedge() -> ObjectModel:
    vertices = np.array(
        [[0, 0, 0], [0.11, 0, 0], [0.11, 0.06, 0], [0, 0.06, 0], [0, 0, 0.06], [0, 0.045, 0.06]], np.float64
    )
    faces = np.array([[0, 2, 1], [0, 3, 2], [0, 1, 4], [1, 2, 5], [1, 5, 4], [2, 3, 5], [0, 4, 5], [0, 5, 3]])
    return ObjectModel.make(6, "wedge", vertices, faces, (60, 150, 140))


def objects() -> tuple[ObjectModel, ...]:
    return bracket(), painted_box(), bottle(), mug(), drill(), wedge()


def look(rng: np.random.Generator, model: ObjectModel, far_m: tuple[float, float] = (0.5, 0.9)) -> FloatArray:
    """A pose somewhere in view."""
    pose = np.eye(4)
    pose[:3, :3] = view_rotations(1)[0]
    axis = rng.normal(size=4)
    axis /= np.linalg.norm(axis)
    angle = 2 * np.arccos(np.clip(axis[3], -1, 1))
    pose[:3, :3] = axis_angle_to_matrix(axis[:3] / max(float(np.linalg.norm(axis[:3])), 1e-9) * angle)
    far = rng.uniform(*far_m)
    place = np.array([rng.uniform(-0.25, 0.25) * far, rng.uniform(-0.2, 0.2) * far, far])
    pose[:3, 3] = place - pose[:3, :3] @ (model.low_m + model.high_m) / 2
    return pose


def picture(
    model: ObjectModel, other: ObjectModel, seed: int, hide: float = 0.6
) -> tuple[RgbdFrame, NDArray[np.bool_], FloatArray, float]:
    """A noisy picture, the mask of the object, its pose, and how much of it is seen; ``hide`` = odds of an occluder."""
    rng = np.random.default_rng(1000 + seed)
    truth = look(rng, model)
    poses, models = [truth], [model]
    if rng.random() < hide:
        front = look(rng, other)
        middle = truth[:3, :3] @ (model.low_m + model.high_m) / 2 + truth[:3, 3]
        aside = rng.normal(size=2)
        aside *= 0.5 * (model.diameter_m * 0.5 + other.diameter_m * 0.5) * rng.uniform(0.7, 1.3) / np.linalg.norm(aside)
        place = middle * (1 - 0.8 * (model.diameter_m + other.diameter_m) / 2 / middle[2])
        front[:3, 3] = place + np.array([*aside, 0.0]) - front[:3, :3] @ (other.low_m + other.high_m) / 2
        poses.append(front)
        models.append(other)
    return shot(rng, models, poses)


def shot(
    rng: np.random.Generator, models: list[ObjectModel], poses: list[FloatArray], behind_m: float = 1.3
) -> tuple[RgbdFrame, NDArray[np.bool_], FloatArray, float]:
    """The picture of posed objects before a wall: light from one side, depth noise, holes at the edges."""
    height, width = SIZE
    depth = np.full(SIZE, behind_m, np.float64)
    rgb = np.clip(rng.normal(120, 25, (*SIZE, 3)), 0, 255)
    owner = np.full(SIZE, -1)
    light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.9, 0.0), -1.0])
    light /= np.linalg.norm(light)
    gain = rng.uniform(0.6, 1.1)
    whole = 1
    for index, (one, pose) in enumerate(zip(models, poses, strict=True)):
        renderer = MeshRenderer(one, 1)
        part = renderer.box(pose, CAMERA, height, width)
        if part is None:
            continue
        drawn = renderer.render(pose, CAMERA, part)
        view = (slice(part[1], part[3]), slice(part[0], part[2]))
        there = (drawn.depth_m[0] > 0) & (drawn.depth_m[0] < depth[view])
        shade = gain * (0.35 + 0.65 * np.clip(drawn.normal[0] @ light, 0, 1))
        depth[view] = np.where(there, drawn.depth_m[0], depth[view])
        owner[view] = np.where(there, index, owner[view])
        rgb[view] = np.where(there[..., None], drawn.rgb[0] * shade[..., None], rgb[view])
        if index == 0:
            whole = int((drawn.depth_m[0] > 0).sum())
    mask = owner == 0
    depth = depth + rng.normal(size=SIZE) * 0.0015 * depth**2 / 0.5
    steep = np.hypot(*np.gradient(depth)) > 0.01
    depth[steep & (rng.random(SIZE) < 0.5)] = 0
    depth[rng.random(SIZE) < 0.01] = 0
    frame = RgbdFrame(
        stamp_s=0.0,
        rgb=np.clip(rgb + rng.normal(0, 5, rgb.shape), 0, 255).astype(np.uint8),
        depth_m=depth.astype(np.float32),
        intrinsics_px=CAMERA,
        base_from_camera=np.eye(4),
    )
    return frame, mask, poses[0], float(mask.sum()) / max(whole, 1)


def mssd(model: ObjectModel, pose: FloatArray, truth: FloatArray) -> float:
    """Greatest distance of a vertex from where it should be, for the kindest symmetry (Hodan et al., BOP)."""
    motions = truth @ model.symmetries.transforms(0.05)
    where = model.vertices_m @ pose[:3, :3].T + pose[:3, 3]
    should = np.einsum("sij,vj->svi", motions[:, :3, :3], model.vertices_m) + motions[:, None, :3, 3]
    return float(np.linalg.norm(where[None] - should, axis=-1).max(1).min())
