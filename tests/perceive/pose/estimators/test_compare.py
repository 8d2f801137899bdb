"""Render and compare after a short training: hypotheses get nearer, also without depth, and right ones score higher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from perceive.pose.estimate import PoseEstimate, PoseEstimator
from perceive.pose.estimators.compare import CompareEstimator
from perceive.pose.estimators.compare_network import HypothesisReader
from perceive.pose.model import ObjectModel
from perceive.pose.raster import MeshRenderer
from perceive.pose.symmetric_loss import closest_truth
from sensors.errors import DataError, SpecError, WiringError
from sensors.frames import RgbdFrame
from sensors.geometry import FloatArray, axis_angle_to_matrix
from tests.policies.poses.made import MadeSource, two_models
from tests.policies.poses.small_compare import dataset, learned


class Near(PoseEstimator):
    """Answers with disturbed truth; what it is asked does not matter."""

    def __init__(self, source: MadeSource, count: int = 3) -> None:
        self.truth = {one.number: one.camera_from_object for one in source.truth(source.views[0])}
        self.hypotheses = {n: np.stack([near(pose, k) for k in range(count)]) for n, pose in self.truth.items()}

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self.truth)

    def estimate(
        self, frame: RgbdFrame, number: int, mask: NDArray[np.bool_] | None, most: int = 1
    ) -> list[PoseEstimate]:
        poses = self.hypotheses[number]
        return [PoseEstimate(number, poses[0], 1.0, None, poses[1:], np.zeros(len(poses) - 1))]


def near(pose: FloatArray, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    out = pose.copy()
    out[:3, :3] = axis_angle_to_matrix(rng.normal(size=3) * 0.2) @ pose[:3, :3]
    out[:3, 3] *= 1 + 0.1 * rng.choice([-1, 1])
    out[:2, 3] += rng.normal(size=2) * 0.01
    return out


def off_m(model: ObjectModel, poses: FloatArray, truth: FloatArray) -> FloatArray:
    """Mean distance [N] of surface points from where they should be, at the symmetry that is nearest."""
    points, stack = torch.from_numpy(model.surface(100).xyz_m), torch.from_numpy(poses)
    true = closest_truth(stack, torch.from_numpy(truth).expand(len(poses), 4, 4), points, model.symmetries)
    placed = [points @ one[:, :3, :3].mT + one[:, None, :3, 3] for one in (stack, true)]
    return np.asarray((placed[0] - placed[1]).norm(dim=-1).mean(-1).numpy())


@pytest.fixture(scope="module")
def source() -> MadeSource:
    return MadeSource(two_models(), 4, seed=11)


@pytest.mark.parametrize("with_depth", [True, False])
def test_hypotheses_get_nearer(source: MadeSource, with_depth: bool) -> None:
    reader = HypothesisReader(learned()[0])
    before, after = [], []
    for model in two_models():
        renderer = MeshRenderer(model, threads=1)
        for key in source.views:
            frame = source.frame(key)
            if not with_depth:
                frame = replace(frame, depth_m=np.zeros_like(frame.depth_m))
            truth = next(one for one in source.truth(key) if one.number == model.number).camera_from_object
            poses = np.stack([near(truth, seed) for seed in range(4)])
            before += list(off_m(model, poses, truth))
            for _ in range(3):
                poses, scores = reader.read(frame, renderer, poses)
            after += list(off_m(model, poses, truth))
            assert np.allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3))
            assert ((scores >= 0) & (scores <= 1)).all()
    # Without depth, how far away it is shows in its size alone.
    assert np.mean(after) < (0.6 if with_depth else 0.8) * np.mean(before)


def test_it_learns_and_right_hypotheses_score_higher() -> None:
    model, losses = learned()
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    held = dataset(8, seed=5)
    batch, target = held.batch(np.arange(len(held)))
    with torch.no_grad():
        score = model(batch)["change"].score
    right, wrong = score[target.right], score[~target.right]
    assert (right[:, None] > wrong[None]).float().mean() > 0.6


def test_the_answer_is_refined_and_exact_with_depth(source: MadeSource, tmp_path: Path) -> None:
    inner = Near(source)
    frame = source.frame(source.views[0])
    network = learned()[0].save_pretrained(tmp_path)
    estimator = CompareEstimator(network, inner, two_models(), iterations=3)
    assert estimator.numbers == inner.numbers
    for one in source.truth(source.views[0]):
        model = {m.number: m for m in two_models()}[one.number]
        for mask in (source.visible_mask(source.views[0], one.index), None):
            found = estimator.estimate(frame, one.number, mask)[0]
            assert 0 <= found.score <= 1
            assert (np.diff([found.score, *found.other_scores]) <= 0).all()
            every = np.concatenate([found.camera_from_object[None], found.others])
            # Among the answers are those refined on depth.
            assert off_m(model, every, one.camera_from_object).min() < 0.003
        dark = replace(frame, depth_m=np.zeros_like(frame.depth_m))
        blind = estimator.estimate(dark, one.number, source.visible_mask(source.views[0], one.index))[0]
        assert blind.covariance is None
        start = off_m(model, inner.hypotheses[one.number], one.camera_from_object)
        assert off_m(model, blind.camera_from_object[None], one.camera_from_object)[0] < start.mean()


def test_what_cannot_be_drawn_is_not_likely(source: MadeSource) -> None:
    model = two_models()[0]
    behind, lost = np.eye(4), np.full((4, 4), np.nan)
    behind[2, 3] = -1.0
    fine = source.truth(source.views[0])[0].camera_from_object
    reader = HypothesisReader(learned()[0])
    poses, scores = reader.read(source.frame(source.views[0]), MeshRenderer(model), np.stack([behind, lost, fine]))
    assert scores[:2].tolist() == [0, 0]
    assert scores[2] > 0
    assert np.array_equal(poses[0], behind)
    alone = reader.read(source.frame(source.views[0]), MeshRenderer(model), fine[None])
    assert alone[0][0] == pytest.approx(poses[2], abs=1e-5)


def test_refusals(source: MadeSource) -> None:
    network, inner = learned()[0], Near(source)
    with pytest.raises(WiringError, match="PoseChangeHead"):
        CompareEstimator(network, inner, two_models(), head="coordinates")
    with pytest.raises(SpecError, match="meshes"):
        CompareEstimator(network, inner, two_models()[:1])
    with pytest.raises(SpecError, match="hypotheses"):
        CompareEstimator(network, inner, two_models(), hypotheses=0)
    with pytest.raises(WiringError, match="class"):
        CompareEstimator(network, {"views": 3}, two_models())
    with pytest.raises(WiringError, match="PoseEstimator"):
        CompareEstimator(network, {"class": "perceive.pose.symmetry.Symmetries", "discrete": []}, two_models())
    built = CompareEstimator(network, {"class": "perceive.pose.estimators.templates.TemplateEstimator"}, two_models())
    assert built.numbers == (3, 7)
    frame = source.frame(source.views[0])
    with pytest.raises(DataError, match="mask"):
        built.estimate(frame, 3, np.zeros(frame.depth_m.shape, bool))
    with pytest.raises(SpecError, match="one of"):
        built.estimate(frame, 99, None)
    with pytest.raises(DataError, match="N, 4, 4"):
        HypothesisReader(network).read(frame, MeshRenderer(two_models()[0]), np.eye(4))
