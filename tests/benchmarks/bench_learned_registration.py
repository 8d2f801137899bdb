"""Registration of partial scans by learned matches, beside features made by hand; ours and Open3D's.

``python -m tests.benchmarks.bench_learned_registration --out results/learned_registration.json``

Heaps of six generated shapes, about a metre across, are seen from two sides; the scans share no point, overlap by 30 to
80 %, have noise of 3 mm and stand anywhere in any orientation. The matcher trains on pairs of one seed; all methods are
judged on the same pairs of another. Normals look to where each sensor stood, for all methods.

A pair counts as registered if its rotation is off by less than 5 degrees and its source by less than 2 cm: at the
middle of the cloud, since a translation alone would hang on where the frame's origin is.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open3d
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from perceive.points.neighbours import nearest, take_points
from perceive.points.pair_features import estimate_normals, pair_features
from perceive.points.registration.descriptor import histograms
from perceive.points.registration.generated_pairs import ScanPairs, ScanPairSource
from perceive.points.registration.icp import icp
from perceive.points.registration.learned import LearnedRegistration, MatcherPlan
from perceive.points.registration.matcher_loss import MatcherLoss, MatcherObjective
from perceive.points.registration.matcher_training import fit_matcher
from perceive.points.registration.pair import register_pair
from perceive.points.registration.scan import ScanGeometry, joined
from perceive.points.registration.surface import Surface
from perceive.points.sample import pick_farthest
from perceive.results import Figure, start_clock, success_figure, write_result

TRAIN_SEED, HELD_OUT_SEED = 1, 900
PAIRS, STEPS, BATCH, HELD_OUT = 800, 2000, 8, 100
MOST_DEG, MOST_M = 5.0, 0.02
MATCH_M, WITHIN_M, SAME_M = 0.03, 0.03, 0.025
HAND_POINTS, HAND_NEAR, VOXEL_M = 768, 48, 0.025


@dataclass(frozen=True)
class Outcome:
    """One pair: errors after the matches agreed and after ICP, and the time."""

    coarse_deg: float
    coarse_m: float
    fine_deg: float
    fine_m: float
    right_share: float
    cpu_s: float

    @property
    def coarse(self) -> bool:
        return self.coarse_deg < MOST_DEG and self.coarse_m < MOST_M

    @property
    def fine(self) -> bool:
        return self.fine_deg < MOST_DEG and self.fine_m < MOST_M


def off(found: Tensor, truth: Tensor, source_m: Tensor) -> tuple[float, float]:
    """Degrees, and metres at the middle of the source, between two transforms [4, 4]."""
    turn = Rotation.from_matrix((truth[:3, :3].T @ found[:3, :3]).numpy()).magnitude()
    middle = torch.cat([source_m.double().mean(0), torch.ones(1, dtype=torch.float64)])
    return float(np.rad2deg(turn)), float(((found - truth) @ middle)[:3].norm())


def prepared(plan: MatcherPlan, pairs: ScanPairs) -> tuple[ScanGeometry, ScanGeometry]:
    """Both clouds of each pair."""
    return (
        plan.prepare(pairs.source_m, viewpoint_m=pairs.source_view_m),
        plan.prepare(pairs.target_m, viewpoint_m=pairs.target_view_m),
    )


def train(plan: MatcherPlan, count: int, steps: int, seed: int) -> tuple[LearnedRegistration, dict[str, Figure]]:
    """A matcher on ``count`` generated pairs."""
    torch.manual_seed(seed)
    begin = time.process_time()
    source = ScanPairSource(TRAIN_SEED + seed)
    sides: tuple[list[ScanGeometry], list[ScanGeometry]] = ([], [])
    truths = []
    for first in range(0, count, 16):
        pairs = source.batch(range(first, min(first + 16, count)))
        for side, geometry in zip(sides, prepared(plan, pairs), strict=True):
            side.append(geometry)
        truths.append(pairs.target_from_source)
    matcher = plan.build()
    losses: list[tuple[float, float]] = []

    def report(step: int, loss: MatcherLoss) -> None:
        losses.append((float(loss.coarse), float(loss.fine)))
        if step % 100 == 99:
            coarse, fine = np.mean(losses[-100:], axis=0)
            print(
                f"step {step + 1}: coarse {coarse:.3f}, fine {fine:.3f}, {time.process_time() - begin:.0f} s",
                flush=True,
            )

    fit_matcher(
        matcher, joined(sides[0]), joined(sides[1]), torch.cat(truths), MatcherObjective(SAME_M), steps, BATCH,
        seed=seed, report=report,
    )  # fmt: skip
    coarse, fine = np.mean(losses[-100:], axis=0)
    figures = {
        "training_cpu_min": Figure((time.process_time() - begin) / 60, "min"),
        "training_last_coarse_loss": Figure(float(coarse), n=100),
        "training_last_fine_loss": Figure(float(fine), n=100),
    }
    return LearnedRegistration(matcher.eval(), plan, MATCH_M, WITHIN_M), figures


def by_hand(xyz_m: Tensor, view_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points thinned as for the matcher, histograms of the pairs with their neighbours, and all points' normals."""
    valid = torch.ones(1, len(xyz_m), dtype=torch.bool)
    normal = estimate_normals(xyz_m[None], valid, 16, view_m[None]).normal
    row = pick_farthest(xyz_m[None], valid, HAND_POINTS).index
    points, own = take_points(xyz_m[None], row), take_points(normal, row)
    near = nearest(points, xyz_m[None], 2 * HAND_NEAR).index
    pairs = pair_features(
        points[:, :, None], own[:, :, None], take_points(xyz_m[None], near), take_points(normal, near)
    )
    told = torch.cat(
        [histograms(pairs[0, :, :k], [(0.0, 0.12), (0, 1), (0, 1), (0, 1)]) for k in (HAND_NEAR, 2 * HAND_NEAR)], -1
    )
    return points[0], told, normal[0]


