"""Nearest: which point of a fixed set is nearest, for very many queries."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sensors.errors import SpecError
from sensors.geometry import FloatArray


class Nearest(ABC):
    """A set of points that is asked for the one nearest to others."""

    @abstractmethod
    def find(self, query_m: Tensor, fine: bool = True) -> Tensor:
        """Numbers int64 [Q] of the points nearest to finite queries [Q, 3].

        Args:
            query_m: in the frame of the points, on their device.
            fine: False allows an answer that is only near, where that is faster.
        """


@final
class NearestTree(Nearest):
    """A k-d tree on the CPU (SciPy): always exact; queries on another device travel there and back.

    Args:
        xyz_m: float [P, 3], finite, P at least 1.
    """

    def __init__(self, xyz_m: Tensor) -> None:
        self._tree = cKDTree(_checked(xyz_m, "NearestTree"))

    def find(self, query_m: Tensor, fine: bool = True) -> Tensor:
        query = query_m.detach().cpu().numpy()
        found = self._tree.query(query, workers=torch.get_num_threads())[1]
        return torch.from_numpy(np.asarray(found, dtype=np.int64)).to(query_m.device)


@final
class NearestGrid(Nearest):
    """A grid around the points that knows for each cell the point nearest to its middle: one look-up for each query.

    A fine answer goes on from there to the nearest among that point's own neighbours, ``hops`` times. That is the
    nearest point but for a few in a thousand queries near a surface, for more of them where it is far away or folds
    closely. Runs on the device of the points.

    Args:
        xyz_m: float [P, 3], finite, P at least 1.
        cells: along the longest side.
        margin: how far the grid reaches beyond the points, as a share of the longest side.
        neighbours: of each point, itself among them.
        hops: see above.

    Raises:
        SpecError: no point, a coordinate that is not finite, or a number out of its range.
    """

    def __init__(
        self, xyz_m: Tensor, cells: int = 64, margin: float = 0.15, neighbours: int = 16, hops: int = 1
    ) -> None:
        if not 1 <= cells <= 512 or not 0 <= margin < math.inf or neighbours < 1 or hops < 0:
            raise SpecError(
                "NearestGrid",
                "cells in 1 to 512, margin and hops >= 0, neighbours >= 1",
                f"{cells}, {margin}, {neighbours}, {hops}",
                "Correct it.",
            )
        xyz = _checked(xyz_m, "NearestGrid")
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        longest = float((high - low).max())
        reach = margin * longest if longest > 0 else 1e-3
        edge = max((longest + 2 * reach) / cells, 1e-9)
        shape = np.clip(np.ceil((high - low + 2 * reach) / edge - 1e-9), 1, cells).astype(np.int64)
        start = (low + high - shape * edge) / 2
        axes = [start[axis] + edge * (np.arange(shape[axis]) + 0.5) for axis in range(3)]
        middles = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        tree, workers = cKDTree(xyz), torch.get_num_threads()
        table = tree.query(middles, workers=workers)[1]
        around = tree.query(xyz, k=np.arange(1, min(neighbours, len(xyz)) + 1), workers=workers)[1]
        # Of equal points a tree may not name the point itself; staying must be one of the choices.
        around[:, 0] = np.arange(len(xyz))
        apart = xyz[around] - xyz[:, None]
        # Twice the way to each neighbour with its sign turned, and the squared length: what ``find`` adds up.
        row = np.concatenate([-2 * apart, (apart**2).sum(axis=-1, keepdims=True)], axis=-1).swapaxes(1, 2)
        device, kind = xyz_m.device, xyz_m.dtype
        self._xyz = xyz_m.detach()
        self._table = torch.from_numpy(table.astype(np.int32)).to(device)
        self._around = torch.from_numpy(around.astype(np.int32)).to(device)
        self._rows = torch.from_numpy(row.reshape(len(xyz), -1)).to(device, kind)  # [P, 4 * k]
        self._scale, self._hops = 1.0 / edge, hops
        self._start = torch.from_numpy(start).to(device, kind)
        self._last = torch.from_numpy(shape - 1).to(device, kind)
        self._across, self._along = int(shape[1] * shape[2]), int(shape[2])

    @property
    def nbytes(self) -> int:
        """Memory of the tables."""
        return self._table.nbytes + self._around.nbytes + self._rows.nbytes

    def find(self, query_m: Tensor, fine: bool = True) -> Tensor:
        query_m = query_m.to(self._xyz.dtype)
        place = ((query_m - self._start) * self._scale).floor_().clamp_min_(0).minimum(self._last)
        x, y, z = place.int().unbind(1)
        found = self._table.index_select(0, x * self._across + y * self._along + z)
        for _ in range(self._hops if fine else 0):
            x, y, z = (query_m - self._xyz.index_select(0, found)).unsqueeze(-1).unbind(1)
            row = self._rows.index_select(0, found).view(len(query_m), 4, self._around.shape[1])
            # Squared distance to each neighbour less that to the point itself, which is the same for all. Sums of
            # three products in this layout take a fifth of the time of differences of points.
            gain = torch.addcmul(row[:, 3], row[:, 0], x).addcmul_(row[:, 1], y).addcmul_(row[:, 2], z)
            found = self._around.index_select(0, found).gather(1, gain.argmin(1, keepdim=True))[:, 0]
        return found.long()


def _checked(xyz_m: Tensor, where: str) -> FloatArray:
    if xyz_m.ndim != 2 or xyz_m.shape[-1] != 3 or not len(xyz_m) or not bool(xyz_m.isfinite().all()):
        raise SpecError(
            where, "finite points [P, 3], at least one", f"{list(xyz_m.shape)}, or not finite", "Remove bad points."
        )
    return np.asarray(xyz_m.detach().cpu().double().numpy())
