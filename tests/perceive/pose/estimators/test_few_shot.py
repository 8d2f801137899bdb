"""Poses from a few posed pictures: by fused templates, by the network, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perceive.pose.estimate import PoseEstimate
from perceive.pose.estimators.few_shot import FewShotEstimator
from perceive.pose.estimators.few_shot_templates import FusedTemplateEstimator
from perceive.pose.references import Reference, fuse
from sensors.errors import DataError, SpecError, WiringError
from sensors.geometry import transform_points
from tests.policies.poses.few_shot import learned, references, source
from tests.policies.poses.made import Instance, two_models

ELL = two_models()[0]


def asked(index: int, picture: int) -> tuple[Reference, Instance]:
    """A picture that no reference is of, and its truth."""
    data = source()
    one = data.truth(data.views[picture])[index]
    return references(index, range(picture, picture + 1))[0], one


def off_m(found: PoseEstimate, truth: Instance) -> float:
    """Mean distance of the vertices between two poses."""
    places = [transform_points(pose, ELL.vertices_m) for pose in (found.camera_from_object, truth.camera_from_object)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).mean())


def test_the_fused_surface_lies_on_the_object() -> None:
    model = fuse(references(0, range(6)), 3)
    near = np.abs(ELL.surface(20000).xyz_m[None, ::10] - model.vertices_m[::10, None])
    away = np.linalg.norm(near, axis=-1).min(1)
    assert np.median(away) < 2.5e-3  # a pixel is 2 mm wide, and the points are 3 mm apart
    assert np.quantile(away, 0.9) < 5e-3
    assert 0.8 * ELL.diameter_m < model.diameter_m < 1.15 * ELL.diameter_m
    fewer = fuse(references(0, range(1)), 3)
    assert len(fewer.faces) < 0.9 * len(model.faces)
    moved = [replace(one, camera_from_object=one.camera_from_object @ shift(0.05)) for one in references(0, range(6))]
    np.testing.assert_allclose(fuse(moved, 3).low_m, model.low_m - (0.05, 0.0, 0.0), atol=4e-3)


def shift(x: float) -> np.ndarray:
    out = np.eye(4)
    out[0, 3] = x
    return out


def test_fused_templates_find_an_object_without_a_mesh() -> None:
    estimator = FusedTemplateEstimator({3: references(0, range(6))}, views=42, turns=12, hypotheses=24, points=128)
    off = []
    for picture in range(20, 24):
        query, truth = asked(0, picture)
        found = estimator.estimate(query.frame, 3, query.mask)
        off.append(off_m(found[0], truth))
    assert np.median(off) < 0.05 * ELL.diameter_m


def test_the_network_answers_with_poses_in_the_camera_frame() -> None:
    """A network of 60 steps is rough; refining and choosing still put the object where it is."""
    estimator = FewShotEstimator({3: references(0, range(4))}, learned()[0], samples=2, points=128)
    assert estimator.numbers == (3,)
    off = []
    for picture in range(20, 24):
        query, truth = asked(0, picture)
        found = estimator.estimate(query.frame, 3, query.mask)
        assert len(found) == 1
        one = found[0]
        assert 0 <= one.score <= 1
        assert len(one.others) == len(one.other_scores) <= 4
        middle = transform_points(one.camera_from_object, ((ELL.low_m + ELL.high_m) / 2)[None])[0]
        true = transform_points(truth.camera_from_object, ((ELL.low_m + ELL.high_m) / 2)[None])[0]
        off.append(float(np.linalg.norm(middle - true)))
    assert np.median(off) < 0.3 * ELL.diameter_m
    again = estimator.estimate(query.frame, 3, query.mask)[0]
    np.testing.assert_array_equal(again.camera_from_object, one.camera_from_object)


def test_turns_alone_find_an_object_and_its_covariance() -> None:
    """No network, and fewer pictures than it takes to see all sides."""
    estimator = FewShotEstimator({3: references(0, range(3))}, points=256)
    off = []
    for picture in range(20, 25):
        query, truth = asked(0, picture)
        (one,) = estimator.estimate(query.frame, 3, query.mask)
        off.append(off_m(one, truth))
        assert one.covariance is not None
        deviation_m = np.sqrt(np.diag(one.covariance)[:3])
        assert (deviation_m < 0.1).all()
    assert np.median(off) < 0.04 * ELL.diameter_m
    (found, *_) = estimator.estimate(query.frame, 3, None)  # by what stands on its own
    assert off_m(found, truth) < 0.1 * ELL.diameter_m


@pytest.mark.parametrize("network", [False, True])
def test_without_depth_it_lies_where_its_outline_is(network: bool) -> None:
    estimator = FewShotEstimator({3: references(0, range(6))}, learned()[0] if network else None, samples=1, points=64)
    query, truth = asked(0, 20)
    blind = replace(query.frame, depth_m=np.full_like(query.frame.depth_m, np.nan))
    (one,) = estimator.estimate(blind, 3, query.mask)
    middle = (ELL.low_m + ELL.high_m) / 2
    seen, true = (
        transform_points(pose, middle[None])[0] for pose in (one.camera_from_object, truth.camera_from_object)
    )
    assert np.linalg.norm(seen[:2] / seen[2] - true[:2] / true[2]) * true[2] < 0.25 * ELL.diameter_m
    assert abs(seen[2] / true[2] - 1) < 0.25
    assert one.covariance is not None  # a rough one


def test_without_depth_and_without_a_mask() -> None:
    estimator = FewShotEstimator({3: references(0, range(4))}, learned()[0], samples=1, points=64)
    query, _ = asked(0, 20)
    blind = replace(query.frame, depth_m=np.zeros_like(query.frame.depth_m))
    with pytest.raises(SpecError, match="neither"):
        estimator.estimate(blind, 3, None)
    with pytest.raises(DataError, match="empty"):
        estimator.estimate(query.frame, 3, np.zeros_like(query.mask))
    with pytest.raises(SpecError, match="references"):
        estimator.estimate(query.frame, 4, query.mask)


def test_refusals() -> None:
    query, truth = asked(0, 20)
    bad = truth.camera_from_object.copy()
    bad[:3, :3] *= 1000
    with pytest.raises(DataError, match="rigid"):
        Reference.make(query.frame, query.mask, bad)
    with pytest.raises(DataError, match="measured"):
        Reference.make(replace(query.frame, depth_m=np.zeros_like(query.frame.depth_m)), query.mask, np.eye(4))
    with pytest.raises(DataError, match="reference"):
        fuse([], 1)
    with pytest.raises(SpecError):
        FewShotEstimator({}, learned()[0])
    with pytest.raises(SpecError):
        FewShotEstimator({3: [query]}, learned()[0], turns=0)
    with pytest.raises(SpecError, match="told"):
        FewShotEstimator({3: [query]}, told=30)
    with pytest.raises(WiringError, match="QueryCoordinateHead"):
        FewShotEstimator({3: [query]}, learned()[0], head="pose")