def learned_way(registration: LearnedRegistration) -> Callable[[ScanPairs, int], tuple[Tensor, Tensor, float]]:
    """Transforms before and after ICP, and the share of matches that are right."""

    def run(pairs: ScanPairs, k: int) -> tuple[Tensor, Tensor, float]:
        source, target = pairs.source_m[k], pairs.target_m[k]
        found = registration.register(
            source, target, source_view_m=pairs.source_view_m[k], target_view_m=pairs.target_view_m[k], seed=k
        )
        share = right(source, target, found.matches.index[0], found.matches.mutual[0], pairs.target_from_source[k])
        return found.consensus.target_from_source[0], found.model_from_source, share

    return run


def histogram_way(pairs: ScanPairs, k: int) -> tuple[Tensor, Tensor, float]:
    """``register_pair`` with histograms of pair features."""
    source, source_told, _ = by_hand(pairs.source_m[k], pairs.source_view_m[k])
    target, target_told, normal = by_hand(pairs.target_m[k], pairs.target_view_m[k])
    surface = Surface(pairs.target_m[k], normal)
    found = register_pair(source, source_told, target, target_told, surface, match_m=MATCH_M, within_m=WITHIN_M, seed=k)
    share = right(source, target, found.matches.index[0], found.matches.mutual[0], pairs.target_from_source[k])
    if found.found:  # the thinned points found the place; all of them refine it, as for the others
        full = icp(pairs.source_m[k], surface, found.consensus.target_from_source, within_m=WITHIN_M)
        return found.consensus.target_from_source[0], full.model_from_source[0], share
    return found.consensus.target_from_source[0], found.model_from_source, share


def open3d_way(pairs: ScanPairs, k: int) -> tuple[Tensor, Tensor, float]:
    """FPFH on a voxel grid, RANSAC on its matches with both of Open3D's checks, point-to-plane ICP."""
    tools = open3d.pipelines.registration
    clouds, thin, told = [], [], []
    for xyz, view in ((pairs.source_m[k], pairs.source_view_m[k]), (pairs.target_m[k], pairs.target_view_m[k])):
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz.double().numpy()))
        small = cloud.voxel_down_sample(VOXEL_M)
        for one in (cloud, small):
            one.estimate_normals(open3d.geometry.KDTreeSearchParamHybrid(2 * VOXEL_M, 30))
            one.orient_normals_towards_camera_location(view.double().numpy())
        clouds.append(cloud)
        thin.append(small)
        told.append(tools.compute_fpfh_feature(small, open3d.geometry.KDTreeSearchParamHybrid(5 * VOXEL_M, 100)))
    open3d.utility.random.seed(k)
    found = tools.registration_ransac_based_on_feature_matching(
        thin[0], thin[1], told[0], told[1], True, 1.5 * VOXEL_M, tools.TransformationEstimationPointToPoint(), 3,
        [tools.CorrespondenceCheckerBasedOnEdgeLength(0.9), tools.CorrespondenceCheckerBasedOnDistance(1.5 * VOXEL_M)],
        tools.RANSACConvergenceCriteria(100_000, 0.999),
    )  # fmt: skip
    fine = tools.registration_icp(
        clouds[0], clouds[1], WITHIN_M, found.transformation, tools.TransformationEstimationPointToPlane(),
        tools.ICPConvergenceCriteria(1e-6, 1e-6, 40),
    )  # fmt: skip
    return torch.from_numpy(np.array(found.transformation)), torch.from_numpy(np.array(fine.transformation)), np.nan


