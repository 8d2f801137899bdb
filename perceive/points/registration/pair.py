"""One cloud onto another without a start: match features, let the matches agree on a transform, refine it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from perceive.points.registration.icp import Registration, evaluate, icp
from perceive.points.registration.matching import Matches, match
from perceive.points.registration.open3d_pair import icp_open3d
from perceive.points.registration.ransac import Consensus, ransac
from perceive.points.registration.surface import Surface
from sensors.errors import SpecError


@dataclass(frozen=True, eq=False)
class PairRegistration:
    """What each stage found, for one pair.

    Attributes:
        found: whether the matches agree on a transform, and refining it converged.
        model_from_source: float64 [4, 4]; the identity if the matches do not agree.
        matches: with B = 1.
        consensus: with B = 1.
        refined: with B = 1.
    """

    found: bool
    model_from_source: Tensor
    matches: Matches
    consensus: Consensus
    refined: Registration


def register_pair(
    source_m: Tensor,
    source_features: Tensor,
    model_m: Tensor,
    model_features: Tensor,
    surface: Surface,
    *,
    match_m: float,
    within_m: float,
    max_ratio: float | None = None,
    engine: Literal["torch", "open3d"] = "torch",
    seed: int = 0,
) -> PairRegistration:
    """The transform of a cloud onto a model by features that do not turn with the points.

    Args:
        source_m: float [N, 3].
        source_features: float [N, F].
        model_m: float [M, 3].
        model_features: float [M, F].
        surface: the model as :func:`~perceive.points.registration.icp.icp` needs it; point-to-plane if it has normals.
        match_m: matches that are right are off by at most this.
        within_m: reach of the refinement.
        max_ratio: leave out matches more ambiguous than this.
        engine: what refines; Open3D is the faster for one pair on a CPU.
        seed: of the sampling.

    Raises:
        SpecError: shapes that do not fit, or an unknown engine.
    """
    if engine not in ("torch", "open3d"):
        raise SpecError("register_pair.engine", "'torch' or 'open3d'", repr(engine), "Choose one.")
    matches = match(source_features[None], model_features[None], max_ratio=max_ratio)
    pairs = matches.pairs(source_m[None], model_m[None])
    consensus = ransac(*pairs, matches.mutual, inlier_m=match_m, seed=seed)
    start = consensus.target_from_source
    plane = surface.normal is not None
    if not bool(consensus.found[0]):
        refined = evaluate(source_m, surface, start, method="plane" if plane else "point", within_m=within_m)
        return PairRegistration(False, start[0], matches, consensus, refined)
    if engine == "open3d":
        refined = icp_open3d(source_m, surface, start[0], method="plane" if plane else "point", within_m=within_m)
    else:
        refined = icp(source_m, surface, start, method="plane" if plane else "point", within_m=within_m)
    return PairRegistration(bool(refined.converged[0]), refined.model_from_source[0], matches, consensus, refined)
