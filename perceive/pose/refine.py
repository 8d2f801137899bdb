"""ModelRefiner: many rough poses of a known object, refined at once onto the points that were seen of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from perceive.geometry import full_precision
from perceive.points.registration.rigid import exp_twist, invert_rigid, rigid
from perceive.pose.covariance import about_origin, observed, pose_covariance
from perceive.pose.hidden_motions import hidden_motions
from perceive.pose.model import ObjectModel
from perceive.pose.surface_planes import SurfacePlanes
from sensors.errors import DataError, SpecError

LEAST_POINTS = 6
_COARSE = 128  # points of the first phase
_COARSE_STEPS = 8
_COARSE_SMALL = 2e-2  # steps (of the size) below which the first phase ends ...
_TABLE_SMALL = 2e-3  # ... the second ...
_EXACT_SMALL = 1e-10  # ... and the third
_EXACT_STEPS = 12
_DAMPING = 1e-3  # per residual; keeps motions that a few points hardly show from running away
_WIDER = 4.0  # the first reach over the last
_SLACK = 0.25  # how far a normal may turn away from the camera, as a cosine, before its face counts as hidden
_AGREE = 0.3  # cosine of the angle between the normals of a pair, at least
# Beyond so many standard deviations, judged by the upper quartile, a residual is an outlier of the last phase. The
# quartile and the width leave room for faces that have more noise than most.
_CUT, _QUARTILE = 6.0, 1.1503
_TIGHTER = 0.25  # the cut's share of the one before, from the reach down to what the residuals show
_CLEAR, _STEEP, _MOST_LEFT, _LAST_STEPS = 4.0, 0.2, 0.3, 3
_FLOOR = 1e-4  # of the size: the cut is never below


@final
@dataclass(frozen=True, eq=False)
class Refined:
    """N refined poses, in the order of their starts.

    Attributes:
        camera_from_object: float64 [N, 4, 4], metres.
        rmse_m: float64 [N], of the inliers' distances along the model's normals.
        inlier_share: float64 [N], of the points within reach of the model (and of a face that the camera can see).
        covariance: float64 [N, 6, 6], as :class:`~perceive.pose.estimate.PoseEstimate` defines it. Motions that the
            points or the object's symmetry leave open have a very large variance.
        exact: bool [N], whether the last phase, on the true triangles, was run for it.
    """

    camera_from_object: Tensor
    rmse_m: Tensor
    inlier_share: Tensor
    covariance: Tensor
    exact: Tensor


@final
class ModelRefiner:
    """Point-to-plane refinement (Chen and Medioni, IVC 1992) of many hypotheses at once.

    Three phases: damped Gauss-Newton steps on a few points and planes from a table, with a reach that shrinks; the
    same on all points; and for the best hypotheses the planes of the truly nearest triangles in double precision, with
    outliers cut at six standard deviations. Hypotheses that have come to rest cost nothing any more. The table is
    built once, in about a second.

    Args:
        model: the object.
        points: at most so many of the seen points are used, spread evenly over them.
        device: where the hypotheses are refined; the last phase is on the CPU.

    Raises:
        DataError: the mesh has no area.
        SpecError: fewer than 6 points.
    """

    def __init__(self, model: ObjectModel, points: int = 512, device: torch.device | str = "cpu") -> None:
        if points < LEAST_POINTS:
            raise SpecError("ModelRefiner.points", f"{LEAST_POINTS} at least", f"{points}", "Correct it.")
        self.model, self.points, self.device = model, points, torch.device(device)
        self.planes = SurfacePlanes(model, device=self.device)
        self._hidden = hidden_motions(model, self.planes)

    def refine(
        self,
        points_m: Tensor,
        camera_from_object: Tensor,
        normals: Tensor | None = None,
        *,
        steps: int = 20,
        reach_m: float | None = None,
        exact: int = 4,
        facing: bool = True,
    ) -> Refined:
        """Refine poses.

        Args:
            points_m: float [P, 3] in the camera frame, seen points of the object. Points that are not finite are left
                out.
            camera_from_object: [N, 4, 4], where to begin.
            normals: float [P, 3] of the points in the camera frame, towards the camera; None = unknown. Pairs whose
                normals disagree do not count.
            steps: at most, of the first two phases together; 0 judges the poses and moves nothing.
            reach_m: pairs farther apart do not count at the end (four times as far at first); None = a twentieth of
                the diameter.
            exact: how many of the best get the last phase.
            facing: of a watertight model only faces towards the camera can be seen; False = the points come from
                several sides.

        Raises:
            DataError: fewer than 6 finite points, or a pose that is not finite and rigid.
            SpecError: shapes that do not fit, or a number out of its range.
        """
        reach = 0.05 * self.model.diameter_m if reach_m is None else reach_m
        start = _checked_poses(camera_from_object)
        if not reach > 0 or steps < 0 or exact < 0:
            raise SpecError(
                "ModelRefiner.refine", "reach_m > 0, steps and exact >= 0", f"{reach}, {steps}, {exact}", "Correct it."
            )
        point, normal = self._thinned(points_m, normals)
        with full_precision(self.device), torch.no_grad():
            run = _Run(self.planes, self._hidden, point, normal, start.to(self.device), facing)
            if steps:
                early = min(_COARSE_STEPS, steps)
                wide = run.approach(_COARSE, early, _COARSE_SMALL, _WIDER * reach, reach)
                run.approach(len(point), steps - early, _TABLE_SMALL, wide, reach)
            return run.finish(exact, _EXACT_STEPS if steps else 0, reach)

    def _thinned(self, points_m: Tensor, normals: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if points_m.ndim != 2 or points_m.shape[1] != 3 or (normals is not None and normals.shape != points_m.shape):
            raise SpecError(
                "ModelRefiner.refine",
                "points [P, 3], and normals of the same shape",
                f"{list(points_m.shape)}, {None if normals is None else list(normals.shape)}",
                "Correct it.",
            )
        point = points_m.detach().to(self.device, torch.float64)
        there = (point.abs() <= 1e6).all(-1)
        if normals is not None:
            there = there & normals.to(self.device).isfinite().all(-1)
        keep = there.nonzero()[:, 0]
        if len(keep) < LEAST_POINTS:
            raise DataError(
                "ModelRefiner.refine",
                f"{LEAST_POINTS} finite points at least",
                f"{len(keep)} of {len(points_m)}",
                "Is there depth inside of the mask?",
            )
        # A fixed shuffle, so that the first few of them lie all over the object too.
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(keep))).to(self.device)
        keep = keep[order[: self.points]]
        return point[keep], None if normals is None else normals.detach().to(self.device, torch.float64)[keep]


class _Run:
    """The state of N hypotheses: ``local = turn (p - centre) + shift``, counted from the model's middle."""

    def __init__(
        self,
        planes: SurfacePlanes,
        hidden: Tensor | None,
        point: Tensor,
        normal: Tensor | None,
        camera_from_object: Tensor,
        facing: bool,
    ) -> None:
        self.planes, self.size_m = planes, planes.size_m
        self.hidden = None if hidden is None else hidden.to(point.device)
        self.middle = torch.from_numpy(planes.middle_m).to(point.device)
        self.facing = facing and planes.outwards
        self.centre = point.mean(0)
        self.point, self.normal = point - self.centre, normal
        self.point32 = self.point.float()
        self.normal32 = None if normal is None else normal.float()
        back = invert_rigid(camera_from_object)
        self.turn = back[:, :3, :3].clone()
        self.shift = back[:, :3, 3] + self.turn @ self.centre - self.middle

    def approach(self, count: int, steps: int, small: float, reach_m: float, last_reach_m: float) -> float:
        """Damped steps on the table with the first ``count`` points; the reach that it has come to is returned."""
        active = torch.arange(len(self.turn), device=self.turn.device)
        damping = _DAMPING * torch.eye(6, dtype=torch.float64, device=self.turn.device)
        for _ in range(steps):
            row, weight = self._from_table(active, count, reach_m)
            product = (row.transpose(1, 2) @ row).double()
            total = weight.sum(1).double()
            matrix = product[:, :6, :6]
            if self.hidden is not None:  # a stiff spring along what cannot be seen
                matrix = matrix + total.clamp_min(1)[:, None, None] * (self.hidden @ self.hidden.T)
            matrix = matrix + total.clamp_min(1)[:, None, None] * damping
            step = -torch.linalg.solve(matrix, product[:, :6, 6:])[..., 0]
            step = torch.where((total >= LEAST_POINTS)[:, None], step, 0.0)
            self._move(active, step)
            settled = (step.abs().amax(1) < small * self.size_m) & (reach_m <= 1.01 * last_reach_m)
            active = active[~settled]
            reach_m = max(0.7 * reach_m, last_reach_m)
            if not len(active):
                break
        return reach_m

    def finish(self, exact: int, steps: int, reach_m: float) -> Refined:
        """Judge all by the table, move the best on to the true triangles, and say how sure each of them is."""
        every = torch.arange(len(self.turn), device=self.turn.device)
        row, weight = self._from_table(every, len(self.point), reach_m)
        share = weight.mean(1).double()
        square = row[..., 6].square().sum(1).double()
        # Truncated squares (Torr and Zisserman, CVIU 2000): a point out of reach costs as much as one at its edge.
        cost = square / weight.shape[1] + (1 - share) * reach_m**2
        best = cost.argsort(stable=True)[:exact]
        rmse = (square / weight.sum(1).clamp_min(1)).sqrt()
        covariance = pose_covariance(row[..., :6], row[..., 6], weight, self.size_m, self.hidden)
        done = torch.zeros(len(every), dtype=torch.bool, device=self.turn.device)
        if len(best):
            active, previous = best, torch.full((len(every),), torch.inf, dtype=torch.float64, device=best.device)
            cut_m = reach_m
            for _ in range(steps):
                rows, residual, distance, seen, _ = self._from_triangles(active)
                # A face of which few points are seen must not be thrown away before it had its say.
                fitted, wide = self._fitted(residual, distance, seen, reach_m, cut_m)
                step = self._gauss_newton(rows, residual, fitted)
                self._move(active, step)
                length = step.abs().amax(1)
                # At rest, or only jumping to and fro between triangles under the noise.
                rest = (length < _EXACT_SMALL * self.size_m) | (
                    (length > 0.5 * previous[active]) & (length < 1e-4 * self.size_m)
                )
                previous[active] = length
                active = active[~(rest & ~wide)]
                cut_m *= _TIGHTER
                if not len(active):
                    break
            fitted, (rows, residual, distance, seen, slant) = self._settle(best, steps > 0, reach_m)
            covariance[best] = pose_covariance(rows, residual, fitted, self.size_m, self.hidden, slant)
            inlier = seen & (distance <= reach_m)
            share[best] = inlier.double().mean(1)
            rmse[best] = ((residual.square() * inlier).sum(1) / inlier.sum(1).clamp_min(1)).sqrt()
            done[best] = True
        u, _, vh = torch.linalg.svd(self.turn)  # rounding adds up over the steps; the nearest rotation has none
        turn = u @ vh
        shift = self.shift - turn @ self.centre + self.middle
        found = invert_rigid(rigid(turn, shift))
        return Refined(found, rmse, share, about_origin(covariance, self.middle), done)

    def _settle(self, best: Tensor, move: bool, reach_m: float) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Last steps without the points that noise may have moved across a sharp edge; weights [A, P] and pairs.

        Such a point is paired with the wrong face whatever the pose is, which pulls the pose and makes it look surer
        than it is. Where most points lie so near to edges, all of them stay: a thin object has no others.
        """
        pairs = self._from_triangles(best)
        _, residual, distance, seen, slant = pairs
        fitted, _ = self._fitted(residual, distance, seen, reach_m, 0.0)
        if not self.planes.creased:
            return fitted, pairs
        moved = self.point @ self.turn[best].transpose(1, 2) + self.shift[best][:, None]
        # How far noise may have moved a point: along its ray, a residual is that times the slant's cosine.
        along = residual.abs() / slant.sqrt().clamp_min(_STEEP)
        noise = torch.where(fitted > 0, along, torch.nan).nanquantile(0.75, 1).nan_to_num(0.0) / _QUARTILE
        inside = fitted * (self.planes.from_crease(moved) > _CLEAR * noise[:, None])
        enough = inside.sum(1) >= torch.clamp(_MOST_LEFT * fitted.sum(1), min=4.0 * LEAST_POINTS)
        fitted = torch.where(enough[:, None], inside, fitted)
        for _ in range(_LAST_STEPS if move else 0):
            self._move(best, self._gauss_newton(pairs[0], pairs[1], fitted))
            pairs = self._from_triangles(best)
        return fitted, pairs

    def _from_table(self, active: Tensor, count: int, reach_m: float) -> tuple[Tensor, Tensor]:
        """Weighted rows float32 [A, C, 7] (six derivatives and the residual) and weights [A, C] of 0 or 1."""
        turn, shift = self.turn[active].float(), self.shift[active].float()
        point = self.point32[:count]
        moved = torch.baddbmm(shift[:, None], point.expand(len(turn), -1, -1), turn.transpose(1, 2))
        found = self.planes.near(moved)
        normal = found[..., :3]
        level = (normal * moved).sum(-1)
        residual = level - found[..., 3]
        good = (residual.abs() <= reach_m) & (found[..., 4] <= reach_m + 0.87 * self.planes.edge_m)
        if self.facing:
            eye = shift - (turn @ self.centre.float())  # the camera, where p = 0
            away = torch.linalg.vector_norm(eye, dim=-1)
            good &= level - (normal @ eye[..., None])[..., 0] <= _SLACK * away[:, None]
        if self.normal32 is not None:
            good &= (normal * (self.normal32[:count] @ turn.transpose(1, 2))).sum(-1) >= _AGREE
        weight = good.float()
        row = torch.empty(*moved.shape[:2], 7, device=moved.device)
        row[..., :3] = torch.linalg.cross(moved, normal).mul_(1 / self.size_m)
        row[..., 3:6] = normal
        row[..., 6] = residual
        return row.mul_(weight[..., None]), weight

    def _from_triangles(self, active: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Rows float64 [A, P, 6]; residuals, distances, which pairs the camera can see, squared slants [A, P]."""
        turn, shift = self.turn[active], self.shift[active]
        moved = self.point @ turn.transpose(1, 2) + shift[:, None]
        normal, residual, distance = self.planes.exact(moved)
        seen = torch.ones_like(distance, dtype=torch.bool)
        ray = moved - (shift - turn @ self.centre)[:, None]
        cosine = (normal * ray).sum(-1) / torch.linalg.vector_norm(ray, dim=-1).clamp_min(1e-12)
        if self.facing:
            seen &= cosine <= _SLACK
        if self.normal is not None:
            seen &= (normal * (self.normal @ turn.transpose(1, 2))).sum(-1) >= _AGREE
        rows = torch.cat([torch.linalg.cross(moved, normal) / self.size_m, normal], -1)
        return rows, residual, distance, seen, cosine.square()

    def _fitted(
        self, residual: Tensor, distance: Tensor, seen: Tensor, reach_m: float, least_m: float
    ) -> tuple[Tensor, Tensor]:
        """Weights float64 [A, P] of 0 or 1 (no outlier), and whether ``least_m`` was the wider cut bool [A]."""
        inlier = seen & (distance <= reach_m)
        upper = torch.where(inlier, residual.abs(), torch.nan).nanquantile(0.75, 1).nan_to_num(0.0)
        narrow = (_CUT / _QUARTILE * upper).clamp(_FLOOR * self.size_m, reach_m)
        cut = narrow.clamp_min(least_m)
        fits = inlier & (residual.abs() <= cut[:, None]) & (distance <= 1.5 * cut[:, None])
        return fits.double(), narrow < least_m

    def _gauss_newton(self, rows: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        used = rows * weight[..., None]
        value, vector, known = observed(used.transpose(1, 2) @ rows, weight.sum(1), self.hidden)
        along = -(vector.transpose(1, 2) @ (used * residual[..., None]).sum(1)[..., None])[..., 0]
        part = torch.where(known, along / torch.where(known, value, 1.0), 0.0)
        return (vector @ part[..., None])[..., 0]

    def _move(self, active: Tensor, step: Tensor) -> None:
        motion = exp_twist(torch.cat([step[:, :3] / self.size_m, step[:, 3:]], -1))
        turn, shift = motion[:, :3, :3], motion[:, :3, 3]
        self.shift[active] = (turn @ self.shift[active][..., None])[..., 0] + shift
        self.turn[active] = turn @ self.turn[active]


def _checked_poses(camera_from_object: Tensor) -> Tensor:
    if camera_from_object.ndim != 3 or camera_from_object.shape[1:] != (4, 4):
        raise SpecError(
            "ModelRefiner.refine", "poses [N, 4, 4]", f"{list(camera_from_object.shape)}", "Stack them: pose[None]."
        )
    pose = camera_from_object.detach().double()
    turn = pose[:, :3, :3]
    eye = torch.eye(3, dtype=torch.float64, device=pose.device)
    if not bool(pose.isfinite().all()) or not bool(((turn @ turn.transpose(1, 2) - eye).abs() < 1e-3).all()):
        raise DataError("ModelRefiner.refine", "finite rigid poses", "others", "Leave failed hypotheses out.")
    return pose
