"""References: pictures of an object whose pose in them is known, and the surface that they show together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.tsdf import Tsdf
from perceive.pose.estimate import check_view
from perceive.pose.model import ObjectModel
from sensors.errors import DataError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert, unproject

LEAST_PIXELS = 30  # measured, of an object in one picture
_VOXELS = 40  # along the size of an object
_FINEST_M = 5e-4
_OUTLIER = 4.0  # median distances from the median point, beyond which a pixel belongs to something behind


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """One picture of an object.

    Attributes:
        frame: colours, depth and camera; its pose in the world is not used.
        mask: bool [H, W], the pixels that show the object.
        camera_from_object: float64 [4, 4]; in which frame the object is stated is up to the user, the same in all.
    """

    frame: RgbdFrame
    mask: NDArray[np.bool_]
    camera_from_object: FloatArray

    @staticmethod
    def make(frame: RgbdFrame, mask: NDArray[np.bool_], camera_from_object: FloatArray) -> Reference:
        """A checked reference.

        Raises:
            DataError: picture, mask and camera do not belong together, the pose is not rigid, or there is hardly any
                depth within the mask.
        """
        check_view("Reference", frame, mask)
        pose = np.asarray(camera_from_object, np.float64)
        rigid = pose.shape == (4, 4) and bool(np.isfinite(pose).all())
        rigid = rigid and np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-4)
        if not rigid or np.linalg.det(pose[:3, :3]) < 0 or not np.allclose(pose[3], (0, 0, 0, 1)):
            raise DataError("Reference", "a rigid pose [4, 4]", f"{pose!r}", "Pass camera_from_object in metres.")
        made = Reference(frame, np.asarray(mask, bool), pose)
        count = int((made.depth_m > 0).sum())
        if count < LEAST_PIXELS:
            raise DataError(
                "Reference",
                f"{LEAST_PIXELS} measured pixels in the mask",
                f"{count}",
                "Take the picture from elsewhere.",
            )
        return made

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """Depth of the object alone, float32 [H, W]; 0 elsewhere and where a pixel of the mask sees past it."""
        depth = np.asarray(self.frame.depth_m, np.float32)
        there = self.mask & np.isfinite(depth) & (depth > 0)
        if there.any():
            off = np.abs(depth - np.median(depth[there]))
            there &= off <= _OUTLIER * max(float(np.median(off[there])), 0.01)
        return np.where(there, depth, np.float32(0))

    def points(self) -> FloatArray:
        """The measured points [P, 3] in the object's frame."""
        depth = self.depth_m
        seen = unproject(depth, self.frame.intrinsics_px)[depth > 0]
        back = invert(self.camera_from_object)
        return np.asarray(seen @ back[:3, :3].T + back[:3, 3])


def fuse(
    references: Sequence[Reference], number: int, name: str = "fused", voxel_m: float | None = None
) -> ObjectModel:
    """The surface that references show, as a mesh in the object's frame: open where nothing was seen.

    Their depth is integrated into a truncated signed distance volume (Curless and Levoy, SIGGRAPH 1996).

    Args:
        references: at least one.
        number: of the object.
        name: of the object.
        voxel_m: edge of a voxel; None = a fortieth of what is shown.

    Raises:
        DataError: no reference, or they show no surface.
    """
    if not references:
        raise DataError("fuse", "at least one reference", "none", "Take a picture of the object.")
    points = np.concatenate([one.points() for one in references])
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    span = float(np.linalg.norm(high - low))
    edge = max(span / _VOXELS, _FINEST_M) if voxel_m is None else voxel_m
    volume = Tsdf(edge, max_depth_m=10.0)
    for one in references:
        volume.integrate(
            RgbdFrame(
                stamp_s=0.0,
                rgb=one.frame.rgb,
                depth_m=one.depth_m,
                intrinsics_px=one.frame.intrinsics_px,
                base_from_camera=invert(one.camera_from_object),
            )
        )
    mesh = volume.mesh()
    near = ((mesh.vertices_m > low - 0.1 * span) & (mesh.vertices_m < high + 0.1 * span)).all(1)
    faces = mesh.faces[near[mesh.faces].all(1)]
    if not len(faces):
        raise DataError(
            "fuse", "references that show a surface", f"{len(points)} points", "Check depth, masks and poses."
        )
    used = np.unique(faces)
    rank = np.zeros(len(near), np.int64)
    rank[used] = np.arange(len(used))
    colour = np.rint(255 * mesh.rgb[used]).astype(np.uint8)
    return ObjectModel.make(number, name, mesh.vertices_m[used], rank[faces], colour)
