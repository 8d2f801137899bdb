"""Learned registration: no rigid motion changes a score, a known transform comes back, and it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from perceive.points.registration.generated_pairs import ScanPairSource
from perceive.points.registration.learned import LearnedRegistration, MatcherPlan, match_points
from perceive.points.registration.matcher import PairMatcher, assign
from perceive.points.registration.matcher_loss import MatcherObjective, overlap
from perceive.points.registration.matcher_training import fit_matcher
from perceive.points.registration.rigid import exp_twist
from perceive.points.registration.scan import joined
from sensors.errors import DataError, SpecError
from tests.perceive.points.test_icp import blob, some

PLAN = MatcherPlan(points=96, groups=12, size=16, near=8, width=32, layers=1, point_width=16, pair_width=8)
NAN, INF = float("nan"), float("inf")


def matcher(seed: int = 0) -> PairMatcher:
    """Random weights; the last maps enlarged, so that scores differ as much as after training."""
    torch.manual_seed(seed)
    network = PLAN.build().eval()
    with torch.no_grad():
        network.coarse[1].weight.mul_(4)  # type: ignore[union-attr,operator]
        network.fine_out[2].weight.mul_(4)  # type: ignore[union-attr,operator]
    return network


def moved(points: Tensor, pose: Tensor) -> Tensor:
    return points @ pose[:3, :3].T + pose[:3, 3]


def scores(network: PairMatcher, source: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Of all superpoints, and of the members of every group with every group."""
    with torch.no_grad():
        one, two = network(source, target)
        groups = network.match_groups(source, target, one, two).score
        i, j = (value.flatten()[None] for value in torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij"))
        return groups, network.match_members(source, target, one, two, i, j).score


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("which", ["source", "target", "both"])
def test_no_rigid_motion_changes_a_score(seed: int, which: str) -> None:
    source, target = blob(seed, 300)[0], blob(seed + 50, 280)[0]
    view = some(seed + 7, 3)
    poses = [exp_twist(2 * some(seed + k, 6)) if which in (name, "both") else torch.eye(4).double()
             for k, name in enumerate(("source", "target"))]  # fmt: skip
    network = matcher(seed)
    before = scores(network, PLAN.prepare(source[None], viewpoint_m=view[None]), PLAN.prepare(target[None]))
    after = scores(
        network,
        PLAN.prepare(moved(source, poses[0])[None], viewpoint_m=moved(view, poses[0])[None]),
        PLAN.prepare(moved(target, poses[1])[None]),
    )
    for a, b in zip(before, after, strict=True):
        assert float((a - b).abs().max()) < 1e-5
    # Positive control: a squeezed cloud is another cloud.
    other = scores(network, PLAN.prepare((source * torch.tensor([1.0, 1.0, 0.6]))[None]), PLAN.prepare(target[None]))
    assert float((other[0] - before[0]).abs().max()) > 1e-3


def test_order_and_batch_mates_do_not_matter() -> None:
    one, two = blob(1, 300)[0], blob(2, 300)[0]
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    network = matcher()
    together = scores(network, PLAN.prepare(torch.stack([one, two])), PLAN.prepare(torch.stack([two, one])))[0]
    alone = scores(network, PLAN.prepare(one[order][None]), PLAN.prepare(two[None]))[0]
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)
    assert float((together[1] - together[0]).abs().max()) > 1e-3


def test_assignments_are_shares_with_a_place_for_none() -> None:
    similarity = some(0, 2, 5, 7)
    valid = torch.tensor([True, True, True, True, False])
    found = assign(similarity, torch.zeros(()).double(), valid, torch.ones(7, dtype=torch.bool))
    torch.testing.assert_close(found.forth.exp().sum(-1), torch.ones(2, 5).double())
    torch.testing.assert_close(found.back.exp().sum(-1), torch.ones(2, 7).double())
    assert bool((found.score[:, 4] == 0).all())
    assert bool((found.forth[:, 4, -1] == 0).all())
    rows, columns = (torch.cat([similarity[:, :4], torch.zeros(2, 4, 1)], -1).softmax(-1)[..., :-1],
                     torch.cat([similarity[:, :4], torch.zeros(2, 1, 7)], 1).softmax(1)[:, :-1])  # fmt: skip
    torch.testing.assert_close(found.score[:, :4], rows * columns)


def test_overlap_of_a_cloud_with_its_moved_self_is_the_identity() -> None:
    points, pose = blob(3, 200)[0], exp_twist(some(4, 6))
    source, target = PLAN.prepare(points[None]), PLAN.prepare(moved(points, pose)[None])
    found = overlap(source, target, pose[None], 1e-6)
    torch.testing.assert_close(found.forth[0, :, :-1], torch.eye(12))
    torch.testing.assert_close(found.back, found.forth)
    apart = overlap(source, target, torch.eye(4).double()[None], 1e-6)
    torch.testing.assert_close(apart.forth[0, :, -1], torch.ones(12))


def test_it_learns_and_then_finds_the_transform() -> None:
    points, pose = blob(5, 96)[0], exp_twist(some(6, 6))
    source, target = PLAN.prepare(points[None]), PLAN.prepare(moved(points, pose)[None])
    network, losses = matcher(), []
    fit_matcher(
        network, joined([source] * 2), joined([target] * 2), pose.repeat(2, 1, 1), MatcherObjective(0.005), 80, 2,
        3e-3, report=lambda _, loss: losses.append(float(loss.total.detach())),
    )  # fmt: skip
    assert losses[-1] < 0.4 * losses[0]
    found = match_points(network, source, target)
    rows = found.source[0][found.valid[0]]
    assert rows.unique().numel() == len(rows) > 20  # each source point once
    assert float((rows == found.target[0][found.valid[0]]).double().mean()) > 0.7
    result = LearnedRegistration(network, PLAN, 0.01, 0.02).register(points, moved(points, pose))
    assert result.found
    torch.testing.assert_close(result.model_from_source, pose, atol=1e-4, rtol=0)


