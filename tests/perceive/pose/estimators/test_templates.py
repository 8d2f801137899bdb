"""Objects that nothing was trained on, found by templates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from perceive.build import build
from perceive.pose.estimators.templates import TemplateEstimator
from perceive.pose.templates.features import BackboneFeatures
from sensors.errors import DataError, SpecError
from tests.contracts import CONF, load_plain
from tests.perceive.pose.templates.scene import bracket, drill, look, mssd, mug, objects, painted_box, picture, shot
from tests.perceive.pose.test_proposals import table_scene


@pytest.fixture(scope="module")
def estimator() -> TemplateEstimator:
    return TemplateEstimator({m.number: m for m in (bracket(), painted_box(), drill())})


def test_unseen_objects_are_found_behind_others_with_noise(estimator: TemplateEstimator) -> None:
    errors = []
    for seed in range(12):
        model = (bracket(), painted_box(), drill())[seed % 3]
        frame, mask, truth, _ = picture(model, mug(), 300 + seed)
        if mask.sum() < 400:
            continue
        found = estimator.estimate(frame, model.number, mask)[0]
        assert found.covariance is not None
        assert np.linalg.eigvalsh(found.covariance).min() > 0
        assert (np.diff(found.other_scores) <= 0).all()
        assert found.score >= found.other_scores.max(initial=0)
        errors.append(mssd(model, found.camera_from_object, truth) / model.diameter_m)
    assert len(errors) >= 9
    assert np.mean(np.array(errors) < 0.1) >= 0.8
    assert np.median(errors) < 0.03


def test_the_same_question_has_the_same_answer(estimator: TemplateEstimator) -> None:
    frame, mask, _, _ = picture(painted_box(), mug(), 301)
    one, two = (estimator.estimate(frame, 2, mask)[0] for _ in range(2))
    assert np.array_equal(one.camera_from_object, two.camera_from_object)
    assert one.score == two.score


def test_without_a_mask_it_looks_at_what_stands_on_the_table(estimator: TemplateEstimator) -> None:
    frame, poses = table_scene([(1, -0.2, 0.0), (4, 0.2, 0.0)])
    for number, truth, model in ((2, poses[0], painted_box()), (5, poses[1], drill())):
        found = estimator.estimate(frame, number, None, most=1)
        assert len(found) == 1
        assert mssd(model, found[0].camera_from_object, truth) < 0.1 * model.diameter_m
    assert len(estimator.estimate(frame, 2, None, most=5)) <= 2


def test_without_depth_the_built_in_features_give_a_rough_answer(estimator: TemplateEstimator) -> None:
    rng = np.random.default_rng(8)
    truth = look(rng, drill())
    frame, mask, _, _ = shot(rng, [drill()], [truth])
    blind = replace(frame, depth_m=np.zeros_like(frame.depth_m))
    found = estimator.estimate(blind, 5, mask)[0]
    assert found.camera_from_object[2, 3] == pytest.approx(truth[2, 3], rel=0.15)
    assert found.covariance is not None
    assert np.linalg.eigvalsh(found.covariance)[-1] > 0.05**2
    with pytest.raises(SpecError, match="a mask, or depth"):
        estimator.estimate(blind, 5, None)


def test_a_backbone_without_training_still_answers_with_and_without_depth(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=112, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    features = BackboneFeatures(str(tmp_path / "dino"), image_px=112, mean=(0.5,) * 3, std=(0.3,) * 3)
    model = painted_box()
    estimator = TemplateEstimator({2: model}, features, views=42, turns=12, folder=tmp_path / "kept")
    rng = np.random.default_rng(4)
    truth = look(rng, model)
    frame, mask, _, _ = shot(rng, [model], [truth])
    found = estimator.estimate(frame, 2, mask)[0]
    assert mssd(model, found.camera_from_object, truth) < 0.1 * model.diameter_m
    blind = estimator.estimate(replace(frame, depth_m=np.zeros_like(frame.depth_m)), 2, mask)[0]
    assert blind.camera_from_object[2, 3] == pytest.approx(truth[2, 3], rel=0.2)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["000002_round.npz"]


def test_bad_input_is_named(estimator: TemplateEstimator) -> None:
    frame, mask, _, _ = picture(painted_box(), mug(), 301)
    with pytest.raises(SpecError, match="one of the objects"):
        estimator.estimate(frame, 77, mask)
    with pytest.raises(DataError, match="empty"):
        estimator.estimate(frame, 2, np.zeros_like(mask))
    with pytest.raises(DataError, match="3 x 3"):
        estimator.estimate(replace(frame, intrinsics_px=np.eye(3)), 2, mask)
    with pytest.raises(SpecError, match="by their numbers"):
        TemplateEstimator({3: bracket()})
    with pytest.raises(SpecError, match="counts"):
        TemplateEstimator({1: bracket()}, views=0)
    holes = frame.depth_m.copy()
    holes[::3] = np.nan
    assert estimator.estimate(replace(frame, depth_m=holes), 2, mask)


def test_the_config_states_every_argument() -> None:
    config = load_plain(CONF / "pose" / "templates.yaml")
    made = build(config, models={1: bracket()})
    assert isinstance(made, TemplateEstimator)
    assert made.numbers == (1,)


def test_in_a_heap_each_object_is_found_without_a_mask() -> None:
    heap = [(1, -0.065, 0.0), (4, 0.07, 0.0), (5, 0.0, 0.05)]
    frame, poses = table_scene(heap)
    models = {which: objects()[which] for which, _, _ in heap}
    estimator = TemplateEstimator({m.number: m for m in models.values()})
    for (which, _, _), truth in zip(heap, poses, strict=True):
        model = models[which]
        found = estimator.estimate(frame, model.number, None)
        assert len(found) == 1
        assert mssd(model, found[0].camera_from_object, truth) < 0.1 * model.diameter_m
        assert found[0].covariance is not None
    # The same estimator, the same arrays, another picture in them.
    empty, _ = table_scene([])
    assert estimator.estimate(empty, 2, None) == []
    frame.depth_m[:] = empty.depth_m
    frame.rgb[:] = empty.rgb
    assert estimator.estimate(frame, 2, None) == []
