"""Small objects of the pose tests, with the symmetries that they have, and pictures of them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceive.points.registration.rigid import exp_twist, invert_rigid
from perceive.pose.model import ObjectModel
from perceive.pose.symmetry import ContinuousSymmetry, Symmetries
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix

K = np.array([300.0, 300.0, 79.5, 59.5])
HEIGHT, WIDTH = 120, 160


@functools.cache
def mesh(name: str) -> ObjectModel:
    """``box`` 10 x 7 x 4 cm, ``blob`` about 12 cm, ``can`` (a cylinder), ``bracket`` (an L), ``plate``, ``ball``."""
    import open3d

    make = open3d.geometry.TriangleMesh
    symmetries = None
    if name == "box":
        made = make.create_box(0.10, 0.07, 0.04)
        middle = np.array([0.05, 0.035, 0.02])
        symmetries = Symmetries.make([about(middle, turn) for turn in np.pi * np.eye(3)])
    elif name == "bracket":
        made = make.create_box(0.09, 0.03, 0.03) + make.create_box(0.03, 0.05, 0.02).translate((0.0, 0.03, 0.0))
    elif name == "plate":
        made = make.create_box(0.12, 0.08, 0.012)
    elif name in ("blob", "ball"):
        made = make.create_sphere(0.05, 30)
        if name == "blob":
            vertex = np.asarray(made.vertices)
            u = vertex / np.linalg.norm(vertex, axis=1, keepdims=True)
            bumps = 0.2 * np.sin(3 * u[:, 0] + 1) * np.cos(4 * u[:, 1]) + 0.25 * u[:, 2] ** 3
            made.vertices = open3d.utility.Vector3dVector(
                vertex * (1 + bumps + 0.2 * np.sin(5 * u[:, 0] * u[:, 2]))[:, None]
            )
        else:
            symmetries = Symmetries.make((), [ContinuousSymmetry.make(axis) for axis in np.eye(3)])
    else:
        made = make.create_cylinder(0.03, 0.1, 90, 6).translate((0.02, 0.0, 0.0))
        symmetries = Symmetries.make(
            [about((0.02, 0, 0), (np.pi, 0, 0))], [ContinuousSymmetry.make((0, 0, 1), (0.02, 0, 0))]
        )
    return ObjectModel.make(1, name, np.asarray(made.vertices), np.asarray(made.triangles), symmetries=symmetries)


def about(point: Any, turn: Any) -> FloatArray:
    """A turn [4, 4] about a point."""
    out = np.eye(4)
    out[:3, :3] = axis_angle_to_matrix(turn)
    out[:3, 3] = np.asarray(point) - out[:3, :3] @ np.asarray(point)
    return out


def some_pose(seed: int, far_m: float = 0.5) -> FloatArray:
    """Any turn, around the middle of the picture."""
    rng = np.random.default_rng(seed)
    out = np.eye(4)
    out[:3, :3] = axis_angle_to_matrix(rng.standard_normal(3) * 2)
    out[:3, 3] = (*rng.uniform(-0.05, 0.05, 2), far_m)
    return out


def near(pose: Any, count: int, turn_rad: float, shift_m: float, seed: int) -> Tensor:
    """Poses [count, 4, 4] that are off by exactly these sizes, in any direction."""
    part = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, count, 3)))
    part = torch.nn.functional.normalize(part, dim=-1)
    return torch.as_tensor(pose) @ exp_twist(torch.cat([turn_rad * part[0], shift_m * part[1]], -1))


def motion(found: Tensor, truth: Any) -> Tensor:
    """The motions [N, 6] in the object's frame that are missing: ``truth = found exp(motion)``, if they are small."""
    apart = invert_rigid(found) @ torch.as_tensor(truth)
    turn = (apart[:, :3, :3] - apart[:, :3, :3].transpose(1, 2)) / 2
    return torch.cat([torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], -1), apart[:, :3, 3]], -1)


def seen_points(model: ObjectModel, pose: Any, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points [P, 3] of the faces that look at the camera (hidden ones among them), and their normals; exact."""
    surface = model.surface(4 * count, seed)
    pose = np.asarray(pose)
    xyz = surface.xyz_m @ pose[:3, :3].T + pose[:3, 3]
    normal = surface.normal @ pose[:3, :3].T
    towards = (xyz * normal).sum(1) < -0.05 * np.linalg.norm(xyz, axis=1)
    return torch.from_numpy(xyz[towards][:count]), torch.from_numpy(normal[towards][:count])


def picture(depth_m: NDArray[Any], camera: Any = K) -> RgbdFrame:
    """A grey frame of a depth picture."""
    return RgbdFrame(
        stamp_s=0.0,
        rgb=np.full((*depth_m.shape, 3), 128, np.uint8),
        depth_m=np.asarray(depth_m, np.float32),
        intrinsics_px=np.asarray(camera, np.float64),
        base_from_camera=np.eye(4),
    )
