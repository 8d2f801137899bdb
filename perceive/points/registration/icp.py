"""Iterative closest points: many hypotheses of where a cloud lies on one surface, refined at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perceive.geometry import full_precision, widened
from perceive.points.registration.normal_equations import FREE, Equations, to_plane, to_point
from perceive.points.registration.rigid import exp_twist, rigid
from perceive.points.registration.surface import Surface
from sensors.errors import SpecError

Method = Literal["plane", "point"]
LEAST_INLIERS = 6
_ROUGH_RAD = 3e-3  # steps below this end the first, coarse phase


@dataclass(frozen=True, eq=False)
class Registration:
    """Where B clouds came to lie.

    Attributes:
        model_from_source: float64 [B, 4, 4].
        converged: bool [B]; the last step was below the stop rule, and enough points were on the surface.
        iterations: int64 [B].
        inlier: bool [B, N], within reach of the surface at the end.
        inlier_share: float64 [B], of the valid points.
        rms_m: float64 [B], of the inliers' residuals (along the normal for point-to-plane).
        covariance: float64 [B, 6, 6] of the twist (rotation vector in rad, translation in m; model frame) by which the
            true transform differs: ``true = exp_twist(twist) @ model_from_source``. It comes from the noise that the
            residuals show; wrong correspondences and wrong hypotheses are not in it.
        weakest: float64 [B], least eigenvalue of the normal equations per point, in units of the model's size: near 0
            = some motion does not change the residuals.
        unique: bool [B]; False = such a motion exists (a plane, a cylinder, a sphere), or too few inliers.
    """

    model_from_source: Tensor
    converged: Tensor
    iterations: Tensor
    inlier: Tensor
    inlier_share: Tensor
    rms_m: Tensor
    covariance: Tensor
    weakest: Tensor
    unique: Tensor


def icp(
    source_m: Tensor,
    surface: Surface,
    start: Tensor,
    valid: Tensor | None = None,
    *,
    method: Method = "plane",
    within_m: float,
    first_within_m: float | None = None,
    iterations: int = 40,
    stop_rad: float = 1e-5,
    stop_m: float = 1e-5,
) -> Registration:
    """Refine B transforms of clouds onto one surface.

    Each iteration pairs every point with the nearest of the surface and takes one Gauss-Newton step on the distances
    along its normals (``"plane"``; Chen and Medioni, 1992) or on the distances (``"point"``; Besl and McKay, 1992).
    A hypothesis that has stopped costs nothing any more.

    Args:
        source_m: float [N, 3], or [B, N, 3] for a cloud of its own for each hypothesis. Points with a NaN or infinite
            coordinate are left out.
        surface: the model.
        start: float [B, 4, 4], rigid, ``model_from_source`` to begin with.
        valid: bool of the shape of the points; None = all.
        method: see above.
        within_m: pairs farther apart do not count.
        first_within_m: this at first, falling to ``within_m`` by a quarter each iteration.
        iterations: at most.
        stop_rad: a step that turns by less and ...
        stop_m: ... moves by less than this is the last.

    Raises:
        SpecError: shapes that do not fit, a surface without normals, or a number out of its range.
    """
    _check(source_m, surface, start, valid, method, within_m, first_within_m, iterations)
    with full_precision(source_m.device), torch.no_grad():
        run = _Run(source_m, surface, start, valid, method, within_m)
        reach = max(first_within_m or within_m, within_m)
        run.refine(False, iterations, _ROUGH_RAD, _ROUGH_RAD * surface.size_m, reach)
        run.refine(True, iterations, stop_rad, stop_m, within_m)
        return run.result()


def evaluate(
    source_m: Tensor,
    surface: Surface,
    model_from_source: Tensor,
    valid: Tensor | None = None,
    *,
    method: Method = "plane",
    within_m: float,
    stop_rad: float = 1e-5,
    stop_m: float = 1e-5,
) -> Registration:
    """How well given transforms [B, 4, 4] lay a cloud on a surface; see :func:`icp`. Nothing is moved.

    ``converged`` says whether a step from there would be below the stop rule.

    Raises:
        SpecError: as :func:`icp`.
    """
    _check(source_m, surface, model_from_source, valid, method, within_m, None, 0)
    with full_precision(source_m.device), torch.no_grad():
        run = _Run(source_m, surface, model_from_source, valid, method, within_m)
        run.judge(stop_rad, stop_m)
        return run.result()


class _Run:
    """The state of all hypotheses, around the surface's middle."""

    def __init__(
        self, source_m: Tensor, surface: Surface, start: Tensor, valid: Tensor | None, method: Method, within_m: float
    ) -> None:
        kind = surface.local_m.dtype
        there = (source_m.abs() <= 1e9).all(-1)
        if valid is not None:
            there = there & valid
        source = torch.where(there[..., None], source_m.double(), 0.0)
        # Around the middle of the cloud as well, so that both ends of the transform are small numbers.
        self.centre = source.sum(-2, keepdim=True) / there.sum(-1)[..., None, None].clamp_min(1)
        batch = len(start)
        self.source = torch.where(there[..., None], source - self.centre, 0.0).to(kind).expand(batch, -1, 3)
        self.there = there.expand(batch, -1)
        self.surface, self.method, self.within_m = surface, method, within_m
        begin = start.double()
        middle = (begin[:, :3, :3] @ self.centre.expand(batch, 1, 3).transpose(1, 2))[..., 0] + begin[:, :3, 3]
        self.turn, self.shift = begin[:, :3, :3].clone(), middle - surface.middle_m
        self.done = torch.zeros(batch, dtype=torch.bool, device=source_m.device)
        self.taken = torch.zeros(batch, dtype=torch.int64, device=source_m.device)

    def refine(self, fine: bool, most: int, stop_rad: float, stop_m: float, reach_m: float) -> None:
        """Iterate until each hypothesis makes small steps."""
        active = (self.taken < most).nonzero()[:, 0]
        while len(active):
            turn, shift, enough = self._step(active, fine, reach_m)
            motion = exp_twist(torch.cat([turn, shift], -1))
            self.shift[active] = (motion[:, :3, :3] @ self.shift[active][..., None])[..., 0] + motion[:, :3, 3]
            self.turn[active] = motion[:, :3, :3] @ self.turn[active]
            self.taken[active] += 1
            settled = _small(turn, shift, stop_rad, stop_m) & (reach_m <= self.within_m)
            self.done[active] = settled & fine
            active = active[(~settled & enough) & (self.taken[active] < most)]
            reach_m = max(self.within_m, 0.75 * reach_m)

    def judge(self, stop_rad: float, stop_m: float) -> None:
        """Whether each hypothesis would make a small step."""
        turn, shift, _ = self._step(torch.arange(len(self.turn), device=self.turn.device), True, self.within_m)
        self.done = _small(turn, shift, stop_rad, stop_m)

    def _step(self, active: Tensor, fine: bool, reach_m: float) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation vector and translation [A, 3] of a step about the middle, and where enough pairs are."""
        equations, _ = self._equations(active, fine, reach_m)
        step, enough = equations.step(), equations.weight >= LEAST_INLIERS
        step = torch.where(enough[:, None], step, 0.0)
        return step[:, :3] / self.surface.size_m, step[:, 3:], enough

    def result(self) -> Registration:
        """What has come out, judged by the best neighbours that the search gives."""
        every = torch.arange(len(self.turn), device=self.turn.device)
        equations, inlier = self._equations(every, True, self.within_m)
        rows = 1 if self.method == "plane" else 3
        covariance, weakest = equations.uncertainty(self.surface.size_m, self.surface.middle_m, rows)
        enough = equations.weight >= LEAST_INLIERS
        # Rounding adds up over the iterations; the nearest rotation has none.
        u, _, vh = torch.linalg.svd(self.turn)
        turn = u @ vh
        shift = self.shift + self.surface.middle_m
        shift = shift - (turn @ self.centre.expand(len(turn), 1, 3).transpose(1, 2))[..., 0]
        return Registration(
            rigid(turn, shift),
            self.done & enough,
            self.taken,
            inlier,
            equations.weight / self.there.sum(-1).clamp_min(1),
            (equations.square / equations.weight.clamp_min(1)).sqrt(),
            covariance,
            weakest,
            enough & (weakest > FREE),
        )

    def _equations(self, active: Tensor, fine: bool, reach_m: float) -> tuple[Equations, Tensor]:
        surface, everyone = self.surface, len(active) == len(self.turn)
        source, there = (v if everyone else v[active] for v in (self.source, self.there))
        kind = source.dtype
        moved = source @ self.turn[active].to(kind).transpose(1, 2) + self.shift[active][:, None].to(kind)
        flat = surface.nearest.find(moved.reshape(-1, 3), fine)
        target = surface.local_m.index_select(0, flat).view_as(moved)
        inlier = there & ((moved - target).square().sum(-1) <= reach_m**2)
        weight = inlier.to(kind)
        if self.method == "point":
            return to_point(moved, target, weight, surface.size_m), inlier
        assert surface.normal is not None
        normal = surface.normal.index_select(0, flat).view_as(moved)
        return to_plane(moved, target, normal, weight, surface.size_m), inlier


def _small(turn: Tensor, shift: Tensor, stop_rad: float, stop_m: float) -> Tensor:
    below: Tensor = (torch.linalg.vector_norm(turn, dim=-1) < stop_rad) & (
        torch.linalg.vector_norm(shift, dim=-1) < stop_m
    )
    return below


def _check(
    source_m: Tensor,
    surface: Surface,
    start: Tensor,
    valid: Tensor | None,
    method: str,
    within_m: float,
    first_within_m: float | None,
    iterations: int,
) -> None:
    batch = start.shape[0] if start.ndim == 3 else -1
    fits = source_m.ndim in (2, 3) and source_m.shape[-1] == 3 and (source_m.ndim == 2 or len(source_m) == batch)
    if not fits or start.shape[1:] != (4, 4) or (valid is not None and valid.shape != source_m.shape[:-1]):
        raise SpecError(
            "icp",
            "points [N, 3] or [B, N, 3], starts [B, 4, 4], valid like the points",
            f"{list(source_m.shape)}, {list(start.shape)}, {None if valid is None else list(valid.shape)}",
            "Correct it.",
        )
    if not bool(start.isfinite().all()):
        raise SpecError("icp.start", "finite transforms", "NaN or infinity", "Leave failed hypotheses out.")
    if method not in ("plane", "point"):
        raise SpecError("icp.method", "'plane' or 'point'", repr(method), "Choose one.")
    if method == "plane" and surface.normal is None:
        raise SpecError("icp", "a surface with normals", "none", "Build it with normals, or use method='point'.")
    if not within_m > 0 or iterations < 0 or (first_within_m is not None and not first_within_m > 0):
        raise SpecError("icp", "distances above 0", f"{within_m}, {first_within_m}, {iterations}", "Correct it.")
    assert widened(source_m).dtype in (torch.float32, torch.float64)
