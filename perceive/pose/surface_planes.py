"""SurfacePlanes: the tangent plane of a mesh nearest to a place, roughly from a table or exactly."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from perceive.pose.model import ObjectModel
from sensors.errors import DataError, SpecError
from sensors.geometry import FloatArray

_ROW = 8  # numbers per cell, so that a look-up reads half a line of the processor's cache
_CREASE = 0.866  # cosine of the angle between two faces; a sharper edge than these 30 degrees is a crease
_RIM_SPACING = 0.003  # of the size: how densely creases are sampled
_ON_SURFACE = 1e-4  # of the size; a cell's middle nearer than this has no direction to the surface: its face has


@final
class SurfacePlanes:
    """Planes of one mesh. Coordinates are counted from ``middle_m``, in the object's axes, in metres.

    The table holds for each cell of a grid around the object the plane through the surface's point nearest to the
    cell's middle, across the way there: the first-order model of the signed distance. One look-up answers.

    Args:
        model: the object.
        cells: of the grid along its longest side.
        margin: how far the grid reaches beyond the object, as a share of the longest side.
        device: where the table lies.

    Raises:
        DataError: no triangle of the mesh has an area.
        SpecError: a number out of its range.
    """

    def __init__(
        self, model: ObjectModel, cells: int = 64, margin: float = 0.15, device: torch.device | str = "cpu"
    ) -> None:
        if not 4 <= cells <= 256 or not 0 < margin < 4:
            raise SpecError("SurfacePlanes", "cells in 4 to 256, margin in 0 to 4", f"{cells}, {margin}", "Correct it.")
        import open3d  # heavy; needed by those who refine only

        whole = np.linalg.norm(model.face_normals, axis=1) > 0.5
        if not whole.any():
            raise DataError(f"model {model.number} ({model.name})", "a surface", "no area", "Repair the mesh.")
        self.middle_m: FloatArray = (model.low_m + model.high_m) / 2
        corner = model.vertices_m - self.middle_m
        faces = model.faces[whole]
        self.outwards = model.watertight  # whether the normals' side is known
        volume = np.einsum("fi,fi->f", corner[faces[:, 0]], np.cross(corner[faces[:, 1]], corner[faces[:, 2]])).sum()
        inside_out = -1.0 if model.watertight and volume < 0 else 1.0
        self._normal = inside_out * model.face_normals[whole]
        self._offset = (self._normal * corner[faces[:, 0]]).sum(1)
        self._core: Any = open3d.core
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            self._core.Tensor(corner.astype(np.float32)), self._core.Tensor(faces.astype(np.uint32))
        )
        rim = _creases(corner, faces, self._normal)
        self._rim: cKDTree | None = cKDTree(rim) if len(rim) else None
        area = model.surface(2000).xyz_m - self.middle_m
        self.size_m = float(np.sqrt((area**2).sum(1).mean()))
        self._tabulate(corner[faces].min((0, 1)), corner[faces].max((0, 1)), cells, margin, torch.device(device))

    def _tabulate(self, low: FloatArray, high: FloatArray, cells: int, margin: float, device: torch.device) -> None:
        longest = float((high - low).max())
        reach = margin * longest
        edge = (longest + 2 * reach) / cells
        shape = np.clip(np.ceil((high - low + 2 * reach) / edge - 1e-9), 1, cells).astype(np.int64)
        start = (low + high - shape * edge) / 2
        axes = [start[axis] + edge * (np.arange(shape[axis]) + 0.5) for axis in range(3)]
        middle = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        point, face = self._closest(middle)
        away = middle - point
        distance = np.linalg.norm(away, axis=1)
        normal = self._normal[face]
        on_it = distance < _ON_SURFACE * self.size_m
        # Towards the outside (the winding's side), whichever side the cell is on.
        side = np.where((away * normal).sum(1) < 0, -1.0, 1.0)
        plane = np.where(on_it[:, None], normal, side[:, None] * away / np.maximum(distance, 1e-12)[:, None])
        row = np.zeros((len(middle), _ROW), np.float32)
        row[:, :3], row[:, 3], row[:, 4] = plane, (plane * point).sum(1), distance
        self._table = torch.from_numpy(row).to(device)
        self._scale, self.edge_m = 1.0 / edge, edge
        self._start = torch.from_numpy(start).to(device, torch.float32)
        self._last = torch.from_numpy(shape - 1).to(device, torch.float32)
        self._strides = torch.tensor([shape[1] * shape[2], shape[2], 1], dtype=torch.float32, device=device)

    @property
    def nbytes(self) -> int:
        """Memory of the table."""
        return self._table.nbytes

    def near(self, local_m: Tensor) -> Tensor:
        """Rows float32 [..., 8] for places [..., 3]: unit normal, its product with a point of the plane, distance.

        The distance (number 4) is that of the cell's middle, so it is off by half a cell's diagonal at most.
        """
        place = (local_m - self._start).mul_(self._scale).floor_().clamp_min_(0).minimum(self._last)
        # Below 2^24 cells the number is exact in single precision, and a product with the strides is one call.
        cell = (place.view(-1, 3) @ self._strides).int()
        return self._table.index_select(0, cell).view(*local_m.shape[:-1], _ROW)

    def exact(self, local_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The planes of the triangles nearest to places float64 [..., 3].

        Returns:
            normal float64 [..., 3], signed distance from the plane [...] and distance from the triangle [...]. The
            last is good to single precision, the other two to double.
        """
        place = local_m.detach().cpu().double().numpy().reshape(-1, 3)
        point, face = self._closest(place)
        normal = self._normal[face]
        off = (place * normal).sum(1) - self._offset[face]
        distance = np.linalg.norm(place - point, axis=1)
        shape, device = local_m.shape[:-1], local_m.device
        return (
            torch.from_numpy(normal).view(*shape, 3).to(device),
            torch.from_numpy(off).view(shape).to(device),
            torch.from_numpy(distance).view(shape).to(device),
        )

    @property
    def creased(self) -> bool:
        """Whether the surface has sharp edges or borders."""
        return self._rim is not None

    def from_crease(self, local_m: Tensor) -> Tensor:
        """Distances [...] of places float64 [..., 3] to the nearest sharp edge or border; infinite if there is none."""
        shape, device = local_m.shape[:-1], local_m.device
        if self._rim is None:
            return torch.full(shape, torch.inf, dtype=torch.float64, device=device)
        away, _ = self._rim.query(local_m.detach().cpu().double().numpy().reshape(-1, 3))
        return torch.from_numpy(np.asarray(away)).view(shape).to(device)

    def _closest(self, place: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = self._scene.compute_closest_points(self._core.Tensor(np.ascontiguousarray(place, np.float32)))
        return found["points"].numpy().astype(np.float64), found["primitive_ids"].numpy().astype(np.int64)


def _creases(corner: FloatArray, faces: NDArray[np.int64], normal: FloatArray) -> FloatArray:
    """Points [R, 3] along the edges at which the surface turns by more than 30 degrees, or ends."""
    _, place = np.unique(corner, axis=0, return_inverse=True)
    ends = place.reshape(-1)[faces]
    edge = np.sort(np.concatenate([ends[:, [0, 1]], ends[:, [1, 2]], ends[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort(edge.T)
    edge, owner = edge[order], owner[order]
    first = np.r_[True, (edge[1:] != edge[:-1]).any(1)]
    start = np.flatnonzero(first)
    count = np.diff(np.r_[start, len(edge)])
    partner = owner[np.minimum(start + 1, len(edge) - 1)]
    flat = (count == 2) & ((normal[owner[start]] * normal[partner]).sum(1) > _CREASE)
    representative = np.zeros(place.max() + 1, np.int64)
    representative[place.reshape(-1)] = np.arange(len(corner))
    a, b = (corner[representative[edge[start[~flat], k]]] for k in (0, 1))
    spacing = _RIM_SPACING * float(np.linalg.norm(corner.max(0) - corner.min(0)))
    pieces = np.maximum(np.ceil(np.linalg.norm(b - a, axis=1) / spacing).astype(np.int64), 1) + 1
    which = np.repeat(np.arange(len(a)), pieces)
    along = (np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / (pieces[which] - 1)
    return np.asarray(a[which] + along[:, None] * (b - a)[which])
