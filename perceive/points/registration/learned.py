"""Registration with learned matches: a drop-in for features made by hand, refined in the same way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perceive.points.neighbours import usable
from perceive.points.pair_features import estimate_normals
from perceive.points.registration.icp import evaluate, icp
from perceive.points.registration.matcher import PairMatcher
from perceive.points.registration.matching import Matches
from perceive.points.registration.open3d_pair import icp_open3d
from perceive.points.registration.pair import PairRegistration
from perceive.points.registration.ransac import ransac
from perceive.points.registration.scan import ScanGeometry, scan_geometry
from perceive.points.registration.surface import Surface
from perceive.saved import CONFIG_FILE, WEIGHTS_FILE, fill, write_model
from sensors.errors import DataError, SpecError

FORMAT = "pair_matcher/2"


@dataclass(frozen=True)
class MatcherPlan:
    """What a matcher is built of, and how clouds are prepared for it; both must stay as they were in training.

    Attributes:
        points: P, to which a cloud is thinned.
        groups: G, superpoints.
        size: K, points of a group.
        near: neighbours of a point that its features and its estimated normal are made of.
        reach_m: scale of lengths; a tenth of the size of what is registered does.
        width: of superpoints' features.
        heads: of the attention.
        layers: of the attention.
        point_width: of points' features.
        pair_width: of embedded pairs of superpoints.
        fine_width: of the features by which points are matched.
    """

    points: int = 768
    groups: int = 64
    size: int = 32
    near: int = 16
    reach_m: float = 0.05
    width: int = 96
    heads: int = 4
    layers: int = 3
    point_width: int = 64
    pair_width: int = 24
    fine_width: int = 32

    def build(self) -> PairMatcher:
        """A matcher with random weights.

        Raises:
            SpecError: a size out of its range.
        """
        return PairMatcher(self.width, self.heads, self.layers, self.point_width, self.pair_width, self.fine_width)

    def prepare(
        self,
        xyz_m: Tensor,
        valid: Tensor | None = None,
        normal: Tensor | None = None,
        viewpoint_m: Tensor | None = None,
    ) -> ScanGeometry:
        """Prepare clouds [B, N, 3]; see :func:`perceive.points.registration.scan.scan_geometry`."""
        return scan_geometry(
            xyz_m,
            valid,
            normal,
            viewpoint_m,
            points=self.points,
            groups=self.groups,
            size=self.size,
            near=self.near,
            reach_m=self.reach_m,
        )


@dataclass(frozen=True, eq=False)
class PointMatches:
    """The Q surest matches of points of B pairs of clouds, surest first.

    Attributes:
        source: int64 [B, Q], rows of the given source points.
        target: int64 [B, Q], rows of the given target points.
        score: float [B, Q], 0 to 1.
        valid: bool [B, Q]; False where there are fewer.
    """

    source: Tensor
    target: Tensor
    score: Tensor
    valid: Tensor


@torch.no_grad()
def match_points(
    matcher: PairMatcher, source: ScanGeometry, target: ScanGeometry, most: int = 256, group_pairs: int = 64
) -> PointMatches:
    """Match the surest pairs of groups, then in each the points that choose each other; a source point counts once.

    Args:
        matcher: in evaluation or training, it has no dropout.
        source: B clouds.
        target: B clouds.
        most: Q.
        group_pairs: pairs of groups in which points are matched.

    Raises:
        SpecError: a number below 1, or differently many clouds.
    """
    if most < 1 or group_pairs < 1 or len(source.valid) != len(target.valid):
        got = f"{most}, {group_pairs}, {len(source.valid)} and {len(target.valid)} clouds"
        raise SpecError("match_points", "most and group_pairs >= 1, as many sources as targets", got, "Correct them.")
    one, two = matcher(source, target)
    coarse = matcher.match_groups(source, target, one, two).score
    share, flat = coarse.flatten(1).topk(min(group_pairs, coarse[0].numel()), dim=1)
    i, j = flat // coarse.shape[2], flat % coarse.shape[2]
    fine = matcher.match_members(source, target, one, two, i, j).score
    chosen, other = fine.max(-1)
    mutual = fine.argmax(-2).gather(-1, other) == torch.arange(fine.shape[-2], device=fine.device)
    # The root keeps sure points of less sure groups in play.
    score = torch.where(mutual, chosen * share[..., None].sqrt(), 0.0)
    lead = torch.arange(len(fine), device=fine.device)[:, None]
    from_point = source.member[lead, i]
    to_point = target.member[lead, j].gather(-1, other)
    score, from_point, to_point = score.flatten(1), from_point.flatten(1), to_point.flatten(1)
    best = score.new_zeros(source.valid.shape).scatter_reduce(1, from_point, score, "amax")
    # Of equal scores the first place counts, so that no source point comes twice.
    place = torch.arange(score.shape[1], device=score.device).expand_as(score)
    top = (score > 0) & (score == best.gather(1, from_point))
    first = torch.full(source.valid.shape, score.shape[1], device=score.device)
    first = first.scatter_reduce(1, from_point, torch.where(top, place, score.shape[1]), "amin")
    score = torch.where(top & (first.gather(1, from_point) == place), score, 0.0)
    score, order = score.sort(dim=1, descending=True, stable=True)
    score, order = score[:, :most], order[:, :most]
    return PointMatches(
        source.row.gather(1, from_point.gather(1, order)),
        target.row.gather(1, to_point.gather(1, order)),
        score,
        score > 0,
    )


@final
class LearnedRegistration:
    """Lays one cloud on another without a start: learned matches, RANSAC, iterative closest points.

    Matches do not change when either cloud is moved. Normals must be on the same side of a surface in both clouds: give
    them, or where each sensor stood.

    Args:
        matcher: trained.
        plan: what it was trained with.
        match_m: matches that are right are off by at most this; 1.5 times the distance of thinned points does.
        within_m: reach of the refinement.
        most: matches used.
        triplets: of the RANSAC.

    Raises:
        SpecError: a number out of its range.
    """

    def __init__(
        self,
        matcher: PairMatcher,
        plan: MatcherPlan,
        match_m: float,
        within_m: float,
        most: int = 256,
        triplets: int = 4096,
    ) -> None:
        if not 0 < match_m < float("inf") or not 0 < within_m < float("inf") or min(most, triplets) < 3:
            got = f"{match_m}, {within_m}, {most}, {triplets}"
            raise SpecError("LearnedRegistration", "match_m, within_m > 0; most, triplets >= 3", got, "Correct them.")
        self.matcher = matcher
        self.plan = plan
        self.match_m, self.within_m, self.most, self.triplets = match_m, within_m, most, triplets

    @torch.no_grad()
    def register(
        self,
        source_m: Tensor,
        target_m: Tensor,
        *,
        source_normal: Tensor | None = None,
        target_normal: Tensor | None = None,
        source_view_m: Tensor | None = None,
        target_view_m: Tensor | None = None,
        surface: Surface | None = None,
        engine: Literal["torch", "open3d"] = "torch",
        seed: int = 0,
    ) -> PairRegistration:
        """The transform of a cloud onto another, as :func:`perceive.points.registration.pair.register_pair` gives it.

        Of its ``matches``, a source point has one where it is among the surest; ``distance`` and ``ratio`` are 1 minus
        the match's score.

        Args:
            source_m: float [N, 3]; points that are not finite are left out.
            target_m: float [M, 3].
            source_normal: float [N, 3]; None = estimated.
            target_normal: float [M, 3].
            source_view_m: float [3], where the sensor stood, in the frame of the source: the side of estimated normals.
            target_view_m: float [3], in the frame of the target.
            surface: of the target for the refinement; None = its points with their normals.
            engine: what refines.
            seed: of the sampling.

        Raises:
            SpecError: shapes that do not fit, a cloud without a finite point, or an unknown engine.
        """
        if engine not in ("torch", "open3d"):
            raise SpecError("LearnedRegistration.engine", "'torch' or 'open3d'", repr(engine), "Choose one.")
        for name, cloud in (("source_m", source_m), ("target_m", target_m)):
            if cloud.dim() != 2 or cloud.shape[1] != 3 or not bool(usable(cloud).any()):
                raise SpecError(
                    f"LearnedRegistration.{name}", "points [N, 3], one of them finite", f"{[*cloud.shape]}", "Check it."
                )
        source = self.plan.prepare(*_one(source_m, source_normal, source_view_m))
        target = self.plan.prepare(*_one(target_m, target_normal, target_view_m))
        found = match_points(self.matcher, source, target, self.most)
        source_ends = source_m[None].double()[:, found.source[0]]
        target_ends = target_m[None].double()[:, found.target[0]]
        consensus = ransac(
            source_ends, target_ends, found.valid, inlier_m=self.match_m, triplets=self.triplets, seed=seed
        )
        if surface is None:
            if target_normal is None:
                view = None if target_view_m is None else target_view_m[None]
                target_normal = estimate_normals(target_m[None], usable(target_m)[None], self.plan.near, view).normal[0]
            known = bool((target_normal.norm(dim=-1) > 0.5).any())
            surface = Surface(target_m, target_normal if known else None)
        start = consensus.target_from_source
        method: Literal["plane", "point"] = "plane" if surface.normal is not None else "point"
        matches = _matches(found, len(source_m))
        if not bool(consensus.found[0]):
            refined = evaluate(source_m, surface, start, method=method, within_m=self.within_m)
            return PairRegistration(False, start[0], matches, consensus, refined)
        if engine == "open3d":
            refined = icp_open3d(source_m, surface, start[0], method=method, within_m=self.within_m)
        else:
            refined = icp(source_m, surface, start, method=method, within_m=self.within_m)
        return PairRegistration(bool(refined.converged[0]), refined.model_from_source[0], matches, consensus, refined)

    def save(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors``."""
        numbers = {"match_m": self.match_m, "within_m": self.within_m, "most": self.most, "triplets": self.triplets}
        config = {"format": FORMAT, "plan": asdict(self.plan), "registration": numbers}
        return write_model(folder, config, self.matcher.state_dict())

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> LearnedRegistration:
        """The inverse of :meth:`save`.

        Raises:
            DataError: a file is missing, damaged or of something else.
        """
        folder = Path(folder)
        try:
            config: Any = json.loads((folder / CONFIG_FILE).read_text())
            state = load_file(folder / WEIGHTS_FILE, device=device)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                str(folder), f"{CONFIG_FILE} and {WEIGHTS_FILE}", str(error), "Copy or train the matcher again."
            ) from error
        form = config.get("format") if isinstance(config, dict) else None
        if form != FORMAT:
            raise DataError(str(folder), f"format {FORMAT}", f"{form}", "Give the folder of a LearnedRegistration.")
        try:
            plan = MatcherPlan(**config["plan"])
            matcher = plan.build().to(device).eval()
            fill(matcher, state, folder)
            return cls(matcher, plan, **config["registration"])
        except (KeyError, TypeError, SpecError) as error:
            raise DataError(
                str(folder / CONFIG_FILE), "what save wrote", repr(error), "Copy or train the matcher again."
            ) from error


def _one(
    xyz_m: Tensor, normal: Tensor | None, view_m: Tensor | None
) -> tuple[Tensor, None, Tensor | None, Tensor | None]:
    """A batch of one cloud."""
    return xyz_m[None], None, None if normal is None else normal[None], None if view_m is None else view_m[None]


def _matches(found: PointMatches, count: int) -> Matches:
    """As the nearest features give them, for all ``count`` source points of one pair."""
    rows = found.source[0][found.valid[0]]
    index = torch.zeros(count, dtype=torch.int64, device=rows.device)
    mutual = torch.zeros(count, dtype=torch.bool, device=rows.device)
    distance = torch.full((count,), torch.inf, device=rows.device)
    ratio = torch.ones(count, device=rows.device)
    doubt = 1 - found.score[0][found.valid[0]].float()
    index[rows], mutual[rows] = found.target[0][found.valid[0]], True
    distance[rows], ratio[rows] = doubt, doubt
    return Matches(index[None], mutual[None], distance[None], ratio[None])
