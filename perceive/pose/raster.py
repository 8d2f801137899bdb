"""Depth, normals, object coordinates and colours of a posed mesh, on the CPU, without OpenGL.

Rays through the pixel centres are cast with Embree (Open3D's ``RaycastingScene``) in the object's own frame, so the
acceleration structure of a mesh is built once for all poses and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceive.pose.model import ObjectModel
from sensors.errors import SpecError
from sensors.geometry import FloatArray, invert

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom excluded
NEAREST_M = 1e-3  # a corner of the object nearer than this has no picture


@final
@dataclass(frozen=True, eq=False)
class Rendering:
    """N pictures of an object, or parts of them.

    Attributes:
        box: the part of the picture, left, top, right, bottom.
        depth_m: float32 [N, h, w], z in the camera frame; 0 = the object is not there.
        coordinates_m: float32 [N, h, w, 3] in the object's frame; 0 where it is not there.
        normal: float32 [N, h, w, 3] in the camera frame, unit, towards the camera; 0 where it is not there.
        rgb: uint8 [N, h, w, 3], unshaded colours of the model.
    """

    box: Box
    depth_m: NDArray[np.float32]
    coordinates_m: NDArray[np.float32]
    normal: NDArray[np.float32]
    rgb: NDArray[np.uint8]


@final
class MeshRenderer:
    """Pictures of one object.

    Args:
        model: what is drawn.
        threads: of Embree; 0 = all cores.
    """

    def __init__(self, model: ObjectModel, threads: int = 0) -> None:
        import open3d  # heavy; needed by those who render only

        self.model = model
        self._threads = threads
        self._core: Any = open3d.core  # its stubs do not know numpy arrays of every type
        self._scene: Any = open3d.t.geometry.RaycastingScene(threads)
        self._scene.add_triangles(
            self._core.Tensor(model.vertices_m.astype(np.float32)), self._core.Tensor(model.faces.astype(np.uint32))
        )
        low, high = model.low_m, model.high_m
        self._corners = np.array(
            [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
        )

    def box(self, camera_from_object: ArrayLike, intrinsics_px: ArrayLike, height: int, width: int) -> Box | None:
        """The part of the picture that holds the object at all poses [4, 4] or [N, 4, 4]; None = it is out of view."""
        poses = np.asarray(camera_from_object, np.float64).reshape(-1, 4, 4)
        fx, fy, cx, cy = np.asarray(intrinsics_px, np.float64)
        corner = (poses[:, None, :3, :3] @ self._corners[None, :, :, None])[..., 0] + poses[:, None, :3, 3]
        ahead = (corner[..., 2] > NEAREST_M).any()
        if not ahead:
            return None
        if (corner[..., 2] <= NEAREST_M).any():
            return (0, 0, width, height)
        u, v = fx * corner[..., 0] / corner[..., 2] + cx, fy * corner[..., 1] / corner[..., 2] + cy
        left, top = max(int(np.floor(u.min())), 0), max(int(np.floor(v.min())), 0)
        right, bottom = min(int(np.ceil(u.max())) + 1, width), min(int(np.ceil(v.max())) + 1, height)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def depth(self, camera_from_object: ArrayLike, intrinsics_px: ArrayLike, box: Box) -> NDArray[np.float32]:
        """Depth only, float32 [N, h, w] as in :class:`Rendering`; the fast path."""
        distance = self._cast(camera_from_object, intrinsics_px, box)["t_hit"].numpy()
        return np.where(np.isfinite(distance), distance, np.float32(0))

    def depths(
        self,
        poses: FloatArray,
        intrinsics_px: FloatArray,
        boxes: Sequence[Box],
        runs: Sequence[NDArray[np.int64]] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Depth of many poses, each in a box and by a camera of its own, cast together: small boxes cost little then.

        Args:
            poses: [N, 4, 4], camera_from_object.
            intrinsics_px: [N, 4].
            boxes: N parts of pictures, none of them empty.
            runs: N of int64 [h, 2]: the first pixel of each row of a box through which a ray is cast and the one after
                the last, from the box's left; elsewhere the depth is 0. None = all pixels.

        Returns:
            float32 [h, w] for each, as :meth:`depth`.
        """
        sizes = [(bottom - top, right - left) for left, top, right, bottom in boxes]
        if runs is None:
            runs = [np.tile(np.array([0, width]), (height, 1)) for height, width in sizes]
        # The six numbers of a ray but for what its column adds, one row of a picture per row.
        fixed = np.empty((sum(height for height, _ in sizes), 6), np.float32)
        columns, turns, row = [], [], 0
        for pose, (fx, fy, cx, cy), (left, top, right, bottom) in zip(poses, intrinsics_px, boxes, strict=True):
            back = invert(pose)
            turn = back[:3, :3].astype(np.float32)
            v = ((np.arange(top, bottom) - cy) / fy).astype(np.float32)
            part = fixed[row : row + bottom - top]
            part[:, :3] = back[:3, 3]
            part[:, 3:] = v[:, None] * turn[:, 1] + turn[:, 2]
            columns.append(((np.arange(left, right) - cx) / fx).astype(np.float32))
            turns.append(turn[:, 0])
            row += bottom - top
        heights, widths = np.array(sizes).T
        first, last = np.concatenate(runs).T
        count = last - first
        before = np.cumsum(count) - count  # rays of earlier rows
        number = np.arange(int(count.sum()))
        column = number + np.repeat(np.repeat(np.cumsum(widths) - widths, heights) + first - before, count)
        u = np.concatenate(columns)[column]
        six = np.repeat(fixed, count, axis=0)
        begin = 0
        for turn, some in zip(turns, runs, strict=True):
            end = begin + int((some[:, 1] - some[:, 0]).sum())
            for axis, along in enumerate(turn):
                six[begin:end, 3 + axis] += u[begin:end] * along
            begin = end
        distance = self._scene.cast_rays(self._core.Tensor(six), self._threads)["t_hit"].numpy()
        np.copyto(distance, 0, where=np.isinf(distance))
        width = np.repeat(widths, heights)
        out = np.zeros(int(width.sum()), np.float32)
        out[number + np.repeat(np.cumsum(width) - width + first - before, count)] = distance
        ends = np.cumsum(heights * widths)
        return [part.reshape(size) for part, size in zip(np.split(out, ends[:-1]), sizes, strict=True)]

    def render(self, camera_from_object: ArrayLike, intrinsics_px: ArrayLike, box: Box) -> Rendering:
        """Everything.

        Args:
            camera_from_object: [4, 4] or [N, 4, 4], metres.
            intrinsics_px: fx fy cx cy; integer pixels are pixel centres.
            box: which part of the picture, as :meth:`box` gives or (0, 0, width, height).

        Raises:
            SpecError: the box is empty.
        """
        poses = np.asarray(camera_from_object, np.float64).reshape(-1, 4, 4)
        hit = self._cast(poses, intrinsics_px, box)
        distance, face = hit["t_hit"].numpy(), hit["primitive_ids"].numpy()
        there = np.isfinite(distance)
        uv = hit["primitive_uvs"].numpy()[there]
        weight = np.stack([1 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], -1)
        corner = self.model.faces[face[there].astype(np.int64)]
        shape = distance.shape
        coordinates = np.zeros((*shape, 3), np.float32)
        coordinates[there] = np.einsum("nk,nkc->nc", weight, self.model.vertices_m[corner])
        colour = np.zeros((*shape, 3), np.uint8)
        colour[there] = np.rint(np.einsum("nk,nkc->nc", weight, self.model.rgb[corner].astype(np.float32)))
        normal = np.zeros((*shape, 3), np.float32)
        which = np.broadcast_to(np.arange(len(poses))[:, None, None], shape)[there]
        ray = self._rays(intrinsics_px, box)
        outwards = np.einsum("nij,nj->ni", poses[which, :3, :3], self.model.face_normals[face[there].astype(np.int64)])
        sight = np.broadcast_to(ray, (*shape, 3))[there]
        normal[there] = np.where((outwards * sight).sum(-1, keepdims=True) > 0, -outwards, outwards)
        return Rendering(box, np.where(there, distance, np.float32(0)), coordinates, normal, colour)

    def _rays(self, intrinsics_px: ArrayLike, box: Box) -> FloatArray:
        """Camera-frame directions [h, w, 3] with z = 1, so that Embree's distance is the depth."""
        left, top, right, bottom = box
        if left >= right or top >= bottom:
            raise SpecError("MeshRenderer", "a box with pixels", repr(box), "Ask box() first; None = out of view.")
        fx, fy, cx, cy = np.asarray(intrinsics_px, np.float64)
        u, v = np.meshgrid((np.arange(left, right) - cx) / fx, (np.arange(top, bottom) - cy) / fy)
        return np.stack([u, v, np.ones_like(u)], -1)

    def _cast(self, camera_from_object: ArrayLike, intrinsics_px: ArrayLike, box: Box) -> Any:
        rays = self._rays(intrinsics_px, box)
        poses = np.asarray(camera_from_object, np.float64).reshape(-1, 4, 4)
        six = np.empty((len(poses), *rays.shape[:2], 6), np.float32)
        for number, pose in enumerate(poses):
            back = invert(pose)
            six[number, ..., :3] = back[:3, 3]
            six[number, ..., 3:] = rays @ back[:3, :3].T
        return self._scene.cast_rays(self._core.Tensor(six), self._threads)