def right(source: Tensor, target: Tensor, index: Tensor, used: Tensor, truth: Tensor) -> float:
    """The share of matches that are off by at most what RANSAC allows."""
    if not bool(used.any()):
        return 0.0
    moved = source[used].double() @ truth[:3, :3].T + truth[:3, 3]
    return float(((moved - target[index[used]].double()).norm(dim=-1) <= MATCH_M).double().mean())


def judge(way: Callable[[ScanPairs, int], tuple[Tensor, Tensor, float]], pairs: ScanPairs) -> list[Outcome]:
    """All pairs, each by itself."""
    outcomes = []
    for k in range(len(pairs.source_m)):
        begin = time.process_time()
        coarse, fine, share = way(pairs, k)
        spent = time.process_time() - begin
        truth = pairs.target_from_source[k]
        errors = (*off(coarse, truth, pairs.source_m[k]), *off(fine, truth, pairs.source_m[k]))
        outcomes.append(Outcome(*errors, share, spent))
    return outcomes


def figures_of(name: str, outcomes: list[Outcome], overlap: Tensor) -> dict[str, Figure]:
    """Recalls with intervals, for all pairs and those that overlap least, and the time."""
    count = len(outcomes)
    low = [outcome for outcome, share in zip(outcomes, overlap.tolist(), strict=True) if share < 0.55]
    goal = 0.9 if name == "learned" else None
    out = {
        f"{name}_recall_before_icp": success_figure(sum(o.coarse for o in outcomes), count),
        f"{name}_recall": success_figure(sum(o.fine for o in outcomes), count, goal),
        f"{name}_recall_overlap_below_55": success_figure(sum(o.fine for o in low), len(low)),
        f"{name}_median_deg": Figure(float(np.median([o.fine_deg for o in outcomes])), "deg", n=count),
        f"{name}_median_m": Figure(float(np.median([o.fine_m for o in outcomes])), "m", n=count),
        f"{name}_cpu_ms_per_pair": Figure(1e3 * float(np.median([o.cpu_s for o in outcomes])), "ms", n=count),
    }
    if name != "open3d":
        out[f"{name}_right_matches"] = Figure(float(np.mean([o.right_share for o in outcomes])), "fraction", n=count)
    return out


def main(out: Path, count: int, steps: int, held_out: int, seed: int, save: Path | None) -> dict[str, Figure]:
    """Train, judge and write the result file; its figures are returned."""
    started = start_clock()
    plan = MatcherPlan()
    registration, figures = train(plan, count, steps, seed)
    if save is not None:
        registration.save(save)
    pairs = ScanPairSource(HELD_OUT_SEED).batch(range(held_out))
    figures["overlap_mean"] = Figure(float(pairs.overlap.mean()), "fraction", n=held_out)
    torch.manual_seed(seed)
    untrained = LearnedRegistration(plan.build().eval(), plan, MATCH_M, WITHIN_M)
    ways = {
        "learned": learned_way(registration),
        "untrained": learned_way(untrained),
        "histograms": histogram_way,
        "open3d": open3d_way,
    }
    for name, way in ways.items():
        figures |= figures_of(name, judge(way, pairs), pairs.overlap)
    write_result(
        out,
        "learned_registration",
        figures,
        [seed],
        {
            "pairs": count,
            "steps": steps,
            "batch": BATCH,
            "held_out": held_out,
            "match_m": MATCH_M,
            "within_m": WITHIN_M,
            "most_deg": MOST_DEG,
            "most_m": MOST_M,
            "plan": vars(plan),
        },
        started=started,
        about=(
            "Registration of two partial scans of a heap of generated shapes without a start: learned matches "
            "(rotation-invariant, superpoints then points), the same network untrained, histograms of pair features "
            "with register_pair, and Open3D's FPFH with RANSAC; all refined by point-to-plane ICP, on the same "
            "held-out pairs. Recall: below 5 degrees and 2 cm."
        ),
        command=shlex.join(["python", "-m", "tests.benchmarks.bench_learned_registration", *sys.argv[1:]]),
    )
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs to train on")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the trained matcher")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = main(arguments.out, arguments.pairs, arguments.steps, arguments.held_out, arguments.seed, arguments.save)
    for key, figure in measured.items():
        print(f"{key:45s} {figure.value:.6g} {figure.unit}")
