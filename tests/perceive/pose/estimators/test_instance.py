"""Poses by a trained network: exact with depth even from a short training, and typed errors for bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perceive.pose.estimators.instance import InstanceEstimator
from perceive.pose.model import ObjectModel
from sensors.errors import DataError, SpecError
from sensors.geometry import transform_points
from tests.policies.poses.made import MadeSource, two_models
from tests.policies.poses.small import learned


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> InstanceEstimator:
    """Out of a saved model: nothing else is needed but the meshes."""
    folder: Path = learned()[0].save_pretrained(tmp_path_factory.mktemp("network"))
    return InstanceEstimator(folder, two_models())


@pytest.fixture(scope="module")
def source() -> MadeSource:
    return MadeSource(two_models(), 3, seed=11)


def off_m(model: ObjectModel, guess: np.ndarray, truth: np.ndarray) -> float:
    points = model.surface(200).xyz_m
    placed = transform_points(guess, points)
    alike = model.symmetries.transforms(0.05)
    return min(float(np.linalg.norm(placed - transform_points(truth @ s, points), axis=-1).max()) for s in alike)


def test_poses_with_a_mask_and_depth(estimator: InstanceEstimator, source: MadeSource) -> None:
    off = []
    for key in source.views:
        for one in source.truth(key):
            found = estimator.estimate(source.frame(key), one.number, source.visible_mask(key, one.index))
            assert len(found) == 1
            assert found[0].others.shape[1:] == (4, 4)
            off.append(off_m(source.models[one.number], found[0].camera_from_object, one.camera_from_object))
    assert np.median(off) < 0.003
    assert estimator.numbers == (3, 7)


def test_objects_are_found_without_a_mask(estimator: InstanceEstimator, source: MadeSource) -> None:
    count = 0
    for one in source.truth(key := source.views[0]):
        for found in estimator.estimate(source.frame(key), one.number, None):
            count += 1
            place = found.camera_from_object[:3, 3]
            assert np.linalg.norm(place - one.camera_from_object[:3, 3]) < 0.05
    assert count


def test_without_depth_it_looks_for_what_fits_outline_and_colours(
    estimator: InstanceEstimator, source: MadeSource
) -> None:
    """The network alone, after so short a training, is off by 7 cm in the median."""
    off = []
    for key in source.views:
        frame = source.frame(key)
        dark = replace(frame, depth_m=np.zeros_like(frame.depth_m))
        for one in source.truth(key):
            found = estimator.estimate(dark, one.number, source.visible_mask(key, one.index))[0]
            assert found.covariance is None
            off.append(off_m(source.models[one.number], found.camera_from_object, one.camera_from_object))
    assert np.median(off) < 0.045


def test_colours_alone_give_a_pose(estimator: InstanceEstimator, source: MadeSource) -> None:
    key = source.views[0]
    frame = source.frame(key)
    dark = replace(frame, depth_m=np.zeros_like(frame.depth_m))
    one = source.truth(key)[0]
    found = estimator.estimate(dark, one.number, source.visible_mask(key, one.index))
    assert len(found) == 1
    assert np.isfinite(found[0].camera_from_object).all()
    # Rough after so short a training, but where the mask is.
    assert np.linalg.norm(found[0].camera_from_object[:2, 3] - one.camera_from_object[:2, 3]) < 0.05
    with pytest.raises(SpecError, match="a mask, or depth"):
        estimator.estimate(dark, one.number, None)


def test_refusals(estimator: InstanceEstimator, source: MadeSource) -> None:
    key = source.views[0]
    frame = source.frame(key)
    mask = source.visible_mask(key, 0)
    with pytest.raises(SpecError, match="one of the objects"):
        estimator.estimate(frame, 4, mask)
    with pytest.raises(DataError, match="empty"):
        estimator.estimate(frame, 3, np.zeros_like(mask))
    with pytest.raises(DataError, match="fx, fy, cx, cy"):
        estimator.estimate(replace(frame, intrinsics_px=np.eye(3)), 3, mask)
    network = learned()[0]
    ell, cylinder = two_models()
    with pytest.raises(SpecError, match="mesh of object 7"):
        InstanceEstimator(network, [ell])
    large = ObjectModel.make(7, "mm", cylinder.vertices_m * 1000, cylinder.faces)
    with pytest.raises(DataError, match="in metres"):
        InstanceEstimator(network, [ell, large])