def test_it_learns_scans_that_share_no_point() -> None:
    pairs = ScanPairSource(3, points=1024).batch(range(4))
    plan = MatcherPlan(
        points=256, groups=24, size=24, near=12, width=48, layers=2, point_width=32, pair_width=16
    )  # fmt: skip
    source = plan.prepare(pairs.source_m, viewpoint_m=pairs.source_view_m)
    target = plan.prepare(pairs.target_m, viewpoint_m=pairs.target_view_m)

    def right(network: PairMatcher) -> float:
        """Share of the surest matches that are off by less than 5 cm in a heap of a metre."""
        found = match_points(network, source, target, 64)
        lead = torch.arange(4)[:, None]
        true = pairs.target_from_source
        there = pairs.source_m[lead, found.source].double() @ true[:, :3, :3].mT + true[:, None, :3, 3]
        off = (there - pairs.target_m[lead, found.target].double()).norm(dim=-1)
        return float((off[found.valid] < 0.05).double().mean())

    torch.manual_seed(0)
    network = plan.build()
    assert right(network) < 0.1
    fit_matcher(network, source, target, pairs.target_from_source, MatcherObjective(0.04), 80, 4, 3e-3)
    assert right(network) > 0.5


@pytest.mark.parametrize(
    "cloud",
    [
        torch.zeros(1, 3),
        torch.ones(40, 3),
        torch.rand(2, 3),
        torch.linspace(0, 1, 90).view(30, 3) * 0 + torch.linspace(0, 1, 30)[:, None],
    ],
)
def test_clouds_that_tell_no_transform_find_none(cloud: Tensor) -> None:
    result = LearnedRegistration(matcher(), PLAN, 0.01, 0.02).register(cloud, blob(0, 100)[0].float())
    assert not result.found
    assert bool(result.model_from_source.isfinite().all())


def test_points_that_are_not_finite_are_left_out() -> None:
    points = blob(0, 100)[0]
    bad = torch.cat([torch.tensor([[NAN, 0, 0], [INF, 0, 0], [1e30, 0, 0]]).double(), points])
    clean, spoiled = PLAN.prepare(points[None]), PLAN.prepare(bad[None])
    torch.testing.assert_close(spoiled.row - 3, clean.row)
    torch.testing.assert_close(spoiled.between, clean.between)


def test_bad_arguments_are_refused() -> None:
    registration = LearnedRegistration(matcher(), PLAN, 0.01, 0.02)
    good = blob(0, 50)[0]
    for bad in (torch.zeros(0, 3), torch.full((5, 3), NAN), torch.zeros(5, 2), torch.zeros(1, 5, 3)):
        with pytest.raises(SpecError, match="source_m"):
            registration.register(bad, good)
        with pytest.raises(SpecError, match="target_m"):
            registration.register(good, bad)
    with pytest.raises(SpecError, match="engine"):
        registration.register(good, good, engine="none")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="normal"):
        registration.register(good, good, source_normal=good[:5])
    for arguments in ((0.0, 0.02), (0.01, NAN), (0.01, 0.02, 2)):
        with pytest.raises(SpecError, match="LearnedRegistration"):
            LearnedRegistration(matcher(), PLAN, *arguments)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="PairMatcher"):
        MatcherPlan(width=30, heads=4).build()
    with pytest.raises(SpecError, match="MatcherObjective"):
        MatcherObjective(0.0)


def test_saved_is_loaded_the_same_and_damage_is_told(tmp_path: Path) -> None:
    registration = LearnedRegistration(matcher(), PLAN, 0.01, 0.02, 100)
    registration.save(tmp_path)
    again = LearnedRegistration.load(tmp_path)
    clouds = PLAN.prepare(blob(0, 80)[0][None]), PLAN.prepare(blob(1, 80)[0][None])
    assert scores(again.matcher, *clouds)[0].equal(scores(registration.matcher, *clouds)[0])
    assert (again.plan, again.match_m, again.most) == (PLAN, 0.01, 100)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in (
        {"format": "other"},
        {"plan": {"odd": 1}},
        {"plan": {**config["plan"], "width": 64}},
        {"registration": {}},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(DataError):
            LearnedRegistration.load(tmp_path)
    with pytest.raises(DataError):
        LearnedRegistration.load(tmp_path / "missing")


def test_generated_pairs_are_what_they_say() -> None:
    source = ScanPairSource(0, points=300, noise_m=0.0)
    pairs = source.batch([4, 5])
    assert pairs.source_m.shape == (2, 300, 3)
    assert bool(((pairs.overlap >= 0.3) & (pairs.overlap <= 0.8)).all())
    for k in range(2):
        gap = torch.cdist(moved(pairs.source_m[k].double(), pairs.target_from_source[k]), pairs.target_m[k].double())
        assert float((gap.amin(1) <= 0.04).double().mean()) == pytest.approx(float(pairs.overlap[k]), abs=0.02)
        assert float(gap.amin()) > 0  # no point is shared
    assert source.batch([5]).source_m[0].equal(pairs.source_m[1])
    with pytest.raises(SpecError):
        source.batch([])
