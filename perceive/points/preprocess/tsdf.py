"""Tsdf: depth pictures integrated into a volume, and its surface as a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from perceive.points.preprocess.engine import open3d
from perceive.points.preprocess.step import require
from sensors.errors import SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, invert


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles in the base frame.

    Attributes:
        vertices_m: float64 [V, 3].
        faces: int64 [F, 3], corners in the order that makes the normal look out of the surface.
        normal: float64 [V, 3] of unit length; zero where all faces of a vertex are too thin to have one.
        rgb: float64 [V, 3] in [0, 1].
    """

    vertices_m: FloatArray
    faces: NDArray[np.int64]
    normal: FloatArray
    rgb: FloatArray

    def vertex_of(self, xyz_m: FloatArray, within_m: float = np.inf) -> NDArray[np.int64]:
        """The nearest vertex of points [N, 3], int64 [N]; -1 = none within ``within_m``, or the point has no place.

        ``values[mesh.vertex_of(points)]`` brings what is known of vertices to the points that the mesh was made of.
        """
        nearest = np.full(len(xyz_m), -1, dtype=np.int64)
        there = np.isfinite(xyz_m).all(axis=1)
        if len(self.vertices_m) and there.any():
            distance, index = cKDTree(self.vertices_m).query(xyz_m[there])
            nearest[there] = np.where(distance <= within_m, index, -1)
        return nearest


@final
class Tsdf:
    """A truncated signed distance volume that grows where surfaces are (Curless and Levoy, SIGGRAPH 1996).

    Args:
        voxel_m: edge of a voxel.
        truncation: how far from the surface distances count, in voxels; above the noise of the depth.
        max_depth_m: farther surfaces count as not measured.
        least_views: how many pictures must have seen a voxel for it to be part of the mesh.

    Raises:
        SpecError: a number out of its range.
        WiringError: Open3D does not load.
    """

    def __init__(self, voxel_m: float, truncation: float = 4.0, max_depth_m: float = 3.0, least_views: int = 1) -> None:
        require(0 < voxel_m < np.inf, "Tsdf.voxel_m", "an edge above 0", voxel_m)
        require(1 <= truncation < np.inf, "Tsdf.truncation", "at least 1 voxel", truncation)
        require(0 < max_depth_m < np.inf, "Tsdf.max_depth_m", "a depth above 0", max_depth_m)
        require(least_views >= 1, "Tsdf.least_views", "at least 1", least_views)
        self._truncation, self._max_depth_m, self._least_views = truncation, max_depth_m, least_views
        self.frames = 0
        with open3d() as module:
            single = module.core.float32
            # Open3D's older volume that grows gives empty meshes (0.20), so this is the newer one.
            self._volume: Any = module.t.geometry.VoxelBlockGrid(
                attr_names=("tsdf", "weight", "color"),
                attr_dtypes=(single, single, single),
                attr_channels=((1), (1), (3)),
                voxel_size=voxel_m,
                block_resolution=8,
                block_count=4000,
                device=module.core.Device("CPU:0"),
            )

    def integrate(self, frame: RgbdFrame) -> None:
        """Add one picture; pixels whose depth is 0, NaN, infinite or beyond the limit add nothing.

        Raises:
            SpecError: a picture and its depth differ in size, or the camera's pose or intrinsics are not finite.
        """
        height, width = frame.depth_m.shape
        if frame.rgb.shape != (height, width, 3):
            raise SpecError(
                "Tsdf.integrate", f"rgb [{height}, {width}, 3]", f"{list(frame.rgb.shape)}", "Align depth to colour."
            )
        camera = np.asarray(frame.base_from_camera, dtype=np.float64)
        intrinsics = np.asarray(frame.intrinsics_px, dtype=np.float64)
        if not (np.isfinite(camera).all() and np.isfinite(intrinsics).all()):
            raise SpecError("Tsdf.integrate", "a finite pose and intrinsics", "NaN or infinity", "Leave the frame out.")
        # A comparison with NaN is false.
        measured = (frame.depth_m > 0) & (frame.depth_m < self._max_depth_m)
        self.frames += 1
        if not measured.any():
            return
        depth = np.where(measured, frame.depth_m, 0.0).astype(np.float32)
        fx, fy, cx, cy = intrinsics
        # A voxel takes the pixel whose number is its projection *rounded down*. Ours are pixel centres, so half a
        # pixel is added; without it surfaces are off by half a pixel's depth step, always to one side.
        matrix = np.array([[fx, 0.0, cx + 0.5], [0.0, fy, cy + 0.5], [0.0, 0.0, 1.0]])
        with open3d() as module:
            image, tensor = module.t.geometry.Image, module.core.Tensor
            distances = image(tensor(np.ascontiguousarray(depth[..., None])))
            colours = image(tensor(np.ascontiguousarray(frame.rgb, dtype=np.float32)))
            pinhole, camera_from_base = tensor(matrix), tensor(invert(camera))
            limits = (1.0, self._max_depth_m, self._truncation)
            blocks = self._volume.compute_unique_block_coordinates(distances, pinhole, camera_from_base, *limits)
            self._volume.integrate(blocks, distances, colours, pinhole, pinhole, camera_from_base, *limits)

    def mesh(self) -> Mesh:
        """The surface as of now (marching cubes: Lorensen and Cline, SIGGRAPH 1987); without vertices if there is none.

        Vertices come in the order of x, y, z, and faces in that of their corners.
        """
        vertices, rgb, faces = np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.int64)
        with open3d():
            # An empty volume cannot be asked.
            if self._volume.hashmap().size():
                found = self._volume.extract_triangle_mesh(self._least_views - 0.5)
                if len(found.vertex.positions):
                    vertices = found.vertex.positions.numpy().astype(np.float64)
                    rgb = np.clip(found.vertex.colors.numpy().astype(np.float64) / 255.0, 0.0, 1.0)
                    faces = found.triangle.indices.numpy().astype(np.int64)
        order = np.lexsort(vertices.T[::-1])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return Mesh(vertices[order], *_sorted(rank[faces], vertices[order]), rgb[order])


def _sorted(faces: NDArray[np.int64], vertices_m: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Faces [F, 3] in a fixed order, and the unit normals of the vertices [V, 3], the mean of their faces by area."""
    # The smallest corner first keeps the turning sense, and makes equal faces equal rows.
    first = faces.argmin(axis=1) if len(faces) else np.zeros(0, np.int64)
    faces = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
    faces = faces[np.lexsort(faces.T[::-1])]
    corner = vertices_m[faces]
    across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    every = faces.reshape(-1)
    sums = [np.bincount(every, np.repeat(part, 3), len(vertices_m)) for part in across.T]
    total = np.stack(sums, axis=-1).astype(np.float64)  # of nothing at all, bincount gives integers
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return faces, np.divide(total, length, out=np.zeros_like(total), where=length > 0)
