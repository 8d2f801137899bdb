"""PlaneRemoval: without the table, the floor or the walls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from perceive.points.preprocess.cloud import PointCloud
from perceive.points.preprocess.step import Step, Trace, keep, require, require_finite
from sensors.geometry import FloatArray

_SCORED = 4096  # points that hypotheses are judged by; the winner is fitted to all


@final
class PlaneRemoval(Step):
    """Find the largest planes one after another and remove their points (RANSAC: Fischler and Bolles, CACM 1981).

    Each plane is the best of ``hypotheses`` through three random points, fitted to its points by least squares.

    The trace has ``plane`` [K, 4] with ``n . x + d = 0`` for the unit normal n (looking along ``up`` where that is
    given, else with its largest component positive) and offset d in metres, and ``plane_of`` [N], the number of the
    plane that a point was on, -1 = none.

    Args:
        distance_m: a point within this of a plane is on it.
        planes: find at most so many.
        least_share: a plane with a smaller share of the points that came in is none.
        hypotheses: triplets tried for each plane.
        up: only planes whose normal is within ``tilt_rad`` of this direction [3] or its opposite.
        tilt_rad: see ``up``.
        seed: of the random triplets.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        distance_m: float,
        planes: int = 1,
        least_share: float = 0.1,
        hypotheses: int = 256,
        up: Sequence[float] | None = None,
        tilt_rad: float = 0.2,
        seed: int = 0,
    ) -> None:
        require(0 < distance_m < np.inf, "PlaneRemoval.distance_m", "a distance above 0", distance_m)
        require(planes >= 1, "PlaneRemoval.planes", "at least 1", planes)
        require(0 < least_share <= 1, "PlaneRemoval.least_share", "a share in (0, 1]", least_share)
        require(hypotheses >= 1, "PlaneRemoval.hypotheses", "at least 1", hypotheses)
        direction = None if up is None else np.asarray(up, dtype=np.float64)
        require(
            direction is None or (direction.shape == (3,) and bool(np.linalg.norm(direction) > 0)),
            "PlaneRemoval.up", "a direction [3]", up,
        )  # fmt: skip
        self._distance_m, self._planes, self._least_share = distance_m, planes, least_share
        self._hypotheses, self._tilt_rad, self._seed = hypotheses, tilt_rad, seed
        self._up = None if direction is None else direction / np.linalg.norm(direction)

    def __call__(self, cloud: PointCloud) -> tuple[PointCloud, Trace]:
        require_finite(cloud, "PlaneRemoval")
        rng = np.random.default_rng(self._seed)
        xyz = cloud.xyz_m.astype(np.float64)
        plane_of = np.full(len(xyz), -1, dtype=np.int64)
        found: list[FloatArray] = []
        while len(found) < self._planes:
            left = np.flatnonzero(plane_of < 0)
            plane = self._best(xyz[left], rng)
            if plane is None:
                break
            on = np.abs(xyz[left] @ plane[:3] + plane[3]) <= self._distance_m
            if np.count_nonzero(on) < self._least_share * len(xyz):
                break
            plane_of[left[on]] = len(found)
            found.append(plane)
        planes = np.array(found).reshape(-1, 4)
        return keep(cloud, plane_of < 0, "planes", plane=planes, plane_of=plane_of)

    def _best(self, xyz: FloatArray, rng: np.random.Generator) -> FloatArray | None:
        if len(xyz) < 3:
            return None
        middle = xyz.mean(axis=0)
        local = xyz - middle
        corner = local[rng.integers(0, len(local), (self._hypotheses, 3))]
        first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
        normal = np.cross(first, second)
        area = np.linalg.norm(normal, axis=1)
        # Three points on a line span no plane; that also covers one point drawn twice.
        flat = area > 1e-6 * np.maximum((first**2).sum(axis=1), (second**2).sum(axis=1))
        normal = normal[flat] / area[flat, None]
        offset = -(normal * corner[flat, 0]).sum(axis=1)
        if self._up is not None:
            right = self._allowed(normal)
            normal, offset = normal[right], offset[right]
        if not len(normal):
            return None
        some = local[np.linspace(0, len(local) - 1, min(_SCORED, len(local))).astype(np.int64)]
        gap = np.abs(some @ normal.T + offset)
        # Truncated squares (Torr and Zisserman, CVIU 2000) tell two planes with equally many points apart.
        cost = np.minimum(gap / self._distance_m, 1.0) ** 2
        best = int(cost.sum(axis=0).argmin())
        plane = np.append(normal[best], offset[best])
        for _ in range(3):
            on = np.abs(local @ plane[:3] + plane[3]) <= self._distance_m
            fitted = _fit(local[on])
            if fitted is None or (self._up is not None and not self._allowed(fitted[None, :3])[0]):
                break
            plane = fitted
        plane = plane if self._looks_up(plane[:3]) else -plane
        plane[3] -= plane[:3] @ middle
        return plane

    def _allowed(self, normal: FloatArray) -> NDArray[np.bool_]:
        assert self._up is not None
        cosine: NDArray[np.bool_] = np.abs(normal @ self._up) >= np.cos(self._tilt_rad)
        return cosine

    def _looks_up(self, normal: FloatArray) -> bool:
        if self._up is not None:
            return bool(normal @ self._up >= 0)
        return bool(normal[np.abs(normal).argmax()] > 0)


def _fit(points: FloatArray) -> FloatArray | None:
    """The plane [4] of least squares through points [N, 3]; None if they lie on a line."""
    if len(points) < 3:
        return None
    middle = points.mean(axis=0)
    spread, axes = np.linalg.eigh((points - middle).T @ (points - middle))
    if spread[1] <= 1e-12 * spread[2]:
        return None
    return np.append(axes[:, 0], -axes[:, 0] @ middle)
