"""DepthSearch: finds a known object that stands free in a depth picture, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from perceive.pose.estimate import PoseEstimate, PoseEstimator, check_view
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.tracking.fit import DepthView, fit
from perceive.pose.tracking.side import Side
from sensors.errors import DataError, SpecError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, quaternion_to_matrix

_STEP_PX = 4  # the picture is searched on a grid of this
_JUMP = 0.2  # neighbours of the grid farther apart than this share of the diameter belong to two things
_DRAWN_PX = 28  # size of the drawings that the points of each view come from
_ROUNDS = ((2, 96), (3, 24), (4, 6))  # steps of fitting, and how many hypotheses go on after them
_NOISE_M = 0.002


def spread_rotations(count: int) -> FloatArray:
    """Rotations [count, 3, 3] spread evenly by super-Fibonacci spirals (Alexa, CVPR 2022)."""
    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(count) + 0.5
    inner, outer = np.sqrt(s / count), np.sqrt(1 - s / count)
    alpha, beta = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    return quaternion_to_matrix(
        np.stack([inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], -1)
    )


@final
class DepthSearch(PoseEstimator):
    """Parts of the depth picture between jumps, tried with the object in many rotations.

    Made to find a lost object again within a fraction of a second on one core. It needs depth, and an object that is
    parted from its surroundings by a jump of depth (held, flying, on an edge): what lies flat on a table is one piece
    with it. Use another estimator there.

    Args:
        models: the objects, of different numbers.
        rotations: how many are tried for each piece.
        points: how many points are compared for each.
        pieces: how many pieces are tried at most, those of the most fitting size first.
        threads: of the renderer; 0 = all cores.

    Raises:
        SpecError: two models have one number, or an argument is out of range.
    """

    def __init__(
        self, models: Sequence[ObjectModel], rotations: int = 256, points: int = 80, pieces: int = 6, threads: int = 0
    ) -> None:
        if len({one.number for one in models}) < len(models) or min(rotations, points, pieces) < 1 or threads < 0:
            raise SpecError(
                "DepthSearch", "models of different numbers and counts above 0",
                f"{[one.number for one in models]}, {rotations}, {points}, {pieces}", "Correct the arguments.",
            )  # fmt: skip
        self._pieces = pieces
        self._rotations = spread_rotations(rotations)
        self._renderers: Mapping[int, MeshRenderer] = {one.number: MeshRenderer(one, threads) for one in models}
        self._sides = {number: self._draw(renderer, points) for number, renderer in self._renderers.items()}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The objects that it knows."""
        return tuple(self._renderers)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        """See :class:`PoseEstimator`; several rotations of the best piece come as further hypotheses."""
        where = "DepthSearch"
        check_view(where, frame, mask)
        if number not in self._renderers:
            raise SpecError(where, f"one of {self.numbers}", f"object {number}", "Give it the model.")
        depth = np.where(np.isfinite(frame.depth_m) & (frame.depth_m > 0), frame.depth_m, np.float32(0))
        if not depth.any():
            raise SpecError(where, "depth", "a picture without any", "Use an estimator that works on colours.")
        camera = np.asarray(frame.intrinsics_px, np.float64)
        view = DepthView(depth, camera)
        grid = depth[::_STEP_PX, ::_STEP_PX]
        if mask is not None:
            piece = mask[::_STEP_PX, ::_STEP_PX] & (grid > 0)
            if not piece.any():
                raise DataError(where, "a mask with depth in it", "none", "Is depth aligned to colour?")
            pieces = [piece]
        else:
            pieces = self._parts(grid, camera, self._renderers[number].model)
        found = [self._try(view, piece, number) for piece in pieces]
        found.sort(key=lambda one: -one.score)
        return found[: 1 if mask is not None else most]

    def _draw(self, renderer: MeshRenderer, points: int) -> tuple[FloatArray, FloatArray]:
        """Points and normals [R, points, 3] of the object as it is seen in each rotation, in its own frame."""
        model = renderer.model
        far, middle = 6.0 * model.diameter_m, 0.5 * (model.low_m + model.high_m)
        poses = np.tile(np.eye(4), (len(self._rotations), 1, 1))
        poses[:, :3, :3] = self._rotations
        poses[:, :3, 3] = [0, 0, far] - self._rotations @ middle
        size = _DRAWN_PX
        focal = 0.95 * size * far / model.diameter_m
        drawn = renderer.render(poses, (focal, focal, 0.5 * (size - 1), 0.5 * (size - 1)), (0, 0, size, size))
        xyz, normal = np.empty((len(poses), points, 3)), np.empty((len(poses), points, 3))
        for k in range(len(poses)):
            there = np.flatnonzero(drawn.depth_m[k])
            if not len(there):
                raise SpecError("DepthSearch", "an object with a face to see", model.name, "Is the mesh empty?")
            chosen = there[np.linspace(0, len(there) - 1, points).astype(int)]
            xyz[k] = drawn.coordinates_m[k].reshape(-1, 3)[chosen]
            normal[k] = drawn.normal[k].reshape(-1, 3)[chosen] @ self._rotations[k]
        return xyz, normal

    def _parts(self, grid: NDArray[np.float32], camera: FloatArray, model: ObjectModel) -> list[NDArray[np.bool_]]:
        """Pieces [h, w] of the grid between jumps, the most fitting sizes first."""
        smooth = grid > 0
        for axis in (0, 1):
            step = np.abs(np.diff(grid, axis=axis)) > _JUMP * model.diameter_m
            smooth[(slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))] &= ~step
        names, count = label(smooth)
        sizes = np.bincount(names.ravel(), minlength=count + 1)
        pieces: list[tuple[float, int, NDArray[np.bool_]]] = []
        for name in np.argsort(-sizes[1:], kind="stable")[:12] + 1:
            if sizes[name] < 12:
                break
            piece = names == name
            row, column = np.nonzero(piece)
            z = grid[piece]
            x, y = (column * _STEP_PX - camera[2]) / camera[0] * z, (row * _STEP_PX - camera[3]) / camera[1] * z
            extent = float(np.linalg.norm([np.ptp(x), np.ptp(y), np.ptp(z)])) / model.diameter_m
            if 0.35 < extent < 1.6:
                pieces.append((abs(extent - 0.9), len(pieces), piece))
        return [piece for _, _, piece in sorted(pieces)[: self._pieces]]

    def _try(self, view: DepthView, piece: NDArray[np.bool_], number: int) -> PoseEstimate:
        fx, fy, cx, cy = view.intrinsics_px
        row, column = (place * _STEP_PX for place in np.nonzero(piece))
        z = view.depth_m[row, column].astype(np.float64)
        middle = np.array([((column - cx) / fx * z).mean(), ((row - cy) / fy * z).mean(), z.mean()])
        # Only this piece is fitted to: whatever else is near is not the object.
        only = np.kron(piece, np.ones((_STEP_PX, _STEP_PX), bool))[: view.depth_m.shape[0], : view.depth_m.shape[1]]
        view = DepthView(np.where(only, view.depth_m, np.float32(0)), view.intrinsics_px)
        xyz, normal = self._sides[number]
        model = self._renderers[number].model
        poses: FloatArray = np.tile(np.eye(4), (len(xyz), 1, 1))
        poses[:, :3, :3] = self._rotations
        poses[:, :3, 3] = middle - np.einsum("rij,rj->ri", self._rotations, xyz.mean(1))
        chosen = np.arange(len(xyz))
        reach_m = 0.3 * model.diameter_m
        cost: FloatArray = np.ones(len(xyz))
        covariance: FloatArray = np.tile(np.eye(6), (len(xyz), 1, 1))
        for steps, left in _ROUNDS:
            blank = np.zeros((len(chosen), 0, 3))
            grey = np.zeros((len(chosen), xyz.shape[1], 3), np.uint8)
            side = Side(xyz[chosen], normal[chosen], grey, blank, blank[..., :2], 0.0)
            done = fit(view, side, poses, [reach_m] * steps, _NOISE_M, 0.5 * model.diameter_m)
            best = np.argsort(done.cost, kind="stable")[:left]
            poses, cost, covariance = done.camera_from_object[best], done.cost[best], done.covariance[best]
            chosen, reach_m = chosen[best], 0.6 * reach_m
        score = np.array([self._overlap(view, piece, number, one) for one in poses]) * (1.0 - cost)
        order = np.argsort(-score, kind="stable")
        first = order[0]
        return PoseEstimate(
            number, poses[first], float(score[first]), covariance[first], poses[order[1:]], score[order[1:]]
        )

    def _overlap(self, view: DepthView, piece: NDArray[np.bool_], number: int, pose: FloatArray) -> float:
        """Intersection over union of the piece and the drawn object, on the grid."""
        fx, fy, cx, cy = view.intrinsics_px / _STEP_PX
        height, width = piece.shape
        drawn = self._renderers[number].depth(pose, (fx, fy, cx, cy), (0, 0, width, height))[0] > 0
        return float((drawn & piece).sum() / max(int((drawn | piece).sum()), 1))
